"""Many steps with random actions in one program, to measure how fast an environment can go."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from kiloworlds.core.devices import elementwise_compiler_options
from kiloworlds.core.random import fast_key
from kiloworlds.vector.base import expand_seeds
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.functional import VectorStep


def random_rollout(envs: CompiledVectorEnv, steps: int) -> Callable[[int], VectorStep]:
    """Compiles `steps` steps of all environments, with fresh random actions, into one program.

    Returns:
        `rollout(seed)`, which runs it and returns the last step (every step computes and stores
        all of its fields but the final observation and info).
    """

    def rollout(seeds: jax.Array, action_keys: jax.Array) -> VectorStep:
        state, _ = envs.functions.init_from_seeds(seeds)
        sample = jax.vmap(envs.env.action_space.sample)

        def body(carry, _):
            state, _ = carry
            keys = jax.vmap(jax.random.fold_in, (0, None))(action_keys, state.clock)
            state, step = envs.functions.step(state, sample(keys))
            return (state, step._replace(final_observation=None, final_info={})), None

        shape = jax.eval_shape(lambda s: body((s, None), None)[0][1], state)
        first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
        (_, last), _ = jax.lax.scan(body, (state, first), None, length=steps)
        return last

    # Environments never talk to each other, so each device runs a program of its own: on a CPU
    # that is faster than one program over all devices.
    devices = envs.devices
    compiled = jax.jit(rollout, compiler_options=elementwise_compiler_options())

    def run(seed: int) -> VectorStep:
        seeds = np.asarray(expand_seeds(seed, envs.num_envs), np.uint32)
        keys = jax.random.split(fast_key(seed + 1), envs.num_envs)
        parts = [
            compiled(*jax.device_put((part_seeds, part_keys), device))
            for part_seeds, part_keys, device in zip(
                np.split(seeds, len(devices)),
                jnp.split(keys, len(devices)),
                devices,
                strict=True,
            )
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    return run
