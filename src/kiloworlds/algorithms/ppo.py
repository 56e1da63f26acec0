"""Proximal policy optimisation (Schulman et al. 2017), with the details that matter in practice
(Huang et al., "The 37 implementation details of PPO", 2022).

Letters in shapes: T steps of a rollout, N environments, B transitions of a minibatch.
"""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Key, PyTree, UInt32

from kiloworlds.algorithms.advantages import generalized_advantages
from kiloworlds.algorithms.normalization import RunningStatistics, mean_over_devices
from kiloworlds.core.checks import require_choice, require_flag, require_number
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import permutation
from kiloworlds.core.spaces import Box, Space
from kiloworlds.networks import cnn
from kiloworlds.networks.action_heads import action_head
from kiloworlds.networks.actor_critic import Actor, Critic, ImageActorCritic
from kiloworlds.networks.mlp import activation
from kiloworlds.networks.rows import NetworkRows

NETWORKS = ("auto", "mlp", "cnn")


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
    network: str = "auto"
    """What reads observations: "mlp", two networks of hidden layers; "cnn", convolutions that policy
    and value function share (Mnih et al. 2015); or "auto": cnn for images of uint8, else mlp."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """mlp: widths of the hidden layers of the policy and of the value network."""
    activation: str = "tanh"
    """mlp: activation of the hidden layers: tanh, relu, elu, gelu or silu."""
    cnn_channels: tuple[int, ...] = (32, 64, 64)
    """cnn: channels of the three convolutions."""
    cnn_features: int = 512
    """cnn: width of the dense layer after the convolutions."""
    normalize_observations: bool = False
    """Whether observations are standardised by running statistics."""
    normalize_rewards: bool = False
    """Whether rewards are divided by the running deviation of discounted returns."""
    initial_log_std: float = 0.0
    """Log standard deviation continuous actions start with, in half ranges of the action space."""

    def __post_init__(self):
        for name in ("num_steps", "num_epochs", "num_minibatches"):
            require_number(name, getattr(self, name), 1, whole=True)
        for name in ("gamma", "gae_lambda"):
            require_number(name, getattr(self, name), 0.0, 1.0)
        for name in (
            "learning_rate",
            "clip_range",
            "entropy_coefficient",
            "value_coefficient",
            "max_grad_norm",
            "adam_epsilon",
        ):
            require_number(name, getattr(self, name), 0.0)
        if self.clip_range_value is not None:
            require_number("clip_range_value", self.clip_range_value, 0.0)
        require_number("initial_log_std", self.initial_log_std, -20.0, 20.0)
        for name in (
            "anneal_learning_rate",
            "normalize_advantage",
            "normalize_observations",
            "normalize_rewards",
        ):
            require_flag(name, getattr(self, name))
        self._check_sizes("hidden_sizes", "(64, 64)")
        self._check_sizes("cnn_channels", "(32, 64, 64)")
        if len(self.cnn_channels) != 3:
            raise InvalidValueError(
                f"cnn_channels={self.cnn_channels} has {len(self.cnn_channels)} entries; the network "
                "has three convolutions, so give three, such as (32, 64, 64)."
            )
        require_number("cnn_features", self.cnn_features, 1, whole=True)
        require_choice("network", self.network, NETWORKS)
        if not isinstance(self.activation, str):
            given = reprlib.repr(self.activation)
            raise InvalidValueError(f"activation={given} must be a name, such as 'tanh'.")
        activation(self.activation)

    def _check_sizes(self, name: str, example: str) -> None:
        sizes = getattr(self, name)
        if not isinstance(sizes, list | tuple):
            raise InvalidValueError(
                f"{name}={reprlib.repr(sizes)} must be a tuple of whole numbers, one per layer, such "
                f"as {example}."
            )
        object.__setattr__(self, name, tuple(sizes))
        for size in sizes:
            require_number(name, size, 1, whole=True)


_POLICY_LOSSES = ("policy_gradient_loss", "entropy_loss", "approx_kl", "clip_fraction")
_VALUE_LOSSES = ("value_loss",)

_POLICY, _VALUE = 0, 1  # rows of the parameters


class PPOState(NamedTuple):
    """All that PPO learns; the rows of `parameters` are the policy's and the value function's, or the
    one row of a network that is both."""

    parameters: Float[Array, "networks width"]
    optimizer: optax.ScaleByAdamState
    observations: RunningStatistics | None
    returns: RunningStatistics | None


class Rollout(NamedTuple):
    """T steps of N environments, axes `[T, N, ...]`.

    `next_observation` is what each step led to, the final observation included where an episode
    ended. `raw_action` is the action as drawn, before it is mapped into the action space. Steps that
    are not `valid` are not learnt from: their environment was lost in them. None: all are valid.
    """

    observation: PyTree
    raw_action: Array
    log_prob: Float[Array, "T N"]
    reward: Float[Array, "T N"]
    terminated: Bool[Array, "T N"]
    finished: Bool[Array, "T N"]
    next_observation: PyTree
    valid: Bool[Array, "T N"] | None = None


class Minibatch(NamedTuple):
    observation: PyTree
    raw_action: Array
    log_prob: Float[Array, " B"]
    value: Float[Array, " B"]
    advantage: Float[Array, " B"]
    target: Float[Array, " B"]
    weight: Float[Array, " B"] | None = None
    """1 for transitions to learn from, 0 for others; None: all are."""


PolicyNetwork = tuple[Actor | ImageActorCritic, RunningStatistics | None]
ValueFunction = Callable[[PyTree], Float[Array, "*B"]]


class PPO:
    """The pure functions of PPO for one pair of spaces and one configuration.

    Args:
        config: the settings.
        observation_space, action_space: of one environment.
        environment_axis: the device axis over which environments are sharded, if any; gradients and
            statistics are then averaged over it.
        network_axis: a device axis of two, if any: one device learns the policy, the other the
            value function. Everything else happens on both alike, and the result is that of one
            device up to rounding. A convolutional network, which is both, is learnt on both alike.
    """

    def __init__(
        self,
        config: PPOConfig,
        observation_space: Space,
        action_space: Space,
        environment_axis: str | None = None,
        network_axis: str | None = None,
    ):
        self.config = config
        self.observation_space = observation_space
        self.head = action_head(action_space)
        self.environment_axis = environment_axis
        self.shares_network = config.network == "cnn" or (
            config.network == "auto" and cnn.fits(observation_space)
        )
        self.network_axis = None if self.shares_network else network_axis
        self._optimizer = optax.scale_by_adam(eps=config.adam_epsilon)
        self._rows = NetworkRows(*jax.eval_shape(self._networks, jax.random.key(0)))
        if config.normalize_observations and not isinstance(observation_space, Box):
            raise InvalidValueError(
                f"normalize_observations needs a Box observation space, not {observation_space}."
            )
        if config.normalize_observations and self.shares_network:
            raise InvalidValueError(
                "normalize_observations=True: the convolutional network scales images itself; leave it "
                "out, or use network='mlp'."
            )

    def _networks(self, key: Key[Array, ""]) -> tuple[Actor, Critic] | tuple[ImageActorCritic]:
        config = self.config
        if self.shares_network:
            sizes = config.cnn_channels, config.cnn_features
            space = self.observation_space
            return (ImageActorCritic(key, space, self.head, *sizes, config.initial_log_std),)
        actor_key, critic_key = jax.random.split(key)
        shape = config.hidden_sizes, config.activation
        return (
            Actor(actor_key, self.observation_space, self.head, *shape, config.initial_log_std),
            Critic(critic_key, self.observation_space, *shape),
        )

    def init(self, key: Key[Array, ""]) -> PPOState:
        """Fresh networks, optimiser and statistics."""
        parameters = self._rows.pack(*self._networks(key))
        optimizer = self._optimizer.init(parameters)
        assert isinstance(optimizer, optax.ScaleByAdamState)
        observations = returns = None
        if isinstance(self.observation_space, Box) and self.config.normalize_observations:
            observations = RunningStatistics.of_shape(jnp.zeros(self.observation_space.shape))
        if self.config.normalize_rewards:
            returns = RunningStatistics.of_shape(jnp.zeros(()))
        return PPOState(parameters, optimizer, observations, returns)

    def policy(self, state: PPOState) -> PolicyNetwork:
        """What acting needs: the policy's network and the observation statistics."""
        return self._rows.unpack(_POLICY, state.parameters[_POLICY]), state.observations

    def critic(self, state: PPOState) -> ValueFunction:
        """The value function; it reads observations as the policy does: standardised."""
        if self.shares_network:
            return self._rows.unpack(_POLICY, state.parameters[_POLICY]).value
        return self._rows.unpack(_VALUE, state.parameters[_VALUE])

    def _read(self, statistics: RunningStatistics | None, observation: PyTree) -> PyTree:
        return observation if statistics is None else statistics.normalize(observation)

    def act(
        self, policy: PolicyNetwork, key: Key[Array, ""], observation: PyTree
    ) -> tuple[Array, Float[Array, "*B outputs"]]:
        """Samples raw actions; returns them with the network's outputs, for `log_prob`."""
        actor, statistics = policy
        outputs = actor.outputs(self._read(statistics, observation))
        return self.head.sample(key, outputs, actor.free), outputs

    def log_prob(
        self,
        policy: PolicyNetwork,
        outputs: Float[Array, "*B outputs"],
        raw: Array,
    ) -> Float[Array, "*B"]:
        """Log-probability of raw actions `act` drew. Once for a whole rollout is faster than in
        every step of it."""
        actor, _ = policy
        return self.head.log_prob_and_entropy(outputs, actor.free, raw)[0]

    def act_greedily(self, policy: PolicyNetwork, observation: PyTree) -> Array:
        """The most likely raw actions."""
        actor, statistics = policy
        return self.head.mode(actor.outputs(self._read(statistics, observation)))

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
        statistics = state.observations
        critic = self.critic(state)
        # Merged now but used from the next rollout on: within one update the policy must see what
        # it saw when it acted.
        merged = statistics and statistics.update(rollout.observation, self.environment_axis)
        rollout = rollout._replace(
            observation=self._read(statistics, rollout.observation),
            next_observation=self._read(statistics, rollout.next_observation),
        )
        rewards, returns, return_so_far = self._scale_rewards(state, rollout, return_so_far)
        values = critic(rollout.observation)
        advantages = generalized_advantages(
            rewards,
            values,
            self._next_values(critic, rollout, values),
            rollout.terminated,
            rollout.finished,
            config.gamma,
            config.gae_lambda,
            rollout.valid,
        )
        batch = Minibatch(
            rollout.observation,
            rollout.raw_action,
            rollout.log_prob,
            values,
            advantages,
            advantages + values,
            None if rollout.valid is None else rollout.valid.astype(jnp.float32),
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
        returns = state.returns.update(totals, self.environment_axis)
        scaled = rollout.reward * jax.lax.rsqrt(returns.variance + 1e-8)
        return jnp.clip(scaled, -10.0, 10.0), returns, return_so_far

    def _next_values(
        self, critic: ValueFunction, rollout: Rollout, values: Float[Array, "T N"]
    ) -> Float[Array, "T N"]:
        """The value of what each step led to.

        Within an episode that is the next row of `values`. The network is asked again only for the
        last row and for final observations of truncated episodes: of one per environment, or of all
        steps in the rare rollout that truncates an environment twice.
        """
        following = rollout.next_observation
        truncated = rollout.finished & ~rollout.terminated
        step, environment = jnp.argmax(truncated, axis=0), jnp.arange(truncated.shape[1])
        last, final = critic(
            jax.tree.map(lambda leaf: jnp.stack((leaf[-1], leaf[step, environment])), following)
        )
        shifted = jnp.concatenate([values[1:], last[None]])
        return jax.lax.cond(
            jnp.any(truncated.sum(0) > 1),
            lambda: jnp.where(truncated, critic(following), shifted),
            lambda: jnp.where(truncated, final, shifted),
        )

    def _learn(
        self,
        state: PPOState,
        batch: Minibatch,
        key: Key[Array, ""],
        learning_rate: Float[ArrayLike, ""],
    ) -> tuple[Float[Array, "networks width"], optax.ScaleByAdamState, dict[str, Array]]:
        """Epochs of minibatch steps over a batch with axes `[T, N, ...]`."""
        config = self.config
        size = batch.value.size
        if size % config.num_minibatches:
            raise InvalidValueError(
                f"num_minibatches={config.num_minibatches} does not divide the {size} transitions of "
                f"a rollout; the nearest that does is {_nearest_divisor(size, config.num_minibatches)}."
            )
        flat = jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), batch)
        take = _row_taker(flat)

        def minibatch_step(carry, minibatch):
            parameters, optimizer = carry
            gradient, losses = self._gradient(parameters, minibatch)
            direction, optimizer = self._optimizer.update(self._clip(gradient), optimizer)
            return (
                parameters - jnp.asarray(learning_rate) * jnp.asarray(direction),
                optimizer,
            ), losses

        def epoch(carry, order):
            # All minibatches of the epoch at once: many small kernels less in the inner loop.
            minibatches = take(order)
            advantage = self._standardize(minibatches.advantage, minibatches.weight)
            minibatches = minibatches._replace(advantage=advantage)
            return jax.lax.scan(minibatch_step, carry, minibatches)

        keys = jax.random.split(key, config.num_epochs)
        orders = jax.vmap(lambda epoch_key: permutation(epoch_key, size))(keys)
        orders = orders.reshape(config.num_epochs, config.num_minibatches, -1)
        mine = self._take_network((state.parameters, state.optimizer))
        learnt, losses = jax.lax.scan(epoch, mine, orders)
        parameters, optimizer = self._put_networks_together(learnt)
        losses = losses.mean((0, 1))
        if self.network_axis is not None:
            losses = jax.lax.psum(losses, self.network_axis)
        return parameters, optimizer, dict(zip(_POLICY_LOSSES + _VALUE_LOSSES, losses, strict=True))

    def _take_network(self, rows: PyTree) -> PyTree:
        """The rows of the networks that this device learns: with no network axis, both."""
        if self.network_axis is None:
            return rows
        index = jax.lax.axis_index(self.network_axis)
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1) if leaf.ndim else leaf, rows
        )

    def _put_networks_together(self, rows: PyTree) -> PyTree:
        """Undoes `_take_network`: every device then has the rows of both networks."""
        axis = self.network_axis
        if axis is None:
            return rows
        return jax.tree.map(
            lambda leaf: jax.lax.all_gather(leaf, axis, tiled=True) if leaf.ndim else leaf, rows
        )

    def _gradient(
        self, rows: Float[Array, "networks width"], batch: Minibatch
    ) -> tuple[Float[Array, "networks width"], Float[Array, " losses"]]:
        """The gradient of this device's networks, and the losses, of which others are zero."""
        policy = jax.grad(self._policy_loss, has_aux=True)
        value = jax.grad(self._value_loss, has_aux=True)
        if self.shares_network:
            gradient, losses = jax.grad(self._shared_loss, has_aux=True)(rows[0], batch)
            gradient = gradient[None]
        elif self.network_axis is not None:
            index = jax.lax.axis_index(self.network_axis)
            gradient, losses = jax.lax.switch(index, (policy, value), rows[0], batch)
            gradient = gradient[None]
        else:
            policy_gradient, policy_losses = policy(rows[_POLICY], batch)
            value_gradient, value_losses = value(rows[_VALUE], batch)
            gradient = jnp.stack((policy_gradient, value_gradient))
            losses = policy_losses + value_losses
        if self.environment_axis is not None:
            gradient = jax.lax.pmean(gradient, self.environment_axis)
        return gradient, losses

    def _clip(self, gradient: Float[Array, "networks width"]) -> Float[Array, "networks width"]:
        """Scales the gradient down to the largest norm allowed for both networks together."""
        square = (gradient**2).sum(-1).sum()
        if self.network_axis is not None:
            square = jax.lax.psum(square, self.network_axis)
        return gradient * jnp.minimum(1.0, self.config.max_grad_norm / (jnp.sqrt(square) + 1e-6))

    def _policy_loss(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        actor = self._rows.unpack(_POLICY, row)
        return self._loss_of_outputs(actor.outputs(batch.observation), actor.free, batch)

    def _loss_of_outputs(
        self, outputs: Float[Array, "B outputs"], free: Float[Array, " free"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        config = self.config
        log_prob, entropy = self.head.log_prob_and_entropy(outputs, free, batch.raw_action)
        log_ratio = log_prob - batch.log_prob
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1 - config.clip_range, 1 + config.clip_range)
        loss = -jnp.minimum(ratio * batch.advantage, clipped * batch.advantage)
        metrics = [
            loss,
            -entropy,
            # The low-variance estimator k3 of J. Schulman, "Approximating KL divergence" (2020).
            ratio - 1 - log_ratio,
            (jnp.abs(ratio - 1) > config.clip_range).astype(ratio.dtype),
        ]
        # One reduction for all: on small networks every kernel counts.
        means = _weighted_mean(jnp.stack(metrics), batch.weight)
        losses = jnp.pad(means, (0, len(_VALUE_LOSSES)))
        loss = loss - config.entropy_coefficient * entropy
        return _weighted_mean(loss, batch.weight), losses

    def _value_loss(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        value = self._rows.unpack(_VALUE, row)(batch.observation)
        return self._loss_of_values(value, batch)

    def _loss_of_values(
        self, value: Float[Array, " B"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        config = self.config
        squared_error = (value - batch.target) ** 2
        if config.clip_range_value is not None:
            limit = config.clip_range_value
            near = batch.value + jnp.clip(value - batch.value, -limit, limit)
            squared_error = jnp.maximum(squared_error, (near - batch.target) ** 2)
        loss = 0.5 * _weighted_mean(squared_error, batch.weight)
        return config.value_coefficient * loss, jnp.pad(loss[None], (len(_POLICY_LOSSES), 0))

    def _shared_loss(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        """Of a network that is policy and value function: its images are read once for both."""
        network = self._rows.unpack(_POLICY, row)
        outputs, value = network.outputs_and_value(batch.observation)
        policy_loss, policy_losses = self._loss_of_outputs(outputs, network.free, batch)
        value_loss, value_losses = self._loss_of_values(value, batch)
        return policy_loss + value_loss, policy_losses + value_losses

    def _standardize(
        self, advantage: Float[Array, "M B"], weight: Float[Array, "M B"] | None = None
    ) -> Float[Array, "M B"]:
        """Zero mean and unit deviation within each of M minibatches."""
        if not self.config.normalize_advantage:
            return advantage

        def mean(values):
            return mean_over_devices(values, -1, self.environment_axis, weight)[:, None]

        centred = advantage - mean(advantage)
        return centred / (jnp.sqrt(mean(centred**2)) + 1e-8)

    def _explained_variance(
        self, values: Float[Array, "T N"], targets: Float[Array, "T N"]
    ) -> Float[Array, ""]:
        """Share of the variance of the value targets that the values predict."""
        return 1 - (targets - values).var() / (targets.var() + 1e-8)


def _weighted_mean(
    values: Float[Array, "*K B"], weight: Float[Array, " B"] | None
) -> Float[Array, "*K"]:
    return mean_over_devices(values, -1, None, weight)


def _nearest_divisor(size: int, wanted: int) -> int:
    divisors = [number for number in range(1, size + 1) if size % number == 0]
    return min(divisors, key=lambda number: abs(number - wanted))


def _row_taker(tree: PyTree) -> Callable[[UInt32[Array, "*M"]], PyTree]:
    """A function that takes rows `[*M, ...]` of all arrays `[B, ...]` of a pytree.

    Arrays of 32-bit numbers are laid side by side as the words of one matrix: picking rows of it is
    then one kernel instead of one per array.
    """
    leaves, structure = jax.tree.flatten(tree)
    words = {
        index: jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(leaf.shape[0], -1)
        for index, leaf in enumerate(leaves)
        if leaf.dtype.itemsize == 4
    }
    matrix = jnp.concatenate(list(words.values()), axis=1)
    ends = np.cumsum([word.shape[1] for word in words.values()]).tolist()
    columns = {
        index: slice(end - words[index].shape[1], end)
        for index, end in zip(words, ends, strict=True)
    }

    def take(order):
        rows = matrix[order]
        parts = []
        for index, leaf in enumerate(leaves):
            if index not in columns:
                parts.append(leaf[order])
                continue
            part = rows[..., columns[index]].reshape(*order.shape, *leaf.shape[1:])
            parts.append(jax.lax.bitcast_convert_type(part, leaf.dtype))
        return structure.unflatten(parts)

    return take
