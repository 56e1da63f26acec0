"""Proximal policy optimisation (Schulman et al. 2017), with the details that matter in practice
(Huang et al., "The 37 implementation details of PPO", 2022).

Letters in shapes: T steps of a rollout, N environments, B transitions of a minibatch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, Key, PyTree, UInt32

from kiloworlds.algorithms.advantages import generalized_advantages
from kiloworlds.algorithms.normalization import RunningStatistics
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import permutation
from kiloworlds.core.spaces import Box, Space
from kiloworlds.networks.action_heads import action_head
from kiloworlds.networks.actor_critic import ActorCritic
from kiloworlds.networks.mlp import activation


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults are those of PureJaxRL and CleanRL for small tasks."""

    num_steps: int = 128
    """Steps each environment takes per update."""
    num_epochs: int = 4
    """Passes over the rollout per update."""
    num_minibatches: int = 4
    """Parts a rollout is split into per epoch."""
    learning_rate: float = 2.5e-4
    """Step size of Adam."""
    anneal_learning_rate: bool = True
    """Whether the learning rate falls linearly to zero over the training."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Smoothing of generalised advantage estimation."""
    clip_range: float = 0.2
    """How far the probability ratio may move before its gradient is cut."""
    clip_range_value: float | None = 0.2
    """How far a value may move per update (None: unclipped)."""
    normalize_advantage: bool = True
    """Whether advantages are standardised per minibatch."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the policy and of the value network."""
    activation: str = "tanh"
    """Activation of the hidden layers: tanh, relu, elu, gelu or silu."""
    normalize_observations: bool = False
    """Whether observations are standardised by running statistics."""
    normalize_rewards: bool = False
    """Whether rewards are divided by the running deviation of discounted returns."""
    initial_log_std: float = 0.0
    """Log standard deviation continuous actions start with, in half ranges of the action space."""

    def __post_init__(self):
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))
        for name in ("num_steps", "num_epochs", "num_minibatches"):
            _require(name, getattr(self, name), 1, np.inf, whole=True)
        for name in ("gamma", "gae_lambda"):
            _require(name, getattr(self, name), 0.0, 1.0)
        for name in (
            "learning_rate",
            "clip_range",
            "entropy_coefficient",
            "value_coefficient",
            "max_grad_norm",
            "adam_epsilon",
        ):
            _require(name, getattr(self, name), 0.0, np.inf)
        if self.clip_range_value is not None:
            _require("clip_range_value", self.clip_range_value, 0.0, np.inf)
        for size in self.hidden_sizes:
            _require("hidden_sizes", size, 1, np.inf, whole=True)
        activation(self.activation)


def _require(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    kinds = int | np.integer if whole else int | float | np.number
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        bounds = f"of {low} or more" if high == np.inf else f"between {low} and {high}"
        nearest = ""
        if isinstance(value, int | float) and np.isfinite(value):
            nearest = f"; the nearest valid value is {min(max(value, low), high):g}"
        raise InvalidValueError(f"{name}={value!r} must be {kind} {bounds}{nearest}.")


_LOSSES = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")


class PPOState(NamedTuple):
    """All that PPO learns. `parameters` is the network as one vector: the optimiser's element-wise
    work is then one kernel instead of one per layer, which on small networks takes half the time."""

    parameters: Float[Array, " parameters"]
    optimizer: optax.OptState
    observations: RunningStatistics | None
    returns: RunningStatistics | None


class Rollout(NamedTuple):
    """T steps of N environments, axes `[T, N, ...]`.

    `next_observation` is what each step led to, the final observation included where an episode
    ended. `raw_action` is the action as drawn, before it is mapped into the action space.
    """

    observation: PyTree
    raw_action: Array
    log_prob: Float[Array, "T N"]
    reward: Float[Array, "T N"]
    terminated: Bool[Array, "T N"]
    finished: Bool[Array, "T N"]
    next_observation: PyTree


class Minibatch(NamedTuple):
    observation: PyTree
    raw_action: Array
    log_prob: Float[Array, " B"]
    value: Float[Array, " B"]
    advantage: Float[Array, " B"]
    target: Float[Array, " B"]


class PPO:
    """The pure functions of PPO for one pair of spaces and one configuration.

    Args:
        config: the settings.
        observation_space, action_space: of one environment.
        axis_name: the device axis over which environments are sharded, if any; gradients and
            statistics are then averaged over it.
    """

    def __init__(
        self,
        config: PPOConfig,
        observation_space: Space,
        action_space: Space,
        axis_name: str | None = None,
    ):
        self.config = config
        self.observation_space = observation_space
        self.head = action_head(action_space)
        self.axis_name = axis_name
        self._optimizer = optax.scale_by_adam(eps=config.adam_epsilon)
        network = jax.eval_shape(self._network, jax.random.key(0))
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), network)
        _, self.unravel = ravel_pytree(blank)
        if config.normalize_observations and not isinstance(observation_space, Box):
            raise InvalidValueError(
                f"normalize_observations needs a Box observation space, not {observation_space}."
            )

    def _network(self, key: Key[Array, ""]) -> ActorCritic:
        return ActorCritic(
            key,
            self.observation_space,
            self.head,
            self.config.hidden_sizes,
            self.config.activation,
            self.config.initial_log_std,
        )

    def init(self, key: Key[Array, ""]) -> PPOState:
        """A fresh network, optimiser and statistics."""
        parameters, _ = ravel_pytree(self._network(key))
        observations = returns = None
        if isinstance(self.observation_space, Box) and self.config.normalize_observations:
            observations = RunningStatistics.of_shape(jnp.zeros(self.observation_space.shape))
        if self.config.normalize_rewards:
            returns = RunningStatistics.of_shape(jnp.zeros(()))
        return PPOState(parameters, self._optimizer.init(parameters), observations, returns)

    def policy(self, state: PPOState) -> tuple[ActorCritic, RunningStatistics | None]:
        """What acting needs: the network and the observation statistics."""
        return self.unravel(state.parameters), state.observations

    def _read(self, statistics: RunningStatistics | None, observation: PyTree) -> PyTree:
        return observation if statistics is None else statistics.normalize(observation)

    def act(
        self, policy: tuple[ActorCritic, RunningStatistics | None], key: Key[Array, ""], observation
    ) -> tuple[Array, Float[Array, "*B"]]:
        """Samples raw actions; returns them with their log-probability."""
        network, statistics = policy
        outputs = network.actor(self._read(statistics, observation))
        raw = self.head.sample(key, outputs, network.free)
        log_prob, _ = self.head.log_prob_and_entropy(outputs, network.free, raw)
        return raw, log_prob

    def act_greedily(
        self, policy: tuple[ActorCritic, RunningStatistics | None], observation: PyTree
    ) -> Array:
        """The most likely raw actions."""
        network, statistics = policy
        return self.head.mode(network.actor(self._read(statistics, observation)))

    def update(
        self,
        state: PPOState,
        rollout: Rollout,
        return_so_far: Float[Array, " N"],
        key: Key[Array, ""],
        learning_rate: Float[ArrayLike, ""],
    ) -> tuple[PPOState, Float[Array, " N"], dict[str, Array]]:
        """Learns from one rollout.

        Args:
            return_so_far: each environment's discounted return up to the rollout, which reward
                normalisation carries on; zeros at the start.
            learning_rate: the step size of this update.

        Returns:
            The new state, the new `return_so_far`, and metrics (scalars).
        """
        config = self.config
        network, statistics = self.policy(state)
        # Merged now but used from the next rollout on: within one update the policy must see what
        # it saw when it acted.
        merged = statistics and statistics.update(rollout.observation, self.axis_name)
        rollout = rollout._replace(
            observation=self._read(statistics, rollout.observation),
            next_observation=self._read(statistics, rollout.next_observation),
        )
        rewards, returns, return_so_far = self._scale_rewards(state, rollout, return_so_far)
        values = network.value(rollout.observation)
        advantages = generalized_advantages(
            rewards,
            values,
            self._next_values(network, rollout, values),
            rollout.terminated,
            rollout.finished,
            config.gamma,
            config.gae_lambda,
        )
        batch = Minibatch(
            rollout.observation,
            rollout.raw_action,
            rollout.log_prob,
            values,
            advantages,
            advantages + values,
        )
        parameters, optimizer, losses = self._learn(state, batch, key, learning_rate)
        metrics = {**losses, "explained_variance": self._explained_variance(values, batch.target)}
        return PPOState(parameters, optimizer, merged, returns), return_so_far, metrics

    def _scale_rewards(
        self, state: PPOState, rollout: Rollout, return_so_far: Float[Array, " N"]
    ) -> tuple[Float[Array, "T N"], RunningStatistics | None, Float[Array, " N"]]:
        """Divides rewards by the running deviation of discounted returns (Engstrom et al. 2020)."""
        if state.returns is None:
            return rollout.reward, None, return_so_far

        def accumulate(total, step):
            reward, finished = step
            total = self.config.gamma * total + reward
            return jnp.where(finished, 0.0, total), total

        return_so_far, totals = jax.lax.scan(
            accumulate, return_so_far, (rollout.reward, rollout.finished)
        )
        returns = state.returns.update(totals, self.axis_name)
        scaled = rollout.reward * jax.lax.rsqrt(returns.variance + 1e-8)
        return jnp.clip(scaled, -10.0, 10.0), returns, return_so_far

    def _next_values(
        self, network: ActorCritic, rollout: Rollout, values: Float[Array, "T N"]
    ) -> Float[Array, "T N"]:
        """The value of what each step led to.

        Within an episode that is the next row of `values`. The network is asked again only for the
        last row and, if any episode was truncated, for its final observation.
        """
        last = network.value(jax.tree.map(lambda leaf: leaf[-1], rollout.next_observation))
        shifted = jnp.concatenate([values[1:], last[None]])
        truncated = rollout.finished & ~rollout.terminated
        return jax.lax.cond(
            truncated.any(),
            lambda: jnp.where(truncated, network.value(rollout.next_observation), shifted),
            lambda: shifted,
        )

    def _learn(
        self,
        state: PPOState,
        batch: Minibatch,
        key: Key[Array, ""],
        learning_rate: Float[ArrayLike, ""],
    ) -> tuple[Float[Array, " parameters"], optax.OptState, dict[str, Array]]:
        """Epochs of minibatch steps over a batch with axes `[T, N, ...]`."""
        config = self.config
        size = batch.value.size
        if size % config.num_minibatches:
            raise InvalidValueError(
                f"num_minibatches={config.num_minibatches} does not divide the {size} transitions of "
                f"a rollout; the nearest that does is {_nearest_divisor(size, config.num_minibatches)}."
            )
        flat = jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), batch)
        rows, unpack = _pack(flat)

        def minibatch_step(carry, indices):
            parameters, optimizer = carry
            minibatch = unpack(rows[indices])
            gradients, losses = jax.grad(self._loss, has_aux=True)(
                self.unravel(parameters), minibatch
            )
            gradient, _ = ravel_pytree(gradients)
            if self.axis_name is not None:
                gradient = jax.lax.pmean(gradient, self.axis_name)
            norm = jnp.linalg.norm(gradient)
            gradient = gradient * jnp.minimum(1.0, config.max_grad_norm / (norm + 1e-6))
            direction, optimizer = self._optimizer.update(gradient, optimizer)
            direction = cast("Array", direction)
            return (parameters - jnp.asarray(learning_rate) * direction, optimizer), losses

        def epoch(carry, epoch_key):
            order = permutation(epoch_key, size).reshape(config.num_minibatches, -1)
            return jax.lax.scan(minibatch_step, carry, order)

        keys = jax.random.split(key, config.num_epochs)
        (parameters, optimizer), losses = jax.lax.scan(
            epoch, (state.parameters, state.optimizer), keys
        )
        return parameters, optimizer, dict(zip(_LOSSES, losses.mean((0, 1)), strict=True))

    def _loss(
        self, network: ActorCritic, batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        config = self.config
        outputs = network.actor(batch.observation)
        log_prob, entropy = self.head.log_prob_and_entropy(outputs, network.free, batch.raw_action)
        log_ratio = log_prob - batch.log_prob
        ratio = jnp.exp(log_ratio)
        advantage = self._standardize(batch.advantage)
        clipped = jnp.clip(ratio, 1 - config.clip_range, 1 + config.clip_range)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()

        value = network.value(batch.observation)
        squared_error = (value - batch.target) ** 2
        if config.clip_range_value is not None:
            limit = config.clip_range_value
            near = batch.value + jnp.clip(value - batch.value, -limit, limit)
            squared_error = jnp.maximum(squared_error, (near - batch.target) ** 2)
        value_loss = 0.5 * squared_error.mean()

        loss = (
            policy_loss
            + config.value_coefficient * value_loss
            - config.entropy_coefficient * entropy.mean()
        )
        # One reduction for all: on small networks every kernel counts.
        metrics = jnp.stack(
            [
                -jnp.minimum(ratio * advantage, clipped * advantage),
                0.5 * squared_error,
                -entropy,
                # The low-variance estimator k3 of J. Schulman, "Approximating KL divergence" (2020).
                ratio - 1 - log_ratio,
                (jnp.abs(ratio - 1) > config.clip_range).astype(ratio.dtype),
            ]
        ).mean(-1)
        return loss, metrics

    def _standardize(self, advantage: Float[Array, " B"]) -> Float[Array, " B"]:
        if not self.config.normalize_advantage:
            return advantage
        mean, square = advantage.mean(), (advantage**2).mean()
        if self.axis_name is not None:
            mean, square = jax.lax.pmean((mean, square), self.axis_name)
        return (advantage - mean) / (jnp.sqrt(jnp.maximum(square - mean**2, 0.0)) + 1e-8)

    def _explained_variance(
        self, values: Float[Array, "T N"], targets: Float[Array, "T N"]
    ) -> Float[Array, ""]:
        """Share of the variance of the value targets that the values predict."""
        return 1 - (targets - values).var() / (targets.var() + 1e-8)


def _nearest_divisor(size: int, wanted: int) -> int:
    divisors = [number for number in range(1, size + 1) if size % number == 0]
    return min(divisors, key=lambda number: abs(number - wanted))


def _pack(tree: PyTree) -> tuple[UInt32[Array, "B columns"], Callable]:
    """Lays arrays `[B, ...]` of 32-bit numbers side by side as the words of one matrix.

    Picking rows of it is then one kernel instead of one per array.

    Returns:
        The matrix, and the function that takes rows of it apart again.
    """
    leaves, structure = jax.tree.flatten(tree)
    words = [
        jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(leaf.shape[0], -1) for leaf in leaves
    ]
    ends = np.cumsum([word.shape[1] for word in words]).tolist()

    def unpack(rows):
        parts = []
        for leaf, word, end in zip(leaves, words, ends, strict=True):
            part = rows[:, end - word.shape[1] : end].reshape(-1, *leaf.shape[1:])
            parts.append(jax.lax.bitcast_convert_type(part, leaf.dtype))
        return structure.unflatten(parts)

    return jnp.concatenate(words, axis=1), unpack
