"""The built-in commander of the enemy army.

Letters in shapes as in `rules`. Allies are numbered here as the enemy counts its targets, the last one
first.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kiloworlds.envs.multiagent.battle.orders import FIRST_TARGET, NORTH
from kiloworlds.envs.multiagent.battle.rules import Abilities, Units


class Memory(NamedTuple):
    """Where each enemy heads for while it sees nobody, and the ally it shot at last (-1 for none)."""

    heading_x: Float[Array, "E B"]
    heading_y: Float[Array, "E B"]
    target: Int[Array, "E B"]


def decide(
    enemies: Units,
    abilities: Abilities,
    allies: Units,
    memory: Memory,
    chase: Float[Array, "E B"],
    choice: Float[Array, "E B"],
    shoots: bool,
    attack_mode: str,
) -> tuple[Int[Array, "E B"], Memory]:
    """The action of each enemy.

    It goes on shooting at its last target while that is in range, else shoots at the closest ally in
    range (or any, where `attack_mode` is "random"). With nobody in range it walks towards a random
    ally in sight, and with nobody in sight to the mirror image of where it started.

    Args:
        enemies, abilities: of the E enemies.
        allies: the A allies, last one first.
        chase, choice: draws in (0, 1] that choose whom to walk towards, and whom to shoot at.
    """
    there_x = allies.x[:, None] - enemies.x
    there_y = allies.y[:, None] - enemies.y
    distance = there_x**2 + there_y**2
    both_live = (allies.health > 0)[:, None] & (enemies.health > 0)
    seen = both_live & (distance < abilities.sight_range**2)
    in_range = seen & (distance < abilities.attack_range**2)

    last = _pick_by_number(in_range, memory.target)
    is_random = attack_mode == "random"
    first = _pick_any(in_range, choice) if is_random else _pick_closest(in_range, distance)
    target = jnp.where(last >= 0, last, first)

    chased = _pick_any(seen, chase)
    way_x, way_y = memory.heading_x - enemies.x, memory.heading_y - enemies.y
    for number, (ally_x, ally_y) in enumerate(zip(there_x, there_y, strict=True)):
        way_x = jnp.where(chased == number, ally_x, way_x)
        way_y = jnp.where(chased == number, ally_y, way_y)
    action = _step_along(way_x, way_y)
    if shoots:
        action = jnp.where(target >= 0, FIRST_TARGET + target, action)
    return action, memory._replace(target=target)


def _pick_by_number(allowed: Bool[Array, "A E B"], wanted: Int[Array, "E B"]) -> Int[Array, "E B"]:
    """The wanted number where it is allowed, else -1."""
    picked = jnp.full_like(wanted, -1)
    for number, may in enumerate(allowed):
        picked = jnp.where(may & (wanted == number), number, picked)
    return picked


def _pick_closest(
    allowed: Bool[Array, "A E B"], distance: Float[Array, "A E B"]
) -> Int[Array, "E B"]:
    """The number of the closest that is allowed, the first among equals; -1 where none is."""
    picked = jnp.full(distance.shape[1:], -1, jnp.int32)
    least = jnp.full(distance.shape[1:], jnp.inf)
    for number, (may, far) in enumerate(zip(allowed, distance, strict=True)):
        closer = may & (far < least)
        picked, least = jnp.where(closer, number, picked), jnp.where(closer, far, least)
    return picked


def _pick_any(allowed: Bool[Array, "A E B"], draw: Float[Array, "E B"]) -> Int[Array, "E B"]:
    """One that is allowed, all as likely; -1 where none is."""
    count = jnp.zeros(draw.shape)
    for may in allowed:
        count += may
    wanted = draw * count
    picked = jnp.full(draw.shape, -1, jnp.int32)
    passed = jnp.zeros(draw.shape)
    for number, may in enumerate(allowed):
        # The first whose turn reaches the draw.
        picked = jnp.where(may & (passed < wanted), number, picked)
        passed += may
    return picked


def _step_along(way_x: Float[Array, "E B"], way_y: Float[Array, "E B"]) -> Int[Array, "E B"]:
    """The first of north, east, south and west that leads furthest along a way."""
    action = jnp.full(way_x.shape, NORTH, jnp.int32)
    best = way_y
    for direction, gain in enumerate((way_x, -way_y, -way_x), start=NORTH + 1):
        action, best = jnp.where(gain > best, direction, action), jnp.maximum(gain, best)
    return action
