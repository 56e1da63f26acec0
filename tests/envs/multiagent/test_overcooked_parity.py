"""Overcooked equals the package jaxmarl's, step by step: observations, rewards and hints.

Runs where jaxmarl is installed (the extra `peers`).
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("jaxmarl")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from jaxmarl.environments.overcooked import Overcooked as Theirs
    from jaxmarl.environments.overcooked import overcooked_layouts
    from jaxmarl.environments.overcooked.common import OBJECT_TO_INDEX, make_overcooked_map
    from jaxmarl.environments.overcooked_v2 import common
    from jaxmarl.environments.overcooked_v2.layouts import overcooked_v2_layouts
    from jaxmarl.environments.overcooked_v2.overcooked import OvercookedV2 as TheirsV2
from overcooked_cooks import QUICK, play

from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.overcooked.counters import items_on_counters
from kiloworlds.envs.multiagent.overcooked.items import recipe_item
from kiloworlds.envs.multiagent.overcooked.layouts import (
    LAYOUTS,
    LAYOUTS_V2,
    find_layout,
    find_layout_v2,
)
from kiloworlds.envs.multiagent.overcooked.overcooked import Overcooked
from kiloworlds.envs.multiagent.overcooked.overcooked_v2 import OvercookedV2

pytestmark = pytest.mark.filterwarnings("ignore")
EPISODES = 5
STEPS = 230
HORIZON = 200  # the layer of the last steps is on for a while
_ITEMS = {0: "empty", 4: "onion", 1: "plate", 15: "dish"}


def episodes(env):
    """First states `[EPISODES]` and actions `[STEPS, EPISODES, A]`; the first episode is cooks', the
    second restless cooks', the third, where there are several recipes, cooks' who serve what nobody
    asked for."""
    reset = jax.jit(jax.vmap(env.reset), compiler_options=QUICK)
    starts, _ = reset(jax.random.split(fast_key(3), EPISODES))
    actions = np.random.default_rng(5).integers(
        len(env.action_names), size=(STEPS, EPISODES, env.num_agents), dtype=np.int32
    )
    on_host = jax.device_get(starts)

    def start(episode):
        return jax.tree.map(lambda leaf: leaf[episode], on_host)

    actions[:, 0] = play(env, STEPS, seed=1, start=start(0))[2]
    actions[:, 1] = play(env, STEPS, seed=2, start=start(1), whim=0.3)[2]
    recipes = [recipe_item(recipe) for recipe in getattr(env.layout, "recipes", ())]
    wrong = [recipe for recipe in recipes if recipe != int(start(2).recipe)]
    if wrong:
        actions[:, 2] = play(env, STEPS, seed=3, start=start(2), serves=wrong[0])[2]
    return starts, actions


def ours(env, starts, actions):
    def advance(states, action):
        states, step = jax.vmap(env.step)(jax.random.split(fast_key(0), EPISODES), states, action)
        return states, (step.observation, step.reward, step.info["shaped_reward"])

    def run(starts, actions):
        first = jax.vmap(env.observe)(starts)
        return first, jax.lax.scan(advance, starts, actions)[1]

    return jax.tree.map(np.asarray, jax.jit(run, compiler_options=QUICK)(starts, actions))


def theirs(env, put, starts, actions):
    """The same of jaxmarl's environment; `put` makes its state of one of ours."""

    def stacked(by_agent):
        return jnp.stack([by_agent[agent] for agent in env.agents])

    def one(state, action):
        by_agent = dict(zip(env.agents, action, strict=True))
        observation, state, reward, _, info = env.step_env(jax.random.key(0), state, by_agent)
        shaped = stacked(info["shaped_reward"])
        return state, (stacked(observation), stacked(reward), shaped)

    def run(starts, actions):
        states = jax.vmap(put)(starts)
        first = jax.vmap(lambda state: stacked(env.get_obs(state)))(states)
        return first, jax.lax.scan(jax.vmap(one), states, actions)[1]

    return jax.tree.map(np.asarray, jax.jit(run, compiler_options=QUICK)(starts, actions))


def check_equal(env, their_env, put, rewards=(0, 20)):
    """Plays both, and wants to have seen these rewards and every size of hint."""
    starts, actions = episodes(env)
    our_first, (our_seen, our_reward, our_shaped) = ours(env, starts, actions)
    their_first, (their_seen, their_reward, their_shaped) = theirs(their_env, put, starts, actions)
    np.testing.assert_array_equal(our_first, their_first)
    np.testing.assert_array_equal(our_seen, their_seen)
    np.testing.assert_array_equal(our_reward, their_reward)
    np.testing.assert_array_equal(our_shaped, their_shaped)
    assert set(np.unique(our_reward)) >= set(rewards)
    assert set(np.unique(our_shaped)) == {0, 3, 5}


def with_types_of(state, **values):
    """A state with other values, in the types of its own."""
    return state.replace(
        **{
            name: jax.tree.map(lambda new, old: new.astype(old.dtype), value, getattr(state, name))
            for name, value in values.items()
        }
    )


def put_v1(env, their_env):
    kitchen = env.kitchen
    columns = kitchen.shape[1]
    plain = Theirs(their_env.layout)  # its resets compile faster than random ones
    _, fresh = jax.jit(plain.reset, compiler_options=QUICK)(jax.random.key(0))

    def positions(cells):
        cells = jnp.asarray(cells, jnp.uint32)
        return jnp.stack([cells % columns, cells // columns], -1)

    def put(state):
        facings, cells = jnp.stack(state.facings), jnp.stack(state.cells)
        status = jnp.stack(
            [
                jnp.where(left > 0, left, jnp.where(in_pot & 2, 0, 23 - (in_pot >> 2)))
                for in_pot, left in zip(state.pots, state.cooking, strict=True)
            ]
        )
        held = sum(
            jnp.where(jnp.stack(state.held) == item, OBJECT_TO_INDEX[name], 0)
            for item, name in _ITEMS.items()
        )
        layout = their_env.layout
        maze = make_overcooked_map(
            fresh.wall_map,
            fresh.goal_pos,
            positions(cells),
            facings,
            positions(layout["plate_pile_idx"]),
            positions(layout["onion_pile_idx"]),
            fresh.pot_pos,
            status,
            [],
            [],
            [],
            pad_obs=True,
            num_agents=2,
            agent_view_size=their_env.agent_view_size,
        )
        return with_types_of(
            fresh,
            agent_pos=positions(cells),
            agent_dir=jnp.array([(0, -1), (0, 1), (1, 0), (-1, 0)])[facings],
            agent_dir_idx=facings,
            agent_inv=held,
            maze_map=maze,
        )

    return put


def test_kitchens():
    """Those of the same name are the same, down to who starts where and what may be asked for."""
    for name in LAYOUTS:
        ours, given = find_layout(name), overcooked_layouts[name]
        assert ours.shape == (given["height"], given["width"]), name
        piles = {"X": "goal", "B": "plate_pile", "0": "onion_pile", "P": "pot"}
        for letter, kind in piles.items():
            cells = [cell for cell, own in enumerate(ours.cells) if own == letter]
            assert cells == sorted(given[f"{kind}_idx"].tolist()), (name, kind)
        walls = [cell for cell, own in enumerate(ours.cells) if own != " "]
        assert walls == sorted(set(given["wall_idx"].tolist())), name
        assert list(ours.starts) == given["agent_idx"].tolist(), name
    assert set(overcooked_v2_layouts) == set(LAYOUTS_V2) - {"overcookedv2_demo"}
    numbers = {" ": 0, "W": 1, "X": 4, "P": 5, "R": 6, "L": 7, "B": 9}
    numbers |= {str(ingredient): 10 + ingredient for ingredient in range(10)}
    for name, given in overcooked_v2_layouts.items():
        ours = find_layout_v2(name)
        cells = np.array([[numbers[letter] for letter in row] for row in ours.rows])
        np.testing.assert_array_equal(cells, given.static_objects, name)
        columns = ours.shape[1]
        assert [(x, y) for y, x in (divmod(cell, columns) for cell in ours.starts)] == [
            tuple(position) for position in given.agent_positions
        ], name
        recipes = {tuple(sorted(recipe)) for recipe in given.possible_recipes}
        assert set(ours.recipes) == recipes, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_v1(layout):
    random_reset = layout in ("coord_ring", "counter_circuit")
    env = Overcooked(layout, random_reset=random_reset, horizon=HORIZON)
    their_env = Theirs(overcooked_layouts[layout], random_reset, max_steps=HORIZON)
    check_equal(env, their_env, put_v1(env, their_env))


def put_v2(env, their_env):
    kitchen = env.kitchen
    rows, columns = kitchen.shape
    plain = TheirsV2(their_env.layout)
    _, fresh = jax.jit(plain.reset, compiler_options=QUICK)(jax.random.key(0))

    def put(state):
        items, extra = items_on_counters(kitchen, state.counters), jnp.zeros(rows * columns, int)
        for cell, in_pot, left in zip(kitchen.pots, state.pots, state.cooking, strict=True):
            items, extra = items.at[cell].set(in_pot), extra.at[cell].set(left)
        cells = jnp.stack(state.cells)
        grid = jnp.stack(
            [fresh.grid[..., 0], items.reshape(rows, columns), extra.reshape(rows, columns)], -1
        )
        order = jnp.array(state.ingredient_order) if state.ingredient_order else None
        return fresh.replace(
            agents=common.Agent(
                pos=common.Position(x=cells % columns, y=cells // columns),
                dir=jnp.stack(state.facings),
                inventory=jnp.stack(state.held),
            ),
            grid=grid,
            recipe=state.recipe,
            ingredient_permutations=order,
        )

    return put


CASES_V2 = {
    "cramped_room": {"random_reset": True},
    "forced_coord": {"random_agent_positions": True},
    "cramped_room_v2": {
        "agent_view_size": 1,
        "start_cooking_interaction": True,
        "negative_rewards": True,
    },
    "grounded_coord_ring": {"agent_view_size": 2, "indicate_successful_delivery": True},
    "more_fun_coordination": {"op_ingredient_permutations": [0, 2], "random_reset": True},
    "test_time_wide": {
        "agent_view_size": 2,
        "negative_rewards": True,
        "random_reset": True,
        "start_cooking_interaction": True,
    },
}


@pytest.mark.parametrize("layout", CASES_V2)
def test_v2(layout):
    settings = dict(CASES_V2[layout])
    their_env = TheirsV2(layout, **settings)
    rewards = (-5, 0, 20) if layout == "grounded_coord_ring" else (0, 20)  # buttons are pressed
    if settings.pop("negative_rewards", False):
        settings["wrong_delivery_reward"] = -20.0
        rewards = (-20, 0, 20)
    permuted = settings.pop("op_ingredient_permutations", ())
    env = OvercookedV2(layout, permuted_ingredients=permuted, **settings)
    check_equal(env, their_env, put_v2(env, their_env), rewards)
