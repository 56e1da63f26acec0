"""The state of a kitchen as text, complete and without pictures."""

import numpy as np

from kiloworlds.envs.multiagent.overcooked.counters import items_by_cell
from kiloworlds.envs.multiagent.overcooked.items import (
    COOKED,
    INGREDIENT,
    NOTHING,
    PLATE,
    ingredients_of,
)
from kiloworlds.envs.multiagent.overcooked.kitchen import DIRECTIONS, Kitchen
from kiloworlds.envs.multiagent.overcooked.layouts import (
    BUTTON,
    COUNTER,
    FLOOR,
    GOAL,
    INDICATOR,
    INGREDIENTS_PER_RECIPE,
    PLATES,
    POT,
)
from kiloworlds.envs.multiagent.overcooked.rules import OvercookedState

_ARROWS = "^v><"
_FLOOR_SIGN, _FULL_COUNTER = ".", "*"
_PLACES = {
    COUNTER: "counter",
    GOAL: "delivery",
    PLATES: "pile of plates",
    POT: "pot",
    INDICATOR: "recipe indicator",
    BUTTON: "recipe indicator with a button",
}


def describe(kitchen: Kitchen, state: OvercookedState, names: tuple[str, ...]) -> str:
    """A map with a legend, then each agent, pot and counter, and what is asked for, in sentences.

    Args:
        state: of one environment.
        names: of the ingredients.
    """
    return "\n".join(_Text(kitchen, state, names).lines())


class _Text:
    def __init__(self, kitchen: Kitchen, state: OvercookedState, names: tuple[str, ...]):
        self.kitchen, self.state, self.names = kitchen, state, names
        self.rows, self.columns = kitchen.shape
        self.lying = items_by_cell(kitchen, state.counters)
        self.agents = {int(cell): agent for agent, cell in enumerate(state.cells)}

    def lines(self) -> list[str]:
        return [
            f"Step {int(self.state.time)}. The kitchen has {self.rows} rows and {self.columns} columns; "
            "row 0 is at the top, column 0 at the left.",
            "",
            *self._map(),
            "",
            *self._legend(),
            "",
            *map(self._agent, range(len(self.state.cells))),
            *map(self._pot, range(len(self.kitchen.pots))),
            *self._counters(),
            *self._recipe(),
        ]

    def _map(self) -> list[str]:
        lines = ["   " + "".join(f"{column:3d}" for column in range(self.columns))]
        for row in range(self.rows):
            cells = range(row * self.columns, (row + 1) * self.columns)
            lines.append(f"{row:3d}" + "".join(f"{self._sign(cell):>3s}" for cell in cells))
        return lines

    def _sign(self, cell: int) -> str:
        if cell in self.agents:
            agent = self.agents[cell]
            return _letter(agent) + _ARROWS[int(self.state.facings[agent])]
        if cell in self.lying:
            return _FULL_COUNTER
        letter = self.kitchen.cells[cell]
        if letter.isdigit() and len(self.names) == 1:
            return "O"
        return _FLOOR_SIGN if letter == FLOOR else letter

    def _legend(self) -> list[str]:
        cells = self.kitchen.cells
        signs = [f"{_FLOOR_SIGN} floor", f"{COUNTER} empty counter"]
        signs += [f"{_FULL_COUNTER} counter with something on it"] if self.lying else []
        for letter, place in _PLACES.items():
            if letter != COUNTER and letter in cells:
                signs.append(f"{letter} {place}")
        for ingredient, name in enumerate(self.names):
            if str(ingredient) in cells:
                sign = "O" if len(self.names) == 1 else str(ingredient)
                signs.append(f"{sign} pile of {_plural(name)}")
        agents = ", ".join(
            f"{_letter(agent)} agent_{agent}" for agent in range(len(self.state.cells))
        )
        arrows = ", ".join(
            f"{arrow} {direction}" for arrow, direction in zip(_ARROWS, DIRECTIONS, strict=True)
        )
        return [f"Legend: {', '.join(signs)}.", f"Agents: {agents}; they face {arrows}."]

    def _agent(self, agent: int) -> str:
        cell, facing = int(self.state.cells[agent]), int(self.state.facings[agent])
        ahead = cell + (-self.columns, self.columns, 1, -1)[facing]
        return (
            f"agent_{agent} ({_letter(agent)}) is at {self._at(cell)}, holds "
            f"{self._item(int(self.state.held[agent]))}, and faces {DIRECTIONS[facing]}, towards "
            f"{self._place(ahead)} at {self._at(ahead)}."
        )

    def _place(self, cell: int) -> str:
        if cell in self.agents:
            return f"agent_{self.agents[cell]}"
        if cell in self.lying:
            return f"the counter with {self._item(self.lying[cell])}"
        letter = self.kitchen.cells[cell]
        if letter == FLOOR:
            return "free floor"
        if letter == COUNTER:
            return "an empty counter"
        if letter.isdigit():
            return f"the pile of {_plural(self.names[int(letter)])}"
        return f"the {_PLACES[letter]}"

    def _pot(self, pot: int) -> str:
        in_pot, left = int(self.state.pots[pot]), int(self.state.cooking[pot])
        contents = self._contents(in_pot)
        missing = INGREDIENTS_PER_RECIPE - len(ingredients_of(in_pot))
        if in_pot == NOTHING:
            what = "is empty"
        elif in_pot & COOKED:
            what = f"holds soup of {contents}, ready to be taken with a plate"
        elif left:
            what = f"holds {contents} and cooks for {left} more step{'s' * (left > 1)}"
        elif missing:
            what = f"holds {contents}, does not cook yet and has room for {missing} more"
        else:
            what = f"holds {contents}, is full and does not cook yet"
        return f"The pot at {self._at(self.kitchen.pots[pot])} {what}."

    def _counters(self) -> list[str]:
        if not self.lying:
            return ["Nothing lies on the counters."]
        return [
            f"On the counter at {self._at(cell)} lies {self._item(item)}."
            for cell, item in self.lying.items()
        ]

    def _recipe(self) -> list[str]:
        lines = [f"Asked for is soup of {self._contents(int(self.state.recipe))}."]
        for cell in np.flatnonzero(self.kitchen.has(INDICATOR)).tolist():
            lines.append(f"The recipe indicator at {self._at(cell)} shows it.")
        for cell, left in zip(self.kitchen.buttons, map(int, self.state.buttons), strict=True):
            shows = f"shows it for {left} more step{'s' * (left > 1)}" if left else "shows nothing"
            lines.append(f"The recipe indicator with a button at {self._at(cell)} {shows}.")
        for agent, order in enumerate(self.state.ingredient_order):
            seen = [
                f"{self.names[int(real)]} as {self.names[i]}"
                for i, real in enumerate(order)
                if int(real) != i
            ]
            if seen:
                lines.append(f"agent_{agent} sees {', '.join(seen)}.")
        if self.state.delivered:
            lines.append("In the last step the soup asked for was delivered.")
        return lines

    def _at(self, cell: int) -> str:
        row, column = divmod(cell, self.columns)
        return f"row {row}, column {column}"

    def _contents(self, item: int) -> str:
        inside = ingredients_of(item)
        parts = []
        for ingredient in sorted(set(inside)):
            count, name = inside.count(ingredient), self.names[ingredient]
            parts.append(f"{count} {name if count == 1 else _plural(name)}")
        return " + ".join(parts)

    def _item(self, item: int) -> str:
        if item == NOTHING:
            return "nothing"
        if item == PLATE:
            return "a plate"
        if item & COOKED:
            return f"a plate of soup of {self._contents(item)}"
        return f"1 {self.names[(item // INGREDIENT).bit_length() // 2]}"


def _plural(name: str) -> str:
    return name + "s" if name.isalpha() else name


def _letter(agent: int) -> str:
    return "abcdefgh"[agent]
