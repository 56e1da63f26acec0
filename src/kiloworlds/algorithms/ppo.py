"""Proximal policy optimisation (Schulman et al. 2017), with the details that matter in practice
(Huang et al., "The 37 implementation details of PPO", 2022).

Letters in shapes: T steps of a rollout, N environments, B transitions of a minibatch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Key, PyTree

from kiloworlds.algorithms.advantages import generalized_advantages
from kiloworlds.algorithms.normalization import RunningStatistics
from kiloworlds.algorithms.ppo_config import PPOConfig
from kiloworlds.algorithms.ppo_losses import POLICY, VALUE, Minibatch, PPOLosses, masked
from kiloworlds.algorithms.ppo_steps import GradientSteps
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Space
from kiloworlds.networks import cnn
from kiloworlds.networks.action_heads import action_head
from kiloworlds.networks.actor_critic import Actor, Critic, ImageActorCritic
from kiloworlds.networks.initializers import built_together, shapes_of
from kiloworlds.networks.recurrent import RecurrentActor, RecurrentActorCritic, RecurrentCritic
from kiloworlds.networks.rows import NetworkRows


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

    @property
    def acted_on(self) -> Bool[Array, "T N"] | None:
        """The valid steps whose action was chosen; None: all."""
        if self.chose is None or self.valid is None:
            return self.valid if self.chose is None else self.chose
        return self.chose & self.valid


class Carried(NamedTuple):
    """What goes on from one rollout into the next, of each environment."""

    return_so_far: Float[Array, " N"]
    critic_memory: Float[Array, "N H"] | None


Policy = Actor | ImageActorCritic | RecurrentActor | RecurrentActorCritic
PolicyNetwork = tuple[Policy, RunningStatistics | None]
ValueFunction = Callable[[PyTree], Float[Array, "*B"]]


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
        self._rows = NetworkRows(*shapes_of(lambda: self._networks(jax.random.key(0))))
        self.losses = PPOLosses(config, self.head, self._rows, recurrent_size)
        self.steps = GradientSteps(
            config, self.losses, self.shares_network, environment_axis, self.network_axis
        )
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
        optimizer = self.steps.init(parameters)
        observations = returns = None
        if isinstance(self.observation_space, Box) and self.config.normalize_observations:
            observations = RunningStatistics.of_shape(jnp.zeros(self.observation_space.shape))
        if self.config.normalize_rewards:
            returns = RunningStatistics.of_shape(jnp.zeros(()))
        return PPOState(parameters, optimizer, observations, returns)

    def policy(self, state: PPOState) -> PolicyNetwork:
        """What acting needs: the policy's network and the observation statistics."""
        return self._rows.unpack(POLICY, state.parameters[POLICY]), state.observations

    def critic(self, state: PPOState) -> ValueFunction:
        """The value function; it reads observations as the policy does: standardised."""
        network = self._critic_network(state)
        return network.value if self.shares_network else network

    def _critic_network(self, state: PPOState) -> Any:
        row = POLICY if self.shares_network else VALUE
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
        return masked(actor.outputs(seen), legal), memory

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
        merged = statistics and statistics.update(
            rollout.observation, self.environment_axis, rollout.acted_on
        )
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
        parameters, optimizer, losses = self.steps.run(
            state.parameters, state.optimizer, batch, key, learning_rate
        )
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
        valid = rollout.valid
        over_time = Minibatch(
            rollout.observation,
            rollout.raw_action,
            rollout.log_prob,
            values,
            advantages,
            advantages + values,
            None if valid is None else valid.astype(jnp.float32),
            None if rollout.chose is None else rollout.acted_on.astype(jnp.float32),  # type: ignore[union-attr]
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
        returns = state.returns.update(totals, self.environment_axis, rollout.valid)
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

    def _explained_variance(
        self, values: Float[Array, "T N"], targets: Float[Array, "T N"]
    ) -> Float[Array, ""]:
        """Share of the variance of the value targets that the values predict."""
        return 1 - (targets - values).var() / (targets.var() + 1e-8)


def _starts(finished: Bool[Array, "T N"]) -> Bool[Array, "T N"]:
    """Where a memory is cleared: after ends within the rollout. Those before it are cleared already."""
    return jnp.concatenate((jnp.zeros_like(finished[:1]), finished[:-1]))
