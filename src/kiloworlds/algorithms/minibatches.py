"""Rollouts cut into rows, shuffled and dealt into minibatches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32


def nearest_divisor(size: int, wanted: int) -> int:
    """The divisor of `size` nearest to `wanted`."""
    divisors = [number for number in range(1, size + 1) if size % number == 0]
    return min(divisors, key=lambda number: abs(number - wanted))


def row_taker(tree: PyTree) -> Callable[[UInt32[Array, "*M"]], PyTree]:
    """A function that takes rows `[*M, ...]` of all arrays `[B, ...]` of a pytree.

    Arrays of 32-bit numbers are laid side by side as the words of one matrix: picking rows of it is
    then one kernel instead of one per array.
    """
    leaves, structure = jax.tree.flatten(tree)
    words = {
        index: jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(leaf.shape[0], -1)
        for index, leaf in enumerate(leaves)
        if leaf.dtype.itemsize == 4
    }
    matrix = jnp.concatenate(list(words.values()), axis=1)
    ends = np.cumsum([word.shape[1] for word in words.values()]).tolist()
    columns = {
        index: slice(end - words[index].shape[1], end)
        for index, end in zip(words, ends, strict=True)
    }

    def take(order):
        rows = matrix[order]
        parts = []
        for index, leaf in enumerate(leaves):
            if index not in columns:
                parts.append(leaf[order])
                continue
            part = rows[..., columns[index]].reshape(*order.shape, *leaf.shape[1:])
            parts.append(jax.lax.bitcast_convert_type(part, leaf.dtype))
        return structure.unflatten(parts)

    return take
