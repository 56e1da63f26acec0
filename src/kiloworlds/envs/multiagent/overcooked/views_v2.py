"""What OvercookedV2's agents see: layers of each cell, packed into words."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

from kiloworlds.envs.multiagent.overcooked.counters import items_on_counters
from kiloworlds.envs.multiagent.overcooked.items import COOKED, PLATE, item_bits
from kiloworlds.envs.multiagent.overcooked.kitchen import Kitchen
from kiloworlds.envs.multiagent.overcooked.layers import Field, computed_once
from kiloworlds.envs.multiagent.overcooked.layouts import (
    BUTTON,
    COUNTER,
    GOAL,
    INDICATOR,
    PLATES,
    POT,
)
from kiloworlds.envs.multiagent.overcooked.rules import OvercookedState

TIMER_BITS = 7
"""Of the steps a pot cooks still."""

_FIXED = (COUNTER, GOAL, POT, INDICATOR, BUTTON, PLATES)


class LayerPlan:
    """Where each layer lies among the words of a cell.

    Attributes:
        num_ingredients: of the kitchen.
        fields: of the layers, in their order.
    """

    def __init__(self, num_ingredients: int, tells_delivery: bool):
        self.num_ingredients = num_ingredients
        item = item_bits(num_ingredients)
        sizes = {
            "itself": 5 + item,
            "others": 5 + item,
            "things": item,
            "recipe": item,
            "timer": TIMER_BITS,
            "fixed": len(_FIXED),
            "piles": num_ingredients,
            "delivered": 1,
        }
        self._places: dict[str, tuple[int, int]] = {}
        free: list[int] = []  # bits of each word
        for name, size in sorted(sizes.items(), key=lambda pair: -pair[1]):
            fitting = [word for word, bits in enumerate(free) if bits >= size]
            word = fitting[0] if fitting else len(free)
            if not fitting:
                free.append(32)
            self._places[name] = word, 32 - free[word]
            free[word] -= size
        self._num_words = len(free)

        ones = {name: [1] * size for name, size in sizes.items()}
        counts = [1, 1, *[2] * num_ingredients]
        layers = {
            "itself": [1] * 5 + counts,
            "others": [1] * 5 + counts,
            "fixed": ones["fixed"],
            "piles": ones["piles"],
            "things": counts,
            "recipe": counts,
            "timer": [TIMER_BITS],
        }
        if tells_delivery:
            layers["delivered"] = [1]
        fields = []
        for name, widths in layers.items():
            word, shift = self._places[name]
            for width in widths:
                fields.append(Field(word, shift, width))
                shift += width
        self.fields = tuple(fields)

    def pack(self, **parts: UInt32[Array, " cells"]) -> list[UInt32[Array, " cells"]]:
        """The words of each cell, from the bits of each part."""
        words: list = [None] * self._num_words
        for name, part in parts.items():
            word, shift = self._places[name]
            shifted = part << np.uint32(shift)
            words[word] = shifted if words[word] is None else words[word] | shifted
        return words


@functools.lru_cache(maxsize=64)
def layer_plan(num_ingredients: int, tells_delivery: bool) -> LayerPlan:
    """The plan of kitchens of so many ingredients, made once."""
    return LayerPlan(num_ingredients, tells_delivery)


def packed_views(
    kitchen: Kitchen,
    plan: LayerPlan,
    state: OvercookedState,
    shows_recipe: Bool[Array, " cells"],
    permutes_ingredients: bool,
) -> list[UInt32[Array, "A cells"]]:
    """All that each agent could see of each cell, in the words of `plan`.

    Args:
        shows_recipe: which cells show the recipe.
        permutes_ingredients: whether agents see ingredients as others, by the state's orders.
    """
    kinds = plan.num_ingredients
    cells = np.arange(len(kitchen.cells))
    state = _as_unsigned(state)
    fixed, piles = _flags(kitchen, _FIXED), _flags(kitchen, tuple(map(str, range(kinds))))
    things = items_on_counters(kitchen, state.counters).astype(jnp.uint32)
    timer = jnp.zeros(len(cells), jnp.uint32)
    for cell, in_pot, left in zip(kitchen.pots, state.pots, state.cooking, strict=True):
        things = things | jnp.where(cells == cell, in_pot, 0)
        timer = timer | jnp.where(cells == cell, left, 0)
    recipe = jnp.where(shows_recipe, state.recipe, 0)
    delivered = jnp.where(kitchen.has(GOAL), state.delivered.astype(jnp.uint32), 0)
    views = []
    for viewer in range(len(state.cells)):
        order = state.ingredient_order[viewer] if permutes_ingredients else None
        agents = {
            True: jnp.zeros(len(cells), jnp.uint32),
            False: jnp.zeros(len(cells), jnp.uint32),
        }
        for agent, (cell, facing, item) in enumerate(
            zip(state.cells, state.facings, state.held, strict=True)
        ):
            figure = 1 | jnp.uint32(2) << facing | _as_seen(item, order, kinds) << 5
            here = jnp.where(cells == cell, figure, 0)
            agents[agent == viewer] = agents[agent == viewer] | here
        views.append(
            plan.pack(
                itself=agents[True],
                others=agents[False],
                fixed=fixed,
                piles=_piles_as_seen(piles, order, kinds),
                things=_as_seen(things, order, kinds),
                recipe=_as_seen(recipe, order, kinds),
                timer=timer,
                delivered=delivered,
            )
        )
    return [jnp.stack(word) for word in zip(*views, strict=True)]


def _flags(kitchen: Kitchen, letters: tuple[str, ...]) -> UInt32[Array, " cells"]:
    """Which letter each cell shows, as one bit for each."""
    flags = jnp.zeros(len(kitchen.cells), jnp.uint32)
    for bit, letter in enumerate(letters):
        flags = flags | kitchen.has(letter).astype(np.uint32) << bit
    return flags


def _as_unsigned(state: OvercookedState) -> OvercookedState:
    """The state as it is, in unsigned integers that are computed once."""
    return computed_once(jax.tree.map(lambda leaf: leaf.astype(jnp.uint32), state))


def _as_seen(item: Array, order: tuple[Array, ...] | None, num_ingredients: int) -> Array:
    """Items as an agent sees them whose ingredient i is really ingredient `order[i]`."""
    if order is None:
        return item
    seen = item & (PLATE | COOKED)
    for i in range(num_ingredients):
        seen = seen | (item >> 2 * order[i] + 2 & 3) << 2 * i + 2
    return seen


def _piles_as_seen(piles: Array, order: tuple[Array, ...] | None, num_ingredients: int) -> Array:
    if order is None:
        return piles
    seen = jnp.zeros_like(piles)
    for i in range(num_ingredients):
        seen = seen | (piles >> order[i] & 1) << i
    return seen
