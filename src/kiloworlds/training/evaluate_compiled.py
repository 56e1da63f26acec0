"""Playing whole episodes of a compiled environment with a policy of one agent, in one program.

Letters in shapes: N environments, E episodes that each of them plays at most.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from kiloworlds.core.random import fast_key
from kiloworlds.training.policy import Policy
from kiloworlds.vector.base import expand_seeds
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.functional import VectorState


class Played(NamedTuple):
    """Episodes that ended, one entry each."""

    returns: np.ndarray
    lengths: np.ndarray


class _Carry(NamedTuple):
    environments: VectorState
    observation: PyTree
    ended: Int[Array, " N"]
    returns: Float[Array, "N E"]
    lengths: Int[Array, "N E"]
    steps: Int[Array, " N"]
    """Of the episode that goes on."""
    clock: Int[Array, ""]


class CompiledEvaluation:
    """A program that plays, for all policies of the same shape.

    Args:
        envs: the environments.
        episodes: to play, shared out evenly: each environment counts only its first ones, since
            counting whichever ends first would favour short ones.
        policy: any of those that will play.
        deterministic: the most likely actions; otherwise drawn from the policy.
        max_steps: the longest episode that is allowed.
    """

    def __init__(
        self,
        envs: CompiledVectorEnv,
        episodes: int,
        policy: Policy,
        deterministic: bool,
        max_steps: int,
    ):
        self._functions = envs.functions
        self._policy, self._deterministic = policy, deterministic
        self._max_steps = max_steps
        share, more = divmod(episodes, envs.num_envs)
        self._wanted = np.full(envs.num_envs, share) + (np.arange(envs.num_envs) < more)
        self._play = jax.jit(self._loop)

    def play(self, policy: Policy, seed: int) -> Played | None:
        """Plays in environments seeded from `seed` on; None if an episode lasts too long."""
        seeds = np.asarray(expand_seeds(seed, self._functions.num_envs), np.uint32)
        carry = self._play(policy.networks, jnp.asarray(seeds), self._functions.parameters)
        ended, returns, lengths, steps = map(
            np.asarray, (carry.ended, carry.returns, carry.lengths, carry.steps)
        )
        if (ended < self._wanted).any():
            assert steps.max() >= self._max_steps
            return None
        counted = np.arange(returns.shape[1]) < self._wanted[:, None]
        return Played(returns[counted].astype(float), lengths[counted].astype(int))

    def _loop(self, networks: Any, seeds: Array, parameters: PyTree) -> _Carry:
        wanted = jnp.asarray(self._wanted)
        most = int(self._wanted.max())
        rows = jnp.arange(len(self._wanted))
        environments, observation = self._functions.init_from_seeds(seeds, parameters)
        nothing = jnp.zeros(len(rows), jnp.int32)
        table = jnp.zeros((len(rows), most))
        first = _Carry(
            environments,
            observation,
            nothing,
            table,
            table.astype(jnp.int32),
            nothing,
            jnp.int32(0),
        )

        def goes_on(carry: _Carry) -> Bool[Array, ""]:
            is_late = (carry.steps >= self._max_steps) & (carry.ended < wanted)
            return (carry.ended < wanted).any() & ~is_late.any()

        def one_step(carry: _Carry) -> _Carry:
            key = jax.random.fold_in(fast_key(0), carry.clock)
            actions = self._policy.actions(networks, key, carry.observation, self._deterministic)
            environments, step = self._functions.step(carry.environments, actions)
            counts = step.finished & (carry.ended < wanted)
            # Where nothing counts, the place is out of bounds, and nothing is written.
            place = jnp.where(counts, carry.ended, most)
            return _Carry(
                environments,
                step.observation,
                carry.ended + counts,
                carry.returns.at[rows, place].set(step.episode_return, mode="drop"),
                carry.lengths.at[rows, place].set(step.episode_length, mode="drop"),
                jnp.where(step.finished, 0, carry.steps + 1),
                carry.clock + 1,
            )

        return jax.lax.while_loop(goes_on, one_step, first)
