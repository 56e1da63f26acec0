"""What the grid worlds share: slipping sideways, and pictures of cells."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key

from kiloworlds.envs.drawing import Canvas

CELL_PIXELS = 64


def slip(
    key: Key[Array, ""], direction: Int[Array, ""], success_rate: Float[ArrayLike, ""]
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Turns one of four directions, numbered around the circle, aside where the ground is slippery.

    Returns:
        The direction moved in: as intended with probability `success_rate`, else either
        perpendicular with half of the rest; and the probability of that outcome.
    """
    draw = jax.random.uniform(key)
    side_rate = (1.0 - success_rate) / 2.0
    turn = jnp.where(draw < success_rate + side_rate, -1, 1)
    went_ahead = draw < success_rate
    moved = jnp.where(went_ahead, direction, (direction + turn) & 3)
    return moved, jnp.where(went_ahead, success_rate, side_rate).astype(jnp.float32)


def text_grid(rows: list[str], row: int, column: int) -> str:
    """Letters side by side, the one at `row` and `column` in brackets."""
    lines = [[f" {letter} " for letter in line] for line in rows]
    lines[row][column] = f"[{rows[row][column]}]"
    return "\n".join("".join(line).rstrip() for line in lines)


class GridPicture:
    """A picture of `rows` by `columns` square cells; row 0 is at the top.

    Below them lies a strip `legend` cells high; its points go on counting where the rows end.
    """

    def __init__(self, rows: int, columns: int, background: str = "#f8fafc", legend: float = 0.0):
        self._rows = rows
        size = (columns * CELL_PIXELS, round((rows + legend) * CELL_PIXELS))
        y_origin = legend / (rows + legend)
        self.canvas = Canvas(*size, x_range=(0, columns), y_origin=y_origin, background=background)

    def point(self, row: float, column: float) -> tuple[float, float]:
        """The canvas point at (row, column), counted in cells from the upper left corner."""
        return column, self._rows - row

    def cell(self, row: int, column: int, color: str, margin: float = 0.02) -> None:
        """Fills a cell, but for `margin` (in cells) along its edges."""
        self.canvas.rectangle(
            self.point(row + 1 - margin, column + margin),
            self.point(row + margin, column + 1 - margin),
            color,
        )

    def disc(self, row: int, column: int, radius: float, color: str) -> None:
        self.canvas.circle(self.point(row + 0.5, column + 0.5), radius, color)

    def text(self, row: int, column: int, text: str, color: str, size: int = 24) -> None:
        self.canvas.text(self.point(row + 0.5, column + 0.5), text, color, size)

    def flag(self, row: float, column: float, color: str) -> None:
        """A flag that fills a cell whose upper left corner is (row, column)."""
        foot, tip = self.point(row + 0.8, column + 0.4), row + 0.2
        self.canvas.line(foot, self.point(tip, column + 0.4), "#1e293b", width=3)
        corners = [(tip, 0.42), (tip + 0.15, 0.75), (tip + 0.3, 0.42)]
        self.canvas.polygon([self.point(y, column + x) for y, x in corners], color)

    def agent(self, row: int, column: int) -> None:
        self.disc(row, column, 0.30, "#ffffff")
        self.disc(row, column, 0.26, "#6366f1")
