"""Spreading environments over several devices."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from kiloworlds.core.errors import InvalidValueError

AXIS = "environments"


def device_mesh(devices: int, num_envs: int) -> Mesh | None:
    """A mesh of the first `devices` devices, or None for one.

    Raises:
        InvalidValueError: more than JAX has, or a number that does not divide `num_envs`.
    """
    if devices == 1:
        return None
    available = jax.devices()
    if not 1 <= devices <= len(available):
        raise InvalidValueError(
            f"devices={devices}, but JAX sees {len(available)} ({available[0].platform}). To split a "
            "CPU, call kiloworlds.core.devices.configure(cpu_devices=n) before JAX's first computation."
        )
    if num_envs % devices:
        below = num_envs - num_envs % devices
        near = " or ".join(str(n) for n in (below, below + devices) if n)
        raise InvalidValueError(
            f"num_envs={num_envs} cannot be split over {devices} devices; the nearest that can: "
            f"{near}."
        )
    return Mesh(np.asarray(available[:devices]), (AXIS,), axis_types=(AxisType.Auto,))


def _spec(leaf: jax.Array) -> PartitionSpec:
    return PartitionSpec(AXIS) if leaf.ndim else PartitionSpec()


def put_environments(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays of environments on the devices that step them."""
    if mesh is None:
        return jax.device_put(tree, jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, _spec(leaf))), tree)


def shard_environments(function: Callable, mesh: Mesh | None) -> Callable:
    """Runs `function` on each device's share of the environments, the leading axis of its arrays.

    Scalars (the clock) are the same everywhere. Environments never talk to each other, so no data
    crosses devices.
    """
    if mesh is None:
        return function

    def sharded(*arguments):
        outputs = jax.eval_shape(function, *arguments)
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=jax.tree.map(_spec, arguments),
            out_specs=jax.tree.map(_spec, outputs),
            check_vma=False,
        )(*arguments)

    return sharded
