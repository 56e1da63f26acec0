"""Overcooked: two cooks share a kitchen to serve onion soups."""

import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, UInt8

from kiloworlds.core.checks import require_flag, require_numbers
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.multiagent.overcooked import rules
from kiloworlds.envs.multiagent.overcooked.counters import spread
from kiloworlds.envs.multiagent.overcooked.items import (
    COOKED,
    INGREDIENT,
    NOTHING,
    PLATE,
    recipe_item,
)
from kiloworlds.envs.multiagent.overcooked.kitchen import DIRECTIONS, Kitchen, kitchen_of
from kiloworlds.envs.multiagent.overcooked.layers import computed_once
from kiloworlds.envs.multiagent.overcooked.layouts import (
    COUNTER,
    FLOOR,
    GOAL,
    PLATES,
    POT,
    Layout,
    find_layout,
)
from kiloworlds.envs.multiagent.overcooked.picture import draw
from kiloworlds.envs.multiagent.overcooked.rules import MOST_COOK_TIME, OvercookedState, Rules
from kiloworlds.envs.multiagent.overcooked.starts import random_cells
from kiloworlds.envs.multiagent.overcooked.text import describe

NUM_LAYERS = 26
_NUM_AGENTS = 2
_STAY, _INTERACT = 4, 5
_RECIPE = recipe_item((0, 0, 0))
_SOUP = _RECIPE | COOKED | PLATE
_ITEMS = (NOTHING, INGREDIENT, PLATE, _SOUP)
_HURRY = 40
"""Urgent are the steps before the end that are fewer than this."""

# What can be seen of a cell, by number; each is one row of `_appearances`.
_STATIC = {FLOOR: 0, COUNTER: 1, GOAL: 5, PLATES: 6, "0": 7, POT: 8}
_POT_READY = 4  # of a pot: 0 to 3 onions that do not cook, then the steps left
_SELF = _STATIC[POT] + _POT_READY + MOST_COOK_TIME
_OTHER = _SELF + len(DIRECTIONS) * len(_ITEMS)
_NUM_APPEARANCES = _OTHER + len(DIRECTIONS) * len(_ITEMS)


class Overcooked(MultiAgentEnvironment):
    """Overcooked as JaxMARL's `overcooked` plays it, state for state.

    Onions go into a pot one by one; three of them cook for 20 steps; the soup is taken with a plate
    and delivered. An agent carries one thing and acts on the cell it faces: it takes from a pile,
    takes from and puts on counters, and serves. Agents walk at once (who would share a cell or swap
    with the other stays), then act one after the other, then the pots cook.

    Observation: `[2, rows, columns, 26]`, uint8, what each agent sees; all flags but the counts.
        0, 1: the agent itself, the other agent.
        2 to 5, 6 to 9: the same by the direction they face: up, down, right, left.
        10 to 15: pots, empty counters, piles of onions, of tomatoes (none), of plates, deliveries.
        16: onions (0 to 3) in a pot that does not cook; 17: tomatoes in it (0).
        18: onions (3) in soup that cooks, is ready or is on a plate; 19: tomatoes in it (0).
        20: steps that a pot cooks still; 21: soup that is ready or on a plate.
        22 to 24: plates, onions and tomatoes (none) on counters and in hands.
        25: everywhere 1 in the last 39 steps and after.
    Action: 0 up, 1 down, 2 right, 3 left (the agent turns there and goes if the cell is free), 4 stay,
        5 interact.
    Reward: 20 to both agents for each soup delivered.
    Episode end: never; the registry's time limit is 400 steps.
    Info: `shaped_reward` `[2]`: 3 for an onion put into a pot; 3 for taking a plate while fewer plates
        are in hands than pots in use and none lies on a counter; 5 for taking soup from a pot.

    uint8 is the dtype of the original and the fastest: a step of "cramped_room" writes 1,040 entries,
    which is most of its work. Policies of dense layers read the observation flattened.

    Args:
        layout: the name of a kitchen (`LAYOUTS`), or a text that draws one: a line for each row, of the
            letters W counter, P pot, O onions, B plates, X delivery, A agent (two of them, the first in
            reading order being agent_0) and spaces for the floor.
        random_reset: whether agents start anywhere, carrying anything, and pots in any state. Else they
            start in their places with empty hands, and only where they face is drawn.
        cook_time: steps from the third onion to the soup, 1 to 100.
        horizon: steps of an episode; only layer 25 depends on it. Set it along with
            `max_episode_steps`.
        delivery_reward: the reward of a soup.
        placement_reward, plate_reward, soup_reward: the hints of `shaped_reward`.

    Raises:
        UnknownNameError: there is no kitchen of that name.
        InvalidValueError: a text that draws no kitchen, with the line and column; a number out of
            range.

    Differences from Carroll et al.'s game are JaxMARL's: pots start by themselves once full, there are
    no tomatoes, and the time limit is 400 steps. Kitchens must be closed all around.

    References: M. Carroll et al., "On the Utility of Learning about Humans for Human-AI Coordination"
    (2019), arXiv:1910.05789; A. Rutherford et al., "JaxMARL: Multi-Agent RL Environments and Algorithms
    in JAX" (2024), arXiv:2311.10090.
    """

    layout: Layout = eqx.field(static=True)
    random_reset: bool = eqx.field(static=True)
    cook_time: Int[ArrayLike, ""]
    horizon: Int[ArrayLike, ""]
    delivery_reward: Float[ArrayLike, ""]
    placement_reward: Float[ArrayLike, ""]
    plate_reward: Float[ArrayLike, ""]
    soup_reward: Float[ArrayLike, ""]

    cheap_reset: ClassVar[bool] = True
    team_reward: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = (*DIRECTIONS, "stay", "interact")

    def __init__(
        self,
        layout: str = "cramped_room",
        random_reset: bool = False,
        cook_time: Int[ArrayLike, ""] = 20,
        horizon: Int[ArrayLike, ""] = 400,
        delivery_reward: Float[ArrayLike, ""] = 20.0,
        placement_reward: Float[ArrayLike, ""] = 3.0,
        plate_reward: Float[ArrayLike, ""] = 3.0,
        soup_reward: Float[ArrayLike, ""] = 5.0,
    ):
        require_flag("random_reset", random_reset)
        self.layout = find_layout(layout)
        self.random_reset = random_reset
        _ = self.kitchen  # refuses what is too large
        self.cook_time = require_numbers("cook_time", cook_time, 1, MOST_COOK_TIME, whole=True)
        self.horizon = require_numbers("horizon", horizon, 1, whole=True)
        self.delivery_reward = delivery_reward
        self.placement_reward = placement_reward
        self.plate_reward = plate_reward
        self.soup_reward = soup_reward

    @property
    def kitchen(self) -> Kitchen:
        """The tables of the layout."""
        return kitchen_of(self.layout, hold_everywhere=False)

    @property
    def _rules(self) -> Rules:
        return Rules(
            num_ingredients=1,
            starts_by_hand=False,
            counts_plates_in_turn=True,
            cook_time=self.cook_time,
            delivery_reward=self.delivery_reward,
            placement_reward=self.placement_reward,
            plate_reward=self.plate_reward,
            soup_reward=self.soup_reward,
        )

    def reset(
        self, key: Key[Array, ""]
    ) -> tuple[OvercookedState, UInt8[Array, "2 rows columns 26"]]:
        directions = random_index(key, len(DIRECTIONS) ** _NUM_AGENTS)
        state = rules.initial_state(self.kitchen, self.layout.starts, _RECIPE, num_ingredients=1)
        state = state._replace(facings=(directions & 3, directions >> 2))
        if self.random_reset:
            state = self._scramble(jax.random.fold_in(key, 1), state)
        return state, self.observe(state)

    def _scramble(self, key: Key[Array, ""], state: OvercookedState) -> OvercookedState:
        cells_key, held_key, pots_key = jax.random.split(key, 3)
        kitchen = self.kitchen
        floor = tuple(np.flatnonzero(kitchen.has(FLOOR)).tolist())
        held = random_index(held_key, len(_ITEMS), (_NUM_AGENTS,))
        items = jnp.asarray(_ITEMS, jnp.int32)[held]
        # A pot holds 0 to 2 onions, or cooks with any number of steps left, 0 being ready soup.
        cook_time = jnp.asarray(self.cook_time, jnp.int32)
        number = len(kitchen.pots)
        draws = jax.random.randint(pots_key, (number,), 0, cook_time + 1 + 3)
        left = jnp.maximum(draws - 3, 0)
        in_pots = jnp.where(
            draws < 3, draws * INGREDIENT, jnp.where(left == 0, _RECIPE | COOKED, _RECIPE)
        )
        return state._replace(
            cells=random_cells(cells_key, [floor] * _NUM_AGENTS),
            held=tuple(items[agent] for agent in range(_NUM_AGENTS)),
            pots=tuple(in_pots[pot] for pot in range(number)),
            cooking=tuple(left[pot] for pot in range(number)),
        )

    def step(
        self, key: Key[Array, ""], state: OvercookedState, action: Int[Array, "2"]
    ) -> tuple[OvercookedState, Step]:
        actions = [action[agent] for agent in range(_NUM_AGENTS)]
        state, outcome = rules.step(
            self.kitchen,
            self._rules,
            state,
            turns=tuple(actions),
            moves=tuple(action < _STAY for action in actions),
            touches=tuple(action == _INTERACT for action in actions),
        )
        never = jnp.zeros((), bool)
        return state, Step(
            self.observe(state),
            jnp.broadcast_to(outcome.reward, _NUM_AGENTS),
            never,
            never,
            {"shaped_reward": jnp.stack(outcome.shaped_reward)},
        )

    def observe(self, state: OvercookedState) -> UInt8[Array, "2 rows columns 26"]:
        """What each agent sees of a state."""
        kitchen = self.kitchen
        cells = np.arange(len(kitchen.cells))
        fixed = np.array([_STATIC[letter] for letter in kitchen.cells], np.uint32)
        # The number of an item in `_ITEMS`: its plate bit counts 2, the lower of its onion bits 1.
        plates, onions = state.counters[0], state.counters[2]
        plates, onions, pots, agents, is_urgent = computed_once(
            (
                plates,
                onions,
                tuple(map(self._pot_appearance, state.pots, state.cooking)),
                tuple(
                    (cell * 16 + facing * 4 + (item & PLATE) * 2 + (item >> 2 & 1)).astype(
                        jnp.uint32
                    )
                    for cell, facing, item in zip(
                        state.cells, state.facings, state.held, strict=True
                    )
                ),
                (self.horizon - state.time < _HURRY).astype(jnp.uint32),
            )
        )
        seen = fixed + spread(kitchen, plates) * 2 + spread(kitchen, onions)
        for cell, appearance in zip(kitchen.pots, pots, strict=True):
            seen = seen + jnp.where(cells == cell, appearance, 0)
        views = []
        for viewer in range(_NUM_AGENTS):
            view = seen
            for agent, packed in enumerate(agents):
                first = _SELF if agent == viewer else _OTHER
                view = jnp.where(packed >> 4 == cells, (packed & 15) + first, view)
            views.append(view)
        codes = computed_once(jnp.stack(views) + is_urgent * _NUM_APPEARANCES)
        layers = jnp.asarray(_appearances()).at[codes].get(mode="promise_in_bounds")
        return layers.reshape(_NUM_AGENTS, *kitchen.shape, NUM_LAYERS)

    def _pot_appearance(self, in_pot: Int[Array, ""], left: Int[Array, ""]) -> Array:
        # A pot with all its time left is seen as one that does not cook yet.
        cooks = (left > 0) & (left < self.cook_time)
        shows_time = cooks | (in_pot & COOKED != 0)
        return jnp.where(shows_time, _POT_READY + left, in_pot >> 2 & 3).astype(jnp.uint32)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        box = Box(0, MOST_COOK_TIME, (*self.layout.shape, NUM_LAYERS), np.uint8)
        return (AgentKind.numbered("agent", _NUM_AGENTS, box, Discrete(len(self.action_names))),)

    def render(self, state: OvercookedState) -> np.ndarray:
        """The kitchen, 64 pixels a cell: what stands, lies and cooks where."""
        return draw(self.kitchen, state, int(np.max(self.cook_time)))

    def describe(self, state: OvercookedState) -> str:
        """The kitchen as a map with a legend, then each agent, pot and counter in a sentence."""
        return describe(self.kitchen, state, ("onion",))


@functools.cache
def _appearances() -> UInt8[np.ndarray, "appearances 26"]:
    """The layers of whatever can be seen of a cell; those of urgent steps are the second half."""
    table = np.zeros((2, _NUM_APPEARANCES, NUM_LAYERS), np.uint8)

    def show_item(row: int, number: int) -> None:
        item = _ITEMS[number]
        if item == _SOUP:
            table[:, row, 18], table[:, row, 21] = 3, 1
        elif item != NOTHING:
            table[:, row, 22 if item == PLATE else 23] = 1

    for letter, layer in ((GOAL, 15), (PLATES, 14), ("0", 12)):
        table[:, _STATIC[letter], layer] = 1
    counter, pot = _STATIC[COUNTER], _STATIC[POT]
    table[:, counter, 11] = 1
    for number in range(1, len(_ITEMS)):
        show_item(counter + number, number)
    table[:, pot:_SELF, 10] = 1
    table[:, pot : pot + _POT_READY, 16] = np.arange(_POT_READY)
    ready = pot + _POT_READY
    table[:, ready:_SELF, 18] = 3
    table[:, ready:_SELF, 20] = np.arange(MOST_COOK_TIME)
    table[:, ready, 21] = 1
    for layer, first in ((0, _SELF), (1, _OTHER)):
        for facing, number in np.ndindex(len(DIRECTIONS), len(_ITEMS)):
            row = first + facing * len(_ITEMS) + number
            table[:, row, layer] = table[:, row, 2 + 4 * layer + facing] = 1
            show_item(row, number)
    table[1, :, 25] = 1
    return table.reshape(-1, NUM_LAYERS)
