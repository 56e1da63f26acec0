"""What happens in a battle: moving, shooting, colliding, dying, winning.

Letters in shapes: U units of both armies, allies first; A allies and E enemies; B environments, always
on the last axis (see `batching`). Sums over units are written out: see `sum_over`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_FAR = 1e9  # of a target that is none


class Units(NamedTuple):
    """Where units are, how much health (points) they have, and seconds until they can shoot."""

    x: Float[Array, "U B"]
    y: Float[Array, "U B"]
    health: Float[Array, "U B"]
    cooldown: Float[Array, "U B"]


class Abilities(NamedTuple):
    """What each unit can do; the fields of `UnitTypes`."""

    speed: Float[Array, "U B"]
    attack_range: Float[Array, "U B"]
    sight_range: Float[Array, "U B"]
    radius: Float[Array, "U B"]
    damage: Float[Array, "U B"]
    health: Float[Array, "U B"]
    cooldown: Float[Array, "U B"]


class Orders(NamedTuple):
    """The direction units move in (unit length, or zeros), and their target: the number of a unit of
    the other army, -1 for none."""

    move_x: Float[Array, "U B"]
    move_y: Float[Array, "U B"]
    target: Int[Array, "U B"]


Aims = tuple[Bool[Array, "E A B"], Bool[Array, "A E B"]]
"""Whether each ally aims at each enemy, and each enemy at each ally; the target is the first axis."""


class Field(NamedTuple):
    """The size of the map and the seconds between two instants."""

    width: Float[Array, " B"]
    height: Float[Array, " B"]
    time_per_step: Float[Array, " B"]


def fight(
    units: Units,
    orders: Orders,
    abilities: Abilities,
    field: Field,
    delay: Float[Array, "U B"],
    num_allies: int,
    num_instants: int,
    walls_cause_death: bool,
) -> tuple[Units, Bool[Array, "U B"]]:
    """Carries the same orders out for `num_instants` instants.

    Args:
        delay: added to the cooldown (s) after a shot. There is one for each unit, for between
            two shots more time passes than between two actions.

    Returns:
        The units, and which of them shot.
    """
    num_enemies = units.x.shape[0] - num_allies
    aims = (
        _aims(orders.target[:num_allies], num_enemies),
        _aims(orders.target[num_allies:], num_allies),
    )

    def instant(carry, _):
        units, shot = carry
        units, shoots = _instant(
            units, orders, aims, abilities, field, delay, num_allies, walls_cause_death
        )
        return (units, shot | shoots), None

    start = units, jnp.zeros(units.x.shape, bool)
    return jax.lax.scan(instant, start, None, length=num_instants)[0]


def _instant(
    units: Units,
    orders: Orders,
    aims: Aims,
    abilities: Abilities,
    field: Field,
    delay: Float[Array, "U B"],
    num_allies: int,
    walls_cause_death: bool,
) -> tuple[Units, Bool[Array, "U B"]]:
    """All units shoot from where they stand, then move, then push each other apart."""
    alive = units.health > 0
    shoots = _shooters(units, aims, abilities.attack_range, num_allies)
    harm = _harm(aims, jnp.where(shoots, abilities.damage, 0.0), num_allies)
    cooldown = jnp.where(shoots, abilities.cooldown + delay, units.cooldown - field.time_per_step)
    stride = abilities.speed * field.time_per_step
    x = jnp.clip(units.x + orders.move_x * stride, 0.0, field.width)
    y = jnp.clip(units.y + orders.move_y * stride, 0.0, field.height)
    x, y = jnp.where(alive, x, units.x), jnp.where(alive, y, units.y)
    health = jnp.maximum(units.health - harm, 0.0)
    if walls_cause_death:
        at_wall = (x <= 0) | (x >= field.width) | (y <= 0) | (y >= field.height)
        health = jnp.where(at_wall, 0.0, health)
    x, y = push_apart(x, y, health > 0, abilities.radius)
    return Units(x, y, health, cooldown), shoots


def _aims(target: Int[Array, "K B"], num_others: int) -> Bool[Array, "L K B"]:
    """Whether each unit of one army aims at each of the `num_others` of the other."""
    return target == jnp.arange(num_others)[:, None, None]


def _shooters(
    units: Units,
    aims: Aims,
    attack_range: Float[Array, "U B"],
    num_allies: int,
) -> Bool[Array, "U B"]:
    """Which units have a living target in range, and a weapon that is ready."""
    alive = units.health > 0
    x, y = jnp.where(alive, units.x, _FAR), units.y
    armies = slice(None, num_allies), slice(num_allies, None)
    where_x, where_y = [], []
    for own, other, aim in zip(armies, armies[::-1], aims, strict=True):
        target_x = jnp.full_like(x[own], _FAR)
        target_y = jnp.zeros_like(y[own])
        for index in range(aim.shape[0]):
            target_x = jnp.where(aim[index], x[other][index], target_x)
            target_y = jnp.where(aim[index], y[other][index], target_y)
        where_x.append(target_x)
        where_y.append(target_y)
    apart_x = jnp.concatenate(where_x) - units.x
    apart_y = jnp.concatenate(where_y) - units.y
    in_range = apart_x**2 + apart_y**2 < attack_range**2
    return in_range & alive & (units.cooldown <= 0)


def _harm(
    aims: Aims,
    damage: Float[Array, "U B"],
    num_allies: int,
) -> Float[Array, "U B"]:
    """How much health each unit loses to the shots of the other army."""
    harm = []
    for aim, amount in zip(aims, (damage[:num_allies], damage[num_allies:]), strict=True):
        total = jnp.zeros((aim.shape[0], damage.shape[1]))
        for index in range(aim.shape[1]):
            total += jnp.where(aim[:, index], amount[index], 0.0)
        harm.append(total)
    return jnp.concatenate(harm[::-1])


def push_apart(
    x: Float[Array, "U B"],
    y: Float[Array, "U B"],
    alive: Bool[Array, "U B"],
    radius: Float[Array, "U B"],
) -> tuple[Float[Array, "U B"], Float[Array, "U B"]]:
    """Moves living units that overlap apart, each by half of what they overlap."""
    # Where a unit is dead the sum of radii is negative, so that nothing overlaps.
    reach = jnp.where(alive, radius, -_FAR)
    distance = jnp.sqrt((x - x[:, None]) ** 2 + (y - y[:, None]) ** 2) + 1e-6
    overlap = jnp.maximum((reach + reach[:, None]) / distance - 1.0, 0.0)
    push_x, push_y = jnp.zeros_like(x), jnp.zeros_like(y)
    # A sum over an axis other than the last is one XLA on CPU does number by number; these are
    # sums of vectors.
    for index in range(x.shape[0]):
        push_x += (x - x[index]) * overlap[index]
        push_y += (y - y[index]) * overlap[index]
    return x + push_x / 2, y + push_y / 2


class Outcome(NamedTuple):
    """What an action brought to either army: rewards, whether it won, and whether the battle is over."""

    ally_reward: Float[Array, " B"]
    enemy_reward: Float[Array, " B"]
    ally_won: Bool[Array, " B"]
    enemy_won: Bool[Array, " B"]
    over: Bool[Array, " B"]


def judge(
    health_before: Float[Array, "U B"],
    health: Float[Array, "U B"],
    full_health: Float[Array, "U B"],
    won_battle_bonus: Float[Array, " B"],
    num_allies: int,
    use_self_play_reward: bool,
) -> Outcome:
    """Pays each army the share of the other's health that it took, and a bonus for killing all.

    With `use_self_play_reward` the winner gets the bonus and the loser pays it, and nothing else counts.
    """
    lost = (health_before - health) / full_health
    dead = health <= 0
    ally_lost, enemy_lost = lost[:num_allies].mean(0), lost[num_allies:].mean(0)
    allies_dead, enemies_dead = dead[:num_allies].all(0), dead[num_allies:].all(0)
    ally_won, enemy_won = enemies_dead & ~allies_dead, allies_dead & ~enemies_dead
    bonus = jnp.where(ally_won, won_battle_bonus, 0.0), jnp.where(enemy_won, won_battle_bonus, 0.0)
    if use_self_play_reward:
        rewards = bonus[0] - bonus[1], bonus[1] - bonus[0]
    else:
        rewards = enemy_lost + bonus[0], ally_lost + bonus[1]
    return Outcome(*rewards, ally_won, enemy_won, allies_dead | enemies_dead)
