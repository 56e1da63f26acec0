"""What OvercookedV2 adds: recipes, indicators and buttons, views, random starts, many agents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from overcooked_cooks import QUICK, items_at, play

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.overcooked import OvercookedV2
from kiloworlds.envs.multiagent.overcooked.items import COOKED, INGREDIENT, NOTHING, PLATE

ZERO, ONE, TWO = (INGREDIENT << 2 * i for i in range(3))
UP, DOWN, RIGHT, LEFT = range(4)
_LETTERS = "rdlusi"
# Three ingredients, an indicator and one with a button. 6 columns; the agents start at 7 and 14.
#   0  W  P  R  P  W  W
#   6  0  a  .  .  L  W
#  12  1  .  b  .  X  W
#  18  W  B  2  W  W  W
KITCHEN = """
WPRPWW
0A  LW
1 A XW
WB2WWW
"""
DISH = PLATE | COOKED


@functools.cache
def made(**settings):
    env = OvercookedV2(KITCHEN, **settings)
    options = {"compiler_options": QUICK}
    return env, jax.jit(env.reset, **options), jax.jit(env.step, **options)


def start(recipe=ZERO + ZERO + ONE, settings=(), **values):
    _, reset, _ = made(**dict(settings))
    state, _ = reset(fast_key(0))
    values = {
        name: tuple(map(jnp.int32, value)) if isinstance(value, tuple) else jnp.int32(value)
        for name, value in values.items()
    }
    return state._replace(recipe=jnp.int32(recipe), **values)


def many_starts(env, count):
    """First states, on a leading axis."""
    reset = jax.jit(jax.vmap(lambda key: env.reset(key)[0]), compiler_options=QUICK)
    return jax.device_get(reset(jax.random.split(fast_key(2), count)))


def run(state, first, second="", settings=()):
    """Both agents act by letter (r d l u s i); who has no letter left stays."""
    _, _, step = made(**dict(settings))
    states, results = [], []
    length = max(len(first), len(second))
    for number, letters in enumerate(
        zip(first.ljust(length, "s"), second.ljust(length, "s"), strict=True)
    ):
        action = jnp.array([_LETTERS.index(letter) for letter in letters], jnp.int32)
        state, result = step(jax.random.fold_in(fast_key(1), number), state, action)
        states.append(state)
        results.append(result)
    return states, results


def test_actions_turn_and_walk():
    for letter, cell, facing in (("r", 8, RIGHT), ("d", 13, DOWN), ("l", 7, LEFT), ("u", 7, UP)):
        (state,), _ = run(start(), letter)
        assert (int(state.cells[0]), int(state.facings[0])) == (cell, facing), letter


def test_a_soup_of_two_ingredients():
    # 0 0 1 into the left pot: agent_0 at 7 has the pot above and pile 0 to its left, pile 1 below.
    state = start()
    states, results = run(state, "liui" + "liui")
    hints = [step.info["shaped_reward"][0] for step in results]
    assert hints == [0, 0, 0, 3, 0, 0, 0, 3]
    assert int(states[-1].pots[0]) == 2 * ZERO
    # A third 0 would not be of the recipe: it goes in, without a hint.
    spoilt, results = run(states[-1], "liui")
    assert results[-1].info["shaped_reward"].tolist() == [0, 0]
    assert int(spoilt[-1].pots[0]) == 3 * ZERO
    states, results = run(states[-1], "dliuui")
    assert int(states[2].held[0]) == ONE
    assert results[-1].info["shaped_reward"].tolist() == [3, 0]
    assert int(states[-1].pots[0]) == 2 * ZERO + ONE
    assert int(states[-1].cooking[0]) == 19
    ready = states[-1]._replace(cooking=(jnp.int32(1), jnp.int32(0)), held=(jnp.int32(PLATE),) * 2)
    states, results = run(ready, "si")
    assert int(states[0].pots[0]) == 2 * ZERO + ONE | COOKED
    assert results[1].info["shaped_reward"].tolist() == [5, 0]
    assert int(states[1].held[0]) == 2 * ZERO + ONE | DISH
    # Soup that is not asked for gives no hint.
    _, results = run(ready._replace(recipe=jnp.int32(3 * TWO)), "si")
    assert results[1].info["shaped_reward"].tolist() == [0, 0]


def test_only_what_is_asked_for_is_paid():
    right = 2 * ZERO + ONE | DISH
    at_delivery = {"cells": (7, 15), "facings": (UP, RIGHT)}
    (state,), (step,) = run(start(**at_delivery, held=(NOTHING, right)), "s", "i")
    assert step.reward.tolist() == [20, 20]
    assert state.delivered
    assert int(state.held[1]) == NOTHING
    (state,), (step,) = run(start(**at_delivery, held=(NOTHING, 3 * ZERO | DISH)), "s", "i")
    assert step.reward.tolist() == [0, 0]
    assert not state.delivered
    assert int(state.held[1]) == NOTHING
    settings = (("wrong_delivery_reward", -20.0),)
    state = start(settings=settings, **at_delivery, held=(NOTHING, 3 * ZERO | DISH))
    _, (step,) = run(state, "s", "i", settings)
    assert step.reward.tolist() == [-20, -20]


def test_a_button_shows_the_recipe_for_a_price():
    env, _, _ = made()
    layers = len(env._plan.fields)
    assert layers == 17 + 3 + 4 * 5
    # The recipe's layers end before the pots' timer: plate, cooked, and one for each ingredient.
    recipe = slice(layers - 1 - 5, layers - 1)
    state = start(cells=(9, 14), facings=(RIGHT, UP))
    shown = np.asarray(env.observe(state))[0, ..., recipe]
    assert shown[0, 2].tolist() == [0, 0, 2, 1, 0]
    assert not shown[1, 4].any()
    states, results = run(state, "i" + 9 * "s")
    assert [step.reward.tolist() for step in results] == [[-5, -5]] + [[0, 0]] * 9
    assert [int(state.buttons[0]) for state in states] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    for step, lit in ((results[0], True), (results[8], True), (results[9], False)):
        assert np.asarray(step.observation)[0, 1, 4, recipe].any() == lit
    # Full hands press nothing; pressing again costs again and starts the time anew.
    _, (step,) = run(start(cells=(9, 14), facings=(RIGHT, UP), held=(ONE, NOTHING)), "i")
    assert step.reward.tolist() == [0, 0]
    again, results = run(states[4], "i")
    assert results[0].reward.tolist() == [-5, -5]
    assert int(again[0].buttons[0]) == 9
    settings = (("button_time", 3), ("button_cost", 1.5))
    states, results = run(
        start(settings=settings, cells=(9, 14), facings=(RIGHT, UP)), "is", "", settings
    )
    assert results[0].reward.tolist() == [-1.5, -1.5]
    assert [int(state.buttons[0]) for state in states] == [2, 1]


def test_pots_started_by_hand():
    settings = (("start_cooking_interaction", True), ("cook_time", 2))
    # Full pots wait; so does one of a single ingredient, until it is touched.
    state = start(settings=settings, held=(ONE, NOTHING), pots=(2 * ZERO, NOTHING))
    states, results = run(state, "iisss", "", settings)
    assert results[0].info["shaped_reward"].tolist() == [3, 0]
    assert int(states[0].cooking[0]) == 0
    assert results[1].info["shaped_reward"].tolist() == [5, 0]
    assert [int(state.cooking[0]) for state in states[1:]] == [1, 0, 0, 0]
    assert int(states[2].pots[0]) == 2 * ZERO + ONE | COOKED
    # Of another content it may be started too, without a hint, and an empty one never.
    for in_pot, left in ((TWO, 1), (NOTHING, 0)):
        state = start(settings=settings, pots=(in_pot, NOTHING))
        (state,), (step,) = run(state, "i", "", settings)
        assert step.info["shaped_reward"].tolist() == [0, 0]
        assert int(state.cooking[0]) == left
    state = start(settings=settings, held=(PLATE, NOTHING), pots=(TWO | COOKED, NOTHING))
    (state,), _ = run(state, "i", "", settings)
    assert int(state.held[0]) == TWO | DISH


def test_hands_count_at_once_for_the_hint_on_plates():
    """Unlike in the first version, where agent_0's plate counts for agent_1."""
    state = start(cells=(13, 13), facings=(DOWN, DOWN), pots=(ZERO, NOTHING))
    _, (step,) = run(state, "i", "i")
    assert step.info["shaped_reward"].tolist() == [3, 3]


def test_recipes_are_drawn():
    env, _, _ = made(sample_recipe_on_delivery=True)
    states = many_starts(env, 4000)
    recipes, counts = np.unique(states.recipe, return_counts=True)
    assert len(recipes) == 10
    assert np.all(np.abs(counts / 4000 - 0.1) < 0.02)
    # A new one comes after each delivery of what is asked for, and only then.
    settings = (("sample_recipe_on_delivery", True),)
    recipe = 2 * ZERO + ONE
    following = set()
    for tries in range(12):
        state = start(settings=settings, cells=(7, 15), facings=(UP, RIGHT))
        state = state._replace(held=(jnp.int32(NOTHING), jnp.int32(recipe | DISH)))
        states, _ = run(state, "s" * tries + "s", "s" * tries + "i", settings)
        assert all(int(each.recipe) == recipe for each in states[:-1])
        following.add(int(states[-1].recipe))
    assert len(following) > 3
    (state,), _ = run(start(cells=(7, 15), facings=(UP, RIGHT), held=(0, recipe | DISH)), "s", "i")
    assert int(state.recipe) == recipe


def test_agents_see_that_they_delivered():
    settings = (("indicate_successful_delivery", True),)
    state = start(settings=settings, cells=(7, 15), facings=(UP, RIGHT))
    state = state._replace(held=(jnp.int32(NOTHING), jnp.int32(2 * ZERO + ONE | DISH)))
    _, results = run(state, "ss", "is", settings)
    last = [np.asarray(step.observation)[..., -1] for step in results]
    assert last[0].sum() == 2
    assert (last[0][:, 2, 4] == 1).all()
    assert not last[1].any()


def test_observation():
    env, _, _ = made()
    state = start(cells=(7, 15), facings=(LEFT, UP), held=(TWO, 2 * ONE + ZERO | DISH))
    state = state._replace(
        pots=(jnp.int32(ONE + TWO), jnp.int32(3 * ONE)), cooking=(jnp.int32(0), jnp.int32(8))
    )
    layers = np.asarray(env.observe(state))
    # Each agent: place, direction (up, down, right, left), then plate, cooked, and the ingredients.
    itself, other = layers[0, ..., :10], layers[0, ..., 10:20]
    assert itself[1, 1].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert other[2, 3].tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 2, 0]
    assert itself.sum() == 3
    np.testing.assert_array_equal(layers[1, ..., :10], other)
    np.testing.assert_array_equal(layers[1, ..., 10:20], itself)
    # Counters, deliveries, pots, indicators, buttons, plates, then the piles.
    fixed = layers[0, ..., 20:29]
    cells = {"W": 0, "X": 1, "P": 2, "R": 3, "L": 4, "B": 5, "0": 6, "1": 7, "2": 8}
    expected = np.zeros_like(fixed)
    for row, line in enumerate(env.layout.rows):
        for column, letter in enumerate(line):
            if letter in cells:
                expected[row, column, cells[letter]] = 1
    np.testing.assert_array_equal(fixed, expected)
    in_pots = layers[0, ..., 29:34]
    assert in_pots[0, 1].tolist() == [0, 0, 0, 1, 1]
    assert in_pots[0, 3].tolist() == [0, 0, 0, 3, 0]
    assert layers[0, ..., 39].sum() == layers[0, 0, 3, 39] == 8


def test_views():
    whole, _, _ = made(random_reset=True)
    see_all = jax.jit(whole.observe, compiler_options=QUICK)
    for size in (1, 3):
        _, reset, _ = made(random_reset=True, agent_view_size=size)
        for seed in range(6):
            state, observation = reset(fast_key(seed))
            assert observation.shape == (2, 2 * size + 1, 2 * size + 1, 40)
            full = np.asarray(see_all(state))
            padded = np.pad(full, ((0, 0), (size, size), (size, size), (0, 0)))
            for agent in range(2):
                row, column = divmod(int(state.cells[agent]), 6)
                part = padded[agent, row : row + 2 * size + 1, column : column + 2 * size + 1]
                np.testing.assert_array_equal(observation[agent], part)


def test_global_state_knows_the_recipe():
    env, _, _ = made(agent_view_size=1)
    whole, _, _ = made()
    assert whole.global_state_space is None
    assert env.global_state_space.shape == (2, 24 * 40)
    state = start(settings=(("agent_view_size", 1),))
    views = np.asarray(env.global_state(state)).reshape(2, 4, 6, 40)
    lit = np.asarray(whole.observe(state._replace(buttons=(jnp.int32(3),))))
    np.testing.assert_array_equal(views, lit)
    assert views[0, 1, 4, 36:39].tolist() == [2, 1, 0]


def test_random_positions_stay_in_their_rooms():
    env = OvercookedV2("two_rooms", random_agent_positions=True)
    states = many_starts(env, 4096)
    for agent, columns in enumerate(((1, 2, 3), (5, 6, 7))):
        room = [row * 9 + column for row in (1, 2, 3) for column in columns]
        cells, counts = np.unique(states.cells[agent], return_counts=True)
        assert cells.tolist() == room
        assert np.all(np.abs(counts / 4096 - 1 / 9) < 0.02)
        assert np.all(np.abs(np.bincount(states.facings[agent]) / 4096 - 0.25) < 0.03)
    for name in ("held", "pots", "cooking"):
        assert not np.any(np.stack(getattr(states, name))), name
    assert set(map(int, OvercookedV2("two_rooms").reset(fast_key(0))[0].facings)) == {UP}


def test_agents_of_one_room_never_start_in_one_cell():
    crowd = "\n".join(["WPXB0W", "WA AAW", "WWWWWW", "WAAWWW", "WWWWWW"])
    env = OvercookedV2(crowd, random_agent_positions=True)
    states = many_starts(env, 4800)
    cells = np.stack(states.cells, -1)
    assert {tuple(row) for row in np.sort(cells[:, 3:], -1).tolist()} == {(19, 20)}
    orders, counts = np.unique(cells[:, :3], axis=0, return_counts=True)
    assert len(orders) == 24
    assert all(len(set(order)) == 3 for order in orders.tolist())
    assert np.all(np.abs(counts / 4800 - 1 / 24) < 0.012)


def test_random_reset():
    settings = {
        "random_reset": True,
        "start_cooking_interaction": True,
        "recipes": ((0, 0, 1), (2, 2, 2)),
    }
    env = OvercookedV2(KITCHEN, **settings)
    count = 4096
    states = many_starts(env, count)

    def shares(items):
        dishes = [recipe | DISH for recipe in (2 * ZERO + ONE, 3 * TWO)]
        kinds = ([NOTHING], [PLATE], [ZERO, ONE, TWO], dishes)
        assert set(np.unique(items)) == {item for kind in kinds for item in kind}
        return [np.isin(items, kind).mean() for kind in kinds]

    assert np.allclose(shares(np.stack(states.held)), [0.5, 0.1, 0.25, 0.15], atol=0.02)
    lying = [items_at(env.kitchen, jax.tree.map(lambda leaf: leaf[i], states)) for i in range(300)]  # noqa: B023
    lying = np.stack(lying)[:, list(env.kitchen.counters)]
    assert lying.shape[1] == 9  # all counters, those nobody reaches too
    assert np.allclose(shares(lying), [0.5, 0.1, 0.3, 0.1], atol=0.03)
    in_pots, left = np.stack(states.pots), np.stack(states.cooking)
    amount = sum(in_pots >> shift & 3 for shift in (2, 4, 6))
    ready = in_pots & COOKED != 0
    kinds = [amount == 0, (amount > 0) & (left == 0) & ~ready, left > 0, ready]
    assert np.allclose([kind.mean() for kind in kinds], [0.4, 0.35, 0.15, 0.1], atol=0.02)
    for kind in kinds[1:]:
        assert np.allclose(np.bincount(amount[kind])[1:] / kind.sum(), 1 / 3, atol=0.05)
    assert set(np.unique(left)) == set(range(21))
    # Pots that start by themselves are full when they cook.
    env = OvercookedV2(KITCHEN, random_reset=True, cook_time=4)
    states = many_starts(env, 512)
    in_pots, left = np.stack(states.pots), np.stack(states.cooking)
    amount = sum(in_pots >> shift & 3 for shift in (2, 4, 6))
    assert (amount[(left > 0) | (in_pots & COOKED != 0)] == 3).all()
    assert set(np.unique(left)) == set(range(5))
    assert not env.cheap_reset
    assert OvercookedV2(KITCHEN).cheap_reset


def test_a_full_pot_that_does_not_cook_starts_at_a_touch():
    """Only random starts have such pots."""
    (state,), _ = run(start(pots=(3 * ZERO, NOTHING)), "i")
    assert int(state.cooking[0]) == 19
    (state,), _ = run(start(pots=(3 * ZERO, NOTHING)), "s")
    assert int(state.cooking[0]) == 0


def test_permuted_ingredients():
    settings = (("permuted_ingredients", (0, 2)),)
    env, _, _ = made(**dict(settings))
    orders = np.array(many_starts(env, 400).ingredient_order)  # [A, I, N]
    assert (orders[:, 1] == 1).all()
    assert (np.sort(orders, axis=1) == np.arange(3)[:, None]).all()
    swapped = orders[:, 0] == 2
    assert np.allclose(swapped.mean(1), 0.5, atol=0.08)
    assert 0.4 < (swapped[0] == swapped[1]).mean() < 0.6  # each agent for itself
    order = ((2, 1, 0), (0, 1, 2))
    state = start(settings=settings, held=(ZERO, TWO), pots=(2 * ZERO + ONE, NOTHING))
    state = state._replace(ingredient_order=tuple(tuple(map(jnp.int32, one)) for one in order))
    plain, _, _ = made()
    seen, real = np.asarray(env.observe(state)), np.asarray(plain.observe(state))
    np.testing.assert_array_equal(seen[1], real[1])
    exchanged = real[0].copy()
    for first in (7, 17, 26, 31, 36):  # held, held by the other, piles, in pots, the recipe
        exchanged[..., [first, first + 2]] = real[0][..., [first + 2, first]]
    np.testing.assert_array_equal(seen[0], exchanged)
    assert not np.array_equal(seen[0], real[0])
    assert "agent_0 sees ingredient_2 as ingredient_0" in env.describe(state)


def test_many_agents_walk():
    ring = "\n".join(["WPXB0W", "WAA  W", "WAA  W", "WWWWWW"])
    env = OvercookedV2(ring)
    step = jax.jit(env.step, compiler_options=QUICK)
    state, _ = env.reset(fast_key(0))
    assert tuple(map(int, state.cells)) == (7, 8, 13, 14)

    def walk(letters, state=state):
        action = jnp.array([_LETTERS.index(letter) for letter in letters], jnp.int32)
        return tuple(map(int, step(fast_key(0), state, action)[0].cells))

    assert walk("rdul") == (8, 14, 7, 13)  # round in a circle
    assert walk("rrrr") == (8, 9, 14, 15)  # one behind the other
    assert walk("rurs") == (7, 8, 13, 14)  # who follows one who is stopped is stopped
    assert walk("rlss") == (7, 8, 13, 14)  # a swap
    assert walk("rdsu") == (7, 8, 13, 14)  # a swap, and one who would have followed
    assert walk("srsr") == (7, 9, 13, 15)
    # One stopped by another who goes to the same cell stops a third that follows it.
    three = state._replace(cells=tuple(map(jnp.int32, (7, 8, 10, 15))))
    assert walk("rrls", three) == (7, 8, 10, 15)


def test_ids_and_settings_by_id():
    env = kiloworlds.make_environment("overcooked_v2/grounded_coord_simple", agent_view_size=2)
    assert env.max_episode_steps == 400
    assert env.unwrapped.layout.recipes == ((0, 0, 0), (1, 1, 1))
    assert env.kinds[0].observation_space.shape == (5, 5, 40)


@pytest.mark.parametrize("layout", ["grounded_coord_ring", "demo_cook_simple"])
def test_cooks_serve_soups(layout):
    _, steps, _ = play(OvercookedV2(layout), 250, seed=2)
    assert sum(step.reward[0] == 20 for step in steps) >= 2


def test_text():
    env, _, _ = made(permuted_ingredients=(0, 2))
    state = start(
        settings=(("permuted_ingredients", (0, 2)),),
        cells=(9, 14),
        facings=(RIGHT, DOWN),
        held=(2 * ONE + TWO | DISH, TWO),
        pots=(ZERO + TWO, 3 * ONE),
        buttons=(1,),
    )
    order = tuple(tuple(map(jnp.int32, one)) for one in ((0, 1, 2), (2, 1, 0)))
    lines = env.describe(
        state._replace(ingredient_order=order, delivered=jnp.bool_(True))
    ).splitlines()
    assert lines[2:10] == [
        "     0  1  2  3  4  5",
        "  0  W  P  R  P  W  W",
        "  1  0  .  . a>  L  W",
        "  2  1  . bv  .  X  W",
        "  3  W  B  2  W  W  W",
        "",
        "Legend: . floor, W empty counter, X delivery, B pile of plates, P pot, R recipe indicator, "
        "L recipe indicator with a button, 0 pile of ingredient_0, 1 pile of ingredient_1, "
        "2 pile of ingredient_2.",
        "Agents: a agent_0, b agent_1; they face ^ up, v down, > right, < left.",
    ]
    assert lines[11:] == [
        "agent_0 (a) is at row 1, column 3, holds a plate of soup of 2 ingredient_1 + "
        "1 ingredient_2, and faces right, towards the recipe indicator with a button at row 1, "
        "column 4.",
        "agent_1 (b) is at row 2, column 2, holds 1 ingredient_2, and faces down, towards the pile of "
        "ingredient_2 at row 3, column 2.",
        "The pot at row 0, column 1 holds 1 ingredient_0 + 1 ingredient_2, does not cook yet and has "
        "room for 1 more.",
        "The pot at row 0, column 3 holds 3 ingredient_1, is full and does not cook yet.",
        "Nothing lies on the counters.",
        "Asked for is soup of 2 ingredient_0 + 1 ingredient_1.",
        "The recipe indicator at row 0, column 2 shows it.",
        "The recipe indicator with a button at row 1, column 4 shows it for 1 more step.",
        "agent_1 sees ingredient_2 as ingredient_0, ingredient_0 as ingredient_2.",
        "In the last step the soup asked for was delivered.",
    ]


def test_pictures():
    env, _, _ = made()
    states = [
        start(),
        start(recipe=3 * TWO),
        start(buttons=(4,)),
        start(held=(TWO, NOTHING)),
        start(held=(ONE, NOTHING)),
        start(held=(3 * ONE | DISH, NOTHING)),
        start(held=(3 * TWO | DISH, NOTHING)),
        start(pots=(ONE, NOTHING)),
        start(pots=(NOTHING, ONE)),
    ]
    pictures = [env.render(state) for state in states]
    assert pictures[0].shape == (4 * 64 + 48, 6 * 64, 3)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent_view_size": 0}, "agent_view_size=0 must be a whole number of 1 or more"),
        ({"button_time": 0}, "button_time=0 must be a whole number of 1 or more"),
        ({"random_agent_positions": "yes"}, "random_agent_positions='yes' must be True or False"),
        ({"permuted_ingredients": (0, 3)}, "different numbers of ingredients, 0 to 2"),
        ({"permuted_ingredients": (1, 1)}, "different numbers of ingredients"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        OvercookedV2(KITCHEN, **settings)
