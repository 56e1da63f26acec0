"""Where the units of a battle start, and of which type they are."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from kiloworlds.core.random import random_index
from kiloworlds.envs.multiagent.battle.scenarios import UNIT_NAMES, Scenario

_SPREAD = 2.0  # of the units of a group around its middle, to either side
SMALLEST_MAP = 4 * _SPREAD
"""The width at which a group around a quarter of it is still inside."""

Size = float | Float[Array, ""]
Positions = tuple[Float[Array, " U"], Float[Array, " U"]]


def draw_positions(key: Key[Array, ""], scenario: Scenario, width: Size, height: Size) -> Positions:
    """Where all units start, allies first, before those that overlap push each other apart."""
    num_allies, num_enemies = len(scenario.allies), len(scenario.enemies)
    if not scenario.random_positions:
        return _face_to_face(key, num_allies, num_enemies, width, height)
    chooser, surround_key, mirror_key = jax.random.split(key, 3)
    case = random_index(chooser, 4)
    surround = _surrounded(surround_key, num_allies, num_enemies, width, height, case == 0)
    mirror = _mirrored(mirror_key, num_allies, num_enemies, width, height)
    x, y = (jnp.where(case < 2, *either) for either in zip(surround, mirror, strict=True))
    return x, y


def draw_types(key: Key[Array, ""], scenario: Scenario) -> Int[Array, " U"]:
    """The type of each unit, allies first: as listed, or drawn and the same for both armies."""
    if not scenario.random_types:
        return jnp.asarray(scenario.unit_type)
    num_allies, num_enemies = len(scenario.allies), len(scenario.enemies)
    drawn = random_index(key, len(UNIT_NAMES), (max(num_allies, num_enemies),))
    return jnp.concatenate([drawn[:num_allies], drawn[:num_enemies]])


def _face_to_face(
    key: Key[Array, ""], num_allies: int, num_enemies: int, width: Size, height: Size
) -> Positions:
    """Allies in the middle of the left half, enemies in the middle of the right."""
    num_units = num_allies + num_enemies
    x, y = jax.random.uniform(key, (2, num_units), minval=-_SPREAD, maxval=_SPREAD)
    is_ally = np.arange(num_units) < num_allies
    return x + jnp.where(is_ally, 0.25, 0.75) * width, y + height / 2


def _mirrored(
    key: Key[Array, ""], num_allies: int, num_enemies: int, width: Size, height: Size
) -> Positions:
    """Allies anywhere in the left half, enemies where their mirror images are."""
    across, y = jax.random.uniform(key, (2, max(num_allies, num_enemies)))
    x = across * width / 2
    y = y * height
    return (
        jnp.concatenate([x[:num_allies], width - x[:num_enemies]]),
        jnp.concatenate([y[:num_allies], y[:num_enemies]]),
    )


def _surrounded(
    key: Key[Array, ""],
    num_allies: int,
    num_enemies: int,
    width: Size,
    height: Size,
    allies_inside: Array,
) -> Positions:
    """One army in the middle, the other in groups towards the four corners.

    Each unit outside joins any of the groups; how far each is from its corner is drawn. As in JaxMARL
    one that starts on a border dies with the first step.
    """
    noise_key, group_key, way_key = jax.random.split(key, 3)
    num_units = num_allies + num_enemies
    x, y = jax.random.uniform(noise_key, (2, num_units), minval=-_SPREAD, maxval=_SPREAD)
    group = random_index(group_key, 4, (num_units,))
    way = jax.random.uniform(way_key, (4,))  # from the corner to the middle
    part = sum(jnp.where(group == index, way[index], 0.0) for index in range(4))
    is_inside = (np.arange(num_units) < num_allies) == allies_inside
    part = jnp.where(is_inside, 1.0, part)
    right, top = (group >= 2).astype(jnp.float32), (group % 2).astype(jnp.float32)
    return (
        x + width * (part * 0.5 + (1 - part) * right),
        y + height * (part * 0.5 + (1 - part) * top),
    )
