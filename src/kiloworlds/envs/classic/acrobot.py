"""Acrobot: swing the tip of a two-link pendulum above a line by a motor in its elbow alone."""

from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.numerics import sin_cos, wrap_angle
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.drawing import Canvas


class AcrobotState(NamedTuple):
    """Angles of the upper link (rad, 0 hanging) and of the lower link against it, and their rates.

    Angles lie in [-pi, pi]; rates are in rad/s.
    """

    angle1: Float[Array, ""]
    angle2: Float[Array, ""]
    velocity1: Float[Array, ""]
    velocity2: Float[Array, ""]


class Acrobot(Environment):
    """Gymnasium's Acrobot-v1, state for state.

    Observation: `[cos(angle1), sin(angle1), cos(angle2), sin(angle2), velocity1, velocity2]`,
    float32.
    Action: 0, 1, 2 apply a torque of -`torque`, 0, +`torque` (N m) to the joint between the links.
    Reward: -1 for every step, 0 for the one that reaches the goal.
    Episode end: terminates when `-cos(angle1) - cos(angle1 + angle2) > 1`.

    `book_or_nips` chooses the equations of the book, with which the published results were made, or
    those printed in the paper, which lack a term.

    Reference: R. Sutton, "Generalization in reinforcement learning: successful examples using
    sparse coarse coding" (1996); R. Sutton, A. Barto, "Reinforcement learning: an introduction"
    (1998), section 11.3.
    """

    link_length_1: float | Float[Array, ""] = 1.0  # m
    link_length_2: float | Float[Array, ""] = 1.0  # m; only drawn, no equation has it
    link_mass_1: float | Float[Array, ""] = 1.0  # kg
    link_mass_2: float | Float[Array, ""] = 1.0  # kg
    link_com_pos_1: float | Float[Array, ""] = 0.5  # m from the joint to the centre of mass
    link_com_pos_2: float | Float[Array, ""] = 0.5  # m
    link_moi: float | Float[Array, ""] = 1.0  # kg m^2, moment of inertia of either link
    gravity: float | Float[Array, ""] = 9.8  # m/s^2
    torque: float | Float[Array, ""] = 1.0  # N m
    torque_noise_max: float | Float[Array, ""] = 0.0  # N m, uniform noise added to the torque
    max_vel_1: float | Float[Array, ""] = 4 * np.pi  # rad/s
    max_vel_2: float | Float[Array, ""] = 9 * np.pi  # rad/s
    dt: float | Float[Array, ""] = 0.2  # s between states
    low: float | Float[Array, ""] = -0.1  # bounds of every entry of the first state
    high: float | Float[Array, ""] = 0.1
    book_or_nips: Literal["book", "nips"] = eqx.field(static=True, default="book")

    cheap_reset: ClassVar[bool] = True

    def reset(self, key: Key[Array, ""]) -> tuple[AcrobotState, Float[Array, "6"]]:
        state = AcrobotState(*jax.random.uniform(key, (4,), minval=self.low, maxval=self.high))
        return state, self.observe(state)

    def step(
        self, key: Key[Array, ""], state: AcrobotState, action: Int[Array, ""]
    ) -> tuple[AcrobotState, Step]:
        torque = (action - 1) * self.torque
        # A noise known to be zero costs no draw; as a traced parameter it may be anything.
        if not isinstance(self.torque_noise_max, float | int) or self.torque_noise_max > 0:
            torque += self.torque_noise_max * jax.random.uniform(key, minval=-1.0)

        angle1, angle2, velocity1, velocity2 = self._runge_kutta(state, torque)
        state = AcrobotState(
            wrap_angle(angle1),
            wrap_angle(angle2),
            jnp.clip(velocity1, -self.max_vel_1, self.max_vel_1),
            jnp.clip(velocity2, -self.max_vel_2, self.max_vel_2),
        )
        observation = self.observe(state)
        cosine1, sine1, cosine2, sine2 = observation[:4]
        tip_height = -cosine1 - (cosine1 * cosine2 - sine1 * sine2)
        terminated = tip_height > 1.0
        reward = jnp.where(terminated, 0.0, -1.0)
        return state, Step(observation, reward, terminated, jnp.zeros_like(terminated), {})

    def observe(self, state: AcrobotState) -> Float[Array, "6"]:
        """The observation of a state."""
        sine1, cosine1 = sin_cos(state.angle1)
        sine2, cosine2 = sin_cos(state.angle2)
        return jnp.stack([cosine1, sine1, cosine2, sine2, state.velocity1, state.velocity2])

    def _runge_kutta(self, state: AcrobotState, torque: Float[Array, ""]) -> AcrobotState:
        """The classic fourth-order method over one step of `dt`."""

        def advanced(duration: float | Float[Array, ""], slope: AcrobotState) -> AcrobotState:
            return jax.tree.map(lambda x, rate: x + duration * rate, state, slope)

        k1 = self._derivative(state, torque)
        k2 = self._derivative(advanced(self.dt / 2, k1), torque)
        k3 = self._derivative(advanced(self.dt / 2, k2), torque)
        k4 = self._derivative(advanced(self.dt, k3), torque)
        slope = jax.tree.map(lambda a, b, c, d: a + 2 * (b + c) + d, k1, k2, k3, k4)
        return advanced(self.dt / 6, slope)

    def _derivative(self, state: AcrobotState, torque: Float[Array, ""]) -> AcrobotState:
        """Solves `M [acceleration1, acceleration2] = [-phi1, force2]` for the mass matrix M."""
        l1, lc1, lc2 = self.link_length_1, self.link_com_pos_1, self.link_com_pos_2
        m1, m2, inertia, g = self.link_mass_1, self.link_mass_2, self.link_moi, self.gravity
        _, _, velocity1, velocity2 = state
        sine1, cosine1 = sin_cos(state.angle1)
        sine2, cosine2 = sin_cos(state.angle2)

        coupling = m2 * l1 * lc2
        d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2) + 2 * coupling * cosine2 + 2 * inertia
        d2 = m2 * lc2**2 + coupling * cosine2 + inertia
        d3 = m2 * lc2**2 + inertia
        phi2 = m2 * lc2 * g * (sine1 * cosine2 + cosine1 * sine2)
        centrifugal = coupling * sine2 * velocity2 * (velocity2 + 2 * velocity1)
        phi1 = (m1 * lc1 + m2 * l1) * g * sine1 - centrifugal + phi2
        force2 = torque - phi2
        if self.book_or_nips == "book":
            force2 -= coupling * sine2 * velocity1**2

        # Two divisions rather than one reciprocal: XLA stores what a division gives, where it would
        # compute a product anew for each use, and with it all earlier stages.
        determinant = d1 * d3 - d2 * d2
        acceleration1 = -(d3 * phi1 + d2 * force2) / determinant
        acceleration2 = (d1 * force2 + d2 * phi1) / determinant
        return AcrobotState(velocity1, velocity2, acceleration1, acceleration2)

    @property
    def observation_space(self) -> Box:
        high = np.array([1, 1, 1, 1, np.max(self.max_vel_1), np.max(self.max_vel_2)], np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    def render(self, state: AcrobotState) -> np.ndarray:
        """Both links, their joints and the line to reach, 500 by 500 pixels."""
        first, second = float(self.link_length_1), float(self.link_length_2)
        reach = 1.1 * (first + second)
        canvas = Canvas(500, 500, x_range=(-reach, reach))
        angle = float(state.angle1)
        elbow = (first * np.sin(angle), -first * np.cos(angle))
        angle += float(state.angle2)
        tip = (elbow[0] + second * np.sin(angle), elbow[1] - second * np.cos(angle))

        canvas.line((-reach, 1.0), (reach, 1.0), "#94a3b8", width=3)
        canvas.line((0, 0), elbow, "#6366f1", width=18)
        canvas.line(elbow, tip, "#d97706", width=18)
        for joint in ((0.0, 0.0), elbow):
            canvas.circle(joint, 0.06, "#1e293b")
        canvas.circle(tip, 0.03, "#f8fafc")
        return canvas.pixels()
