"""Keeping XLA from computing the same thing many times over."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Tree = TypeVar("Tree")

_FIRST = np.array([True, False])


def computed_once(tree: Tree) -> Tree:
    """The same arrays, which a program for a CPU computes once and keeps.

    XLA fuses element-wise work into everything that uses it and so computes it again for each use; a
    step whose results depend on the same few numbers, or flags spread from one word, takes a multiple
    of its time. The result of a reduction is not fused further: this one is over the array and zeros.
    Elsewhere than on a CPU nothing is done, since another kernel costs more than the work.
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(_reduced, tree)


def _reduced(array: Array) -> Array:
    first = _FIRST.reshape(2, *(1,) * array.ndim)
    padded = jnp.where(first, array, jnp.zeros_like(array))
    return padded.any(0) if array.dtype == bool else padded.sum(0, dtype=array.dtype)
