"""The rules of Overcooked: walking, and what the hands do."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from kiloworlds.envs.multiagent.overcooked.counters import (
    Counters,
    empty_counters,
    flip,
    have_plate,
    read,
)
from kiloworlds.envs.multiagent.overcooked.items import (
    COOKED,
    INGREDIENT,
    NOTHING,
    PLATE,
    ingredient_count,
    item_bits,
)
from kiloworlds.envs.multiagent.overcooked.kitchen import (
    BUTTON_AHEAD,
    COUNTER_AHEAD,
    FLOOR_AHEAD,
    GOAL_AHEAD,
    INDEX_BITS,
    KIND_BITS,
    PILE_AHEAD,
    PLATES_AHEAD,
    POT_AHEAD,
    Kitchen,
)
from kiloworlds.envs.multiagent.overcooked.layouts import INGREDIENTS_PER_RECIPE

MOST_COOK_TIME = 100

Scalar = Int[Array, ""]


class OvercookedState(NamedTuple):
    """Everything in a kitchen that changes; scalars, which batch into the fastest arrays.

    Attributes:
        cells: where each agent stands, `row * columns + column`.
        facings: the direction each faces: 0 up, 1 down, 2 right, 3 left.
        held: the item each carries.
        counters: what lies on the counters, packed; `items_on_counters` reads them.
        pots: the item in each pot, without a plate.
        cooking: how many steps each pot cooks still.
        buttons: how many steps the recipe shows still, for each indicator with a button.
        recipe: the item that is asked for, neither cooked nor on a plate.
        delivered: whether what is asked for was delivered in the last step.
        ingredient_order: which ingredient each agent sees as ingredient i, for i = 0, 1, ...; empty
            where all see them as they are.
        time: steps since the start.
    """

    cells: tuple[Scalar, ...]
    facings: tuple[Scalar, ...]
    held: tuple[Scalar, ...]
    counters: Counters
    pots: tuple[Scalar, ...]
    cooking: tuple[Scalar, ...]
    buttons: tuple[Scalar, ...]
    recipe: Scalar
    delivered: Bool[Array, ""]
    ingredient_order: tuple[tuple[Scalar, ...], ...]
    time: Scalar


class Rules(NamedTuple):
    """What kitchens may differ in beyond their layout; numbers may be arrays.

    Attributes:
        num_ingredients: how many kinds of ingredient there are.
        starts_by_hand: whether a pot starts to cook when an agent with empty hands touches it, full or
            not, instead of by itself once it is full.
        counts_plates_in_turn: whether, for the hint on taking a plate, an agent's hands count as
            they are after the agents before it acted.
        cook_time, button_time: steps.
        delivery_reward, wrong_delivery_reward, button_cost: of the team.
        placement_reward, plate_reward, soup_reward, start_reward: hints of a shaped reward.
    """

    num_ingredients: int
    starts_by_hand: bool
    counts_plates_in_turn: bool
    cook_time: Int[ArrayLike, ""]
    delivery_reward: Float[ArrayLike, ""]
    placement_reward: Float[ArrayLike, ""]
    plate_reward: Float[ArrayLike, ""]
    soup_reward: Float[ArrayLike, ""]
    wrong_delivery_reward: Float[ArrayLike, ""] = 0.0
    start_reward: Float[ArrayLike, ""] = 0.0
    button_time: Int[ArrayLike, ""] = 0
    button_cost: Float[ArrayLike, ""] = 0.0


class Outcome(NamedTuple):
    """What a step led to: the team's reward and each agent's hints."""

    reward: Float[Array, ""]
    shaped_reward: tuple[Float[Array, ""], ...]


def initial_state(
    kitchen: Kitchen, starts: tuple[int, ...], recipe: ArrayLike, num_ingredients: int
) -> OvercookedState:
    """Agents in their places, facing up, and nothing anywhere."""
    none = jnp.int32(0)
    return OvercookedState(
        cells=tuple(jnp.int32(cell) for cell in starts),
        facings=(none,) * len(starts),
        held=(none,) * len(starts),
        counters=empty_counters(kitchen, item_bits(num_ingredients)),
        pots=(none,) * len(kitchen.pots),
        cooking=(none,) * len(kitchen.pots),
        buttons=(none,) * len(kitchen.buttons),
        recipe=jnp.asarray(recipe, jnp.int32),
        delivered=jnp.zeros((), bool),
        ingredient_order=(),
        time=none,
    )


def step(
    kitchen: Kitchen,
    rules: Rules,
    state: OvercookedState,
    turns: tuple[Scalar, ...],
    moves: tuple[Bool[Array, ""], ...],
    touches: tuple[Bool[Array, ""], ...],
) -> tuple[OvercookedState, Outcome]:
    """One step: agents walk at once, then their hands act one after another, then pots cook.

    Args:
        turns: the direction each agent walks in, where it `moves`; it faces there even if blocked.
        touches: whether it acts on what lies ahead of it.
    """
    facings = tuple(
        jnp.where(moving, turn, facing)
        for moving, turn, facing in zip(moves, turns, state.facings, strict=True)
    )
    ahead = tuple(
        jnp.asarray(kitchen.ahead.ravel()).at[cell * 4 + facing].get(mode="promise_in_bounds")
        for cell, facing in zip(state.cells, facings, strict=True)
    )
    state = state._replace(cells=_walk(state.cells, moves, ahead), facings=facings)
    state, outcome = _use_hands(rules, state, touches, ahead)
    return _pass_time(state), outcome


def _walk(
    cells: tuple[Scalar, ...], moves: tuple[Bool[Array, ""], ...], ahead: tuple[Scalar, ...]
) -> tuple[Scalar, ...]:
    """Where agents stand: who would share a cell with another, or swap with one, stays."""
    wanted = [
        jnp.where(moving & (kind_of(entry) == FLOOR_AHEAD), cell_of(entry), cell)
        for moving, entry, cell in zip(moves, ahead, cells, strict=True)
    ]
    agents = range(len(cells))
    reached = list(wanted)
    # Who stays may block another: each round but the last stops at least one agent more.
    for _ in range(len(cells) - 1):
        blocked = [_any(reached[i] == reached[j] for j in agents if j != i) for i in agents]
        reached = [jnp.where(blocked[i], cells[i], reached[i]) for i in agents]
    swaps = [
        _any((reached[i] == cells[j]) & (reached[j] == cells[i]) for j in agents if j != i)
        for i in agents
    ]
    return tuple(jnp.where(swaps[i], cells[i], reached[i]) for i in agents)


def _any(flags) -> Bool[Array, ""]:
    result = jnp.zeros((), bool)
    for flag in flags:
        result = result | flag
    return result


def kind_of(entry: Scalar) -> Scalar:
    """The kind in an entry of `Kitchen.ahead`."""
    return entry & ((1 << KIND_BITS) - 1)


def index_of(entry: Scalar) -> Scalar:
    """The number among its kind in an entry of `Kitchen.ahead`."""
    return entry >> KIND_BITS & ((1 << INDEX_BITS) - 1)


def cell_of(entry: Scalar) -> Scalar:
    """The cell in an entry of `Kitchen.ahead`."""
    return entry >> KIND_BITS + INDEX_BITS


def _use_hands(
    rules: Rules,
    state: OvercookedState,
    touches: tuple[Bool[Array, ""], ...],
    ahead: tuple[Scalar, ...],
) -> tuple[OvercookedState, Outcome]:
    reward = jnp.zeros(())
    delivered = jnp.zeros((), bool)
    shaped_rewards = []
    held = list(state.held)
    for agent, (touch, entry) in enumerate(zip(touches, ahead, strict=True)):
        hands = held if rules.counts_plates_in_turn else state.held
        state, held[agent], pay, shaped, right = _touch(
            rules, state, tuple(hands), held[agent], touch, entry
        )
        reward, delivered = reward + pay, delivered | right
        shaped_rewards.append(shaped)
    state = state._replace(held=tuple(held), delivered=delivered)
    return state, Outcome(reward, tuple(shaped_rewards))


def _touch(
    rules: Rules,
    state: OvercookedState,
    hands: tuple[Scalar, ...],
    item: Scalar,
    touch: Bool[Array, ""],
    entry: Scalar,
) -> tuple[OvercookedState, Scalar, Float[Array, ""], Float[Array, ""], Bool[Array, ""]]:
    """One agent acts on what lies ahead.

    Args:
        hands: what all agents carry, for the hint on taking a plate.
        item: what the agent carries.

    Returns:
        The state but for what agents carry, what the agent carries, the team's reward, the agent's
        hints, and whether what was asked for was delivered.
    """
    kind, index = kind_of(entry), index_of(entry)
    at_counter, at_goal = touch & (kind == COUNTER_AHEAD), touch & (kind == GOAL_AHEAD)
    at_plates, at_pile = touch & (kind == PLATES_AHEAD), touch & (kind == PILE_AHEAD)
    at_pot, at_button = touch & (kind == POT_AHEAD), touch & (kind == BUTTON_AHEAD)
    empty_handed = item == NOTHING
    on_counter = read(state.counters, index)
    in_pot, cooking = _choose(state.pots, index), _choose(state.cooking, index)

    # Piles and counters.
    from_pile = jnp.where(at_plates, PLATE, INGREDIENT << 2 * index)
    draws = (at_plates | at_pile) & empty_handed
    takes = at_counter & empty_handed & (on_counter != NOTHING)
    puts = at_counter & ~empty_handed & (on_counter == NOTHING)

    # Pots.
    idle = at_pot & (cooking == 0) & (in_pot & COOKED == 0)
    is_ingredient = (item >= INGREDIENT) & (item & PLATE == 0)
    in_pot_count = ingredient_count(in_pot, rules.num_ingredients)
    adds = idle & is_ingredient & (in_pot_count < INGREDIENTS_PER_RECIPE)
    serves = at_pot & (in_pot & COOKED != 0) & (item == PLATE)
    if rules.starts_by_hand:
        starts = idle & empty_handed & (in_pot != NOTHING)
    else:
        starts = idle & (in_pot_count + adds == INGREDIENTS_PER_RECIPE)

    delivers = at_goal & (item & COOKED != 0)
    presses = at_button & empty_handed

    dish = state.recipe | PLATE | COOKED
    is_right = delivers & (item == dish)
    pay = jnp.where(is_right, rules.delivery_reward, jnp.float32(0))
    pay = jnp.where(delivers & ~is_right, rules.wrong_delivery_reward, pay)
    pay = jnp.where(presses, -jnp.asarray(rules.button_cost), pay)

    # An ingredient helps while the pot holds less of it than the recipe.
    of_ingredient = item | item << 1
    lacking = (in_pot & of_ingredient) < (state.recipe & of_ingredient)
    gets_plate = (at_plates & empty_handed) | (takes & (on_counter == PLATE))
    plates_in_hands = sum(((hand == PLATE).astype(jnp.int32) for hand in hands), jnp.int32(0))
    pots_in_use = sum(((pot != NOTHING).astype(jnp.int32) for pot in state.pots), jnp.int32(0))
    plate_helps = (plates_in_hands < pots_in_use) & ~have_plate(state.counters)
    shaped = jnp.where(adds & lacking, rules.placement_reward, jnp.float32(0))
    shaped = jnp.where(serves & (in_pot | PLATE == dish), rules.soup_reward, shaped)
    shaped = jnp.where(gets_plate & plate_helps, rules.plate_reward, shaped)
    if rules.starts_by_hand:
        shaped = jnp.where(starts & (in_pot == state.recipe), rules.start_reward, shaped)

    change = jnp.where(takes, on_counter, jnp.where(puts, item, 0))
    new_in_pot = jnp.where(adds, in_pot + item, jnp.where(serves, NOTHING, in_pot))
    new_cooking = jnp.where(starts, rules.cook_time, cooking)
    new_item = jnp.where(draws, from_pile, item)
    new_item = jnp.where(takes, on_counter, new_item)
    new_item = jnp.where(serves, in_pot | PLATE, new_item)
    new_item = jnp.where(puts | adds | delivers, NOTHING, new_item)
    state = state._replace(
        counters=flip(state.counters, index, change),
        pots=_put(state.pots, at_pot, index, new_in_pot),
        cooking=_put(state.cooking, at_pot, index, new_cooking),
        buttons=_put(state.buttons, presses, index, jnp.asarray(rules.button_time, jnp.int32)),
    )
    return state, new_item, pay, shaped, is_right


def _choose(values: tuple[Scalar, ...], index: Scalar) -> Scalar:
    """The value of that number; any where there is none."""
    result = values[0]
    for number, value in enumerate(values[1:], 1):
        result = jnp.where(index == number, value, result)
    return result


def _put(
    values: tuple[Scalar, ...], where: Bool[Array, ""], index: Scalar, value: Scalar
) -> tuple[Scalar, ...]:
    return tuple(
        jnp.where(where & (index == number), value, old) for number, old in enumerate(values)
    )


def _pass_time(state: OvercookedState) -> OvercookedState:
    """Pots cook and buttons run out."""
    cooking = tuple(jnp.maximum(left - 1, 0) for left in state.cooking)
    pots = tuple(
        jnp.where(left == 1, pot | COOKED, pot)
        for pot, left in zip(state.pots, state.cooking, strict=True)
    )
    buttons = tuple(jnp.maximum(left - 1, 0) for left in state.buttons)
    return state._replace(pots=pots, cooking=cooking, buttons=buttons, time=state.time + 1)
