"""Random actions that keep to masks of legal ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from kiloworlds.core.spaces import Dict, Space


def random_actions(space: Space, legal: PyTree | None, key: Key[Array, ""]) -> PyTree:
    """Actions of all agents drawn from a space, each legal one as likely.

    Args:
        space: of the actions of all agents.
        legal: masks `[A, n]`, in blocks where agents are of several kinds; None: all are legal.
        key: of the draws.
    """
    if legal is None:
        return space.sample(key)
    masks, structure = jax.tree.flatten(legal)
    keys = jax.random.split(key, len(masks))
    blocks = [block for _, block in space.items] if isinstance(space, Dict) else [space]
    drawn = [
        block.space.start + random_index_among(keys[index], mask)  # type: ignore[attr-defined]
        for index, (block, mask) in enumerate(zip(blocks, masks, strict=True))
    ]
    return structure.unflatten(drawn)


def random_index_among(key: Key[Array, ""], legal: Bool[Array, "*B n"]) -> Int[Array, "*B"]:
    """The number of one of the n actions of each mask, each legal one as likely."""
    words = (jax.random.bits(key, legal.shape) >> 1).astype(jnp.int32)
    return jnp.argmax(jnp.where(legal, words, -1), axis=-1).astype(jnp.int32)
