"""Actions: what they order, which are legal, and how an order is named again.

Letters in shapes: U units, allies first; A allies, E enemies. Arrays may have more axes behind.

An army counts its targets as it lists units: the allies from the first enemy on, the enemies from the
last ally on.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kiloworlds.envs.multiagent.battle.rules import Orders

NORTH, EAST, SOUTH, WEST, STOP, FIRST_TARGET = range(6)
"""Discrete actions; from `FIRST_TARGET` on, attacks on the units of the other army."""

MOVES = ("north", "east", "south", "west", "stop")
"""Their names, before the attacks."""


def orders_of(action: Int[Array, "U ..."], num_allies: int) -> Orders:
    """What the discrete actions of all units order."""
    move_x = (action == EAST).astype(jnp.float32) - (action == WEST).astype(jnp.float32)
    move_y = (action == NORTH).astype(jnp.float32) - (action == SOUTH).astype(jnp.float32)
    number = action - FIRST_TARGET
    target = jnp.concatenate([number[:num_allies], num_allies - 1 - number[num_allies:]])
    return Orders(move_x, move_y, jnp.where(number < 0, -1, target))


def attack_action(target: Int[Array, " U"], num_allies: int) -> Int[Array, " U"]:
    """The action by which each unit attacks its target, 0 where it has none."""
    number = jnp.concatenate([target[:num_allies], num_allies - 1 - target[num_allies:]])
    return jnp.where(target < 0, 0, number + FIRST_TARGET)


def last_actions(num_allies: int, num_enemies: int) -> np.ndarray:
    """The number of the last discrete action of each unit."""
    return np.repeat([num_enemies, num_allies], [num_allies, num_enemies]) + FIRST_TARGET - 1


class Placed(NamedTuple):
    """Units of an army: where they are, and whether they live."""

    x: Float[Array, " K"]
    y: Float[Array, " K"]
    alive: Bool[Array, " K"]


def legal_actions(
    units: Placed, attack_range: Float[Array, " K"], targets: Placed
) -> Bool[Array, "K n"]:
    """Moves, and attacks on living targets in range, of the K units of an army; all of the dead's.

    Args:
        targets: the other army, in the order in which its units are counted as targets.
    """
    # The moves are columns like the rest, so that no mask needs to be put together.
    is_move = np.arange(FIRST_TARGET + targets.x.shape[0]) < FIRST_TARGET
    spare = jnp.zeros(FIRST_TARGET)
    x = jnp.concatenate([spare, jnp.where(targets.alive, targets.x, jnp.inf)])
    y = jnp.concatenate([spare, targets.y])
    distance = (x - units.x[:, None]) ** 2 + (y - units.y[:, None]) ** 2
    in_range = distance < attack_range[:, None] ** 2
    return in_range | is_move | ~units.alive[:, None]
