"""What never changes in a kitchen, as tables that compiled code looks up."""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.envs.multiagent.overcooked.layouts import (
    BUTTON,
    COUNTER,
    FLOOR,
    GOAL,
    INDICATOR,
    PLATES,
    POT,
    Layout,
)

DIRECTIONS = ("up", "down", "right", "left")

# What lies ahead, as a number in `Kitchen.ahead`.
FLOOR_AHEAD, COUNTER_AHEAD, GOAL_AHEAD, PLATES_AHEAD, POT_AHEAD, BUTTON_AHEAD, PILE_AHEAD = range(7)
NOTHING_AHEAD = 7
_KINDS = {
    FLOOR: FLOOR_AHEAD,
    COUNTER: COUNTER_AHEAD,
    GOAL: GOAL_AHEAD,
    PLATES: PLATES_AHEAD,
    POT: POT_AHEAD,
    BUTTON: BUTTON_AHEAD,
    INDICATOR: NOTHING_AHEAD,
}
KIND_BITS, INDEX_BITS = 3, 8
_KIND_MASK, _INDEX_MASK = (1 << KIND_BITS) - 1, (1 << INDEX_BITS) - 1
MOST_OF_A_KIND = 1 << INDEX_BITS


@dataclass(frozen=True, eq=False)
class Kitchen:
    """The tables of a kitchen; C counts its cells, row after row.

    Attributes:
        shape: rows and columns.
        cells: the letter of each cell, see `layouts`.
        counters: the cells of the counters that can hold something; their order numbers them.
        pots, buttons: the cells of pots and of indicators with a button, in reading order.
        ahead: for each cell and direction (in the order of `DIRECTIONS`) what lies ahead: its kind,
            from bit `KIND_BITS` on its number among its kind (for a pile, the ingredient), and above
            `INDEX_BITS` more bits its cell.
        rooms: which closed part of the floor each cell belongs to, -1 for none.
    """

    shape: tuple[int, int]
    cells: str
    counters: tuple[int, ...]
    pots: tuple[int, ...]
    buttons: tuple[int, ...]
    ahead: Int[np.ndarray, "C 4"]
    rooms: Int[np.ndarray, " C"]

    @property
    def num_counter_words(self) -> int:
        """How many 32-bit words hold one bit per counter."""
        return max(1, -(-len(self.counters) // 32))

    def has(self, letter: str) -> Bool[np.ndarray, " C"]:
        """Which cells show a letter."""
        return np.array([cell == letter for cell in self.cells])


@functools.lru_cache(maxsize=256)
def kitchen_of(layout: Layout, hold_everywhere: bool) -> Kitchen:
    """Works out the tables of a layout.

    Args:
        hold_everywhere: whether counters that nobody can reach may hold something too.

    Raises:
        InvalidValueError: there are more counters than can be told apart.
    """
    rows, columns = layout.shape
    cells = layout.cells
    neighbours = {}
    for cell, letter in enumerate(cells):
        if letter == FLOOR:  # never at the edge
            neighbours[cell] = (cell - columns, cell + columns, cell + 1, cell - 1)
    reached = {cell for around in neighbours.values() for cell in around}
    counters = tuple(
        cell
        for cell, letter in enumerate(cells)
        if letter == COUNTER and (hold_everywhere or cell in reached)
    )
    pots, buttons = (
        tuple(cell for cell, letter in enumerate(cells) if letter == wanted)
        for wanted in (POT, BUTTON)
    )
    ahead = np.zeros((len(cells), len(DIRECTIONS)), np.int32)
    if max(len(counters), len(pots), len(buttons)) > MOST_OF_A_KIND:
        raise InvalidValueError(
            f"layout: {len(counters)} counters to put things on, {len(pots)} pots and {len(buttons)} "
            f"buttons are drawn; there may be {MOST_OF_A_KIND} of each."
        )
    for cell, around in neighbours.items():
        for direction, target in enumerate(around):
            letter, index = cells[target], 0
            if letter.isdigit():
                kind, index = PILE_AHEAD, int(letter)
            else:
                kind = _KINDS[letter]
                for numbered in (counters, pots, buttons):
                    if target in numbered:
                        index = numbered.index(target)
            ahead[cell, direction] = (target << INDEX_BITS | index) << KIND_BITS | kind
    return Kitchen(
        (rows, columns), cells, counters, pots, buttons, ahead, _rooms(neighbours, len(cells))
    )


def _rooms(neighbours: dict[int, tuple[int, ...]], num_cells: int) -> Int[np.ndarray, " C"]:
    rooms = np.full(num_cells, -1)
    for start in neighbours:
        waiting = [start] if rooms[start] < 0 else []
        while waiting:
            cell = waiting.pop()
            rooms[cell] = start
            waiting += [near for near in neighbours[cell] if near in neighbours and rooms[near] < 0]
    return rooms
