"""Quantities of several bodies: scalars one by one if they are few, arrays if they are many.

Over thousands of environments a scalar becomes one contiguous array, which is the fastest there is on a
CPU: a group of few bodies is a tuple with a tree of scalars for each. But a program that names each of
a thousand pairs takes minutes to compile, so that a group of many is one tree of arrays. What is
written for a group is element-wise and serves both.

Letters used in shapes: R and C, the bodies of two groups.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

MOST_PAIRS = 100
"""So many pairs are computed one by one, those of seven agents with seven landmarks and each other."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Many:
    """A group of many bodies, one tree of arrays `[R]`; to be cut and gone through like a tuple."""

    tree: PyTree

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.tree)[0])

    def __getitem__(self, place: int | slice) -> Any:
        part = jax.tree.map(lambda leaf: leaf[place], self.tree)
        return Many(part) if isinstance(place, slice) else part

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))


Group = tuple[Any, ...] | Many


def are_many(agents: int, landmarks: int) -> bool:
    """Whether the bodies of a task are many."""
    return agents * (agents + landmarks) > MOST_PAIRS


def each(function: Callable[..., Any], *groups: Group) -> Group:
    """`function` of the bodies of equally large groups, one after the other or all at once."""
    if isinstance(groups[0], Many):
        return Many(function(*(group.tree for group in groups)))  # type: ignore[union-attr]
    return tuple(map(function, *groups))


def fill(like: Group, *parts: tuple[Any, int]) -> Group:
    """A group of numbers, few or many as another is: each value as often as is said beside it."""
    if isinstance(like, Many):
        arrays = [jnp.broadcast_to(jnp.float32(value), (count,)) for value, count in parts]
        return Many(jnp.concatenate(arrays))
    return tuple(value for value, count in parts for _ in range(count))


def join(first: Group, second: Group) -> Group:
    """Two groups as one."""
    if isinstance(first, Many):
        assert isinstance(second, Many)
        return Many(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), first.tree, second.tree))
    return (*first, *second)


def total(group: Group) -> Array:
    """The sum of a group of numbers."""
    if isinstance(group, Many):
        return jnp.sum(group.tree)
    return functools.reduce(operator.add, group)


def least(group: Group) -> Array:
    """The least of a group of numbers."""
    if isinstance(group, Many):
        return jnp.min(group.tree)
    return functools.reduce(jnp.minimum, group)


def pick(index: Int[Array, ""], group: Group) -> PyTree:
    """The body at a place that is not known before the program runs."""
    if isinstance(group, Many):
        is_it = jnp.arange(len(group)) == index
        return jax.tree.map(lambda leaf: jnp.sum(leaf, where=is_it), group.tree)
    chosen = group[0]
    for place, body in enumerate(group[1:], start=1):
        chosen = jax.tree.map(functools.partial(jnp.where, index == place), body, chosen)
    return chosen


def combine(
    function: Callable[[Any, Any], Any], rows: Group, columns: Group, how: Literal["sum", "min"]
) -> Group:
    """For each row the sum or the least of `function(row, column)`, a tree, over all columns."""
    join = operator.add if how == "sum" else jnp.minimum
    if isinstance(rows, Many):
        start = 0.0 if how == "sum" else jnp.inf
        return _accumulate(lambda row, column, _: function(row, column), rows, columns, join, start)
    return tuple(_fold(join, [function(row, column) for column in columns]) for row in rows)


def sum_over_others(
    function: Callable[[Any, Any], Any], members: Group, swapped: Literal[1, -1]
) -> Group:
    """For each member the sum of `function(member, other)`, a tree, over all others; two at least.

    Args:
        function: `function(a, b)` and `function(b, a)` are the same or opposite.
        members: the bodies.
        swapped: 1 if they are the same, -1 if opposite.
    """
    if isinstance(members, Many):

        def without_itself(member: Any, other: Any, place: Int[Array, ""]) -> Any:
            is_other = jnp.arange(len(members)) != place
            term = function(member, other)
            return jax.tree.map(lambda leaf: jnp.where(is_other, leaf, 0.0), term)

        return _accumulate(without_itself, members, members, operator.add, 0.0)
    terms: list[list[Any]] = [[] for _ in members]
    for first in range(len(members)):
        for second in range(first + 1, len(members)):
            term = function(members[first], members[second])
            terms[first].append(term)
            opposite = term if swapped == 1 else jax.tree.map(jnp.negative, term)
            terms[second].append(opposite)
    return tuple(_fold(operator.add, own) for own in terms)


def _fold(join: Callable[[Any, Any], Any], trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: functools.reduce(join, leaves), *trees)


def _accumulate(
    function: Callable[[Any, Any, Any], Any],
    rows: Many,
    columns: Group,
    join: Callable[[Any, Any], Any],
    start: float,
) -> Many:
    """Joins `function(rows, column, its place)` of one column after the other.

    A table of all pairs at once is slower: it fits into no cache, and its rows are short.
    """
    assert isinstance(columns, Many)
    places = jnp.arange(len(columns))

    def add(joined: Any, each: tuple[Any, Any]) -> tuple[Any, None]:
        return jax.tree.map(join, joined, function(rows.tree, *each)), None

    first = (columns[0], places[0])
    shapes = jax.eval_shape(lambda column: function(rows.tree, *column), first)
    joined = jax.tree.map(lambda shape: jnp.full(shape.shape, start, shape.dtype), shapes)
    return Many(jax.lax.scan(add, joined, (columns.tree, places))[0])
