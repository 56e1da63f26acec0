"""Parallelised Q-networks with value decomposition: values of actions learnt from fresh experience, with
no replay and no target network; normalised layers keep learning stable.

M. Gallici et al., "Simplifying Deep Temporal Difference Learning" (2024), with the sum of P. Sunehag et
al., "Value-Decomposition Networks For Cooperative Multi-Agent Learning" (2018).

Letters in shapes: T steps, N environments, A agents.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.algorithms.experience import AgentsExperience, AgentsSeen, Team
from kiloworlds.algorithms.minibatches import nearest_divisor
from kiloworlds.algorithms.q_agents import Networks, QAgents, masked, pick
from kiloworlds.core.checks import require_choice, require_flag, require_number, require_sizes
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import permutation
from kiloworlds.networks.mlp import activation


@dataclass(frozen=True)
class PQNVDNConfig:
    """Settings of PQN-VDN."""

    networks: ClassVar[tuple[str, ...]] = ("mlp", "gru")

    num_steps: int = 32
    """Steps each environment takes per update."""
    num_epochs: int = 2
    """Passes over the rollout per update."""
    num_minibatches: int = 4
    """Parts the environments are split into per epoch."""
    learning_rate: float = 5e-4
    """Step size of Adam."""
    anneal_learning_rate: bool = True
    """Whether the learning rate falls linearly to zero over the training."""
    gamma: float = 0.99
    """Discount per step."""
    reward_scale: float = 1.0
    """What rewards are multiplied by. Values far from zero are hard to learn."""
    q_lambda: float = 0.6
    """Smoothing of the returns that values are learnt from: 0 looks one step ahead, 1 to the end."""
    epsilon_start: float = 1.0
    """Share of random actions at the start."""
    epsilon_end: float = 0.05
    """Share of random actions once exploration has fallen."""
    epsilon_fraction: float = 0.2
    """Share of the training over which it falls."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    network: str = "gru"
    """What reads observations: "mlp", hidden layers; "gru", with a memory after them."""
    hidden_sizes: tuple[int, ...] = (128,)
    """Widths of the hidden layers."""
    recurrent_size: int = 128
    """gru: numbers of the memory."""
    activation: str = "relu"
    """Activation of the hidden layers: tanh, relu, elu, gelu or silu."""
    layer_norm: bool = True
    """Whether hidden layers are normalised."""
    shaping_steps: int = 0
    """Environment steps over which the environment's shaped rewards fade out; 0 leaves them out."""

    def __post_init__(self):
        for name in ("num_steps", "num_epochs", "num_minibatches", "recurrent_size"):
            require_number(name, getattr(self, name), 1, whole=True)
        require_number("shaping_steps", self.shaping_steps, 0, 2**53, whole=True)
        for name in ("gamma", "q_lambda", "epsilon_start", "epsilon_end", "epsilon_fraction"):
            require_number(name, getattr(self, name), 0.0, 1.0)
        for name in ("learning_rate", "max_grad_norm", "reward_scale"):
            require_number(name, getattr(self, name), 0.0)
        for name in ("anneal_learning_rate", "layer_norm"):
            require_flag(name, getattr(self, name))
        require_choice("network", self.network, self.networks)
        activation(self.activation)
        object.__setattr__(self, "hidden_sizes", require_sizes("hidden_sizes", self.hidden_sizes))

    def epsilon(self, progress: Any) -> Float[Array, ""]:
        """The share of random actions after a share `progress` of the training."""
        gone = jnp.clip(progress / max(self.epsilon_fraction, 1e-6), 0.0, 1.0)
        return self.epsilon_start + gone * (self.epsilon_end - self.epsilon_start)


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


class PQNVDN:
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
        self.config, self._team, self._axis = config, team, environment_axis
        size = config.recurrent_size if config.network == "gru" else 0
        self._agents = QAgents(
            team, "pqn_vdn", config.hidden_sizes, size, config.activation, config.layer_norm
        )
        self.layout = self._agents.layout
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5)
        )

    def init(self, key: Key[Array, ""]) -> PQNState:
        """Fresh networks."""
        networks = self._agents.init(key)
        return PQNState(networks, self._optimizer.init(networks))  # type: ignore[arg-type]

    def begin(self, num_envs: int) -> dict[str, Any]:
        """The memory before the first step."""
        return self._agents.begin(num_envs)

    def carry(self, num_envs: int, experience: AgentsExperience) -> None:
        """Learning carries nothing on."""

    def policy(self, state: PQNState, progress: Any = None) -> tuple[Networks, Float[Array, ""]]:
        """The networks and the share of random actions."""
        return state.networks, jnp.float32(
            self.config.epsilon(1.0 if progress is None else progress)
        )

    def act(
        self,
        policy: tuple[Networks, Float[Array, ""]],
        key: Key[Array, ""],
        seen: AgentsSeen,
        memory: dict[str, Any],
        greedy: bool = False,
    ) -> tuple[PyTree, None, dict[str, Any]]:
        """Chooses actions for all agents."""
        networks, epsilon = policy
        epsilon = jnp.zeros_like(epsilon) if greedy else epsilon
        actions, memory = self._agents.act(networks, key, seen, memory, epsilon)
        return actions, None, memory

    def settle(self, policy: PyTree, drawn: None) -> None:
        """Nothing is kept of acting."""

    def forget(
        self,
        memory: dict[str, Any],
        finished: Bool[Array, "N A"],
        episode_finished: Bool[Array, " N"],
    ) -> dict[str, Any]:
        """Clears the memory of agents whose own part, or whose episode, is over."""
        return self._agents.forget(memory, finished | episode_finished[:, None])

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
        learning_rate = jnp.float32(config.learning_rate)
        if config.anneal_learning_rate:
            learning_rate = learning_rate * (1.0 - progress)
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
