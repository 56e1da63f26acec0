"""The particle world: round bodies in the plane that push themselves, collide and slow down.

A body moves with the velocity it had before the step; then its velocity is damped and changed by the
forces, its own push and the contacts. All bodies weigh 1.

Reference: I. Mordatch, P. Abbeel, "Emergence of Grounded Compositional Language in Multi-Agent
Populations" (2018); the rules and numbers are those of mpe2 1.1 (Farama Foundation).
"""

import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from kiloworlds.envs.multiagent.mpe.groups import (
    Group,
    Many,
    are_many,
    combine,
    each,
    fill,
    sum_over_others,
)

Message = tuple[Float[Array, ""], ...]
"""What an agent says: a number for each symbol, 1 for the one symbol of a discrete action."""

# Of log(1 + x) / x for x in [0, 1], interpolated at Chebyshev points.
_LOG1P = (
    0.99999981,
    -0.49997451,
    0.33276187,
    -0.24499657,
    0.17757118,
    -0.10785469,
    0.04421472,
    -0.00857478,
)
_LEAST_SQUARE = 1e-30  # two bodies at one point do not push each other; mpe2 gives NaN


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Vector:
    """A point or direction in the plane."""

    x: Float[Array, "..."]
    y: Float[Array, "..."]

    def __add__(self, other: "Vector") -> "Vector":
        return Vector(self.x + other.x, self.y + other.y)

    def __sub__(self, other: "Vector") -> "Vector":
        return Vector(self.x - other.x, self.y - other.y)

    def __mul__(self, factor: Any) -> "Vector":
        return Vector(self.x * factor, self.y * factor)

    @property
    def square(self) -> Float[Array, "..."]:
        """The square of the length."""
        return self.x * self.x + self.y * self.y

    @property
    def length(self) -> Float[Array, "..."]:
        return jnp.sqrt(self.square)


class Body(NamedTuple):
    """A round body: its centre and its radius."""

    position: Vector
    size: Float[ArrayLike, "..."]


class ParticleState(NamedTuple):
    """Agents and landmarks in the plane, what the agents say and which landmarks are their goals.

    `positions` and `velocities` belong to the agents that can move, `messages` to those that speak,
    both in the order of the agents; `goals` are places in `landmarks`.
    """

    positions: Group = ()
    velocities: Group = ()
    landmarks: Group = ()
    messages: tuple[Message, ...] = ()
    goals: tuple[Int[Array, ""], ...] = ()


def scatter(key: Key[Array, ""], agents: int, landmarks: int, reach: float = 1.0) -> ParticleState:
    """Agents at rest anywhere within 1 of the middle along both axes, landmarks within `reach`."""
    count = agents + landmarks
    draws = jax.random.uniform(key, (2 * count,), minval=-1.0)
    if are_many(agents, landmarks):
        # Without it XLA on CPU writes the drawing of a number into every place that reads it.
        draws = jax.lax.optimization_barrier(draws)
        zeros = jnp.zeros(agents)
        points: Group = Many(Vector(draws[:count], draws[count:]))
        at_rest: Group = Many(Vector(zeros, zeros))
    else:
        numbers = jnp.unstack(draws)
        points = tuple(map(Vector, numbers[:count], numbers[count:]))
        at_rest = (Vector(jnp.float32(0), jnp.float32(0)),) * agents
    placed = points[agents:]
    if reach != 1.0:
        placed = each(lambda point: point * reach, placed)
    return ParticleState(points[:agents], at_rest, placed)


def silence(symbols: int) -> Message:
    """The message of who has not spoken yet."""
    return (jnp.float32(0),) * symbols


def distance(first: Vector, second: Vector) -> Float[Array, "..."]:
    return (first - second).length


def touch(first: Body, second: Body) -> Bool[Array, "..."]:
    """Whether two bodies overlap."""
    reach = first.size + second.size
    return (first.position - second.position).square < reach * reach


def count_touching(bodies: Group, others: Group) -> Group:
    """How many of the `others` each of the bodies overlaps, as float32."""
    return combine(_overlap, bodies, others, "sum")


def count_collisions(bodies: Group) -> Group:
    """How many of the rest each of the bodies overlaps, as float32."""
    if len(bodies) == 1:
        return fill(bodies, (jnp.float32(0), 1))
    return sum_over_others(_overlap, bodies, swapped=1)


def least_distances(bodies: Group, others: Group) -> Group:
    """How far the nearest of the `others` is from each of the bodies."""
    squares = combine(lambda one, other: (one - other).square, bodies, others, "min")
    return each(jnp.sqrt, squares)


def _overlap(first: Body, second: Body) -> Float[Array, "..."]:
    return touch(first, second).astype(jnp.float32)


def contact_forces(
    agents: Group,
    obstacles: Group,
    contact_force: Float[ArrayLike, ""],
    contact_margin: Float[ArrayLike, ""],
) -> Group:
    """The forces on bodies that can move, from each other and from obstacles, which cannot.

    They grow with how deep two bodies lie in each other, softly: within about `contact_margin` of
    touching, a softplus.
    """

    def push(first: Body, second: Body) -> Vector:
        apart = first.position - second.position
        gap = jnp.sqrt(jnp.maximum(apart.square, _LEAST_SQUARE))
        depth = -(gap - first.size - second.size) / contact_margin
        return apart * (contact_force * contact_margin * _softplus(depth) / gap)

    nothing = jnp.float32(0)
    forces = each(lambda force: Vector(force, force), fill(agents, (nothing, len(agents))))
    if len(agents) > 1:
        forces = sum_over_others(push, agents, swapped=-1)
    if len(obstacles):
        forces = each(operator.add, forces, combine(push, agents, obstacles, "sum"))
    return forces


def _softplus(number: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(1 + exp(number)), to 3e-7 absolute; `jnp.log1p` alone takes three times as long."""
    tail = jnp.exp(-jnp.abs(number))
    logarithm = jnp.full_like(tail, _LOG1P[-1])
    for coefficient in reversed(_LOG1P[:-1]):
        logarithm = logarithm * tail + coefficient
    return jnp.maximum(number, 0.0) + tail * logarithm


def move(
    state: ParticleState,
    forces: Group,
    dt: Float[ArrayLike, ""],
    damping: Float[ArrayLike, ""],
    max_speeds: Group | None = None,
) -> ParticleState:
    """One step of time for all agents, whose speeds may be limited."""
    positions = each(
        lambda position, velocity: position + velocity * dt, state.positions, state.velocities
    )
    velocities = each(
        lambda velocity, force: velocity * (1.0 - damping) + force * dt, state.velocities, forces
    )
    if max_speeds is not None:
        velocities = each(_limit, velocities, max_speeds)
    return state._replace(positions=positions, velocities=velocities)


def _limit(velocity: Vector, max_speed: Float[ArrayLike, ""]) -> Vector:
    speed = velocity.length
    is_fast = speed > max_speed
    return velocity * jnp.where(is_fast, max_speed / jnp.where(is_fast, speed, 1.0), 1.0)


def beyond_border(position: Vector) -> Float[Array, ""]:
    """The penalty for leaving the square: linear from 0.9, exponential from 1, at most 10 an axis."""

    def along(coordinate: Float[Array, ""]) -> Float[Array, ""]:
        far = jnp.abs(coordinate)
        outside = jnp.minimum(jnp.exp(2.0 * far - 2.0), 10.0)
        return jnp.where(far < 1.0, jnp.maximum(far - 0.9, 0.0) * 10.0, outside)

    return along(position.x) + along(position.y)
