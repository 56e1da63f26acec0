"""What units see when the view around them is cut into sectors. Functions over a single environment.

Letters in shapes as in `observing`; S sectors.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kiloworlds.envs.multiagent.battle.observing import SEEN_FEATURES, Sight, seen_features

NUM_SECTORS = 32
UNITS_PER_SECTOR = 2
SLOTS = NUM_SECTORS * UNITS_PER_SECTOR


Values = Float[Array | np.ndarray, "..."]


def conic(
    sight: Sight, own: Float[Array, "K 10"], first: int, see_enemy_actions: bool
) -> Float[Array, "K F"]:
    """Each unit's view sector by sector, counter-clockwise from the west, and then of itself.

    A sector shows the first two units that live and are in sight there; empty places are zeros.

    Args:
        own: what the observing units see of themselves.
        first: the number of the first of them.
    """
    num_units, num_own = sight.x.shape[0], own.shape[0]
    numbers = np.arange(first, first + num_own)
    me = Sight(*(leaf[first : first + num_own, None] for leaf in sight))
    across, along = sight.x - me.x, sight.y - me.y
    in_sight = across**2 + along**2 < me.sight_range**2
    visible = in_sight & sight.alive & me.alive & (np.arange(num_units) != numbers[:, None])

    unit, is_seen = _who_is_where(_sector(across, along), visible)
    is_own = (np.arange(num_units) >= first) & (np.arange(num_units) < first + num_own)
    table = seen_features(sight, np.ones(num_units, bool) if see_enemy_actions else is_own)
    seen = jnp.take(table, unit, axis=0, mode="clip")
    position = jnp.stack([me.x, me.y], axis=-1)
    relative = (seen[..., 1:3] - position) / me.sight_range[..., None]
    seen = jnp.concatenate([seen[..., :1], relative, seen[..., 3:]], axis=-1)
    seen = jnp.where(is_seen[..., None], seen, 0.0)
    return jnp.concatenate([seen.reshape(num_own, SLOTS * SEEN_FEATURES), own], axis=-1)


def _sector(across: Values, along: Values) -> Int[Array, "K U"]:
    turns = (jnp.arctan2(along, across) + np.pi) / (2 * np.pi)
    return jnp.minimum((turns * NUM_SECTORS).astype(jnp.int32), NUM_SECTORS - 1)


def _who_is_where(
    sector: Int[Array, "K U"], visible: Bool[Array, "K U"]
) -> tuple[Int[Array, "K slots"], Bool[Array, "K slots"]]:
    """The number of the unit in each place of each sector, and whether there is one."""
    count = sector.shape[1]
    before = np.arange(count) < np.arange(count)[:, None]
    same = (sector[:, :, None] == sector[:, None, :]) & visible[:, None, :] & before
    rank = same.sum(-1)
    place = jnp.where(visible & (rank < UNITS_PER_SECTOR), sector * UNITS_PER_SECTOR + rank, -1)
    fits = place[:, None, :] == np.arange(SLOTS)[:, None]
    return jnp.where(fits, np.arange(count), 0).sum(-1), fits.any(-1)
