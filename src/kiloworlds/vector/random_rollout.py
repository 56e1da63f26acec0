"""Many steps with random actions in one program, to measure how fast an environment can go."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from kiloworlds.core.devices import elementwise_compiler_options
from kiloworlds.core.legal_actions import random_actions
from kiloworlds.core.random import fast_key
from kiloworlds.vector.base import expand_seeds
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.functional import VectorStep


def random_rollout(envs: CompiledVectorEnv, steps: int) -> Callable[[int], VectorStep]:
    """Compiles `steps` steps of all environments, with fresh random actions, into one program.

    Returns:
        `rollout(seed)`, which runs it and returns the last step (every step computes and stores
        all of its fields but what speaks of ends (final observation, info and agents) and what only
        learners see (global state)). Of several agents each draws among its legal actions.
    """

    def rollout(seeds: jax.Array, action_keys: jax.Array, parameters: PyTree) -> VectorStep:
        state, _ = envs.functions.init_from_seeds(seeds, parameters)
        draw = jax.vmap(lambda legal, key: random_actions(envs.env.action_space, legal, key))

        def actions(state):
            keys = jax.vmap(jax.random.fold_in, (0, None))(action_keys, state.clock)
            several = envs.functions.num_agents is not None
            return draw(envs.functions.agents(state).available_actions if several else None, keys)

        def body(carry, _):
            state, _ = carry
            state, step = envs.functions.step(state, actions(state))
            return (state, _without_finals(step)), None

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
        share = envs.num_envs // len(devices)
        parts = []
        for number, device in enumerate(devices):
            mine = slice(number * share, (number + 1) * share)
            parameters = jax.tree.map(lambda leaf: leaf[mine], envs.functions.parameters)  # noqa: B023
            given = seeds[mine], keys[mine], parameters
            parts.append(compiled(*jax.device_put(given, device)))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    return run


def _without_finals(step: VectorStep) -> VectorStep:
    agents = step.agents
    if agents is not None:
        following = agents.next._replace(global_state=None)
        agents = agents._replace(next=following, final=None)  # type: ignore[arg-type]
    return step._replace(final_observation=None, final_info={}, agents=agents)
