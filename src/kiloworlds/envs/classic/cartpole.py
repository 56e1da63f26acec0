"""CartPole: balance a pole hinged to a cart by pushing the cart left or right."""

from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.numerics import sin_cos, sin_cos_small
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.drawing import Canvas


class CartPoleState(NamedTuple):
    """Position (m) and velocity (m/s) of the cart, angle (rad, 0 upright) and rate (rad/s)."""

    position: Float[Array, ""]
    velocity: Float[Array, ""]
    angle: Float[Array, ""]
    angular_velocity: Float[Array, ""]


class CartPole(Environment):
    """Gymnasium's CartPole-v0 and CartPole-v1, state for state.

    Observation: `[position, velocity, angle, angular_velocity]`, float32.
    Action: 0 pushes left, 1 pushes right.
    Reward: 1 for every step (Sutton & Barto's variant: 0, and -1 at the fall).
    Episode end: terminates when the cart leaves the track or the pole leans too far.

    Reference: A. Barto, R. Sutton, C. Anderson, "Neuronlike adaptive elements that can solve
    difficult learning control problems" (1983); equations after R. Florian, "Correct equations for
    the dynamics of the cart-pole system" (2005).
    """

    gravity: float | Float[Array, ""] = 9.8  # m/s^2
    masscart: float | Float[Array, ""] = 1.0  # kg
    masspole: float | Float[Array, ""] = 0.1  # kg
    length: float | Float[Array, ""] = 0.5  # m, half the pole
    force_mag: float | Float[Array, ""] = 10.0  # N
    tau: float | Float[Array, ""] = 0.02  # s between states
    theta_threshold_radians: float | Float[Array, ""] = 12 * 2 * np.pi / 360
    x_threshold: float | Float[Array, ""] = 2.4  # m
    low: float | Float[Array, ""] = -0.05  # bounds of every entry of the first state
    high: float | Float[Array, ""] = 0.05
    kinematics_integrator: Literal["euler", "semi-implicit"] = eqx.field(
        static=True, default="euler"
    )
    sutton_barto_reward: bool = eqx.field(static=True, default=False)

    cheap_reset: ClassVar[bool] = True

    def reset(self, key: Key[Array, ""]) -> tuple[CartPoleState, Float[Array, "4"]]:
        state = CartPoleState(*jax.random.uniform(key, (4,), minval=self.low, maxval=self.high))
        return state, self.observe(state)

    def step(
        self, key: Key[Array, ""], state: CartPoleState, action: Int[Array, ""]
    ) -> tuple[CartPoleState, Step]:
        x, x_dot, theta, theta_dot = state
        total_mass = self.masscart + self.masspole
        polemass_length = self.masspole * self.length
        force = jnp.where(action == 1, self.force_mag, -self.force_mag)
        # The episode ends at 12 degrees: within the range of the small-angle polynomials unless
        # the threshold is a traced parameter, whose value cannot be known here.
        sine, cosine = _sin_cos_within(theta, self.theta_threshold_radians)
        pull = (force + polemass_length * theta_dot**2 * sine) / total_mass
        angular_acceleration = (self.gravity * sine - cosine * pull) / (
            self.length * (4.0 / 3.0 - self.masspole * cosine**2 / total_mass)
        )
        acceleration = pull - polemass_length * angular_acceleration * cosine / total_mass
        x_dot_next = x_dot + self.tau * acceleration
        theta_dot_next = theta_dot + self.tau * angular_acceleration
        if self.kinematics_integrator == "euler":
            x, theta = x + self.tau * x_dot, theta + self.tau * theta_dot
        else:
            x, theta = x + self.tau * x_dot_next, theta + self.tau * theta_dot_next
        terminated = (jnp.abs(x) > self.x_threshold) | (
            jnp.abs(theta) > self.theta_threshold_radians
        )
        reward = jnp.where(terminated, -1.0, 0.0) if self.sutton_barto_reward else jnp.ones_like(x)
        state = CartPoleState(x, x_dot_next, theta, theta_dot_next)
        return state, Step(self.observe(state), reward, terminated, jnp.zeros_like(terminated), {})

    def observe(self, state: CartPoleState) -> Float[Array, "4"]:
        """The observation of a state."""
        return jnp.stack(state)

    @property
    def observation_space(self) -> Box:
        # Twice the thresholds, so that the observation of a failed state is still inside.
        high = np.array(
            [
                np.max(self.x_threshold) * 2,
                np.inf,
                np.max(self.theta_threshold_radians) * 2,
                np.inf,
            ],
            np.float32,
        )
        return Box(-high, high)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def render(self, state: CartPoleState) -> np.ndarray:
        """The cart on its track and the pole, 600 by 400 pixels."""
        track, pole = float(self.x_threshold), 2 * float(self.length)
        # The picture is as high above the track as it is wide to either side: both must fit.
        half_width = max(track, 1.05 * pole)
        canvas = Canvas(600, 400, x_range=(-half_width, half_width), y_origin=0.25)
        cart = 0.1 * half_width  # the same size in every picture
        x, angle, hinge = float(state.position), float(state.angle), 0.2 * cart
        tip = (x + pole * np.sin(angle), hinge + pole * np.cos(angle))
        canvas.line((-track, 0), (track, 0), "#94a3b8", width=2)
        canvas.rectangle((x - cart, -cart / 2), (x + cart, cart / 2), "#1e293b")
        canvas.line((x, hinge), tip, "#d97706", width=10)
        canvas.circle((x, hinge), 0.2 * cart, "#6366f1")
        return canvas.pixels()


def _sin_cos_within(angle: Float[Array, ""], threshold: float | Float[Array, ""]):
    """The cheap polynomial where the threshold is known to keep the angle below pi/4."""
    # One step past the threshold still lies inside: 0.6 rad leaves room for 9 rad/s.
    if isinstance(threshold, float | int) and threshold <= 0.6:
        return sin_cos_small(angle)
    return sin_cos(angle)
