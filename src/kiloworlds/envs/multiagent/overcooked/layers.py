"""Observations as layers of a grid, unpacked from a few words for each cell.

A step writes about a thousand numbers, nearly all of them flags. Whatever the agents see of a cell is
packed into the bits of a few words; one kernel then shifts and masks each layer out of its word.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt8, UInt32


class Field(NamedTuple):
    """Where the bits of a layer lie; a layer of no bits is 0."""

    word: int
    shift: int
    bits: int


def unpack(words: Sequence[UInt32[Array, "..."]], fields: Sequence[Field]) -> UInt8[Array, "... L"]:
    """The layers of each cell, on a new last axis."""
    words = [computed_once(word) for word in words]
    layers = None
    for number, word in enumerate(words):
        shifts = np.array([field.shift for field in fields], np.uint32)
        masks = [(1 << field.bits) - 1 if field.word == number else 0 for field in fields]
        part = (word[..., None] >> shifts) & np.array(masks, np.uint32)
        layers = part if layers is None else layers | part
    assert layers is not None
    return layers.astype(jnp.uint8)


def computed_once(values: PyTree) -> PyTree:
    """The same unsigned integers, computed before whatever uses them instead of again for each use.

    XLA on CPU repeats cheap work for every element of a larger array that depends on it, and drops its
    optimisation barriers on the way. What a window slides over it computes once.
    """

    def once(value: Array) -> Array:
        ones = (1,) * value.ndim
        is_first = jnp.arange(3).reshape(3, *ones) == 0
        # A window over all rows would be turned into a sum, which may be computed again.
        rows = jnp.where(is_first, value, jnp.zeros((), value.dtype))
        none, size = np.zeros((), value.dtype), (2, *ones)
        return jax.lax.reduce_window(rows, none, jax.lax.bitwise_or, size, size, "VALID")[0]

    return jax.tree.map(once, values)
