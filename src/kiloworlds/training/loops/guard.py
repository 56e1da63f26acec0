"""Numbers gone wrong: what is not finite is found, named, and not learnt from.

Letters in shapes: T steps of a rollout, N environments.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

FIELDS = ("observation", "reward", "learner")


class Fault(NamedTuple):
    """Where the first number of an update is that is not finite; of several seeds and updates `[S, U]`.

    Attributes:
        field: 0 if all are finite, else 1 + the number in `FIELDS` of what it is in.
        environment, step: which environment, at which step of the rollout; 0 for the learner.
    """

    field: Any
    environment: Any
    step: Any


def find(seen: Mapping[str, PyTree]) -> tuple[Fault, Bool[Array, " N"]]:
    """Looks through what a rollout saw.

    Args:
        seen: the fields but the last, arrays `[T, N, ...]`.

    Returns:
        The first fault, and in which environments there is any.
    """
    zero = jnp.int32(0)
    fault, broken = Fault(zero, zero, zero), jnp.bool_(False)
    for field in reversed(FIELDS[:-1]):  # so that the first field is the one that is told
        bad = _bad(seen[field])
        if bad is None:  # whole numbers
            continue
        step, environment = jnp.unravel_index(jnp.argmax(bad), bad.shape)
        here = Fault(jnp.int32(1 + FIELDS.index(field)), environment, step)
        is_bad = bad.any()
        fault = Fault(
            *(
                jnp.where(is_bad, new, old).astype(jnp.int32)
                for new, old in zip(here, fault, strict=True)
            )
        )
        broken = broken | bad.any(axis=0)
    return fault, jnp.broadcast_to(broken, jax.tree.leaves(seen["reward"])[0].shape[1:2])


def with_learner(fault: Fault, is_finite: Bool[Array, ""]) -> Fault:
    """The fault of the rollout, else that of the learner after the update."""
    field = jnp.where(is_finite, 0, 1 + FIELDS.index("learner")).astype(jnp.int32)
    return fault._replace(field=jnp.where(fault.field > 0, fault.field, field))


def without_bad_numbers(tree: PyTree) -> PyTree:
    """Zeros in place of what is not finite."""

    def clean(leaf: Array) -> Array:
        is_number = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jnp.where(jnp.isfinite(leaf), leaf, 0) if is_number else leaf

    return jax.tree.map(clean, tree)


def _bad(tree: PyTree) -> Bool[Array, "T N"] | None:
    """Where any of the arrays `[T, N, ...]` holds what is not finite."""
    bad = None
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            here = ~jnp.isfinite(leaf).all(axis=tuple(range(2, leaf.ndim)))
            bad = here if bad is None else bad | here
    return bad


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether all numbers are."""
    finite = jnp.bool_(True)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite = finite & jnp.isfinite(leaf).all()
    return finite


def keep(is_fault: Bool[Array, ""], old: PyTree, new: PyTree) -> PyTree:
    """What was before an update that went wrong, else what is after it."""
    return jax.tree.map(lambda before, after: jnp.where(is_fault, before, after), old, new)


def over_devices(fault: Fault, axis: str, num_envs: int) -> Fault:
    """The first fault on any device, each of which has so many environments."""
    offset = jax.lax.axis_index(axis).astype(jnp.int32) * num_envs
    fault = fault._replace(environment=fault.environment + offset)
    everywhere = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis), fault)
    first: Int[Array, ""] = jnp.argmax(everywhere.field > 0)
    return jax.tree.map(lambda leaves: leaves[first], everywhere)
