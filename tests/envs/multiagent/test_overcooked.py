"""The rules of Overcooked, worked by hand, and what agents see, read and look at."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from overcooked_cooks import QUICK, items_at, play

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.overcooked import LAYOUTS, Overcooked
from kiloworlds.envs.multiagent.overcooked.items import COOKED, INGREDIENT, NOTHING, PLATE

ONION, SOUP = INGREDIENT, 3 * INGREDIENT | COOKED | PLATE
UP, DOWN, RIGHT, LEFT, STAY, INTERACT = range(6)
_LETTERS = "udrlsi"
# Cells of "cramped_room": 5 columns; agent_0 starts at 6, agent_1 at 8.
#   0  W  W  P  W  W
#   5  O  a  .  b  O
#  10  W  .  .  .  W
#  15  W  B  W  X  W


@functools.cache
def functions(env):
    options = {"compiler_options": QUICK}
    return jax.jit(env.reset, **options), jax.jit(env.step, **options)


@functools.cache
def cramped():
    return Overcooked("cramped_room")


def start(env, **values):
    """A first state in which both face up, with other values where given."""
    state, _ = functions(env)[0](fast_key(0))
    state = state._replace(facings=(jnp.int32(UP), jnp.int32(UP)))
    values = {
        name: tuple(map(jnp.int32, value)) if isinstance(value, tuple) else jnp.int32(value)
        for name, value in values.items()
    }
    return state._replace(**values)


def many_starts(env, count):
    """First states, on a leading axis."""
    reset = jax.jit(jax.vmap(lambda key: env.reset(key)[0]), compiler_options=QUICK)
    return jax.device_get(reset(jax.random.split(fast_key(3), count)))


def run(env, state, first, second=""):
    """Both agents act by letter (u d r l s i); who has no letter left stays.

    Returns:
        The states and the steps after each action.
    """
    states, steps = [], []
    length = max(len(first), len(second))
    for letters in zip(first.ljust(length, "s"), second.ljust(length, "s"), strict=True):
        action = jnp.array([_LETTERS.index(letter) for letter in letters], jnp.int32)
        state, step = functions(env)[1](fast_key(1), state, action)
        states.append(state)
        steps.append(step)
    return states, steps


def lying(env, state):
    """What lies on counters, by cell."""
    items = items_at(env.kitchen, state)
    return {
        cell: int(items[cell])
        for cell in np.flatnonzero(items)
        if int(cell) not in env.kitchen.pots
    }


def test_a_soup_from_the_first_onion_to_the_delivery():
    env = cramped()
    fetch_and_put = "li" + "rui"
    states, steps = run(env, start(env), 3 * fetch_and_put)
    hints = np.array([step.info["shaped_reward"] for step in steps])
    assert hints[:, 0].tolist() == [0, 0, 0, 0, 3] * 3
    assert not hints[:, 1].any()
    assert [int(state.held[0]) for state in states[:5]] == [0, ONION, ONION, ONION, 0]
    assert [int(states[i].pots[0]) for i in (4, 9, 14)] == [ONION, 2 * ONION, 3 * ONION]
    # The pot cooks in the step in which it was filled.
    assert [int(states[i].cooking[0]) for i in (9, 14)] == [0, 19]

    to_plates_and_back = "dldi" + "rui"
    states, steps = run(env, states[-1], to_plates_and_back + 14 * "i")
    hints = np.array([step.info["shaped_reward"] for step in steps])[:, 0]
    # A plate counts while a pot is in use; the soup can be taken 19 steps after the third onion.
    assert np.flatnonzero(hints).tolist() == [3, 19]
    assert hints[[3, 19]].tolist() == [3, 5]
    assert int(states[18].pots[0]) == 3 * ONION | COOKED
    assert int(states[18].held[0]) == PLATE
    assert int(states[19].held[0]) == SOUP
    assert int(states[19].pots[0]) == NOTHING

    states, steps = run(env, states[19], "drdii")
    rewards = np.array([step.reward for step in steps])
    assert rewards.tolist() == [[0, 0]] * 3 + [[20, 20]] + [[0, 0]]
    assert int(states[-1].held[0]) == NOTHING
    assert not any(step.terminated or step.truncated for step in steps)
    assert int(states[-1].time) == 15 + 20 + 5


@pytest.mark.parametrize(
    ("cells", "first", "second", "expected"),
    [
        ((6, 8), "r", "l", (6, 8)),  # both want the cell between them
        ((7, 8), "r", "l", (7, 8)),  # both want the other's
        ((6, 7), "r", "r", (7, 8)),  # one follows the other
        ((6, 7), "r", "s", (6, 7)),  # the way is taken
        ((6, 7), "r", "u", (6, 7)),  # the way is taken by one who is stopped by the pot
        ((7, 8), "d", "l", (12, 7)),  # one takes the place the other leaves
        ((6, 8), "l", "r", (6, 8)),  # piles on both sides
    ],
)
def test_walking(cells, first, second, expected):
    env = cramped()
    (state,), _ = run(env, start(env, cells=cells), first, second)
    assert tuple(map(int, state.cells)) == expected
    # Agents turn whether they go or not, but not when they stay.
    facings = tuple(UP if letter == "s" else _LETTERS.index(letter) for letter in (first, second))
    assert tuple(map(int, state.facings)) == facings


def test_counters_hold_one_thing_each_and_pass_it_on():
    env = cramped()
    # agent_0 puts an onion on the counter at cell 1, and cannot put or take more there with full hands.
    state = start(env, held=(ONION, PLATE), cells=(6, 11))
    states, _ = run(env, state, "iss", "sli")
    assert lying(env, states[0]) == {1: ONION}
    assert int(states[0].held[0]) == NOTHING
    assert lying(env, states[2]) == {1: ONION, 10: PLATE}
    full = states[2]._replace(held=(jnp.int32(SOUP), jnp.int32(NOTHING)))
    (state,), _ = run(env, full, "i")
    assert lying(env, state) == {1: ONION, 10: PLATE}
    assert int(state.held[0]) == SOUP
    # agent_1 takes the plate up again, and agent_0, its hands empty, the onion.
    both = states[2]._replace(held=(jnp.int32(NOTHING), jnp.int32(NOTHING)))
    (state,), (step,) = run(env, both, "i", "i")
    assert lying(env, state) == {}
    assert tuple(map(int, state.held)) == (ONION, PLATE)
    assert step.info["shaped_reward"].tolist() == [0, 0]
    # Soup can lie on a counter too.
    (state,), _ = run(env, start(env, held=(SOUP, NOTHING)), "i")
    assert lying(env, state) == {1: SOUP}


def test_what_hands_cannot_do():
    env = cramped()
    # Facing the other agent, free floor, a pile with full hands, the delivery without soup.
    cases = [
        ({"cells": (6, 7), "facings": (RIGHT, UP), "held": (ONION, NOTHING)}, ONION),
        ({"cells": (6, 8), "facings": (RIGHT, UP), "held": (PLATE, NOTHING)}, PLATE),
        ({"cells": (6, 8), "facings": (LEFT, UP), "held": (PLATE, NOTHING)}, PLATE),
        ({"cells": (13, 8), "facings": (DOWN, UP), "held": (PLATE, NOTHING)}, PLATE),
        ({"cells": (13, 8), "facings": (DOWN, UP), "held": (ONION, NOTHING)}, ONION),
        # A pot takes no plate while it is empty, and no fourth onion.
        ({"cells": (7, 8), "facings": (UP, UP), "held": (PLATE, NOTHING)}, PLATE),
        (
            {
                "cells": (7, 8),
                "facings": (UP, UP),
                "held": (ONION, NOTHING),
                "pots": (3 * ONION,),
                "cooking": (7,),
            },
            ONION,
        ),
        # It gives soup onto a plate only.
        (
            {
                "cells": (7, 8),
                "facings": (UP, UP),
                "held": (NOTHING, NOTHING),
                "pots": (3 * ONION | COOKED,),
            },
            NOTHING,
        ),
    ]
    for values, kept in cases:
        before = start(env, **values)
        (state,), (step,) = run(env, before, "i")
        assert int(state.held[0]) == kept, values
        assert lying(env, state) == {}
        assert state.pots[0] == before.pots[0]
        assert step.reward.tolist() == [0, 0]
        assert step.info["shaped_reward"].tolist() == [0, 0]


def test_the_hint_on_plates():
    env = cramped()
    at_plates = {"cells": (11, 8), "facings": (DOWN, UP)}
    busy = {"pots": (ONION,)}
    for values, hint in (
        (at_plates | busy, 3),
        (at_plates, 0),  # no pot in use
        (
            at_plates | busy | {"held": (NOTHING, PLATE)},
            0,
        ),  # as many plates in hands as pots in use
    ):
        _, (step,) = run(env, start(env, **values), "i")
        assert step.info["shaped_reward"].tolist() == [hint, 0], values
    # A plate on a counter stops it, wherever it lies.
    laid, _ = run(env, start(env, **at_plates, **busy, held=(NOTHING, PLATE)), "s", "i")
    _, (step,) = run(env, laid[0], "i")
    assert step.info["shaped_reward"].tolist() == [0, 0]
    # Hands count as they are in turn: agent_0 took its plate first.
    room = Overcooked("counter_circuit")
    state = start(room, cells=(9, 25), facings=(DOWN, UP), pots=(ONION, NOTHING))
    state = state._replace(cells=(jnp.int32(17), jnp.int32(17)), facings=(jnp.int32(LEFT),) * 2)
    _, (step,) = run(room, state, "i", "i")
    assert step.info["shaped_reward"].tolist() == [3, 0]


def test_parameters():
    env = Overcooked(
        "cramped_room",
        cook_time=3,
        delivery_reward=7.0,
        placement_reward=1.5,
        plate_reward=0.5,
        soup_reward=2.5,
    )
    state = start(env, cells=(7, 13), facings=(UP, DOWN), held=(ONION, SOUP), pots=(2 * ONION,))
    states, steps = run(env, state, "isss", "i")
    assert steps[0].reward.tolist() == [7, 7]
    assert steps[0].info["shaped_reward"].tolist() == [1.5, 0]
    assert [int(state.cooking[0]) for state in states] == [2, 1, 0, 0]
    assert [int(state.pots[0]) & COOKED for state in states] == [0, 0, COOKED, COOKED]
    ready = states[-1]._replace(held=(jnp.int32(PLATE), jnp.int32(NOTHING)))
    _, (step,) = run(env, ready, "i")
    assert step.info["shaped_reward"].tolist() == [2.5, 0]
    state = start(env, cells=(11, 8), facings=(DOWN, UP), pots=(ONION,))
    _, (step,) = run(env, state, "i")
    assert step.info["shaped_reward"].tolist() == [0.5, 0]


def test_parameters_may_differ_between_environments():
    envs = kiloworlds.make(
        "overcooked/cramped_room", 3, cook_time=[1, 2, 3], delivery_reward=[1.0, 2.0, 3.0]
    )
    functions = envs.functions
    state, _ = functions.init(fast_key(0))
    inner = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (3, *leaf.shape)),
        start(cramped(), cells=(7, 13), facings=(UP, DOWN), held=(ONION, SOUP), pots=(2 * ONION,)),
    )
    state = state._replace(environments=state.environments._replace(inner=inner))
    actions = jnp.full((3, 2), INTERACT, jnp.int32)
    state, step = jax.jit(functions.step, compiler_options=QUICK)(state, actions)
    assert state.environments.inner.cooking[0].tolist() == [0, 1, 2]
    assert step.reward.tolist() == [[1, 1], [2, 2], [3, 3]]


def seen(observation):
    """The entries that are not 0, as (row, column, layer): value."""
    return {
        tuple(map(int, place)): int(observation[place])
        for place in zip(*np.nonzero(observation), strict=True)
    }


def test_observation():
    env = cramped()
    state = start(env, cells=(6, 13), facings=(RIGHT, UP), held=(SOUP, ONION), pots=(2 * ONION,))
    counters = [(0, 0), (0, 1), (0, 3), (0, 4), (2, 0), (2, 4), (3, 0), (3, 2), (3, 4)]
    fixed = {(row, column, 11): 1 for row, column in counters}
    fixed |= {(0, 2, 10): 1, (1, 0, 12): 1, (1, 4, 12): 1, (3, 1, 14): 1, (3, 3, 15): 1}
    soup = {(1, 1, 18): 3, (1, 1, 21): 1}
    onion = {(2, 3, 23): 1}
    common = fixed | soup | onion | {(0, 2, 16): 2}
    first, second = np.asarray(env.observe(state))
    assert seen(first) == common | {(1, 1, 0): 1, (1, 1, 4): 1, (2, 3, 1): 1, (2, 3, 6): 1}
    assert seen(second) == common | {(2, 3, 0): 1, (2, 3, 2): 1, (1, 1, 1): 1, (1, 1, 8): 1}

    # A pot that cooks, then one that is ready; things on counters.
    state = start(env, cells=(6, 11), facings=(UP, LEFT), held=(ONION, PLATE), pots=(3 * ONION,))
    (state,), _ = run(env, state._replace(cooking=(jnp.int32(5),)), "i", "i")
    agents = {(1, 1, 0): 1, (1, 1, 2): 1, (2, 1, 1): 1, (2, 1, 9): 1}
    bare = {place: 1 for place in fixed if place not in ((0, 1, 11), (2, 0, 11))}
    things = bare | agents | {(0, 1, 23): 1, (2, 0, 22): 1}
    cooking = {(0, 2, 18): 3, (0, 2, 20): 4}
    assert seen(np.asarray(env.observe(state))[0]) == things | cooking
    states, _ = run(env, state, "ssss")
    ready = {(0, 2, 18): 3, (0, 2, 21): 1}
    assert seen(np.asarray(env.observe(states[-1]))[0]) == things | ready


def test_the_last_steps_are_urgent():
    env = Overcooked("cramped_room", horizon=60)
    for time, urgent in ((0, 0), (20, 0), (21, 1), (60, 1), (75, 1)):
        layer = np.asarray(env.observe(start(env, time=time)))[..., 25]
        assert (layer == urgent).all(), time


def test_where_agents_start():
    env = cramped()
    states = many_starts(env, 4096)
    assert {tuple(cells) for cells in np.stack(states.cells, -1).tolist()} == {(6, 8)}
    pairs = np.stack(states.facings, -1)
    counts = np.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16)
    assert np.all(np.abs(counts / 4096 - 1 / 16) < 0.02)
    for name in ("held", "pots", "cooking"):
        assert not np.any(np.stack(getattr(states, name))), name


def test_random_reset():
    env = Overcooked("cramped_room", random_reset=True)
    count = 8192
    states = many_starts(env, count)
    first, second = np.stack(states.cells)
    assert (first != second).all()
    floor = [6, 7, 8, 11, 12, 13]
    pairs = {(a, b) for a in floor for b in floor if a != b}
    drawn = list(zip(first.tolist(), second.tolist(), strict=True))
    assert set(drawn) == pairs
    shares = np.array([drawn.count(pair) for pair in pairs]) / count
    assert np.all(np.abs(shares - 1 / 30) < 0.01)
    for held in states.held:
        shares = [np.mean(held == item) for item in (NOTHING, ONION, PLATE, SOUP)]
        assert np.allclose(shares, 0.25, atol=0.02)
    # 24 states of a pot: 0 to 2 onions, 20 to 1 steps left, ready.
    in_pot, left = np.array(states.pots[0]), np.array(states.cooking[0])
    for waiting in (0, ONION, 2 * ONION, 3 * ONION | COOKED):
        assert abs(np.mean((in_pot == waiting) & (left == 0)) - 1 / 24) < 0.01
    steps = np.bincount(left[in_pot == 3 * ONION], minlength=21)
    assert steps[0] == 0
    assert np.all(np.abs(steps[1:] / count - 1 / 24) < 0.01)
    # A pot with all its time left looks as if it did not cook yet, and does.
    full = start(env, pots=(3 * ONION,), cooking=(20,))
    layers = np.asarray(env.observe(full))[0, 0, 2]
    assert layers[[16, 18, 20]].tolist() == [3, 0, 0]
    (state,), _ = run(env, full, "s")
    assert int(state.cooking[0]) == 19


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cooks_serve_soups(layout):
    env = kiloworlds.make_environment(f"overcooked/{layout}").unwrapped
    states, steps, _ = play(env, 250, seed=2)
    rewards = np.array([step.reward for step in steps])
    assert (rewards[:, 0] == 20).sum() >= (1 if layout == "forced_coord" else 2)
    assert (rewards[:, 0] == rewards[:, 1]).all()
    # Nothing comes from nowhere: each soup delivered took three onions.
    onions = sum(
        int(after.held[agent]) == ONION and int(before.held[agent]) == NOTHING
        for before, after in itertools.pairwise(states)
        for agent in range(2)
    )
    assert onions >= 3 * (rewards[:, 0] == 20).sum()


def test_time_limit():
    env = kiloworlds.make_environment("overcooked/coord_ring")
    assert env.max_episode_steps == 400
    assert env.unwrapped.horizon == 400
    assert env.team_reward


def test_text():
    env = cramped()
    state = start(env, cells=(6, 11), facings=(UP, LEFT), held=(ONION, SOUP), pots=(3 * ONION,))
    (state,), _ = run(env, state._replace(cooking=(jnp.int32(5),)), "i", "s")
    assert env.describe(state).splitlines() == [
        "Step 1. The kitchen has 4 rows and 5 columns; row 0 is at the top, column 0 at the left.",
        "",
        "     0  1  2  3  4",
        "  0  W  *  P  W  W",
        "  1  O a^  .  .  O",
        "  2  W b<  .  .  W",
        "  3  W  B  W  X  W",
        "",
        "Legend: . floor, W empty counter, * counter with something on it, X delivery, "
        "B pile of plates, P pot, O pile of onions.",
        "Agents: a agent_0, b agent_1; they face ^ up, v down, > right, < left.",
        "",
        "agent_0 (a) is at row 1, column 1, holds nothing, and faces up, towards the counter with "
        "1 onion at row 0, column 1.",
        "agent_1 (b) is at row 2, column 1, holds a plate of soup of 3 onions, and faces left, "
        "towards an empty counter at row 2, column 0.",
        "The pot at row 0, column 2 holds 3 onions and cooks for 4 more steps.",
        "On the counter at row 0, column 1 lies 1 onion.",
        "Asked for is soup of 3 onions.",
    ]
    for values, sentence in (
        ({"pots": (NOTHING,)}, "is empty."),
        ({"pots": (ONION,)}, "holds 1 onion, does not cook yet and has room for 2 more."),
        ({"pots": (3 * ONION,), "cooking": (1,)}, "holds 3 onions and cooks for 1 more step."),
        (
            {"pots": (3 * ONION | COOKED,)},
            "holds soup of 3 onions, ready to be taken with a plate.",
        ),
    ):
        assert f"The pot at row 0, column 2 {sentence}" in env.describe(start(env, **values))
    ahead = {
        (7, RIGHT): "agent_1",
        (7, DOWN): "free floor",
        (6, LEFT): "the pile of onions",
        (11, DOWN): "the pile of plates",
        (13, DOWN): "the delivery",
        (7, UP): "the pot",
    }
    for (cell, facing), what in ahead.items():
        text = env.describe(start(env, cells=(cell, 8), facings=(facing, UP)))
        assert f", towards {what} at row" in text.splitlines()[11], what


def test_texts_tell_states_apart():
    """States of play that differ have different texts."""
    env = Overcooked("coord_ring")
    states, _, _ = play(env, 120, seed=5, whim=0.3)
    texts = {}
    for state in states:
        state = state._replace(time=np.int32(0))
        key = tuple(
            np.asarray(leaf).item() for leaf in jax.tree.leaves(state._replace(delivered=0))
        )
        assert texts.setdefault(env.describe(state), key) == key
    assert len(texts) > 60


def test_pictures():
    env = cramped()
    state = start(env)
    picture = env.render(state)
    assert picture.shape == (4 * 64 + 48, 5 * 64, 3)
    others = [
        start(env, cells=(11, 8)),
        start(env, facings=(DOWN, UP)),
        start(env, held=(ONION, NOTHING)),
        start(env, held=(PLATE, NOTHING)),
        start(env, held=(SOUP, NOTHING)),
        start(env, pots=(ONION,)),
        start(env, pots=(2 * ONION,)),
        start(env, pots=(3 * ONION,), cooking=(9,)),
        start(env, pots=(3 * ONION,), cooking=(8,)),
        start(env, pots=(3 * ONION | COOKED,)),
        run(env, start(env, held=(ONION, NOTHING)), "i")[0][0]._replace(time=jnp.int32(0)),
    ]
    pictures = [picture, *map(env.render, others)]
    assert len({each.tobytes() for each in pictures}) == len(pictures)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cook_time": 0}, "cook_time=0 must be a whole number between 1 and 100"),
        ({"cook_time": 101}, "the nearest valid value is 100"),
        ({"cook_time": 2.5}, "cook_time=2.5 must be a whole number"),
        ({"horizon": 0}, "horizon=0 must be a whole number of 1 or more"),
        ({"random_reset": 3}, "random_reset=3 must be True or False"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        Overcooked(**settings)
    with pytest.raises(InvalidValueError, match="cook_time=0 must be"):
        Overcooked(cook_time=np.array([20, 0]))
