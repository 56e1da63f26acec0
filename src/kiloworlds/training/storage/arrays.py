"""Pytrees as named arrays, the way checkpoints hold them, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from kiloworlds.core.errors import InvalidValueError

Arrays = dict[str, np.ndarray]

_SHOWN = 3


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves by their places in the tree, such as "learner/policy/layers/0/weight"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    assert len(named) == len(leaves)
    return named


def to_arrays(tree: PyTree) -> Arrays:
    """Copies of all leaves on the host, by name; random keys as their words.

    Copies, since a loop gives the buffers of its state to the next update.
    """
    leaves = {
        name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for name, leaf in named_leaves(tree).items()
    }
    for leaf in leaves.values():  # from a device of its own all come at once
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {name: np.array(leaf) for name, leaf in leaves.items()}


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays whose names begin so, without that."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def from_arrays(
    like: PyTree, arrays: Mapping[str, np.ndarray], what: str, settings: str = "these settings"
) -> PyTree:
    """The tree that `to_arrays` named.

    Args:
        like: a tree of the same structure, of arrays or `jax.ShapeDtypeStruct`.
        arrays: by name; others than the tree's are left alone.
        what: is read, and for which `settings`; for errors.

    Raises:
        InvalidValueError: an array is missing, or has another shape or type.
    """
    wrong, leaves = [], []
    for name, wanted in named_leaves(like).items():
        found = arrays.get(name)
        spec = jax.eval_shape(jax.random.key_data, wanted) if _is_key(wanted) else wanted
        if found is None:
            wrong.append(f"no {name}")
        elif found.shape != spec.shape or found.dtype != spec.dtype:
            wrong.append(
                f"{name} is {found.dtype}{list(found.shape)}, not {spec.dtype}{list(spec.shape)}"
            )
        else:
            leaves.append(_as_key(found, wanted) if _is_key(wanted) else found)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InvalidValueError(
            f"{what} does not fit {settings}: {'; '.join(wrong[:_SHOWN])}{more}."
        )
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_key(words: np.ndarray, wanted: Any) -> jax.Array:
    impl = jax.random.key_impl(jnp.zeros((), wanted.dtype))  # which asks for a key, not its shape
    return jax.random.wrap_key_data(jnp.asarray(words), impl=impl)
