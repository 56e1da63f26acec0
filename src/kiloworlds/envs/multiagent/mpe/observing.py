"""Observations in the particle world, put together from blocks.

Letters used in shapes: K observers, V bodies observed, W numbers.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from kiloworlds.core.spaces import Box
from kiloworlds.envs.multiagent.mpe.groups import Group, Many
from kiloworlds.envs.multiagent.mpe.world import Vector, distance

Block = list[list[Any]] | Float[Array, "K W"]
"""Some numbers of each observer: scalars one by one, or one array where the observers are many."""


def observation_box(size: int) -> Box:
    """The space of an observation of `size` numbers without bounds."""
    return Box(-np.inf, np.inf, (size,))


def observations(*blocks: Block) -> Float[Array, "K W"]:
    """The blocks of all observers side by side."""
    lists = [block for block in blocks if isinstance(block, list)]
    if len(lists) == len(blocks):
        return _as_array([list(itertools.chain(*parts)) for parts in zip(*lists, strict=True)])
    arrays = [_as_array(block) for block in blocks if not isinstance(block, list) or block[0]]
    return jnp.concatenate(arrays, axis=1)


def _as_array(block: Block) -> Float[Array, "K W"]:
    if not isinstance(block, list):
        return block
    if all(row is block[0] for row in block):
        return jnp.broadcast_to(_row(block[0]), (len(block), len(block[0])))
    return jnp.stack([_row(row) for row in block])


def _row(numbers: Sequence[Any]) -> Float[Array, " W"]:
    return jnp.stack([jnp.float32(number) for number in numbers])


def own(group: Group) -> Block:
    """The numbers, in trees, that belong to each observer."""
    if isinstance(group, Many):
        return jnp.stack(jax.tree.leaves(group.tree), axis=-1)
    return [jax.tree.leaves(tree) for tree in group]


def alike(numbers: Sequence[Float[ArrayLike, ""]], observers: int) -> Block:
    """The same numbers for all observers."""
    return [list(numbers)] * observers


def table(
    see: Callable[[Any, Any], Vector],
    observers: Group,
    observed: Group,
    own_place: int | None = None,
) -> Block:
    """`see(observer, body)` of all the bodies observed.

    Args:
        see: element-wise.
        observers, observed: the bodies.
        own_place: where the first observer, followed by the others, is among the bodies observed:
            no observer sees itself. None if they are not among them.
    """
    if isinstance(observers, Many):
        return _table_of_many(see, observers, observed, own_place)
    rows = []
    for index, observer in enumerate(observers):
        itself = None if own_place is None else own_place + index
        seen = [see(observer, body) for place, body in enumerate(observed) if place != itself]
        rows.append([number for vector in seen for number in (vector.x, vector.y)])
    return rows


def _table_of_many(
    see: Callable[[Any, Any], Vector], observers: Many, observed: Group, own_place: int | None
) -> Block:
    assert isinstance(observed, Many)
    here = jax.tree.map(lambda leaf: leaf[:, None], observers.tree)
    there = jax.tree.map(lambda leaf: leaf[None, :], observed.tree)
    if own_place is not None:
        itself = own_place + np.arange(len(observers))[:, None]
        is_before = np.arange(len(observed) - 1) < itself
        there = jax.tree.map(lambda leaf: jnp.where(is_before, leaf[:, :-1], leaf[:, 1:]), there)
    seen = see(here, there)
    shape = (len(observers), len(observed) - (own_place is not None))
    pairs = jnp.stack([jnp.broadcast_to(part, shape) for part in (seen.x, seen.y)], axis=-1)
    return pairs.reshape(len(observers), -1)


def relative(observers: Group, observed: Group, own_place: int | None = None) -> Block:
    """Positions of bodies as seen from the observers."""
    return table(lambda here, there: there - here, observers, observed, own_place)


def nearest(
    count: int,
    observers: Group,
    observed: Group,
    own_place: int | None = None,
    values: Group | None = None,
) -> Block:
    """The `count` bodies nearest to each observer, the nearest first, and zeros where there are fewer.

    Args:
        count: how many are seen.
        observers, observed, own_place: as in `table`.
        values: what is seen of a body; if None its position relative to the observer.
    """
    if not len(observed):
        return alike([0.0] * (2 * count), len(observers))
    here = jax.tree.map(lambda leaf: leaf[:, None], _stacked(observers))
    there = _stacked(observed)
    gaps = distance(here, there)
    places = np.arange(len(observed))
    if own_place is not None:
        is_own = places == own_place + np.arange(len(observers))[:, None]
        gaps = jnp.where(is_own, jnp.inf, gaps)
    nearer = gaps[:, None, :] < gaps[:, :, None]
    tied = (gaps[:, None, :] == gaps[:, :, None]) & (places[None, :] < places[:, None])
    rank = jnp.sum(nearer | tied, axis=-1)  # [K, V]
    is_seen = (rank[:, None, :] == np.arange(count)[:, None]) & (gaps[:, None, :] < jnp.inf)
    shown = there - here if values is None else _stacked(values)
    parts = [
        jnp.sum(jnp.where(is_seen, jnp.broadcast_to(part, gaps.shape)[:, None, :], 0.0), axis=-1)
        for part in (shown.x, shown.y)
    ]
    return jnp.stack(parts, axis=-1).reshape(len(observers), -1)


def _stacked(group: Group) -> Any:
    if isinstance(group, Many):
        return group.tree
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *group)
