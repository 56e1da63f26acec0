"""What can be carried, as one number.

Bit 0 of an item says that it is or lies on a plate, bit 1 that it is cooked, and two bits for each
ingredient count it, 0 to 3.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

NOTHING, PLATE, COOKED, INGREDIENT = 0, 1, 2, 4
"""Items; `INGREDIENT` is ingredient 0, and each following one lies two bits higher."""


def item_bits(num_ingredients: int) -> int:
    """How many bits an item has."""
    return 2 + 2 * num_ingredients


def recipe_item(recipe: tuple[int, ...]) -> int:
    """The item of a recipe, neither cooked nor on a plate."""
    return sum(INGREDIENT << 2 * ingredient for ingredient in recipe)


def ingredient_count(item: Int[Array, ""], num_ingredients: int) -> Int[Array, ""]:
    """How many ingredients there are in an item."""
    return sum((item >> 2 * i + 2 & 3 for i in range(num_ingredients)), jnp.int32(0))


def ingredients_of(item: int) -> list[int]:
    """The ingredients in an item, each as often as it is in it."""
    counts = [item >> shift & 3 for shift in range(2, item.bit_length() + 1, 2)]
    return [ingredient for ingredient, count in enumerate(counts) for _ in range(count)]
