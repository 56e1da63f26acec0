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
    """A picture of `rows` by `columns` square cells; row 0 is at the top."""

    def __init__(self, rows: int, columns: int, background: str = "#f8fafc"):
        self._rows = rows
        size = (columns * CELL_PIXELS, rows * CELL_PIXELS)
        self.canvas = Canvas(*size, x_range=(0, columns), y_origin=0, background=background)

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

    def agent(self, row: int, column: int) -> None:
        self.disc(row, column, 0.30, "#ffffff")
        self.disc(row, column, 0.26, "#6366f1")
