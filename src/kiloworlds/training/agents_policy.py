"""Trained policies of several agents, acting together.

Letters in shapes: N environments, A agents.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from kiloworlds.algorithms.experience import AgentsSeen
from kiloworlds.algorithms.protocol import AgentsAlgorithm
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import Discrete


class AgentsPolicy:
    """Maps batches of all agents' observations to their actions.

    Args:
        algorithm: the algorithm that learnt it.
        states: learner states with a leading seed axis.
        seed_index: which seed's policies act.

    Policies that remember keep their memory from call to call; it is cleared where the infos say that
    an episode ended, and by `reset`.
    """

    def __init__(self, algorithm: AgentsAlgorithm, states: PyTree, seed_index: int = 0):
        self.algorithm = algorithm
        self.num_seeds = int(jax.tree.leaves(states)[0].shape[0])
        if not 0 <= seed_index < self.num_seeds:
            raise InvalidValueError(
                f"seed index {seed_index}: this run has {self.num_seeds} seed(s), numbered 0 to "
                f"{self.num_seeds - 1}."
            )
        self.seed_index = seed_index
        self._states = states
        self._policy = algorithm.policy(jax.tree.map(lambda leaf: leaf[seed_index], states))
        self._key = fast_key(0)
        self._act = jax.jit(algorithm.act, static_argnames="greedy")
        self._memory: PyTree = None

    def select_seed(self, index: int) -> "AgentsPolicy":
        """The policies another seed of the run learnt."""
        return AgentsPolicy(self.algorithm, self._states, index)

    def check_fits(self, kinds: Sequence[AgentKind]) -> None:
        """Raises InvalidValueError for agents that are others than those that learnt."""
        trained, given = (
            " and ".join(map(_in_words, each)) for each in (self.algorithm.layout.kinds, kinds)
        )
        if trained != given:
            raise InvalidValueError(
                f"the policies were trained as {trained}; they cannot play as {given}."
            )

    def reset(self) -> None:
        """Forgets what was seen so far."""
        self._memory = None

    def act(
        self,
        observations: PyTree,
        deterministic: bool = True,
        infos: dict[str, Any] | None = None,
    ) -> PyTree:
        """Chooses actions for all agents of a batch of environments.

        Args:
            observations: `[N, A, ...]`, or in blocks by kind, as a vector environment gives them.
            deterministic: the most likely actions; otherwise drawn from the policies.
            infos: those the observations came with: their masks say which actions are legal, which
                agents live and where an episode ended.

        Returns:
            Actions `[N, A, ...]` (or in blocks) as numpy arrays, fit for `step`.
        """
        infos = infos or {}
        observations = jax.tree.map(jnp.asarray, observations)
        count = jax.tree.leaves(observations)[0].shape[0]
        seen = self._seen(observations, infos, count)
        if self._memory is None or self._count != count:
            self._memory, self._count = self.algorithm.begin(count), count
        elif "_final_obs" in infos:
            over = jnp.asarray(infos["_final_obs"], bool)
            everyone = jnp.broadcast_to(over[:, None], seen.alive.shape)
            self._memory = self.algorithm.forget(self._memory, everyone, over)
        self._key, key = jax.random.split(self._key)
        actions, _, self._memory = self._act(
            self._policy, key, seen, self._memory, greedy=deterministic
        )
        return jax.tree.map(np.asarray, actions)

    def _seen(self, observations: PyTree, infos: dict[str, Any], count: int) -> AgentsSeen:
        everyone = np.ones((count, sum(self.algorithm.layout.sizes)), bool)
        mask = infos.get("action_mask")
        return AgentsSeen(
            observations,
            jnp.asarray(infos.get("alive", everyone)),
            jnp.asarray(infos.get("acting", everyone)),
            None if mask is None else jax.tree.map(lambda leaf: jnp.asarray(leaf, bool), mask),
            None,
        )


def _in_words(kind: AgentKind) -> str:
    """Such as "3 'ally' that observe (75,) and choose among 8 actions"."""
    seen, done = (
        jax.eval_shape(space.sample, jax.random.key(0))
        for space in (kind.observation_space, kind.action_space)
    )
    observed = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(seen))
    if isinstance(kind.action_space, Discrete):
        acts = f"choose among {kind.action_space.n} actions"
    else:
        acts = f"act by {', '.join(str(leaf.shape) for leaf in jax.tree.leaves(done))}"
    return f"{len(kind.agents)} {kind.name!r} that observe {observed} and {acts}"
