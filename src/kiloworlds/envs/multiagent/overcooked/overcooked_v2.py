"""OvercookedV2: cooks who must find out what is asked for, and see only part of the kitchen."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8, UInt32

from kiloworlds.core.checks import require_count, require_flag, require_numbers
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.multiagent.overcooked import rules
from kiloworlds.envs.multiagent.overcooked.counters import counters_with
from kiloworlds.envs.multiagent.overcooked.items import item_bits, recipe_item
from kiloworlds.envs.multiagent.overcooked.kitchen import DIRECTIONS, Kitchen, kitchen_of
from kiloworlds.envs.multiagent.overcooked.layers import computed_once, unpack
from kiloworlds.envs.multiagent.overcooked.layouts import (
    BUTTON,
    INDICATOR,
    Layout,
    find_layout_v2,
)
from kiloworlds.envs.multiagent.overcooked.picture import draw
from kiloworlds.envs.multiagent.overcooked.rules import MOST_COOK_TIME, OvercookedState, Rules
from kiloworlds.envs.multiagent.overcooked.starts import random_cells, random_items, random_pots
from kiloworlds.envs.multiagent.overcooked.text import describe
from kiloworlds.envs.multiagent.overcooked.views_v2 import (
    TIMER_BITS,
    LayerPlan,
    layer_plan,
    packed_views,
)

_STAY, _INTERACT = 4, 5
# The direction of each action that walks: right, down, left, up.
_TURNS = (2, 1, 3, 0)


class OvercookedV2(MultiAgentEnvironment):
    """OvercookedV2 as JaxMARL's `overcooked_v2` plays it, state for state.

    The rules of `Overcooked`, and: there are several ingredients, and any three of them make a soup, but
    only the recipe that is asked for is paid. It is drawn at the start; agents know it from an
    indicator, which may show it only for some steps after its button was pressed, for a price. They may
    see only the cells near them. Any number of agents plays.

    Observation: `[A, rows, columns, layers]`, uint8, what each agent sees; with `agent_view_size` v the
        2 v + 1 rows and columns around it, 0 beyond the kitchen. An item takes 2 + I layers: whether it
        is a plate or on one, whether it is cooked, and how many there are of each of the I ingredients.
        The agent itself: where it is, by the direction it faces (up, down, right, left), what it holds.
        The other agents: the same.
        Counters (all, and walls), deliveries, pots, indicators, indicators with a button, plates.
        Piles of each ingredient.
        What lies on counters or is in pots.
        The recipe, where an indicator shows it.
        Steps that a pot cooks still.
        With `indicate_successful_delivery`, deliveries if the recipe was delivered in the last step.
    Action: 0 right, 1 down, 2 left, 3 up (the agent turns there and goes if the cell is free), 4 stay,
        5 interact. The order differs from that of `Overcooked`, as it does in JaxMARL.
    Reward: to all agents 20 for each delivery of what is asked for, -5 for each button pressed.
    Episode end: never; the registry's time limit is 400 steps.
    Info: `shaped_reward` `[A]`: 3 for an ingredient put into a pot that lacks it; 3 for taking a plate
        while fewer plates are in hands than pots in use and none lies on a counter; 5 for taking from a
        pot what is asked for; with `start_cooking_interaction` 5 for starting a pot that holds it.

    Args:
        layout: the name of a kitchen (`LAYOUTS_V2`), or a text that draws one: a line for each row, of
            the letters W counter, P pot, 0 to 9 piles of ingredients (O is 0), B plates, X delivery,
            R recipe indicator, L the same with a button, A agent (1 to 8, numbered in reading order) and
            spaces for the floor.
        recipes: what may be asked for, each three numbers of ingredients, one as likely as another; None
            for the kitchen's own, which for a text are all that can be cooked in it.
        agent_view_size: how far agents see to each side; None: the whole kitchen.
        random_reset: whether agents start anywhere in their rooms, and hands, counters and pots hold
            anything.
        random_agent_positions: whether agents start anywhere in their rooms, facing anywhere. Else they
            start in their places and face up.
        start_cooking_interaction: whether a pot starts to cook, full or not, when an agent with empty
            hands interacts with it, instead of by itself once it is full.
        sample_recipe_on_delivery: whether each delivery of what is asked for draws another recipe.
        indicate_successful_delivery: whether agents see that they delivered it.
        permuted_ingredients: ingredients that each agent sees as one another, in an order drawn for
            each at each start, as in other-play.
        cook_time: steps from the start of cooking to the soup, 1 to 100.
        button_time: steps that a button shows the recipe for, that of the press included.
        button_cost: what pressing it costs the team.
        delivery_reward, wrong_delivery_reward: for delivering what is asked for, and anything else
            (-20 is JaxMARL's `negative_rewards`).
        placement_reward, plate_reward, soup_reward, start_reward: the hints of `shaped_reward`.

    With `agent_view_size`, the global state is what each agent would see of the whole kitchen with all
    indicators showing the recipe.

    Raises:
        UnknownNameError: there is no kitchen of that name.
        InvalidValueError: a text that draws no kitchen, with the line and column; recipes that cannot be
            cooked; a number out of range.

    Differences: kitchens must be closed all around; there are no starts from a buffer of states and no
    observations as features.

    Reference: T. Gessler et al., "OvercookedV2: Rethinking Overcooked for Zero-Shot Coordination"
    (2025), arXiv:2503.17821.
    """

    layout: Layout = eqx.field(static=True)
    agent_view_size: int | None = eqx.field(static=True)
    random_reset: bool = eqx.field(static=True)
    random_agent_positions: bool = eqx.field(static=True)
    start_cooking_interaction: bool = eqx.field(static=True)
    sample_recipe_on_delivery: bool = eqx.field(static=True)
    indicate_successful_delivery: bool = eqx.field(static=True)
    permuted_ingredients: tuple[int, ...] = eqx.field(static=True)
    cook_time: Int[ArrayLike, ""]
    button_time: Int[ArrayLike, ""]
    button_cost: Float[ArrayLike, ""]
    delivery_reward: Float[ArrayLike, ""]
    wrong_delivery_reward: Float[ArrayLike, ""]
    placement_reward: Float[ArrayLike, ""]
    plate_reward: Float[ArrayLike, ""]
    soup_reward: Float[ArrayLike, ""]
    start_reward: Float[ArrayLike, ""]

    cheap_reset: ClassVar[Any] = property(lambda self: not self.random_reset)
    team_reward: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = ("right", "down", "left", "up", "stay", "interact")

    def __init__(
        self,
        layout: str = "cramped_room",
        recipes: Sequence[Sequence[int]] | None = None,
        agent_view_size: int | None = None,
        random_reset: bool = False,
        random_agent_positions: bool = False,
        start_cooking_interaction: bool = False,
        sample_recipe_on_delivery: bool = False,
        indicate_successful_delivery: bool = False,
        permuted_ingredients: Sequence[int] = (),
        cook_time: Int[ArrayLike, ""] = 20,
        button_time: Int[ArrayLike, ""] = 10,
        button_cost: Float[ArrayLike, ""] = 5.0,
        delivery_reward: Float[ArrayLike, ""] = 20.0,
        wrong_delivery_reward: Float[ArrayLike, ""] = 0.0,
        placement_reward: Float[ArrayLike, ""] = 3.0,
        plate_reward: Float[ArrayLike, ""] = 3.0,
        soup_reward: Float[ArrayLike, ""] = 5.0,
        start_reward: Float[ArrayLike, ""] = 5.0,
    ):
        self.layout = find_layout_v2(layout, recipes)
        if agent_view_size is not None:
            agent_view_size = require_count("agent_view_size", agent_view_size)
        self.agent_view_size = agent_view_size
        flags = {
            "random_reset": random_reset,
            "random_agent_positions": random_agent_positions,
            "start_cooking_interaction": start_cooking_interaction,
            "sample_recipe_on_delivery": sample_recipe_on_delivery,
            "indicate_successful_delivery": indicate_successful_delivery,
        }
        for name, flag in flags.items():
            require_flag(name, flag)
        self.random_reset = random_reset
        _ = self.kitchen  # refuses what is too large
        self.random_agent_positions = random_agent_positions
        self.start_cooking_interaction = start_cooking_interaction
        self.sample_recipe_on_delivery = sample_recipe_on_delivery
        self.indicate_successful_delivery = indicate_successful_delivery
        self.permuted_ingredients = _checked_ingredients(permuted_ingredients, self.layout)
        self.cook_time = require_numbers("cook_time", cook_time, 1, MOST_COOK_TIME, whole=True)
        self.button_time = require_numbers("button_time", button_time, 1, whole=True)
        self.button_cost = button_cost
        self.delivery_reward = delivery_reward
        self.wrong_delivery_reward = wrong_delivery_reward
        self.placement_reward = placement_reward
        self.plate_reward = plate_reward
        self.soup_reward = soup_reward
        self.start_reward = start_reward

    @property
    def kitchen(self) -> Kitchen:
        """The tables of the layout."""
        return kitchen_of(self.layout, hold_everywhere=self.random_reset)

    @property
    def num_agents(self) -> int:
        return len(self.layout.starts)

    @property
    def _recipe_items(self) -> Int[np.ndarray, " recipes"]:
        return np.array([recipe_item(recipe) for recipe in self.layout.recipes], np.int32)

    @property
    def _rules(self) -> Rules:
        return Rules(
            num_ingredients=self.layout.num_ingredients,
            starts_by_hand=self.start_cooking_interaction,
            counts_plates_in_turn=False,
            cook_time=self.cook_time,
            delivery_reward=self.delivery_reward,
            placement_reward=self.placement_reward,
            plate_reward=self.plate_reward,
            soup_reward=self.soup_reward,
            wrong_delivery_reward=self.wrong_delivery_reward,
            start_reward=self.start_reward,
            button_time=self.button_time,
            button_cost=self.button_cost,
        )

    def reset(
        self, key: Key[Array, ""]
    ) -> tuple[OvercookedState, UInt8[Array, "A rows columns layers"]]:
        recipe_key, order_key, cells_key, facings_key, things_key = (
            jax.random.fold_in(key, use) for use in range(5)
        )
        state = rules.initial_state(
            self.kitchen,
            self.layout.starts,
            self._draw_recipe(recipe_key),
            self.layout.num_ingredients,
        )
        if self.permuted_ingredients:
            state = state._replace(ingredient_order=self._draw_orders(order_key))
        if self.random_reset or self.random_agent_positions:
            facings = random_index(facings_key, len(DIRECTIONS), (self.num_agents,))
            state = state._replace(
                cells=random_cells(cells_key, self._rooms()),
                facings=tuple(facings[agent] for agent in range(self.num_agents)),
            )
        if self.random_reset:
            state = self._scramble(things_key, state)
        return state, self.observe(state)

    def _draw_recipe(self, key: Key[Array, ""]) -> Int[Array, ""]:
        items = self._recipe_items
        if len(items) == 1:
            return jnp.int32(items[0])
        return jnp.asarray(items)[random_index(key, len(items))]

    def _rooms(self) -> list[tuple[int, ...]]:
        """The cells of the room each agent starts in."""
        rooms = self.kitchen.rooms
        return [
            tuple(np.flatnonzero(rooms == rooms[start]).tolist()) for start in self.layout.starts
        ]

    def _draw_orders(self, key: Key[Array, ""]) -> tuple[tuple[Int[Array, ""], ...], ...]:
        """The permuted ingredients in a random order for each agent, the others in their places."""
        permuted = self.permuted_ingredients
        words = jax.random.bits(key, (self.num_agents, len(permuted)))
        orders = []
        for agent in range(self.num_agents):
            own = [words[agent, i] for i in range(len(permuted))]
            order = [jnp.int32(ingredient) for ingredient in range(self.layout.num_ingredients)]
            for i, ingredient in enumerate(permuted):
                before = [
                    (own[j] < own[i]) | ((own[j] == own[i]) & (j < i))
                    for j in range(len(permuted))
                    if j != i
                ]
                rank = sum((flag.astype(jnp.int32) for flag in before), jnp.int32(0))
                order[ingredient] = jnp.asarray(permuted, jnp.int32)[rank]
            orders.append(tuple(order))
        return tuple(orders)

    def _scramble(self, key: Key[Array, ""], state: OvercookedState) -> OvercookedState:
        held_key, counters_key, pots_key = jax.random.split(key, 3)
        kitchen, kinds = self.kitchen, self.layout.num_ingredients
        recipes = jnp.asarray(self._recipe_items)
        held = random_items(held_key, self.num_agents, (0.5, 0.1, 0.25, 0.15), kinds, recipes)
        lying = random_items(
            counters_key, len(kitchen.counters), (0.5, 0.1, 0.3, 0.1), kinds, recipes
        )
        in_pots, cooking = random_pots(
            pots_key,
            len(kitchen.pots),
            kinds,
            jnp.asarray(self.cook_time, jnp.int32),
            only_full=not self.start_cooking_interaction,
        )
        return state._replace(
            held=tuple(held[agent] for agent in range(self.num_agents)),
            counters=counters_with(kitchen, lying, item_bits(kinds)),
            pots=tuple(in_pots[pot] for pot in range(len(kitchen.pots))),
            cooking=tuple(cooking[pot] for pot in range(len(kitchen.pots))),
        )

    def step(
        self, key: Key[Array, ""], state: OvercookedState, action: Int[Array, " A"]
    ) -> tuple[OvercookedState, Step]:
        actions = [action[agent] for agent in range(self.num_agents)]
        state, outcome = rules.step(
            self.kitchen,
            self._rules,
            state,
            turns=tuple(map(_turn, actions)),
            moves=tuple(action < _STAY for action in actions),
            touches=tuple(action == _INTERACT for action in actions),
        )
        if self.sample_recipe_on_delivery:
            another = self._draw_recipe(key)
            state = state._replace(recipe=jnp.where(state.delivered, another, state.recipe))
        never = jnp.zeros((), bool)
        return state, Step(
            self.observe(state),
            jnp.broadcast_to(outcome.reward, self.num_agents),
            never,
            never,
            {"shaped_reward": jnp.stack(outcome.shaped_reward)},
        )

    def observe(self, state: OvercookedState) -> UInt8[Array, "A rows columns layers"]:
        """What each agent sees of a state."""
        words = [
            word.reshape(self.num_agents, *self.kitchen.shape)
            for word in self._packed_views(state, self._shows_recipe(state))
        ]
        if self.agent_view_size is not None:
            words = [self._near(word, state.cells) for word in computed_once(words)]
        return unpack(words, self._plan.fields)

    @property
    def global_state_space(self) -> Box | None:
        if self.agent_view_size is None:
            return None
        layers = len(self._plan.fields)
        size = self.num_agents, len(self.kitchen.cells) * layers
        return Box(0, (1 << TIMER_BITS) - 1, size)

    def global_state(self, state: OvercookedState) -> Float[Array, "A features"]:
        indicators = self.kitchen.has(INDICATOR) | self.kitchen.has(BUTTON)
        words = self._packed_views(state, jnp.asarray(indicators))
        layers = unpack(words, self._plan.fields)
        return layers.reshape(self.num_agents, -1).astype(jnp.float32)

    @property
    def _plan(self) -> LayerPlan:
        return layer_plan(self.layout.num_ingredients, self.indicate_successful_delivery)

    def _shows_recipe(self, state: OvercookedState) -> Bool[Array, " cells"]:
        shown = jnp.asarray(self.kitchen.has(INDICATOR))
        cells = np.arange(len(self.kitchen.cells))
        for cell, left in zip(self.kitchen.buttons, state.buttons, strict=True):
            shown = shown | ((cells == cell) & (left > 0))
        return shown

    def _packed_views(
        self, state: OvercookedState, shows_recipe: Bool[Array, " cells"]
    ) -> list[UInt32[Array, "A cells"]]:
        permutes = bool(self.permuted_ingredients)
        return packed_views(self.kitchen, self._plan, state, shows_recipe, permutes)

    def _near(
        self, word: UInt32[Array, "A rows columns"], cells: tuple[Int[Array, ""], ...]
    ) -> UInt32[Array, "A size size"]:
        """The part of the kitchen near each agent, 0 beyond its edges."""
        reach = self.agent_view_size
        assert reach is not None
        size = 2 * reach + 1
        padded = jnp.pad(word, ((0, 0), (reach, reach), (reach, reach)))
        columns = np.uint32(self.kitchen.shape[1])
        parts = []
        for agent, cell in enumerate(cells):
            row, column = jnp.divmod(cell.astype(jnp.uint32), columns)
            start = row.astype(jnp.int32), column.astype(jnp.int32)
            parts.append(jax.lax.dynamic_slice(padded[agent], start, (size, size)))
        return jnp.stack(parts)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        shape = self.layout.shape
        if self.agent_view_size is not None:
            shape = (2 * self.agent_view_size + 1,) * 2
        box = Box(0, (1 << TIMER_BITS) - 1, (*shape, len(self._plan.fields)), np.uint8)
        actions = Discrete(len(self.action_names))
        return (AgentKind.numbered("agent", self.num_agents, box, actions),)

    def render(self, state: OvercookedState) -> np.ndarray:
        """The kitchen, 64 pixels a cell: what stands, lies and cooks where, and what is asked for."""
        return draw(self.kitchen, state, int(np.max(self.cook_time)))

    def describe(self, state: OvercookedState) -> str:
        """The kitchen as a map with a legend, then each agent, pot and counter in a sentence."""
        names = tuple(f"ingredient_{i}" for i in range(self.layout.num_ingredients))
        return describe(self.kitchen, state, names)


def _turn(action: Int[Array, ""]) -> Int[Array, ""]:
    """The direction an action walks in."""
    packed = sum(turn << 2 * index for index, turn in enumerate(_TURNS))
    return jnp.int32(packed) >> 2 * action & 3


def _checked_ingredients(ingredients: Sequence[int], layout: Layout) -> tuple[int, ...]:
    known = range(layout.num_ingredients)
    given = tuple(ingredients) if isinstance(ingredients, Sequence | np.ndarray) else None
    if given is None or any(given.count(number) > 1 or number not in known for number in given):
        raise InvalidValueError(
            f"permuted_ingredients={ingredients!r} must be different numbers of ingredients, "
            f"0 to {layout.num_ingredients - 1}."
        )
    return tuple(int(number) for number in given)
