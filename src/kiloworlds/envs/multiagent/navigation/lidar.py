"""Lidar: how far beams reach before they meet a wall or another robot.

B stands for beams, A for robots in shapes.

A lidar looks at points a small, equal distance apart along each beam and reports the first one in a
wall. Only the first point after the beam crosses a line between cells can be that one, so a beam is
tested at a few crossings instead of at every point, with the same result. At each crossing the row
or column entered is known, so that no map is searched: the beams of a robot share a few words.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from kiloworlds.envs.multiagent.navigation.robots import Body, Poses
from kiloworlds.envs.multiagent.navigation.walls import Walls, has_bit, word

_LEAST = 1e-6  # so that no beam is exactly parallel to a line


@dataclass(frozen=True)
class Lidar:
    """A scanner in the middle of a robot.

    Attributes:
        num_beams: beams spread evenly over the field of view, on both of its edges too.
        reach: of a beam (m).
        resolution: distances are told apart to about this (m).
        field_of_view: rad, centred straight ahead, counter-clockwise.
    """

    num_beams: int
    reach: float
    resolution: float
    field_of_view: float

    @property
    def last(self) -> int:
        """The number of the last point of a beam, at its full reach; that of the first is 0."""
        return int(self.reach / self.resolution + 1e-6) - 1

    @property
    def spacing(self) -> float:
        """From point to point (m); a little more than the resolution, as both ends are points."""
        return self.reach / self.last

    def scan(self, walls: Walls, poses: Poses, body: Body) -> Float[Array, "A B"]:
        """The whole number of the point at which each beam of each robot ends; `last` if free."""
        angles = np.linspace(-self.field_of_view / 2, self.field_of_view / 2, self.num_beams)
        beams = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        points = jnp.minimum(self._walls(walls, poses, beams), jnp.float32(self.last))
        # An equal shift along the robots, laid out twice, pairs each with another one.
        robots = poses.x.shape[0]
        twice = jnp.tile(jnp.stack(poses), (1, 2))
        for shift in range(1, robots):
            others = Poses(*twice[:, shift : shift + robots])
            points = jnp.minimum(points, self._robots(poses, others, body, beams))
        inside = walls.at(poses.y.astype(jnp.int32), poses.x.astype(jnp.int32))
        # XLA on CPU computes cheap operations anew for each use, here for observation and reward, but
        # never a square root.
        return jnp.sqrt(jnp.where(inside[:, None], 0.0, points * points))

    def _walls(
        self, walls: Walls, poses: Poses, beams: tuple[np.ndarray, np.ndarray]
    ) -> Float[Array, "A B"]:
        x, y = poses.x[:, None], poses.y[:, None]
        right, up = _directions(poses.cosine, poses.sine, beams)
        return jnp.minimum(
            self._crossings(walls.columns, x, right, y, up),
            self._crossings(walls.rows, y, up, x, right),
        )

    def _crossings(
        self,
        words: Int32[Array, " n"],
        place: Float[Array, "A 1"],
        direction: Float[Array, "A B"],
        place_along: Float[Array, "A 1"],
        direction_along: Float[Array, "A B"],
    ) -> Float[Array, "A B"]:
        """The first point in a wall among those right after the lines of one kind.

        Args:
            words: the map by columns for vertical lines, by rows for horizontal ones.
            place, direction: across the lines; of the robots and of their beams.
            place_along, direction_along: along the lines.
        """
        cell = jnp.floor(place)
        forward = direction > 0
        between = (1 / self.spacing) / jnp.maximum(jnp.abs(direction), _LEAST)  # lines, in points
        crossing = jnp.where(forward, cell + 1 - place, place - cell) * between
        step = direction_along * self.spacing
        lines = min(math.ceil(self.reach), words.shape[0] - 2)
        distances = np.arange(1, lines + 1, dtype=np.int32)
        ahead: Int32[Array, "A L"] = word(words, cell.astype(jnp.int32) + distances)
        behind: Int32[Array, "A L"] = word(words, cell.astype(jnp.int32) - distances)
        points = jnp.full(direction.shape, jnp.inf)
        for line in range(lines):
            point = jnp.ceil(crossing)
            along = (place_along + point * step).astype(jnp.int32)
            entered = jnp.where(forward, ahead[:, line, None], behind[:, line, None])
            in_wall = has_bit(entered, along)
            points = jnp.minimum(points, jnp.where(in_wall, point, jnp.inf))
            crossing = crossing + between
        return points

    def _robots(
        self,
        poses: Poses,
        others: Poses,
        body: Body,
        beams: tuple[np.ndarray, np.ndarray],
    ) -> Float[Array, "A B"]:
        """Where the beams of each robot meet one other; infinity where they do not.

        In the frame of the other it is a box, between two pairs of parallel lines: a beam is inside
        from the later one of its entries between a pair until the earlier one of its exits.
        """
        x, y = poses.x - others.x, poses.y - others.y
        place_x = (others.cosine * x + others.sine * y)[:, None]
        place_y = (others.cosine * y - others.sine * x)[:, None]
        along, across = _directions(
            poses.cosine * others.cosine + poses.sine * others.sine,
            poses.sine * others.cosine - poses.cosine * others.sine,
            beams,
        )
        # From here on in metres along the beam.
        per_x, per_y = 1 / _away_from_zero(along), 1 / _away_from_zero(across)
        middle_x, middle_y = -place_x * per_x, -place_y * per_y
        half_x, half_y = body.ahead * jnp.abs(per_x), body.aside * jnp.abs(per_y)
        enters = jnp.maximum(middle_x - half_x, middle_y - half_y)
        leaves = jnp.minimum(middle_x + half_x, middle_y + half_y)
        meets = (enters <= leaves) & (leaves >= 0)
        first = jnp.where(enters >= 0, enters, leaves)  # from inside, the far side
        return jnp.where(meets, jnp.floor(first / self.resolution), jnp.inf)


def _directions(
    cosine: Float[Array, " A"], sine: Float[Array, " A"], beams: tuple[np.ndarray, np.ndarray]
) -> tuple[Float[Array, "A B"], Float[Array, "A B"]]:
    """Cosine and sine of beams turned by the angle of each robot."""
    beam_cosine, beam_sine = beams
    cosine, sine = cosine[:, None], sine[:, None]
    return cosine * beam_cosine - sine * beam_sine, sine * beam_cosine + cosine * beam_sine


def _away_from_zero(value: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(jnp.abs(value) < _LEAST, _LEAST, value)
