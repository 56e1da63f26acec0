"""Random maps, and starts and goals on them: always free, and with a way between them if asked.

H and W stand for the rows and columns of a map in shapes, A for robots.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from kiloworlds.core.numerics import sin_cos
from kiloworlds.core.random import permutation
from kiloworlds.envs.multiagent.navigation.walls import Walls

_CANDIDATES = 32  # drawn side by side for each robot, of which the first that fits is taken
PATIENCE = 16
"""After so many tries without room for all robots there is a new map, and goals may lie at any distance:
a map may have none at the wanted one."""
_FAR = 1e6  # m; where robots without a place are


class Places(NamedTuple):
    """Where robots start and where they want to be (m)."""

    x: Float[Array, " A"]
    y: Float[Array, " A"]
    goal_x: Float[Array, " A"]
    goal_y: Float[Array, " A"]


class Clearances(NamedTuple):
    """Free space around starts and goals, and the distances between them (m)."""

    start: float | Float[Array, ""]
    goal: float | Float[Array, ""]
    min_goal_distance: float | Float[Array, ""]
    max_goal_distance: float | Float[Array, ""]


def most_walls(height: int, width: int, fill: float | Float[Array, ""]) -> Int[Array, ""]:
    """The number of inner walls below which random maps stay."""
    return jnp.floor(jnp.float32((height - 2) * (width - 2)) * fill).astype(jnp.int32)


def random_map(
    key: Key[Array, ""], height: int, width: int, fill: float | Float[Array, ""]
) -> Bool[Array, "H W"]:
    """Walls around the border and, inside, any number of them below `most_walls`, anywhere."""
    count_key, place_key = jax.random.split(key)
    most = most_walls(height, width, fill)
    count = jnp.floor(jax.random.uniform(count_key) * most).astype(jnp.int32)
    inside = permutation(place_key, (height - 2) * (width - 2)).astype(jnp.int32) < count
    return jnp.pad(inside.reshape(height - 2, width - 2), 1, constant_values=True)


def regions(is_wall: Bool[Array, "H W"]) -> Int[Array, "H W"]:
    """A number for each free cell, the same just for cells with a way between them; -1 for walls.

    Ways lead from cell to cell across edges, not corners.
    """
    height, width = is_wall.shape
    own = jnp.where(is_wall, -1, jnp.arange(height * width, dtype=jnp.int32).reshape(height, width))

    def spread(labels):
        # The largest number wins its region; walls have the lowest of all.
        near = jnp.maximum(labels[1:-1, :-2], labels[1:-1, 2:])
        near = jnp.maximum(near, jnp.maximum(labels[:-2, 1:-1], labels[2:, 1:-1]))
        inner = jnp.maximum(labels[1:-1, 1:-1], near)
        return labels.at[1:-1, 1:-1].set(jnp.where(is_wall[1:-1, 1:-1], -1, inner))

    def go_on(carry):
        labels, before = carry
        return (labels != before).any()

    labels, _ = jax.lax.while_loop(
        go_on, lambda carry: (spread(carry[0]), carry[0]), (spread(own), own)
    )
    return labels


def place_anywhere(
    key: Key[Array, ""],
    is_wall: Bool[Array, "H W"],
    robots: int,
    clear: Clearances,
    any_distance: Bool[Array, ""],
    labels: Int[Array, "H W"] | None,
) -> tuple[Places, Bool[Array, ""]]:
    """Places of all robots, one after another, anywhere on the plane; and whether all found room.

    Args:
        any_distance: whether goals may lie at any distance from their starts.
        labels: the regions of the map, where each goal must lie in that of its start.
    """
    walls = Walls.of_cells(is_wall)
    height, width = is_wall.shape
    low, high_x, high_y = 1 + clear.goal, width - 1 - clear.goal, height - 1 - clear.goal

    def place(places: Places, item: tuple[Int[Array, ""], Key[Array, ""]]):
        robot, robot_key = item
        draws = jax.random.uniform(robot_key, (6, _CANDIDATES))
        x, y = low + draws[0] * (high_x - low), low + draws[1] * (high_y - low)
        distance = clear.max_goal_distance - clear.min_goal_distance
        distance = clear.min_goal_distance + draws[2] * distance
        sine, cosine = sin_cos(2 * np.pi * draws[3])
        goal_x = jnp.clip(x + distance * cosine, low, high_x)
        goal_y = jnp.clip(y + distance * sine, low, high_y)
        goal_x = jnp.where(any_distance, low + draws[4] * (high_x - low), goal_x)
        goal_y = jnp.where(any_distance, low + draws[5] * (high_y - low), goal_y)
        both_x, both_y = jnp.stack([x, goal_x]), jnp.stack([y, goal_y])
        radii = jnp.stack([jnp.asarray(clear.start), jnp.asarray(clear.goal)])
        bad = walls.touch_circles(both_x, both_y, radii[:, None]).any(0)
        bad = bad | (_distance(x - goal_x, y - goal_y) <= 2 * clear.goal)
        apart = 2 * clear.start
        starts = _distance(x[:, None] - places.x, y[:, None] - places.y)
        goals = _distance(goal_x[:, None] - places.goal_x, goal_y[:, None] - places.goal_y)
        bad = bad | ((starts <= apart) | (goals <= apart)).any(1)
        if labels is not None:
            bad = bad | (_at(labels, x, y) != _at(labels, goal_x, goal_y))
        first = jnp.argmin(bad)
        chosen = Places(x[first], y[first], goal_x[first], goal_y[first])
        places = jax.tree.map(lambda all, one: all.at[robot].set(one), places, chosen)
        return places, ~bad[first]

    nowhere = Places(*(jnp.full(robots, _FAR, jnp.float32) for _ in Places._fields))
    each = jnp.arange(robots), jax.random.split(key, robots)
    places, found = jax.lax.scan(place, nowhere, each)
    return places, found.all()


def place_in_cells(
    key: Key[Array, ""],
    is_wall: Bool[Array, "H W"],
    robots: int,
    labels: Int[Array, "H W"] | None,
) -> tuple[Places, Bool[Array, ""]]:
    """Places of all robots in the middles of free cells; and whether all found room.

    All starts differ, all goals differ, and no goal is its robot's start. With `labels`, the regions of
    the map, each goal lies in that of its start.
    """
    width = is_wall.shape[1]
    free = ~is_wall.ravel()
    region = None if labels is None else labels.ravel()
    starts = free
    if labels is not None:  # a cell on its own has no goal within reach
        joined = jnp.pad(labels, 1, constant_values=-1)
        sides = joined[:-2, 1:-1], joined[2:, 1:-1], joined[1:-1, :-2], joined[1:-1, 2:]
        starts = free & (jnp.stack(sides) >= 0).any(0).ravel()

    def place(left, robot_key):
        starts, goals = left
        start_key, goal_key = jax.random.split(robot_key)
        start, has_start = _any_of(start_key, starts)
        allowed = goals.at[start].set(False)
        if region is not None:
            allowed = allowed & (region == region[start])
        goal, has_goal = _any_of(goal_key, allowed)
        left = starts.at[start].set(False), goals.at[goal].set(False)
        return left, (start, goal, has_start & has_goal)

    keys = jax.random.split(key, robots)
    _, (start, goal, found) = jax.lax.scan(place, (starts, free), keys)
    middles = [(cell % width + 0.5, cell // width + 0.5) for cell in (start, goal)]
    (x, y), (goal_x, goal_y) = middles
    return Places(x, y, goal_x, goal_y), found.all()


def _any_of(
    key: Key[Array, ""], allowed: Bool[Array, " n"]
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """One of the allowed indices, each as likely; and whether there is one."""
    words = (jax.random.bits(key, allowed.shape) >> 1).astype(jnp.int32)
    return jnp.argmax(jnp.where(allowed, words, -1)).astype(jnp.int32), allowed.any()


def _at(
    labels: Int[Array, "H W"], x: Float[Array, " n"], y: Float[Array, " n"]
) -> Int[Array, " n"]:
    return labels[y.astype(jnp.int32), x.astype(jnp.int32)]


def _distance(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.sqrt(x * x + y * y)
