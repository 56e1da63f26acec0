"""Robots as rectangles on the plane: where they are, what they touch, how they drive.

A stands for the robots in shapes.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kiloworlds.core.numerics import sin_cos, wrap_angle
from kiloworlds.envs.multiagent.navigation.walls import Walls, has_bit, word


class Poses(NamedTuple):
    """Where robots are (m) and which way they face."""

    x: Float[Array, " A"]
    y: Float[Array, " A"]
    cosine: Float[Array, " A"]
    sine: Float[Array, " A"]

    @classmethod
    def facing(
        cls, x: Float[Array, " A"], y: Float[Array, " A"], heading: Float[Array, " A"]
    ) -> "Poses":
        """From headings in rad, 0 along x, counter-clockwise."""
        sine, cosine = sin_cos(heading)
        return cls(x, y, cosine, sine)


class Body(NamedTuple):
    """Half the length and half the width of a robot (m)."""

    ahead: float | Float[Array, ""]
    aside: float | Float[Array, ""]


class Limits(NamedTuple):
    """What a drive can do: speed (m/s), turn rate (rad/s) and their changes per second."""

    min_speed: float | Float[Array, ""]
    max_speed: float | Float[Array, ""]
    max_acceleration: float | Float[Array, ""]
    max_turn_rate: float | Float[Array, ""]
    max_turn_acceleration: float | Float[Array, ""]


class Motion(NamedTuple):
    """Positions (m), headings (rad, in [-pi, pi]), speeds (m/s) and turn rates (rad/s) of robots."""

    x: Float[Array, " A"]
    y: Float[Array, " A"]
    heading: Float[Array, " A"]
    speed: Float[Array, " A"]
    turn_rate: Float[Array, " A"]

    @property
    def poses(self) -> Poses:
        """The motion's places and directions."""
        return Poses.facing(self.x, self.y, self.heading)


def drive(
    motion: Motion,
    wanted_speed: Float[Array, " A"],
    wanted_turn_rate: Float[Array, " A"],
    limits: Limits,
    seconds: float | Float[Array, ""],
) -> Motion:
    """Motion after a time in which robots approach the speeds they are told, as fast as they may.

    Robots move straight along the heading they had, then turn.
    """
    most, most_turn = limits.max_acceleration * seconds, limits.max_turn_acceleration * seconds
    speed = motion.speed + jnp.clip(wanted_speed - motion.speed, -most, most)
    speed = jnp.clip(speed, limits.min_speed, limits.max_speed)
    turn_rate = motion.turn_rate + jnp.clip(
        wanted_turn_rate - motion.turn_rate, -most_turn, most_turn
    )
    turn_rate = jnp.clip(turn_rate, -limits.max_turn_rate, limits.max_turn_rate)
    sine, cosine = sin_cos(motion.heading)
    return Motion(
        motion.x + speed * cosine * seconds,
        motion.y + speed * sine * seconds,
        wrap_angle(motion.heading + turn_rate * seconds),
        speed,
        turn_rate,
    )


def hit_walls(walls: Walls, poses: Poses, body: Body) -> Bool[Array, " A"]:
    """Which robots touch a wall; their half-diagonal is at most a cell.

    A robot and a cell are apart just where one of their four axes separates them (the separating
    axis theorem).
    """
    cosine, sine = jnp.abs(poses.cosine), jnp.abs(poses.sine)
    reach_x = body.ahead * cosine + body.aside * sine + 0.5
    reach_y = body.ahead * sine + body.aside * cosine + 0.5
    cell = 0.5 * (cosine + sine)  # half a cell's extent along either axis of the robot
    column, row = jnp.floor(poses.x), jnp.floor(poses.y)
    hit = jnp.zeros(poses.x.shape, bool)
    for aside_y in (-1, 0, 1):
        line = word(walls.rows, row.astype(jnp.int32) + aside_y)
        away_y = row + (aside_y + 0.5) - poses.y
        for aside_x in (-1, 0, 1):
            away_x = column + (aside_x + 0.5) - poses.x
            ahead, aside = _turned(away_x, away_y, poses.cosine, poses.sine)
            meets = (jnp.abs(away_x) <= reach_x) & (jnp.abs(away_y) <= reach_y)
            meets = meets & (jnp.abs(ahead) <= body.ahead + cell)
            meets = meets & (jnp.abs(aside) <= body.aside + cell)
            hit = hit | (meets & has_bit(line, column.astype(jnp.int32) + aside_x))
    return hit


def hit_robots(poses: Poses, body: Body) -> Bool[Array, " A"]:
    """Which robots touch another (the separating axis theorem again)."""
    x, y, cosine, sine = (values[:, None] for values in poses)
    ahead, aside = _turned(poses.x - x, poses.y - y, cosine, sine)
    along, across = _turned(poses.cosine, poses.sine, cosine, sine)
    along, across = jnp.abs(along), jnp.abs(across)
    # [i, j]: the axes of robot i do not part robots i and j.
    meets = jnp.abs(ahead) <= body.ahead * (1 + along) + body.aside * across
    meets = meets & (jnp.abs(aside) <= body.aside * (1 + along) + body.ahead * across)
    apart = ~jnp.eye(poses.x.shape[0], dtype=bool)
    return (meets & meets.T & apart).any(1)


def _turned(x: Array, y: Array, cosine: Array, sine: Array) -> tuple[Array, Array]:
    """A vector as seen in a frame turned by an angle: ahead and to the left."""
    return cosine * x + sine * y, cosine * y - sine * x
