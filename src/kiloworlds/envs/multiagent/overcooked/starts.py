"""Random starts."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from kiloworlds.core.random import random_index
from kiloworlds.envs.multiagent.overcooked.items import COOKED, INGREDIENT, PLATE
from kiloworlds.envs.multiagent.overcooked.layouts import INGREDIENTS_PER_RECIPE


def random_cells(
    key: Key[Array, ""], choices: Sequence[tuple[int, ...]]
) -> tuple[Int[Array, ""], ...]:
    """A cell for each agent, any free one of its choices as likely.

    Args:
        choices: the cells of each agent; those of two agents are the same or have none in common.
    """
    cells, ranks = [], []
    for agent, own in enumerate(choices):
        rivals = [rank for rank, other in zip(ranks, choices, strict=False) if other == own]
        rank = free = random_index(jax.random.fold_in(key, agent), len(own) - len(rivals))
        # The free cell of that number lies as many places on as taken cells come before it.
        for _ in rivals:
            rank = free + sum((taken <= rank).astype(jnp.int32) for taken in rivals)
        ranks.append(rank)
        cells.append(jnp.asarray(np.array(own, np.int32))[rank])
    return tuple(cells)


def random_items(
    key: Key[Array, ""],
    number: int,
    chances: tuple[float, float, float, float],
    num_ingredients: int,
    recipes: Int[Array, " recipes"],
) -> Int[Array, " number"]:
    """Items: nothing, a plate, any ingredient or a plate of any recipe, with these chances."""
    kind_key, ingredient_key, recipe_key = jax.random.split(key, 3)
    draw = jax.random.uniform(kind_key, (number,))
    ingredients = INGREDIENT << 2 * random_index(ingredient_key, num_ingredients, (number,))
    soups = recipes[random_index(recipe_key, recipes.shape[0], (number,))] | PLATE | COOKED
    kind = sum((draw >= bound).astype(jnp.int32) for bound in np.cumsum(chances)[:-1])
    return jnp.select(
        [kind == 0, kind == 1, kind == 2],
        [jnp.zeros_like(ingredients), jnp.full_like(ingredients, PLATE), ingredients],
        soups,
    )


def random_pots(
    key: Key[Array, ""],
    number: int,
    num_ingredients: int,
    cook_time: Int[Array, ""],
    only_full: bool,
) -> tuple[Int[Array, " number"], Int[Array, " number"]]:
    """What pots hold and how long they cook still.

    A pot is empty, holds one to three ingredients, cooks, or is ready, with chances 0.4, 0.35, 0.15 and
    0.1.

    Args:
        only_full: whether pots that cook or are ready hold three ingredients.
    """
    kind_key, count_key, time_key, *keys = jax.random.split(key, 3 + INGREDIENTS_PER_RECIPE)
    draw = jax.random.uniform(kind_key, (number,))
    count = 1 + random_index(count_key, INGREDIENTS_PER_RECIPE, (number,))
    left = jax.random.randint(time_key, (number,), 1, cook_time + 1)
    some, full = jnp.zeros_like(count), jnp.zeros_like(count)
    for index, ingredient_key in enumerate(keys):
        item = INGREDIENT << 2 * random_index(ingredient_key, num_ingredients, (number,))
        full = full + item
        some = some + jnp.where(index < count, item, 0)
    cooked = full if only_full else some
    in_pots = jnp.select(
        [draw < 0.4, draw < 0.75, draw < 0.9], [jnp.zeros_like(some), some, cooked], cooked | COOKED
    )
    return in_pots, jnp.where((draw >= 0.75) & (draw < 0.9), left, 0)
