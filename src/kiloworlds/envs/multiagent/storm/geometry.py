"""Directions, and what lies where as seen from a player.

Directions count clockwise with x to the right and y upwards: 0 up, 1 right, 2 down, 3 left.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int


def ahead(direction: Int[Array, "..."]) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """The step `(x, y)` forward."""
    x = (direction == 1).astype(jnp.int32) - (direction == 3)
    y = (direction == 0).astype(jnp.int32) - (direction == 2)
    return x, y


def from_player(
    x: Int[Array, "..."],
    y: Int[Array, "..."],
    direction: Int[Array, "..."],
    forward: Int[ArrayLike, "..."],
    rightward: Int[ArrayLike, "..."],
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """The cell that many steps ahead of a player and to its right."""
    ahead_x, ahead_y = ahead(direction)
    # To the right of (x, y) is (y, -x).
    return x + forward * ahead_x + rightward * ahead_y, y + forward * ahead_y - rightward * ahead_x


def window(size: int) -> tuple[Int[np.ndarray, " cells"], Int[np.ndarray, " cells"]]:
    """How far ahead and to the right the cells of a window lie, row by row.

    A row runs away from the player, who is in the middle of the first column.
    """
    rightward, forward = np.divmod(np.arange(size * size, dtype=np.int32), np.int32(size))
    return forward, rightward - np.int32(size // 2)
