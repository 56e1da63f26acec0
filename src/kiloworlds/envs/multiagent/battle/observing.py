"""What units see of a battle. Functions over a single environment.

Letters in shapes: U units, allies first; K units of the observing army; F numbers observed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kiloworlds.envs.multiagent.battle.scenarios import UNIT_NAMES

SEEN_FEATURES = 7 + len(UNIT_NAMES)
"""Numbers observed of another unit: health, position, movement, attack, cooldown, type."""
OWN_FEATURES = 4 + len(UNIT_NAMES)
"""Numbers observed of oneself: health, position, cooldown, type."""


class Sight(NamedTuple):
    """What there is to see of the units, arrays `[U]`.

    Health and cooldown are parts of full ones; `attack` is the number of the action by which a unit
    attacks, as a part of its last action's, 0 where it does not.
    """

    x: Float[Array | np.ndarray, " U"]
    y: Float[Array | np.ndarray, " U"]
    alive: Bool[Array | np.ndarray, " U"]
    health: Float[Array | np.ndarray, " U"]
    cooldown: Float[Array | np.ndarray, " U"]
    move_x: Float[Array | np.ndarray, " U"]
    move_y: Float[Array | np.ndarray, " U"]
    attack: Float[Array | np.ndarray, " U"]
    unit_type: Int[Array | np.ndarray, " U"]
    sight_range: Float[Array | np.ndarray, " U"]


def unit_features(
    sight: Sight,
    x: Float[Array, " U"],
    y: Float[Array, " U"],
    cooldown: Float[Array | np.ndarray, " U"],
) -> Float[Array, "U 10"]:
    """Health, position, cooldown and type of each unit; zeros of the dead."""
    columns = [sight.health, x, y, cooldown, *_type_bits(sight.unit_type)]
    return jnp.where(sight.alive[:, None], jnp.stack(columns, axis=-1), 0.0)


def seen_features(sight: Sight, shows_orders: Bool[np.ndarray, " U"]) -> Float[Array, "U 13"]:
    """What others see of each unit, its position on the map.

    Args:
        shows_orders: of which units movement and attack are to be seen.
    """
    orders = [
        jnp.where(shows_orders, order, 0.0) for order in (sight.move_x, sight.move_y, sight.attack)
    ]
    columns = [sight.health, sight.x, sight.y, *orders, sight.cooldown]
    return jnp.stack([*columns, *_type_bits(sight.unit_type)], axis=-1)


def unit_list(
    sight: Sight, own: Float[Array, "K 10"], first: int, see_enemy_actions: bool
) -> Float[Array, "K F"]:
    """Each unit's view as a list of all others, own army first, and then of itself.

    One that is dead or out of sight is a row of zeros; so is everything to the dead. The second army
    lists all units in reverse.

    Args:
        own: what the observing units see of themselves.
        first: the number of the first of them; 0 or the size of the first army.
    """
    num_units, num_own = sight.x.shape[0], own.shape[0]
    army = slice(first, first + num_own)
    me = Sight(*(leaf[army, None] for leaf in sight))
    order = slice(None) if first == 0 else slice(None, None, -1)
    numbers = np.arange(num_units)[order]
    # The last is listed twice, so that rows may be as long as a whole observation.
    listed = Sight(*(_listed(leaf, order) for leaf in sight))
    listed_numbers = np.append(numbers, numbers[-1])
    is_own = (listed_numbers >= first) & (listed_numbers < first + num_own)
    shows_orders = np.ones(is_own.shape, bool) if see_enemy_actions else is_own
    features = seen_features(listed, shows_orders).reshape(-1)
    x, y = _repeated(jnp.where(listed.alive, listed.x, jnp.inf)), _repeated(listed.y)

    # A row is as long as a whole observation and computed at one go, flat, for short axes are slow on
    # CPU; then its end is overwritten.
    others = (num_units - 1) * SEEN_FEATURES
    length = others + OWN_FEATURES
    place = np.argsort(numbers)[army, None] * SEEN_FEATURES
    precedes = np.arange(length) < place

    def without_self(values: Float[Array, " T"]) -> Float[Array, "K F"]:
        """What is listed of all but oneself: what comes behind moves up."""
        return jnp.where(precedes, values[:length], values[SEEN_FEATURES:][:length])

    feature = np.arange(length) % SEEN_FEATURES
    is_x, is_y = (feature == 1).astype(np.float32), (feature == 2).astype(np.float32)
    scale = jnp.where(is_x + is_y > 0, 1 / me.sight_range, 1.0)
    relative = (without_self(features) - is_x * me.x - is_y * me.y) * scale
    distance = (without_self(x) - me.x) ** 2 + (without_self(y) - me.y) ** 2
    seen = distance < jnp.where(me.alive, me.sight_range**2, -1.0)
    return jax.lax.dynamic_update_slice(jnp.where(seen, relative, 0.0), own, (0, others))


def observation_bounds(num_seen: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most of an observation that shows `num_seen` others, `[F]` each.

    A unit may be pushed off the map just before it dies there, so its own position has no bounds.
    """
    signed = np.zeros(SEEN_FEATURES, np.float32)
    signed[1:5] = -1.0  # relative position, movement
    own_low, own_high = np.zeros(OWN_FEATURES, np.float32), np.ones(OWN_FEATURES, np.float32)
    own_low[1:3], own_high[1:3] = -np.inf, np.inf
    high = np.ones(num_seen * SEEN_FEATURES, np.float32)
    return np.append(np.tile(signed, num_seen), own_low), np.append(high, own_high)


def _type_bits(unit_type: Int[Array | np.ndarray, " U"]) -> list[Float[Array, " U"]]:
    return [jnp.asarray(unit_type == index, jnp.float32) for index in range(len(UNIT_NAMES))]


def _listed(values: Array | np.ndarray, order: slice) -> Array:
    in_order = values[order]
    return jnp.concatenate([in_order, in_order[-1:]])


def _repeated(values: Float[Array | np.ndarray, " U"]) -> Float[Array, " T"]:
    """Each value as often as a unit has features.

    As a stack of copies: XLA would compute `repeat`, with a division, wherever it is read.
    """
    return jnp.stack([values] * SEEN_FEATURES, axis=-1).reshape(-1)
