"""The picture of a kitchen."""

import numpy as np

from kiloworlds.envs.drawing import Canvas
from kiloworlds.envs.multiagent.overcooked.counters import items_by_cell
from kiloworlds.envs.multiagent.overcooked.items import COOKED, NOTHING, PLATE, ingredients_of
from kiloworlds.envs.multiagent.overcooked.kitchen import Kitchen
from kiloworlds.envs.multiagent.overcooked.layouts import (
    FLOOR,
    GOAL,
    INDICATOR,
    INGREDIENTS_PER_RECIPE,
    PLATES,
)
from kiloworlds.envs.multiagent.overcooked.rules import OvercookedState

_CELL = 64  # pixels
_STRIP = 0.75  # cells, below the kitchen
# Apart for all kinds of colour vision (M. Okabe & K. Ito 2008); numbers tell ingredients apart too.
_AGENTS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7c3aed", "#475569",
)  # fmt: skip
_INGREDIENTS = (
    "#f0c419", "#56b4e9", "#009e73", "#cc79a7", "#d55e00",
    "#0072b2", "#94a3b8", "#7c3aed", "#84cc16", "#e11d48",
)  # fmt: skip
_WALL, _COUNTER, _LINE, _FLOOR = "#78716c", "#d6c6ae", "#b8a68a", "#f5f1e8"
_DARK, _LIGHT, _IRON, _READY = "#1e293b", "#ffffff", "#334155", "#16a34a"
_AHEAD = ((-1, 0), (1, 0), (0, 1), (0, -1))


def draw(kitchen: Kitchen, state: OvercookedState, cook_time: int) -> np.ndarray:
    """The kitchen seen from above, the step and what is asked for below it.

    Args:
        state: of one environment.
        cook_time: how long a pot cooks, for the length of its bar.
    """
    picture = _Picture(kitchen, state)
    for cell in range(len(kitchen.cells)):
        picture.furniture(cell)
    for index, cell in enumerate(kitchen.buttons):
        picture.indicator(cell, int(state.buttons[index]))
    for index, cell in enumerate(kitchen.pots):
        picture.pot(cell, int(state.pots[index]), int(state.cooking[index]), cook_time)
    for cell, item in items_by_cell(kitchen, state.counters).items():
        picture.item(*picture.middle(cell), item, 1.0)
    for agent in range(len(state.cells)):
        picture.agent(agent)
    picture.strip()
    return picture.canvas.pixels()


class _Picture:
    """Points are (row, column), counted in cells from the upper left corner."""

    def __init__(self, kitchen: Kitchen, state: OvercookedState):
        self.kitchen, self.state = kitchen, state
        self.rows, self.columns = kitchen.shape
        self.only_onions = len(set(filter(str.isdigit, kitchen.cells))) == 1
        # A strip that holds the step and the recipe is at least five cells wide.
        width = max(self.columns, 5)
        height = self.rows + _STRIP
        self.canvas = Canvas(
            width * _CELL,
            round(height * _CELL),
            x_range=(0, width),
            y_origin=_STRIP / height,
            background=_LIGHT,
        )

    def point(self, row: float, column: float) -> tuple[float, float]:
        return column, self.rows - row

    def middle(self, cell: int) -> tuple[float, float]:
        return cell // self.columns + 0.5, cell % self.columns + 0.5

    def disc(self, row: float, column: float, radius: float, color: str, edge: str = "") -> None:
        if edge:
            self.canvas.circle(self.point(row, column), radius + 0.025, edge)
        self.canvas.circle(self.point(row, column), radius, color)

    def box(self, top: float, left: float, height: float, width: float, color: str) -> None:
        lower_left, upper_right = self.point(top + height, left), self.point(top, left + width)
        self.canvas.rectangle(lower_left, upper_right, color)

    def text(self, row: float, column: float, text: str, color: str, size: int) -> None:
        self.canvas.text(self.point(row, column), text, color, size)

    def furniture(self, cell: int) -> None:
        letter = self.kitchen.cells[cell]
        row, column = divmod(cell, self.columns)
        y, x = self.middle(cell)
        if letter == FLOOR:
            self.box(row, column, 1, 1, "#e7e0d2")
            self.box(row + 0.015, column + 0.015, 0.97, 0.97, _FLOOR)
            return
        self.box(row, column, 1, 1, _LINE)
        self.box(row + 0.03, column + 0.03, 0.94, 0.94, _COUNTER)
        if letter == GOAL:
            self.box(row + 0.08, column + 0.08, 0.84, 0.84, _DARK)
            self.box(row + 0.13, column + 0.13, 0.74, 0.74, "#cbd5e1")
            self.canvas.line(self.point(y, x - 0.24), self.point(y, x + 0.14), _DARK, width=5)
            tip = [(y - 0.2, x + 0.06), (y, x + 0.3), (y + 0.2, x + 0.06)]
            self.canvas.polygon([self.point(*corner) for corner in tip], _DARK)
        elif letter == PLATES:
            for level in (0.12, 0.04, -0.04):
                self.plate(y + level, x, 0.3)
        elif letter == INDICATOR:
            self.indicator(cell, None)
        elif letter.isdigit():
            self.box(row + 0.14, column + 0.1, 0.72, 0.8, "#8b5e34")
            self.box(row + 0.19, column + 0.15, 0.62, 0.7, "#a9774a")
            for dy, dx in ((-0.1, -0.15), (-0.1, 0.15), (0.13, 0.0)):
                self.ingredient(y + dy, x + dx, int(letter), 0.16)

    def plate(self, row: float, column: float, radius: float) -> None:
        self.disc(row, column, radius, _LIGHT, edge="#64748b")
        self.disc(row, column, 0.66 * radius, "#e2e8f0")

    def ingredient(self, row: float, column: float, number: int, radius: float) -> None:
        self.disc(row, column, radius, _INGREDIENTS[number], edge=_DARK)
        if self.only_onions:  # a sprout
            self.canvas.line(
                self.point(row - 0.6 * radius, column),
                self.point(row - 1.25 * radius, column + 0.3 * radius),
                "#3f6212",
                width=0.25 * radius * _CELL,
            )
        else:
            self.text(row, column, str(number), _DARK, max(8, round(1.35 * radius * _CELL)))

    def item(self, row: float, column: float, item: int, scale: float) -> None:
        """What is carried or lies somewhere, 0.6 of a cell wide at scale 1."""
        inside = ingredients_of(item)
        if item & PLATE:
            self.plate(row, column, 0.3 * scale)
        if item & COOKED:
            self.soup(row, column, inside, 0.22 * scale)
        elif inside:
            self.ingredient(row, column, inside[0], 0.2 * scale)

    def soup(self, row: float, column: float, inside: list[int], radius: float) -> None:
        self.disc(row, column, radius, "#b45309")
        for place, number in enumerate(inside):
            turn = 2 * np.pi * place / max(len(inside), 1) - np.pi / 2
            y, x = row + 0.52 * radius * np.sin(turn), column + 0.52 * radius * np.cos(turn)
            self.disc(y, x, 0.38 * radius, _INGREDIENTS[number], edge=_DARK)
            if not self.only_onions:
                size = max(6, round(0.55 * radius * _CELL))
                self.text(y, x, str(number), _DARK, size)

    def pot(self, cell: int, in_pot: int, left: int, cook_time: int) -> None:
        y, x = self.middle(cell)
        is_ready = in_pot & COOKED != 0
        top, column = y - 0.5, x - 0.5
        self.box(top + 0.06, column + 0.06, 0.88, 0.88, "#64748b")
        for side in (-1, 1):
            self.box(y - 0.12, x + side * 0.37 - 0.05, 0.16, 0.1, _IRON)
        self.disc(y - 0.04, x, 0.35, _IRON, edge=_DARK)
        self.disc(y - 0.04, x, 0.29, "#0f172a")
        inside = ingredients_of(in_pot)
        if left or is_ready:
            self.soup(y - 0.04, x, inside, 0.28)
        else:
            for place, number in enumerate(inside):
                turn = 2 * np.pi * place / INGREDIENTS_PER_RECIPE - np.pi / 2
                self.ingredient(
                    y - 0.04 + 0.15 * np.sin(turn), x + 0.15 * np.cos(turn), number, 0.11
                )
        if left or is_ready:
            done = 1.0 if is_ready else 1 - left / max(cook_time, left)
            self.box(top + 0.76, column + 0.08, 0.2, 0.84, _DARK)
            self.box(top + 0.79, column + 0.11, 0.14, 0.78, "#e2e8f0")
            color = _READY if is_ready else "#f59e0b"
            self.box(top + 0.79, column + 0.11, 0.14, 0.78 * done, color)
            word = "ready" if is_ready else str(left)
            self.text(top + 0.855, x, word, _LIGHT if is_ready else _DARK, 11)

    def indicator(self, cell: int, left: int | None) -> None:
        """A board that shows the recipe; with a button, only while steps are left."""
        y, x = self.middle(cell)
        self.box(y - 0.42, x - 0.42, 0.84, 0.84, _DARK)
        self.box(y - 0.37, x - 0.37, 0.74, 0.74, "#fef9c3" if left != 0 else "#94a3b8")
        if left != 0:
            self.recipe(y - (0.08 if left else 0), x, 0.1)
        if left is not None:
            self.disc(y + 0.2, x, 0.13, "#dc2626" if left == 0 else _READY, edge=_DARK)
            if left:
                self.text(y + 0.2, x, str(left), _LIGHT, 11)

    def recipe(self, row: float, column: float, radius: float) -> None:
        inside = ingredients_of(int(self.state.recipe))
        for place, number in enumerate(inside):
            offset = (place - (len(inside) - 1) / 2) * 2.15 * radius
            self.ingredient(row, column + offset, number, radius)

    def agent(self, agent: int) -> None:
        y, x = self.middle(int(self.state.cells[agent]))
        dy, dx = _AHEAD[int(self.state.facings[agent])]
        color = _AGENTS[agent]
        # A nose that points ahead, then the body and the hat.
        for edge, paint in ((0.04, _DARK), (0.0, color)):
            side, tip = 0.26 + edge, 0.47 + 1.2 * edge
            corners = [
                (y + dy * 0.14 - dx * side, x + dx * 0.14 + dy * side),
                (y + dy * tip, x + dx * tip),
                (y + dy * 0.14 + dx * side, x + dx * 0.14 - dy * side),
            ]
            self.canvas.polygon([self.point(*corner) for corner in corners], paint)
        self.disc(y, x, 0.31, color, edge=_DARK)
        held = int(self.state.held[agent])
        if held == NOTHING:
            self.disc(y, x, 0.19, _LIGHT)
            self.text(y, x, "abcdefgh"[agent], _DARK, 15)
            return
        self.item(y + 0.1 * dy, x + 0.1 * dx, held, 0.78)
        corner = y - 0.33, x + 0.33
        self.disc(*corner, 0.14, _LIGHT, edge=color)
        self.text(*corner, "abcdefgh"[agent], _DARK, 11)

    def strip(self) -> None:
        row = self.rows + _STRIP / 2
        start = self.point(row, 0.2)
        self.canvas.text(start, f"step {int(self.state.time)}", _DARK, size=16, align="left")
        self.canvas.text(self.point(row, 2.0), "asked for", "#475569", size=16, align="left")
        self.recipe(row, 3.95, 0.19)
