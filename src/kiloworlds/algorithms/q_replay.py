"""Learning the values of actions from replayed sequences: what IQL, VDN and QMIX share.

Letters in shapes: T steps, N environments, B sequences, A agents.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from kiloworlds.algorithms.experience import AgentsExperience, AgentsSeen, Team, side_by_side
from kiloworlds.algorithms.q_agents import Networks, masked, pick
from kiloworlds.algorithms.q_learner import QLearner, QLearnerConfig
from kiloworlds.core.checks import require_number
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.data.replay import Replay
from kiloworlds.networks.initializers import built_together


@dataclass(frozen=True)
class QReplayConfig(QLearnerConfig):
    """Settings of value learning from replayed sequences."""

    num_steps: int = 25
    """Steps each environment takes per update; sequences of so many are kept and replayed."""
    gradient_steps: int = 8
    """Gradient steps per update."""
    replay_size: int = 5_000
    """Sequences kept."""
    replay_batch: int = 32
    """Sequences per gradient step."""
    learning_starts: int = 500
    """Sequences collected before learning starts."""
    target_update: float = 0.01
    """How far the target networks move towards the learnt ones per gradient step; 1: all the way."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("gradient_steps", "replay_size", "replay_batch"):
            require_number(name, getattr(self, name), 1, whole=True)
        require_number("learning_starts", self.learning_starts, 0, 2**53, whole=True)
        require_number("target_update", self.target_update, 0.0, 1.0)

    def check_num_envs(self, num_envs: int) -> None:
        """Raises InvalidValueError where the replay cannot hold one rollout."""
        if self.replay_size < num_envs:
            raise InvalidValueError(
                f"replay_size={self.replay_size} cannot hold the {num_envs} sequences of one rollout of "
                f"num_envs={num_envs}; the nearest valid value is {num_envs}."
            )


class QState(NamedTuple):
    """All that is learnt."""

    learnt: Any
    target: Any
    optimizer: PyTree


class Values(NamedTuple):
    """Networks of each agent's values, and the parameters that mix them to the team's."""

    networks: Networks
    mixer: PyTree


Mix = Callable[[PyTree, Float[Array, "T B A"], Float[Array, "T B state"]], Float[Array, "T B"]]


class QReplay(QLearner):
    """The pure functions of value learning from replayed sequences.

    Args:
        config: the settings.
        team: the agents.
        name: of the algorithm, for errors.
        mix: makes the team's value of the agents' values and the state, given the mixer's parameters;
            None: each agent learns the value of its own reward.
        init_mixer: draws the parameters of the mixer.
        environment_axis, network_axis: device axes; none is supported.

    Raises:
        InvalidValueError: environments shall be spread over devices.
    """

    replays: ClassVar[bool] = True

    def __init__(
        self,
        config: QReplayConfig,
        team: Team,
        name: str,
        mix: Mix | None,
        init_mixer: Callable[[Key[Array, ""]], PyTree] = lambda key: None,
        environment_axis: str | None = None,
        network_axis: str | None = None,
    ):
        super().__init__(config, team, name)
        self.config = config
        self._mix, self._init_mixer = mix, init_mixer
        if environment_axis is not None:
            raise InvalidValueError(
                f"{name} keeps one replay, so its environments are not spread over devices; use "
                "devices=1, or train several seeds: each device takes some of them."
            )

    def init(self, key: Key[Array, ""]) -> QState:
        """Fresh networks."""
        network_key, mixer_key = jax.random.split(key)
        learnt = built_together(
            lambda: Values(self._agents.init(network_key), self._init_mixer(mixer_key))
        )
        return QState(learnt, learnt, self._optimizer.init(learnt))  # type: ignore[arg-type]

    def carry(self, num_envs: int, experience: AgentsExperience) -> Replay:
        """An empty replay for experience of that kind (arrays, or their shapes)."""
        first = jax.eval_shape(
            lambda given: jax.tree.map(lambda leaf: leaf[0], _sequences(given)), experience
        )
        return Replay.like(first, self.config.replay_size)

    def _networks(self, state: QState) -> Networks:
        return state.learnt.networks

    def update(
        self,
        state: QState,
        experience: AgentsExperience,
        carried: Replay,
        key: Key[Array, ""],
        progress: Float[Array, ""],
    ) -> tuple[QState, Replay, dict[str, Array]]:
        """Adds the experience to the replay and learns from draws of it."""
        config = self.config
        replay = carried.add(_sequences(experience))
        learning_rate = config.rate(progress)
        ready = replay.size >= min(config.learning_starts, config.replay_size)
        rate = jnp.where(ready, learning_rate, 0.0)

        def gradient_step(carry, step_key):
            learnt, target, optimizer = carry
            batch = _over_time(replay.sample(step_key, config.replay_batch))
            gradient, metrics = jax.grad(self._loss, has_aux=True)(learnt, target, batch)
            direction, moved = self._optimizer.update(gradient, optimizer)
            optimizer = jax.tree.map(lambda new, old: jnp.where(ready, new, old), moved, optimizer)
            learnt = jax.tree.map(lambda leaf, change: leaf - rate * change, learnt, direction)
            share = config.target_update
            target = jax.tree.map(lambda old, new: old + share * (new - old), target, learnt)
            return (learnt, target, optimizer), metrics

        keys = jax.random.split(key, config.gradient_steps)
        start = state.learnt, state.target, state.optimizer
        (learnt, target, optimizer), metrics = jax.lax.scan(gradient_step, start, keys)
        metrics = jax.tree.map(lambda values: jnp.where(ready, values.mean(), 0.0), metrics)
        metrics |= {"learning_rate": learning_rate, "epsilon": config.epsilon(progress)}
        return QState(learnt, target, optimizer), replay, metrics

    def _loss(
        self, learnt: Values, target: Values, batch: AgentsExperience
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The mean squared temporal-difference error, next actions chosen by the learnt networks and
        valued by the target networks (van Hasselt et al., "Deep Reinforcement Learning with Double
        Q-learning", 2016)."""
        chosen, following = self._values(learnt, target, batch)
        rewards = self.config.reward_scale * batch.reward
        seen, gamma = batch.seen, self.config.gamma
        if self._mix is None:
            goes_on = ~batch.terminated
            goal = rewards + gamma * jnp.where(goes_on, following, 0.0)
            value, counts = chosen, seen.alive
            counts = counts if batch.lost is None else counts & ~batch.lost[..., None]
        else:
            value = self._mix(learnt.mixer, jnp.where(seen.alive, chosen, 0.0), self._state(seen))
            after = AgentsSeen(
                batch.next_observation, batch.next_alive, seen.acting, None, batch.next_global_state
            )
            following = self._mix(
                target.mixer, jnp.where(batch.next_alive, following, 0.0), self._state(after)
            )
            shared = self._team.reward_is_shared
            reward = rewards[..., 0] if shared else rewards.sum(-1)
            goal = reward + gamma * jnp.where(batch.episode_terminated, 0.0, following)
            counts = jnp.ones_like(value, bool) if batch.lost is None else ~batch.lost
        weight = counts.astype(jnp.float32)
        error = weight * (value - jax.lax.stop_gradient(goal))
        total = jnp.maximum(weight.sum(), 1.0)
        loss = (error**2).sum() / total
        return loss, {"td_loss": loss, "q_value": (weight * value).sum() / total}

    def _values(
        self, learnt: Values, target: Values, batch: AgentsExperience
    ) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
        """Of each agent: the learnt value of its action, and the target's of its best next one."""
        agents, layout = self._agents, self.layout
        seen = batch.seen
        over = batch.finished | batch.episode_finished[..., None]
        starts = jnp.concatenate((jnp.zeros_like(over[:1]), over[:-1]))
        sequences = layout.blocks(seen.observation), layout.split(starts, 2), batch.memory
        after = layout.blocks(batch.next_observation)
        values, memories = agents.over_time(learnt.networks, *sequences)
        next_values = agents.after_one_more(learnt.networks, after, memories)
        _, target_memories = agents.over_time(target.networks, *sequences)
        target_values = agents.after_one_more(target.networks, after, target_memories)
        legal = {} if batch.next_legal is None else layout.blocks(batch.next_legal)
        actions = agents.indices(batch.action)
        chosen, following = [], []
        for name in layout.names:
            chosen.append(pick(values[name], actions[name]))
            best = jnp.argmax(masked(next_values[name], legal.get(name)), -1)
            following.append(pick(target_values[name], best))
        return jnp.concatenate(chosen, -1), jnp.concatenate(following, -1)

    def _state(self, seen: AgentsSeen) -> Float[Array, "T B state"]:
        """The state of the world as one vector: what all agents observe where there is none."""
        if seen.global_state is None:
            return side_by_side(self.layout, seen.observation, 2)
        return seen.global_state.reshape(*seen.global_state.shape[:2], -1)


def _sequences(experience: AgentsExperience) -> AgentsExperience:
    """Experience as items of the replay, one for each environment: `[N, T, ...]`."""
    memory = experience.memory
    rest = experience._replace(memory=None, drawn=None)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), rest)._replace(memory=memory)


def _over_time(items: AgentsExperience) -> AgentsExperience:
    """The opposite: `[T, B, ...]`."""
    memory = items.memory
    rest = items._replace(memory=None)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), rest)._replace(memory=memory)
