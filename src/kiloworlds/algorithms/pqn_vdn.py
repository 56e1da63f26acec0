"""Parallelised Q-networks with value decomposition: values of actions learnt from fresh experience, with
no replay and no target network; normalised layers keep learning stable.

M. Gallici et al., "Simplifying Deep Temporal Difference Learning" (2024), with the sum of P. Sunehag et
al., "Value-Decomposition Networks For Cooperative Multi-Agent Learning" (2018).

Letters in shapes: T steps, N environments, A agents.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.algorithms.experience import AgentsExperience, Team
from kiloworlds.algorithms.minibatches import nearest_divisor
from kiloworlds.algorithms.q_agents import Networks, masked, pick
from kiloworlds.algorithms.q_learner import QLearner, QLearnerConfig
from kiloworlds.core.checks import require_number
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import permutation


@dataclass(frozen=True)
class PQNVDNConfig(QLearnerConfig):
    """Settings of PQN-VDN."""

    num_steps: int = 32
    """Steps each environment takes per update."""
    num_epochs: int = 2
    """Passes over the rollout per update."""
    num_minibatches: int = 4
    """Parts the environments are split into per epoch."""
    q_lambda: float = 0.6
    """Smoothing of the returns that values are learnt from: 0 looks one step ahead, 1 to the end."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    hidden_sizes: tuple[int, ...] = (128,)
    """Widths of the hidden layers."""
    recurrent_size: int = 128
    """gru: numbers of the memory."""
    layer_norm: bool = True
    """Whether hidden layers are normalised."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_epochs", "num_minibatches"):
            require_number(name, getattr(self, name), 1, whole=True)
        require_number("q_lambda", self.q_lambda, 0.0, 1.0)


class PQNState(NamedTuple):
    """All that is learnt."""

    networks: Networks
    optimizer: PyTree


class _Batch(NamedTuple):
    """What is learnt from, `[T, N, ...]`; memories are `[N, K, H]`."""

    observation: PyTree
    starts: PyTree
    action: PyTree
    alive: Bool[Array, "T N A"]
    goal: Float[Array, "T N"]
    weight: Float[Array, "T N"]
    memory: PyTree


class PQNVDN(QLearner):
    """The pure functions of PQN-VDN.

    Args:
        config: the settings.
        team: the agents.
        environment_axis: the device axis over which environments are sharded, if any.
        network_axis: none is supported.
    """

    def __init__(
        self,
        config: PQNVDNConfig,
        team: Team,
        environment_axis: str | None = None,
        network_axis: str | None = None,
    ):
        super().__init__(config, team, "pqn_vdn")
        self.config, self._axis = config, environment_axis

    def init(self, key: Key[Array, ""]) -> PQNState:
        """Fresh networks."""
        networks = self._agents.init(key)
        return PQNState(networks, self._optimizer.init(networks))  # type: ignore[arg-type]

    def carry(self, num_envs: int, experience: AgentsExperience) -> None:
        """Learning carries nothing on."""

    def _networks(self, state: PQNState) -> Networks:
        return state.networks

    def update(
        self,
        state: PQNState,
        experience: AgentsExperience,
        carried: None,
        key: Key[Array, ""],
        progress: Float[Array, ""],
    ) -> tuple[PQNState, None, dict[str, Array]]:
        """Learns from one rollout."""
        config = self.config
        learning_rate = config.rate(progress)
        batch = self._batch(state.networks, experience)
        count = batch.goal.shape[1]
        if count % config.num_minibatches:
            raise InvalidValueError(
                f"num_minibatches={config.num_minibatches} does not divide the {count} sequences of "
                f"a rollout; the nearest that does is {nearest_divisor(count, config.num_minibatches)}."
            )

        def minibatch_step(carry, places):
            networks, optimizer = carry
            gradient, metrics = jax.grad(self._loss, has_aux=True)(networks, _take(batch, places))
            if self._axis is not None:
                gradient = jax.lax.pmean(gradient, self._axis)
            direction, optimizer = self._optimizer.update(gradient, optimizer)
            networks = jax.tree.map(
                lambda leaf, change: leaf - learning_rate * change, networks, direction
            )
            return (networks, optimizer), metrics

        keys = jax.random.split(key, config.num_epochs)
        orders = jax.vmap(lambda epoch_key: permutation(epoch_key, count))(keys)
        orders = orders.reshape(config.num_epochs * config.num_minibatches, -1)
        (networks, optimizer), metrics = jax.lax.scan(minibatch_step, tuple(state), orders)
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics |= {"learning_rate": learning_rate, "epsilon": config.epsilon(progress)}
        return PQNState(networks, optimizer), None, metrics

    def _batch(self, networks: Networks, experience: AgentsExperience) -> _Batch:
        """The rollout with the returns that values are learnt from."""
        agents, layout, seen = self._agents, self.layout, experience.seen
        over = experience.finished | experience.episode_finished[..., None]
        starts = layout.split(jnp.concatenate((jnp.zeros_like(over[:1]), over[:-1])), 2)
        observation = layout.blocks(seen.observation)
        memory = experience.memory
        _, memories = agents.over_time(networks, observation, starts, memory)
        after = layout.blocks(experience.next_observation)
        legal = {} if experience.next_legal is None else layout.blocks(experience.next_legal)
        values = agents.after_one_more(networks, after, memories)
        best = [masked(values[name], legal.get(name)).max(-1) for name in layout.names]
        alive = experience.next_alive
        following = jnp.where(alive, jnp.concatenate(best, -1), 0.0).sum(-1)
        lost = experience.lost
        weight = jnp.ones_like(following) if lost is None else 1.0 - lost.astype(jnp.float32)
        batch = _Batch(
            observation,
            starts,
            agents.indices(experience.action),
            seen.alive,
            self._returns(experience, following),
            weight,
            memory,
        )
        return batch if self._agents.recurrent_size else _as_single_steps(batch)

    def _returns(
        self, experience: AgentsExperience, following: Float[Array, "T N"]
    ) -> Float[Array, "T N"]:
        """Q(lambda) returns of the team (Daley & Amato 2019), exact at truncations."""
        gamma, smoothing = self.config.gamma, self.config.q_lambda
        reward = self.config.reward_scale * experience.reward
        reward = reward[..., 0] if self._team.reward_is_shared else reward.sum(-1)
        following = jnp.where(experience.episode_terminated, 0.0, following)

        def back(later, step):
            reward, following, finished = step
            ahead = jnp.where(finished, following, following + smoothing * (later - following))
            total = reward + gamma * ahead
            return total, total

        steps = reward, following, experience.episode_finished
        _, returns = jax.lax.scan(back, following[-1], steps, reverse=True)
        return returns

    def _loss(self, networks: Networks, batch: _Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        values, _ = self._agents.over_time(networks, batch.observation, batch.starts, batch.memory)
        chosen = [pick(values[name], batch.action[name]) for name in self.layout.names]
        value = jnp.where(batch.alive, jnp.concatenate(chosen, -1), 0.0).sum(-1)
        total = jnp.maximum(batch.weight.sum(), 1.0)
        error = batch.weight * (value - jax.lax.stop_gradient(batch.goal))
        loss = (error**2).sum() / total
        return loss, {"td_loss": loss, "q_value": (batch.weight * value).sum() / total}


def _take(batch: _Batch, places: Array) -> _Batch:
    """Some of the environments."""
    rest = jax.tree.map(lambda leaf: leaf[:, places], batch._replace(memory=None))
    memory = jax.tree.map(lambda leaf: leaf[places], batch.memory)
    return rest._replace(memory=memory)


def _as_single_steps(batch: _Batch) -> _Batch:
    """Every step as a sequence of its own, for networks without a memory."""
    return jax.tree.map(lambda leaf: leaf.reshape(1, -1, *leaf.shape[2:]), batch)


def pqn_vdn(config: PQNVDNConfig, team: Team, **axes: Any) -> PQNVDN:
    """All agents learn from the reward of the team, to whose value each adds its own."""
    return PQNVDN(config, team, **axes)
