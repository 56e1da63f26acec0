"""What all algorithms share that learn the values of each agent's actions.

Letters in shapes: T steps, N environments, A agents, K agents of one kind, n actions.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from kiloworlds.algorithms.experience import (
    AgentsSeen,
    KindLayout,
    Team,
    fold_agents,
    unfold_agents,
)
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.legal_actions import random_index_among
from kiloworlds.core.spaces import Dict, Discrete
from kiloworlds.networks.initializers import built_together
from kiloworlds.networks.q_network import QNetwork

_ILLEGAL = -1e9
"""What counts as the value of an action that may not be chosen."""

Networks = dict[str, QNetwork]


class QAgents:
    """Networks of the values of actions, one for each kind of agents, and acting by them.

    Agents that share a network are told apart by their number among those of their kind, which the
    network sees beside the observation.

    Args:
        team: the agents.
        algorithm: whose name errors tell.
        hidden_sizes, recurrent_size, activation, layer_norm: see `QNetwork`.

    Raises:
        InvalidValueError: agents whose actions are not Discrete.
    """

    def __init__(
        self,
        team: Team,
        algorithm: str,
        hidden_sizes: tuple[int, ...],
        recurrent_size: int,
        activation: str,
        layer_norm: bool,
    ):
        self.layout = KindLayout(team.kinds)
        self.num_agents = sum(self.layout.sizes)
        self.recurrent_size = recurrent_size
        self._shape = hidden_sizes, recurrent_size, activation, layer_norm
        for kind in team.kinds:
            if not isinstance(kind.action_space, Discrete):
                raise InvalidValueError(
                    f"{algorithm} needs Discrete actions, and those of the kind {kind.name!r} are "
                    f"{kind.action_space.to_gymnasium()}; 'ippo' and 'mappo' train on all spaces."
                )

    def init(self, key: Key[Array, ""]) -> Networks:
        """Fresh networks, by kind."""
        return built_together(lambda: self._networks(key))

    def _networks(self, key: Key[Array, ""]) -> Networks:
        keys = jax.random.split(key, len(self.layout.kinds))
        return {
            kind.name: QNetwork(
                keys[index],
                Dict({"agent": Discrete(size), "observation": kind.observation_space}),
                kind.action_space.n,  # type: ignore[attr-defined]
                *self._shape,
            )
            for index, (kind, size) in enumerate(
                zip(self.layout.kinds, self.layout.sizes, strict=True)
            )
        }

    def begin(self, num_envs: int) -> dict[str, Any]:
        """The memory before the first step, by kind: `[N, K, H]`, None for networks without one."""
        size = self.recurrent_size
        counts = zip(self.layout.names, self.layout.sizes, strict=True)
        return {n: jnp.zeros((num_envs, k, size)) if size else None for n, k in counts}

    def forget(self, memory: dict[str, Any], over: Bool[Array, "N A"]) -> dict[str, Any]:
        """Clears the memory of agents whose episode is over."""
        by_kind = self.layout.split(over, 1)
        return {
            name: None if kept is None else jnp.where(by_kind[name][..., None], 0.0, kept)
            for name, kept in memory.items()
        }

    def act(
        self,
        networks: Networks,
        key: Key[Array, ""],
        seen: AgentsSeen,
        memory: dict[str, Any],
        epsilon: Float[Array, ""],
    ) -> tuple[PyTree, dict[str, Any]]:
        """Each agent's best action, or with a probability of `epsilon` any legal one."""
        observations = self.layout.blocks(seen.observation)
        legal = {} if seen.legal is None else self.layout.blocks(seen.legal)
        actions, memories = {}, {}
        for kind, kind_key in zip(
            self.layout.kinds, jax.random.split(key, len(self.layout.kinds)), strict=True
        ):
            count = len(kind.agents)
            given = self._given(kind, observations[kind.name])
            values, after = networks[kind.name].step(
                fold_agents(given, 0), fold_agents(memory[kind.name], 0)
            )
            values, memories[kind.name] = unfold_agents((values, after), 0, count)
            mask = legal.get(kind.name)
            best = jnp.argmax(masked(values, mask), -1).astype(jnp.int32)
            any_key, coin_key = jax.random.split(kind_key)
            allowed = jnp.ones(values.shape, bool) if mask is None else mask
            any_action = random_index_among(any_key, allowed)
            explores = jax.random.uniform(coin_key, best.shape) < epsilon
            start = kind.action_space.start  # type: ignore[attr-defined]
            actions[kind.name] = jnp.where(explores, any_action, best) + start
        return self.layout.joined(actions), memories

    def indices(self, actions: PyTree) -> dict[str, Int[Array, "... K"]]:
        """Actions as numbers from 0 on, by kind."""
        blocks = self.layout.blocks(actions)
        return {
            kind.name: blocks[kind.name] - kind.action_space.start  # type: ignore[attr-defined]
            for kind in self.layout.kinds
        }

    def over_time(
        self,
        networks: Networks,
        observations: dict[str, PyTree],
        starts: dict[str, Bool[Array, "T N K"]],
        memory: dict[str, Any],
    ) -> tuple[dict[str, Float[Array, "T N K n"]], dict[str, Any]]:
        """Values of all actions along sequences, and the memories after each step, by kind."""
        values, memories = {}, {}
        for kind in self.layout.kinds:
            name, count = kind.name, len(kind.agents)
            given = fold_agents(self._given(kind, observations[name]), 1)
            result = networks[name].over_time(
                given, fold_agents(starts[name], 1), fold_agents(memory[name], 0)
            )
            values[name], memories[name] = unfold_agents(result, 1, count)
        return values, memories

    def after_one_more(
        self,
        networks: Networks,
        observations: dict[str, PyTree],
        memories: dict[str, Any],
    ) -> dict[str, Float[Array, "T N K n"]]:
        """Values of all actions in what each step of sequences led to."""
        values = {}
        for kind in self.layout.kinds:
            given = self._given(kind, observations[kind.name])
            values[kind.name] = networks[kind.name].step(given, memories[kind.name])[0]
        return values

    @staticmethod
    def _given(kind: AgentKind, observation: PyTree) -> PyTree:
        """Observations `[..., K, ...]` beside the number of the agent that sees them."""
        sample = jax.eval_shape(kind.observation_space.sample, jax.random.key(0))
        first, single = jax.tree.leaves(observation)[0], jax.tree.leaves(sample)[0]
        lead = first.shape[: first.ndim - single.ndim]
        number = jnp.broadcast_to(jnp.arange(len(kind.agents), dtype=jnp.int32), lead)
        return {"agent": number, "observation": observation}


def masked(values: Float[Array, "*B n"], legal: Bool[Array, "*B n"] | None) -> Float[Array, "*B n"]:
    """Values with those of illegal actions far below all others."""
    return values if legal is None else jnp.where(legal, values, _ILLEGAL)


def pick(values: Float[Array, "*B n"], chosen: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The values of the chosen actions."""
    return jnp.where(chosen[..., None] == jnp.arange(values.shape[-1]), values, 0.0).sum(-1)
