"""Maps of square cells as bits, and what they answer: is there a wall at a place, near a place.

H and W stand for the rows and columns of a map in shapes. Cells are 1 m wide; cell (row, column)
covers column <= x < column + 1 and row <= y < row + 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32

MOST_CELLS = 32
"""The largest height and width of a map: a row or a column is one word."""

# Shifting a word left by i brings the bit of its cell i to the sign: one instruction tests many
# cells of many words.
_BITS = np.left_shift(np.uint32(1), np.arange(31, -1, -1, dtype=np.uint32)).view(np.int32)


class Walls(NamedTuple):
    """One bit per cell, set where there is a wall, by rows and again by columns.

    A lidar asks for runs of cells in both directions.
    """

    rows: Int32[Array, " H"]
    columns: Int32[Array, " W"]

    @classmethod
    def of_cells(cls, is_wall: Bool[ArrayLike, "H W"]) -> "Walls":
        """The walls of a map given cell by cell."""
        cells = jnp.asarray(is_wall)
        return cls(_words(cells), _words(cells.T))

    @property
    def cells(self) -> Bool[Array, "H W"]:
        """The walls cell by cell."""
        return jnp.left_shift(self.rows[:, None], jnp.arange(self.columns.shape[0])) < 0

    def at(self, row: Int[Array, "..."], column: Int[Array, "..."]) -> Bool[Array, "..."]:
        """Whether cells are walls; outside the map the nearest row counts."""
        return has_bit(word(self.rows, row), column)

    def touch_circles(
        self,
        x: Float[Array, "..."],
        y: Float[Array, "..."],
        radius: Float[Array, "..."],
    ) -> Bool[Array, "..."]:
        """Whether circles touch a wall; their radius is at most half a cell."""
        touch = jnp.zeros(x.shape, bool)
        for side_y in (-1, 1):
            row = jnp.floor(y + side_y * radius)
            for side_x in (-1, 1):
                column = jnp.floor(x + side_x * radius)
                away_x = x - jnp.clip(x, column, column + 1)
                away_y = y - jnp.clip(y, row, row + 1)
                is_near = away_x * away_x + away_y * away_y <= radius * radius
                wall = self.at(row.astype(jnp.int32), column.astype(jnp.int32))
                touch = touch | (is_near & wall)
        return touch


def word(words: Int32[Array, " n"], index: Int[Array, "..."]) -> Int32[Array, "..."]:
    """The words of rows or columns; beyond the map its last ones, which are walls."""
    return words.at[jnp.clip(index, 0, words.shape[0] - 1)].get(mode="promise_in_bounds")


def has_bit(word: Int32[Array, "..."], cell: Int[Array, "..."]) -> Bool[Array, "..."]:
    """Whether the bit of a cell is set in a word; cells outside the map give any answer."""
    return jax.lax.shift_left(word, cell & 31) < 0


def _words(cells: Bool[Array, "n m"]) -> Int32[Array, " n"]:
    return jnp.where(cells, _BITS[: cells.shape[1]], 0).sum(1, dtype=jnp.int32)
