"""A trained policy that acts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from kiloworlds.algorithms.ppo import PPO, PPOState
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space


class Policy:
    """Maps batches of observations to actions.

    Args:
        algorithm: the algorithm that learnt it.
        states: learner states with a leading seed axis.
        seed_index: which seed's policy acts.
    """

    def __init__(self, algorithm: PPO, states: PPOState, seed_index: int = 0):
        self.algorithm = algorithm
        self.num_seeds = int(states.parameters.shape[0])
        if not 0 <= seed_index < self.num_seeds:
            raise InvalidValueError(
                f"seed index {seed_index}: this run has {self.num_seeds} seed(s), numbered 0 to "
                f"{self.num_seeds - 1}."
            )
        self.seed_index = seed_index
        self._states = states
        self._policy = algorithm.policy(jax.tree.map(lambda leaf: leaf[seed_index], states))
        self._key = fast_key(0)
        self._sample = jax.jit(self._sample_actions)
        self._greedy = jax.jit(self._greedy_actions)

    def _sample_actions(self, policy: Any, key: jax.Array, observations: PyTree) -> PyTree:
        raw, _ = self.algorithm.act(policy, key, observations)
        return self.algorithm.head.to_environment(raw)

    def _greedy_actions(self, policy: Any, observations: PyTree) -> PyTree:
        return self.algorithm.head.to_environment(self.algorithm.act_greedily(policy, observations))

    @property
    def networks(self) -> Any:
        """What `actions` needs; policies of one run differ in it only."""
        return self._policy

    def actions(
        self, networks: Any, key: jax.Array, observations: PyTree, deterministic: bool
    ) -> PyTree:
        """The actions of these networks, for use inside compiled code."""
        if deterministic:
            return self._greedy_actions(networks, observations)
        return self._sample_actions(networks, key, observations)

    @property
    def observation_space(self) -> Space:
        """The space of one observation."""
        return self.algorithm.observation_space

    def select_seed(self, index: int) -> "Policy":
        """The policy another seed of the run learnt."""
        return Policy(self.algorithm, self._states, index)

    def act(self, observations: PyTree, deterministic: bool = True) -> PyTree:
        """Chooses actions for a batch of observations, or for a single one.

        Args:
            observations: `[N, ...]`, as a vector environment gives them, or `[...]`.
            deterministic: the most likely action; otherwise one drawn from the policy.

        Returns:
            Actions `[N, ...]` (or `[...]`) as numpy arrays, fit for `step`.

        Raises:
            InvalidValueError: observations of another shape.
        """
        observations = self._check(observations)
        if deterministic:
            actions = self._greedy(self._policy, observations)
        else:
            self._key, key = jax.random.split(self._key)
            actions = self._sample(self._policy, key, observations)
        return jax.tree.map(np.asarray, actions)

    def _check(self, observations: PyTree) -> PyTree:
        space = self.observation_space
        if not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
            return jax.tree.map(jnp.asarray, observations)
        array = jnp.asarray(observations)
        if array.shape[array.ndim - len(space.shape) :] != space.shape:
            raise InvalidValueError(
                f"observations have shape {array.shape}; they must be {space.shape}, or "
                f"{('N', *space.shape)} for a batch.".replace("'N'", "N")
            )
        return array

    def act_in_program(self, observations: PyTree) -> PyTree:
        """The most likely actions, for use inside compiled code."""
        return self._greedy_actions(self._policy, observations)
