"""Proximal policy optimisation (Schulman et al. 2017), with the details that matter in practice
(Huang et al., "The 37 implementation details of PPO", 2022).

Letters in shapes: T steps of a rollout, N environments, B transitions of a minibatch.
"""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Key, PyTree

from kiloworlds.algorithms.advantages import generalized_advantages
from kiloworlds.algorithms.minibatches import nearest_divisor, row_taker
from kiloworlds.algorithms.normalization import RunningStatistics, mean_over_devices
from kiloworlds.core.checks import require_choice, require_flag, require_number, require_sizes
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import permutation
from kiloworlds.core.spaces import Box, Space
from kiloworlds.networks import cnn
from kiloworlds.networks.action_heads import action_head
from kiloworlds.networks.actor_critic import Actor, Critic, ImageActorCritic
from kiloworlds.networks.initializers import built_together
from kiloworlds.networks.mlp import activation
from kiloworlds.networks.recurrent import (
    Memory,
    RecurrentActor,
    RecurrentActorCritic,
    RecurrentCritic,
)
from kiloworlds.networks.rows import NetworkRows


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults are those of PureJaxRL and CleanRL for small tasks."""

    networks: ClassVar[tuple[str, ...]] = ("auto", "mlp", "cnn")

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
        for name, example in (("hidden_sizes", "(64, 64)"), ("cnn_channels", "(32, 64, 64)")):
            object.__setattr__(self, name, require_sizes(name, getattr(self, name), example))
        if len(self.cnn_channels) != 3:
            raise InvalidValueError(
                f"cnn_channels={self.cnn_channels} has {len(self.cnn_channels)} entries; the network "
                "has three convolutions, so give three, such as (32, 64, 64)."
            )
        require_number("cnn_features", self.cnn_features, 1, whole=True)
        require_choice("network", self.network, self.networks)
        if not isinstance(self.activation, str):
            given = reprlib.repr(self.activation)
            raise InvalidValueError(f"activation={given} must be a name, such as 'tanh'.")
        activation(self.activation)


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

    Where they are given: `legal` are the actions that could be chosen `[T, N, n]`; the policy learns
    from those steps only whose action it `chose`; the value function sees `critic_observation`
    (and `next_critic_observation`) in place of the policy's; `memory` and `critic_memory` are those
    of recurrent networks before the first step, `[N, H]`.
    """

    observation: PyTree
    raw_action: Array
    log_prob: Float[Array, "T N"]
    reward: Float[Array, "T N"]
    terminated: Bool[Array, "T N"]
    finished: Bool[Array, "T N"]
    next_observation: PyTree
    valid: Bool[Array, "T N"] | None = None
    legal: Bool[Array, "T N n"] | None = None
    chose: Bool[Array, "T N"] | None = None
    critic_observation: PyTree | None = None
    next_critic_observation: PyTree | None = None
    memory: Float[Array, "N H"] | None = None
    critic_memory: Float[Array, "N H"] | None = None


class Minibatch(NamedTuple):
    """Rows to learn from: B transitions, or of recurrent networks B sequences `[B, T, ...]`."""

    observation: PyTree
    raw_action: Array
    log_prob: Float[Array, " *B"]
    value: Float[Array, " *B"]
    advantage: Float[Array, " *B"]
    target: Float[Array, " *B"]
    weight: Float[Array, " *B"] | None = None
    """1 for transitions to learn from, 0 for others; None: all are."""
    policy_weight: Float[Array, " *B"] | None = None
    """The same for the policy, which learns from its own choices only; None: as `weight`."""
    legal: Bool[Array, "*B n"] | None = None
    critic_observation: PyTree | None = None
    starts: Bool[Array, "B T"] | None = None
    memory: Float[Array, "B H"] | None = None
    critic_memory: Float[Array, "B H"] | None = None


class Carried(NamedTuple):
    """What goes on from one rollout into the next, of each environment."""

    return_so_far: Float[Array, " N"]
    critic_memory: Float[Array, "N H"] | None


Policy = Actor | ImageActorCritic | RecurrentActor | RecurrentActorCritic
PolicyNetwork = tuple[Policy, RunningStatistics | None]
ValueFunction = Callable[[PyTree], Float[Array, "*B"]]

_ILLEGAL = -1e9
"""The logit of an action that may not be chosen: its probability is 0 in float32."""


class PPO:
    """The pure functions of PPO for one pair of spaces and one configuration.

    Args:
        config: the settings.
        observation_space, action_space: of one environment.
        critic_space: what the value function sees, if not the same as the policy.
        recurrent_size: numbers of the memory of recurrent networks; 0 for networks without one.
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
        critic_space: Space | None = None,
        recurrent_size: int = 0,
    ):
        self.config = config
        self.observation_space = observation_space
        self.critic_space = observation_space if critic_space is None else critic_space
        self.head = action_head(action_space)
        self.environment_axis = environment_axis
        self.recurrent_size = recurrent_size
        convolves = config.network == "cnn" or (
            config.network == "auto" and cnn.fits(observation_space)
        )
        self.shares_network = critic_space is None and (convolves or recurrent_size > 0)
        self.network_axis = None if self.shares_network else network_axis
        self._optimizer = optax.scale_by_adam(eps=config.adam_epsilon)
        self._rows = NetworkRows(*jax.eval_shape(self._networks, jax.random.key(0)))
        if config.normalize_observations and not isinstance(observation_space, Box):
            raise InvalidValueError(
                f"normalize_observations needs a Box observation space, not {observation_space}."
            )
        if config.normalize_observations and convolves:
            raise InvalidValueError(
                "normalize_observations=True: the convolutional network scales images itself; leave it "
                "out, or use network='mlp'."
            )

    def _networks(self, key: Key[Array, ""]) -> tuple:
        config = self.config
        space, free = self.observation_space, config.initial_log_std
        if self.recurrent_size:
            shape = self.recurrent_size, config.activation
            if self.shares_network:
                return (RecurrentActorCritic(key, space, self.head, *shape, free),)
            actor_key, critic_key = jax.random.split(key)
            actor = RecurrentActor(actor_key, space, self.head, *shape, free)
            return actor, RecurrentCritic(critic_key, self.critic_space, *shape)
        if self.shares_network:
            sizes = config.cnn_channels, config.cnn_features
            return (ImageActorCritic(key, space, self.head, *sizes, free),)
        actor_key, critic_key = jax.random.split(key)
        shape = config.hidden_sizes, config.activation
        actor = Actor(actor_key, space, self.head, *shape, free)
        return actor, Critic(critic_key, self.critic_space, *shape)

    def init(self, key: Key[Array, ""]) -> PPOState:
        """Fresh networks, optimiser and statistics."""
        parameters = self._rows.pack(*built_together(lambda: self._networks(key)))
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
        network = self._critic_network(state)
        return network.value if self.shares_network else network

    def _critic_network(self, state: PPOState) -> Any:
        row = _POLICY if self.shares_network else _VALUE
        return self._rows.unpack(row, state.parameters[row])

    def empty_memory(self, count: int) -> Float[Array, "N H"] | None:
        """What a recurrent network remembers before the first step; None for others."""
        return jnp.zeros((count, self.recurrent_size)) if self.recurrent_size else None

    def _read(self, statistics: RunningStatistics | None, observation: PyTree) -> PyTree:
        return observation if statistics is None else statistics.normalize(observation)

    def outputs(
        self,
        policy: PolicyNetwork,
        observation: PyTree,
        legal: Bool[Array, "*B n"] | None = None,
        memory: Float[Array, "*B H"] | None = None,
    ) -> tuple[Float[Array, "*B outputs"], Float[Array, "*B H"] | None]:
        """What the action head reads, for legal actions only where masks are given; and the memory
        after the observation, of networks that have one."""
        actor: Any = policy[0]
        seen = self._read(policy[1], observation)
        if memory is not None:
            seen = memory = actor.memory.step(seen, memory)
        return _masked(actor.outputs(seen), legal), memory

    def draw(
        self, policy: PolicyNetwork, key: Key[Array, ""], outputs: Float[Array, "*B outputs"]
    ) -> Array:
        """Samples raw actions."""
        return self.head.sample(key, outputs, policy[0].free)

    def act(
        self, policy: PolicyNetwork, key: Key[Array, ""], observation: PyTree
    ) -> tuple[Array, Float[Array, "*B outputs"]]:
        """Samples raw actions; returns them with the network's outputs, for `log_prob`."""
        outputs, _ = self.outputs(policy, observation)
        return self.draw(policy, key, outputs), outputs

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
        return self.head.mode(self.outputs(policy, observation)[0])

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
        state, carried, metrics = self.learn(state, rollout, return_so_far, key, learning_rate)
        return state, carried.return_so_far, metrics

    def learn(
        self,
        state: PPOState,
        rollout: Rollout,
        return_so_far: Float[Array, " N"],
        key: Key[Array, ""],
        learning_rate: Float[ArrayLike, ""],
    ) -> tuple[PPOState, Carried, dict[str, Array]]:
        """`update` for networks with a memory too: returns all that goes on into the next rollout."""
        statistics = state.observations
        # Merged now but used from the next rollout on: within one update the policy must see what
        # it saw when it acted.
        merged = statistics and statistics.update(rollout.observation, self.environment_axis)
        rollout = rollout._replace(
            observation=self._read(statistics, rollout.observation),
            next_observation=self._read(statistics, rollout.next_observation),
        )
        rewards, returns, return_so_far = self._scale_rewards(state, rollout, return_so_far)
        values, next_values, critic_memory = self._values(state, rollout)
        advantages = generalized_advantages(
            rewards,
            values,
            next_values,
            rollout.terminated,
            rollout.finished,
            self.config.gamma,
            self.config.gae_lambda,
            rollout.valid,
        )
        batch = self._rows_of(rollout, values, advantages)
        parameters, optimizer, losses = self._learn(state, batch, key, learning_rate)
        metrics = {
            **losses,
            "explained_variance": self._explained_variance(values, advantages + values),
        }
        state = PPOState(parameters, optimizer, merged, returns)
        return state, Carried(return_so_far, critic_memory), metrics

    def _rows_of(
        self, rollout: Rollout, values: Float[Array, "T N"], advantages: Float[Array, "T N"]
    ) -> Minibatch:
        """All there is to learn from: rows of single transitions, or of whole sequences."""
        valid, chose = rollout.valid, rollout.chose
        if chose is not None and valid is not None:
            chose = chose & valid
        over_time = Minibatch(
            rollout.observation,
            rollout.raw_action,
            rollout.log_prob,
            values,
            advantages,
            advantages + values,
            None if valid is None else valid.astype(jnp.float32),
            None if chose is None else chose.astype(jnp.float32),
            rollout.legal,
            rollout.critic_observation,
        )
        if self.recurrent_size:
            sequences = over_time._replace(starts=_starts(rollout.finished))
            rows = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), sequences)
            return rows._replace(memory=rollout.memory, critic_memory=rollout.critic_memory)
        size = values.size
        return jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), over_time)

    def _values(
        self, state: PPOState, rollout: Rollout
    ) -> tuple[Float[Array, "T N"], Float[Array, "T N"], Float[Array, "N H"] | None]:
        """Values of what was acted on and of what each step led to; and the memory, if any, with which
        the value function goes on into the next rollout."""
        seen, following = rollout.critic_observation, rollout.next_critic_observation
        if seen is None:
            seen, following = rollout.observation, rollout.next_observation
        if not self.recurrent_size:
            critic = self.critic(state)
            values = critic(seen)
            return values, self._next_values(critic, rollout, values, following), None
        network = self._critic_network(state)
        first = rollout.memory if self.shares_network else rollout.critic_memory
        memories = network.memory.over_time(seen, _starts(rollout.finished), first)
        values = network.value(memories)

        def value_of(following_and_memory):
            return network.value(network.memory.step(*following_and_memory))

        next_values = self._next_values(value_of, rollout, values, (following, memories))
        if self.shares_network:  # the policy's memory is carried on where it acts
            return values, next_values, None
        return values, next_values, jnp.where(rollout.finished[-1][:, None], 0.0, memories[-1])

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
        self,
        critic: ValueFunction,
        rollout: Rollout,
        values: Float[Array, "T N"],
        following: PyTree,
    ) -> Float[Array, "T N"]:
        """The value of what each step led to.

        Within an episode that is the next row of `values`. The network is asked again only for the
        last row and for final observations of truncated episodes: of one per environment, or of all
        steps in the rare rollout that truncates an environment twice.
        """
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
        """Epochs of minibatch steps over the rows of a batch."""
        config = self.config
        size = batch.value.shape[0]
        if size % config.num_minibatches:
            raise InvalidValueError(
                f"num_minibatches={config.num_minibatches} does not divide the {size} "
                f"{'sequences' if self.recurrent_size else 'transitions'} of a rollout; the nearest "
                f"that does is {nearest_divisor(size, config.num_minibatches)}."
            )
        take = row_taker(batch)

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
            weight = minibatches.policy_weight
            weight = minibatches.weight if weight is None else weight
            advantage = self._standardize(minibatches.advantage, weight)
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
        seen = batch.observation
        if self.recurrent_size:
            seen = _remembered(actor.memory, seen, batch.starts, batch.memory)
        return self._loss_of_outputs(actor.outputs(seen), actor.free, batch)

    def _loss_of_outputs(
        self, outputs: Float[Array, "B outputs"], free: Float[Array, " free"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        config = self.config
        weight = batch.weight if batch.policy_weight is None else batch.policy_weight
        outputs = _masked(outputs, batch.legal)
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
        means = _weighted_mean(jnp.stack(metrics), weight)
        losses = jnp.pad(means, (0, len(_VALUE_LOSSES)))
        loss = loss - config.entropy_coefficient * entropy
        return _weighted_mean(loss[None], weight)[0], losses

    def _value_loss(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        critic = self._rows.unpack(_VALUE, row)
        seen = batch.observation if batch.critic_observation is None else batch.critic_observation
        if self.recurrent_size:
            memories = _remembered(critic.memory, seen, batch.starts, batch.critic_memory)
            return self._loss_of_values(critic.value(memories), batch)
        return self._loss_of_values(critic(seen), batch)

    def _loss_of_values(
        self, value: Float[Array, " B"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        config = self.config
        squared_error = (value - batch.target) ** 2
        if config.clip_range_value is not None:
            limit = config.clip_range_value
            near = batch.value + jnp.clip(value - batch.value, -limit, limit)
            squared_error = jnp.maximum(squared_error, (near - batch.target) ** 2)
        loss = 0.5 * _weighted_mean(squared_error[None], batch.weight)[0]
        return config.value_coefficient * loss, jnp.pad(loss[None], (len(_POLICY_LOSSES), 0))

    def _shared_loss(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        """Of a network that is policy and value function: what both see is read once."""
        network = self._rows.unpack(_POLICY, row)
        if self.recurrent_size:
            seen = _remembered(network.memory, batch.observation, batch.starts, batch.memory)
            outputs, value = network.outputs(seen), network.value(seen)
        else:
            outputs, value = network.outputs_and_value(batch.observation)
        policy_loss, policy_losses = self._loss_of_outputs(outputs, network.free, batch)
        value_loss, value_losses = self._loss_of_values(value, batch)
        return policy_loss + value_loss, policy_losses + value_losses

    def _standardize(
        self, advantage: Float[Array, "M ..."], weight: Float[Array, "M ..."] | None = None
    ) -> Float[Array, "M ..."]:
        """Zero mean and unit deviation within each of M minibatches."""
        if not self.config.normalize_advantage:
            return advantage
        rows = advantage.reshape(advantage.shape[0], -1)
        weights = None if weight is None else weight.reshape(rows.shape)

        def mean(values):
            return mean_over_devices(values, -1, self.environment_axis, weights)[:, None]

        centred = rows - mean(rows)
        return (centred / (jnp.sqrt(mean(centred**2)) + 1e-8)).reshape(advantage.shape)

    def _explained_variance(
        self, values: Float[Array, "T N"], targets: Float[Array, "T N"]
    ) -> Float[Array, ""]:
        """Share of the variance of the value targets that the values predict."""
        return 1 - (targets - values).var() / (targets.var() + 1e-8)


def _weighted_mean(
    values: Float[Array, "K ..."], weight: Float[Array, " *B"] | None
) -> Float[Array, " K"]:
    """The means of K quantities over all transitions of a minibatch."""
    flat = values.reshape(values.shape[0], -1)
    return mean_over_devices(flat, -1, None, None if weight is None else weight.reshape(-1))


def _masked(
    outputs: Float[Array, "*B n"], legal: Bool[Array, "*B n"] | None
) -> Float[Array, "*B n"]:
    """Logits of legal actions; the others can neither be drawn nor change what is learnt."""
    return outputs if legal is None else jnp.where(legal, outputs, _ILLEGAL)


def _starts(finished: Bool[Array, "T N"]) -> Bool[Array, "T N"]:
    """Where a memory is cleared: after ends within the rollout. Those before it are cleared already."""
    return jnp.concatenate((jnp.zeros_like(finished[:1]), finished[:-1]))


def _remembered(
    network: Memory,
    observation: PyTree,
    starts: Bool[Array, "B T"] | None,
    first: Float[Array, "B H"] | None,
) -> Float[Array, "B T H"]:
    """The memory after each step of B sequences."""

    def swap(leaf):
        return jnp.moveaxis(leaf, 0, 1)

    assert starts is not None
    assert first is not None
    return swap(network.over_time(jax.tree.map(swap, observation), swap(starts), first))
