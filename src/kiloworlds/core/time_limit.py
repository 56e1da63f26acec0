"""Truncation after a fixed number of steps."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree

from kiloworlds.core.environment import (
    Action,
    AgentKind,
    Environment,
    MultiAgentEnvironment,
    Observation,
    State,
    Step,
)
from kiloworlds.core.spaces import Box, Space


class TimeLimitState(NamedTuple):
    """The wrapped environment's state and the steps taken since its reset."""

    inner: State
    elapsed: Int[Array, ""]


class TimeLimit(Environment):
    """Truncates an episode once it has lasted `max_episode_steps` steps.

    As in Gymnasium, an episode that terminates on its very last step is both terminated and
    truncated.
    """

    env: Environment
    max_episode_steps: Int[ArrayLike, ""]

    cheap_reset: ClassVar[Any] = property(lambda self: self.env.cheap_reset)

    def reset(self, key: Key[Array, ""]) -> tuple[TimeLimitState, Observation]:
        state, observation = self.env.reset(key)
        return TimeLimitState(state, jnp.int32(0)), observation

    def step(
        self, key: Key[Array, ""], state: TimeLimitState, action: Action
    ) -> tuple[TimeLimitState, Step]:
        inner, step = self.env.step(key, state.inner, action)
        elapsed = state.elapsed + 1
        truncated = step.truncated | (elapsed >= self.max_episode_steps)
        return TimeLimitState(inner, elapsed), step._replace(truncated=truncated)

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    def observe(self, state: TimeLimitState) -> Observation:
        return self.env.observe(state.inner)

    @property
    def is_observable(self) -> bool:
        return self.env.is_observable

    def reset_info(self, state: TimeLimitState) -> dict[str, Any]:
        return self.env.reset_info(state.inner)

    def render(self, state: TimeLimitState) -> np.ndarray | None:
        return self.env.render(state.inner)

    def describe(self, state: TimeLimitState) -> str | None:
        return self.env.describe(state.inner)

    @property
    def unwrapped(self) -> Environment:
        return self.env.unwrapped


class MultiAgentTimeLimit(TimeLimit, MultiAgentEnvironment):
    """The same for an environment with several agents: the episode of all is truncated."""

    env: MultiAgentEnvironment  # type: ignore[assignment]

    team_reward: ClassVar[Any] = property(lambda self: self.env.team_reward)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        return self.env.kinds

    def alive(self, state: TimeLimitState) -> Bool[Array, " A"]:
        return self.env.alive(state.inner)

    def available_actions(self, state: TimeLimitState) -> PyTree | None:
        return self.env.available_actions(state.inner)

    @property
    def global_state_space(self) -> Box | None:
        return self.env.global_state_space

    def global_state(self, state: TimeLimitState) -> Float[Array, "..."]:
        return self.env.global_state(state.inner)


def with_time_limit(env: Environment, max_episode_steps: Any) -> TimeLimit:
    """The environment with a limit of `max_episode_steps` steps."""
    if isinstance(env, MultiAgentEnvironment):
        return MultiAgentTimeLimit(env, max_episode_steps)
    return TimeLimit(env, max_episode_steps)
