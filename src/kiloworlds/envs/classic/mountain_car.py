"""MountainCar: an underpowered car must swing up a valley to reach the flag on the right hill."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.numerics import sin_cos
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.drawing import Canvas


class MountainCarState(NamedTuple):
    """Position (m, 0 near the start of the right slope) and velocity (m per step) of the car."""

    position: Float[Array, ""]
    velocity: Float[Array, ""]


class _Valley(Environment):
    """What both mountain cars share: the valley, the car and the goal."""

    goal_velocity: float | Float[Array, ""] = 0.0  # m per step
    goal_position: float | Float[Array, ""] = 0.5  # m
    min_position: float | Float[Array, ""] = -1.2  # m
    max_position: float | Float[Array, ""] = 0.6  # m
    max_speed: float | Float[Array, ""] = 0.07  # m per step
    gravity: float | Float[Array, ""] = 0.0025  # m per step^2
    low: float | Float[Array, ""] = -0.6  # bounds of the first position (m)
    high: float | Float[Array, ""] = -0.4

    cheap_reset: ClassVar[bool] = True

    def reset(self, key: Key[Array, ""]) -> tuple[MountainCarState, Float[Array, "2"]]:
        position = jax.random.uniform(key, minval=self.low, maxval=self.high)
        state = MountainCarState(position, jnp.zeros_like(position))
        return state, self.observe(state)

    def observe(self, state: MountainCarState) -> Float[Array, "2"]:
        """The observation of a state."""
        return jnp.stack(state)

    def drive(
        self, state: MountainCarState, push: Float[Array, ""]
    ) -> tuple[MountainCarState, Bool[Array, ""]]:
        """One step under the acceleration `push`; also tells whether the goal is reached."""
        _, cosine = sin_cos(3 * state.position)
        velocity = state.velocity + push - self.gravity * cosine
        velocity = jnp.clip(velocity, -self.max_speed, self.max_speed)
        position = jnp.clip(state.position + velocity, self.min_position, self.max_position)
        # The left wall takes all momentum; the right border only stops the position.
        velocity = jnp.where((position <= self.min_position) & (velocity < 0), 0.0, velocity)
        at_goal = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        return MountainCarState(position, velocity), at_goal

    @property
    def observation_space(self) -> Box:
        speed = np.max(self.max_speed)
        low = np.array([np.min(self.min_position), -speed], np.float32)
        high = np.array([np.max(self.max_position), speed], np.float32)
        return Box(low, high)

    def render(self, state: MountainCarState) -> np.ndarray:
        """The valley, the car and the flag, 600 by 400 pixels."""
        return _draw(self, state)


class MountainCar(_Valley):
    """Gymnasium's MountainCar-v0, state for state.

    Observation: `[position, velocity]`, float32.
    Action: 0 accelerates left, 1 not at all, 2 right.
    Reward: -1 for every step.
    Episode end: terminates at the goal position with at least the goal velocity.

    Reference: A. Moore, "Efficient memory-based learning for robot control" (1990).
    """

    force: float | Float[Array, ""] = 0.001  # m per step^2

    def step(
        self, key: Key[Array, ""], state: MountainCarState, action: Int[Array, ""]
    ) -> tuple[MountainCarState, Step]:
        state, at_goal = self.drive(state, (action - 1) * self.force)
        reward = jnp.full_like(state.position, -1.0)
        return state, Step(self.observe(state), reward, at_goal, jnp.zeros_like(at_goal), {})

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)


class MountainCarContinuous(_Valley):
    """Gymnasium's MountainCarContinuous-v0, state for state.

    Observation: `[position, velocity]`, float32.
    Action: the force `[1]`, float32; counts as its nearest value in [`min_action`, `max_action`].
    Reward: 100 at the goal, minus 0.1 times the square of the action as given, not as clipped.
    Episode end: terminates at the goal position with at least the goal velocity.

    Reference: A. Moore, "Efficient memory-based learning for robot control" (1990).
    """

    goal_position: float | Float[Array, ""] = 0.45  # m
    min_action: float | Float[Array, ""] = -1.0
    max_action: float | Float[Array, ""] = 1.0
    power: float | Float[Array, ""] = 0.0015  # m per step^2 at an action of 1

    def step(
        self, key: Key[Array, ""], state: MountainCarState, action: Float[Array, "1"]
    ) -> tuple[MountainCarState, Step]:
        force = action[0]
        push = jnp.clip(force, self.min_action, self.max_action) * self.power
        state, at_goal = self.drive(state, push)
        reward = jnp.where(at_goal, 100.0, 0.0) - 0.1 * force**2
        return state, Step(self.observe(state), reward, at_goal, jnp.zeros_like(at_goal), {})

    @property
    def action_space(self) -> Box:
        return Box(np.min(self.min_action), np.max(self.max_action), (1,))


def _height(position: np.ndarray | float) -> np.ndarray:
    return 0.45 * np.sin(3 * np.asarray(position)) + 0.55


def _draw(env: _Valley, state: MountainCarState) -> np.ndarray:
    left, right = float(env.min_position), float(env.max_position)
    goal, position = float(env.goal_position), float(state.position)
    canvas = Canvas(600, 400, x_range=(left, right), y_origin=0.02)

    track = np.linspace(left - 0.02, right + 0.02, 200)
    hill = list(zip(track, _height(track), strict=True))
    canvas.polygon([(left - 0.02, -0.1), *hill, (right + 0.02, -0.1)], "#dbe4ee")
    canvas.polyline(hill, "#64748b", width=3)

    flag = float(_height(goal))
    canvas.line((goal, flag), (goal, flag + 0.17), "#1e293b", width=3)
    canvas.polygon(
        [(goal, flag + 0.17), (goal, flag + 0.09), (goal + 0.08, flag + 0.13)], "#d97706"
    )

    slope = np.arctan(1.35 * np.cos(3 * position))
    along = np.array([np.cos(slope), np.sin(slope)])
    upward = np.array([-along[1], along[0]])
    ground = np.array([position, float(_height(position))])

    def on_car(forward: float, up: float) -> tuple[float, float]:
        x, y = ground + forward * along + up * upward
        return float(x), float(y)

    body = [(-0.075, 0.03), (-0.075, 0.075), (-0.04, 0.075), (-0.025, 0.11)]
    body += [(0.03, 0.11), (0.05, 0.075), (0.075, 0.07), (0.075, 0.03)]
    canvas.polygon([on_car(*corner) for corner in body], "#6366f1")
    for forward in (-0.042, 0.042):
        canvas.circle(on_car(forward, 0.026), 0.024, "#1e293b")
        canvas.circle(on_car(forward, 0.026), 0.009, "#f8fafc")
    return canvas.pixels()
