"""Pendulum: swing a pendulum up and hold it there with a motor too weak to lift it at once."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.numerics import sin_cos, wrap_angle
from kiloworlds.core.spaces import Box
from kiloworlds.envs.drawing import Canvas


class PendulumState(NamedTuple):
    """Angle (rad, 0 upright, counter-clockwise positive) and its rate (rad/s)."""

    angle: Float[Array, ""]
    angular_velocity: Float[Array, ""]


class Pendulum(Environment):
    """Gymnasium's Pendulum-v1, step for step.

    Gymnasium lets the angle of the state grow with every turn. Here a step starts from its
    equivalent in [-pi, pi], where float32 is most exact; nothing observed or rewarded differs.

    Observation: `[cos(angle), sin(angle), angular_velocity]`, float32.
    Action: the torque `[1]` (N m), float32; counts as its nearest value within `max_torque`.
    Reward: `-(angle^2 + 0.1 angular_velocity^2 + 0.001 torque^2)` before the step, the angle taken
    in [-pi, pi] and the torque clipped.
    Episode end: never terminates.

    Reference: K. Furuta, M. Yamakita, S. Kobayashi, "Swing-up control of inverted pendulum using
    pseudo-state feedback" (1992); the rules are those of OpenAI Gym (2016).
    """

    g: float | Float[Array, ""] = 10.0  # m/s^2
    mass: float | Float[Array, ""] = 1.0  # kg
    length: float | Float[Array, ""] = 1.0  # m
    dt: float | Float[Array, ""] = 0.05  # s between states
    max_speed: float | Float[Array, ""] = 8.0  # rad/s
    max_torque: float | Float[Array, ""] = 2.0  # N m
    x_init: float | Float[Array, ""] = np.pi  # largest first angle (rad)
    y_init: float | Float[Array, ""] = 1.0  # largest first angular velocity (rad/s)

    cheap_reset: ClassVar[bool] = True

    def reset(self, key: Key[Array, ""]) -> tuple[PendulumState, Float[Array, "3"]]:
        angle, angular_velocity = jax.random.uniform(key, (2,), minval=-1.0)
        state = PendulumState(self.x_init * angle, self.y_init * angular_velocity)
        return state, self.observe(state)

    def step(
        self, key: Key[Array, ""], state: PendulumState, action: Float[Array, "1"]
    ) -> tuple[PendulumState, Step]:
        angle, rate = wrap_angle(state.angle), state.angular_velocity
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        cost = angle**2 + 0.1 * rate**2 + 0.001 * torque**2

        sine, _ = sin_cos(angle)
        acceleration = 3 * self.g / (2 * self.length) * sine
        acceleration += 3 / (self.mass * self.length**2) * torque
        rate = jnp.clip(rate + acceleration * self.dt, -self.max_speed, self.max_speed)
        state = PendulumState(angle + rate * self.dt, rate)

        never = jnp.zeros_like(cost, bool)
        return state, Step(self.observe(state), -cost, never, never, {})

    def observe(self, state: PendulumState) -> Float[Array, "3"]:
        """The observation of a state."""
        sine, cosine = sin_cos(state.angle)
        return jnp.stack([cosine, sine, state.angular_velocity])

    @property
    def observation_space(self) -> Box:
        high = np.array([1.0, 1.0, np.max(self.max_speed)], np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> Box:
        torque = np.max(self.max_torque)
        return Box(-torque, torque, (1,))

    def render(self, state: PendulumState) -> np.ndarray:
        """The pendulum and an arc as long as it turns in a quarter second, 500 by 500 pixels."""
        length, angle = float(self.length), float(state.angle)
        canvas = Canvas(500, 500, x_range=(-1.3 * length, 1.3 * length))

        def around(angle: float, radius: float) -> tuple[float, float]:
            return -radius * np.sin(angle), radius * np.cos(angle)

        canvas.line(around(0, 1.06 * length), around(0, 1.16 * length), "#94a3b8", width=4)
        turned = float(state.angular_velocity) / 4
        arc = [around(angle + turned * part, 0.55 * length) for part in np.linspace(0, 1, 30)]
        canvas.polyline(arc, "#a5b4fc", width=6)
        canvas.line((0, 0), around(angle, 0.92 * length), "#d97706", width=26)
        canvas.circle((0, 0), 0.05 * length, "#1e293b")
        return canvas.pixels()
