"""Functions whose arrays keep the batch on the last axis, behind the interface of one environment."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, PyTree

_BLOCK_ELEMENTS = 1 << 18
"""How many numbers an intermediate may have so that the few that live at once fit a core's cache."""


def batch_last(function: Callable[..., PyTree], elements: int) -> Callable[..., PyTree]:
    """Makes a function over batches of environments one over a single environment, for `jax.vmap`.

    `jax.vmap` puts the batch first. What every unit does to every other then has a short axis
    innermost, along which a CPU cannot add up or compare many numbers at once. Here `function` is
    written for arrays `[..., B]`: sums over units are sums of whole vectors of environments.

    Args:
        function: of pytrees of arrays `[..., B]`, to a pytree of arrays `[..., B]`.
        elements: of the largest intermediate for one environment. On a CPU the batch is computed in
            blocks such that these fit the cache.
    """

    @custom_vmap
    def single(*arguments):
        results = function(*jax.tree.map(lambda leaf: leaf[..., None], arguments))
        return jax.tree.map(lambda leaf: leaf[..., 0], results)

    @single.def_vmap
    def batched(axis_size, in_batched, *arguments):
        leaves, structure = jax.tree.flatten(arguments)
        is_batched = jax.tree.leaves(in_batched)

        def block(parts):
            size = parts[0].shape[0]
            parts = iter(parts)
            whole = [
                _turned(next(parts)) if batch else _spread(leaf, size)
                for leaf, batch in zip(leaves, is_batched, strict=True)
            ]
            results = function(*structure.unflatten(whole))
            return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), results)

        parts = [leaf for leaf, batch in zip(leaves, is_batched, strict=True) if batch]
        results = _in_blocks(block, parts, axis_size, _num_blocks(axis_size, elements))
        return results, jax.tree.map(lambda _: True, results)

    return single


def _spread(leaf: Array, size: int) -> Array:
    """The same for all of a batch."""
    return jnp.broadcast_to(leaf[..., None], (*leaf.shape, size))


def _turned(leaf: Array) -> Array:
    """The same array with its first axis last, in memory too."""
    turned = jnp.moveaxis(leaf, 0, -1)
    # XLA would rather read the array in its old order, with a stride, each time again.
    return with_layout_constraint(turned, Layout(tuple(range(turned.ndim))))


def _num_blocks(size: int, elements: int) -> int:
    if jax.default_backend() != "cpu":
        return 1
    return math.ceil(size / max(_BLOCK_ELEMENTS // elements, 16))


def _in_blocks(function: Callable, parts: list, size: int, count: int) -> PyTree:
    """Applies a function to `count` equal parts of a batch, one after the other."""
    if count == 1:
        return function(parts)
    length = math.ceil(size / count)
    spare = count * length - size

    def cut(leaf):
        padded = jnp.pad(leaf, [(0, spare)] + [(0, 0)] * (leaf.ndim - 1)) if spare else leaf
        return padded.reshape(count, length, *leaf.shape[1:])

    results = jax.lax.map(function, [cut(leaf) for leaf in parts])
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], results)
