import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map

from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.toy_text.frozen_lake import FrozenLake, FrozenLakeState, random_map
from kiloworlds.testing.distributions import matches_probabilities

CUSTOM = ["SFFHF", "FSHFF", "GFFFG"]
VARIANTS = [
    {"map_name": "4x4"},
    {"map_name": "8x8"},
    {"desc": CUSTOM, "reward_schedule": (7, -3, -1)},
    {"desc": generate_random_map(6, 0.7, seed=5)},
    {"desc": generate_random_map(18, 0.8, seed=5)},  # more cells than are compared word by word
]


def _states(env):
    cells = jnp.arange(env.shape[0] * env.shape[1])
    return FrozenLakeState(*jnp.divmod(cells, env.shape[1]))


@pytest.mark.parametrize("arguments", VARIANTS)
def test_every_transition_equals_gymnasium(arguments, least_p_value):
    env = FrozenLake(is_slippery=False, **arguments)
    table = FrozenLakeEnv(is_slippery=False, **arguments).P
    assert least_p_value(env, table, _states(env)) >= 1.0


@pytest.mark.parametrize("arguments", VARIANTS[:4])
@pytest.mark.parametrize("success_rate", [1 / 3, 0.75])
def test_slippery_transitions_have_gymnasiums_probabilities(arguments, success_rate, least_p_value):
    env = FrozenLake(success_rate=success_rate, **arguments)
    table = FrozenLakeEnv(success_rate=success_rate, **arguments).P
    assert least_p_value(env, table, _states(env), draws=2000) > 1e-3


def test_the_comparison_sees_a_wrong_success_rate(least_p_value):
    env = FrozenLake(success_rate=0.5)
    assert least_p_value(env, FrozenLakeEnv().P, _states(env), draws=2000) < 1e-6


def test_every_start_is_equally_likely():
    env = FrozenLake(desc=CUSTOM)
    expected = FrozenLakeEnv(desc=CUSTOM).initial_state_distrib
    keys = jax.random.split(fast_key(1), 4000)
    state, observation = jax.vmap(env.reset)(keys)
    np.testing.assert_array_equal(state.row * 5 + state.column, observation)
    assert matches_probabilities(observation, dict(enumerate(expected))) > 1e-3


def test_info_of_reset_has_the_keys_of_step():
    env = FrozenLake()
    state, _ = env.reset(fast_key(0))
    _, step = env.step(fast_key(1), state, jnp.int32(0))
    info = env.reset_info(state)
    assert info.keys() == step.info.keys()
    assert info["prob"] == 1.0


@pytest.mark.parametrize(("id", "cells"), [("FrozenLake-v1", 16), ("FrozenLake8x8-v1", 64)])
def test_registered_ids_match_gymnasium(id, cells):
    env, reference = make_environment(id), gymnasium.make(id)
    assert env.observation_space.to_gymnasium() == reference.observation_space
    assert env.action_space.to_gymnasium() == reference.action_space
    assert env.observation_space.n == cells
    assert env.max_episode_steps == reference.spec.max_episode_steps


def test_maps_and_rates_can_differ_between_environments():
    maps = [random_map(4, 0.7, seed=seed) for seed in range(15)] + [
        ["SFFF", "FFFF", "FSSH", "FFFG"]
    ]
    rates = np.linspace(0.2, 1.0, 16)
    batch = FrozenLake(desc=maps, success_rate=rates)
    reference = FrozenLake()
    axes = jax.tree.map(
        lambda leaf, one: 0 if np.ndim(leaf) > np.ndim(one) else None, batch, reference
    )
    assert jax.tree.leaves(axes, is_leaf=lambda axis: axis is None).count(0) == 5
    keys = jax.random.split(fast_key(2), (16, 300))

    def play(env, keys):
        def advance(carry, key):
            state, _ = env.reset(key)
            return env.step(key, state._replace(row=carry.row, column=carry.column), jnp.int32(1))

        start, _ = env.reset(keys[0])
        _, steps = jax.lax.scan(advance, start, keys)
        return start, steps.observation, steps.terminated

    starts, observations, terminated = jax.jit(jax.vmap(play, in_axes=(axes, 0)))(batch, keys)
    for i in range(16):
        single = FrozenLake(desc=maps[i], success_rate=float(rates[i]))
        single_start, expected, expected_terminated = play(single, keys[i])
        assert (starts.row[i], starts.column[i]) == tuple(single_start)
        np.testing.assert_array_equal(observations[i], expected)
        np.testing.assert_array_equal(terminated[i], expected_terminated)


def test_desc_gives_the_map_back():
    assert ["".join(row) for row in FrozenLake(desc=CUSTOM).desc] == CUSTOM
    maps = [random_map(8, seed=seed) for seed in range(3)]
    assert [["".join(row) for row in one] for one in FrozenLake(desc=maps).desc] == maps


@pytest.mark.parametrize(
    "desc",
    [[list(row) for row in CUSTOM], np.asarray(CUSTOM, "c"), np.asarray(CUSTOM), tuple(CUSTOM)],
)
def test_maps_are_taken_in_every_form_gymnasium_takes(desc):
    assert ["".join(row) for row in FrozenLake(desc=desc).desc] == CUSTOM


@pytest.mark.parametrize(
    ("desc", "sentence"),
    [
        (["SFF", "FXG"], "'X' at row 1, column 1"),
        ([["SF", "FG"], ["SF", "QG"]], "map 1: the letter 'Q' at row 1, column 0"),
        (["SFF", "FG"], "not rectangular: row 1 has 2 letters"),
        (["FFF", "FFG"], "no S"),
        (["SFF", "FFF"], "no G"),
        ([["SF", "FG"], ["SG"]], "equally many rows"),
        ([], "list of rows"),
        ([[0, 1], [2, 3]], "list of rows"),
        ("SFFG", r"\[rows, columns\]"),
    ],
)
def test_a_bad_map_is_explained(desc, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        FrozenLake(desc=desc)


@pytest.mark.parametrize(
    "arguments", [{"success_rate": 1.5}, {"success_rate": [0.5, -0.1]}, {"reward_schedule": (1, 0)}]
)
def test_bad_numbers_are_refused(arguments):
    with pytest.raises(InvalidValueError, match=next(iter(arguments))):
        FrozenLake(**arguments)


def test_an_unknown_map_name_is_refused_with_its_neighbours():
    with pytest.raises(UnknownNameError, match="Did you mean '8x8'"):
        FrozenLake(map_name="8X8")


@pytest.mark.parametrize(
    ("size", "p", "seed"), [(4, 0.8, 0), (8, 0.6, 3), (10, 0.8, 7), (2, 1.0, 1)]
)
def test_random_maps_equal_gymnasiums(size, p, seed):
    assert random_map(size, p, seed) == generate_random_map(size, p, seed)


def test_a_random_map_is_drawn_where_neither_map_nor_name_is_given():
    assert FrozenLake(map_name=None).shape == (8, 8)


@pytest.mark.parametrize("arguments", [{"size": 1}, {"p": 1.2}, {"size": 4, "p": 0.0}])
def test_impossible_random_maps_are_refused(arguments):
    with pytest.raises(InvalidValueError):
        random_map(**arguments)


def test_the_player_is_marked_in_text_and_picture():
    env = FrozenLake(desc=["SF", "HG"])
    at_start = FrozenLakeState(jnp.int32(0), jnp.int32(0))
    assert env.describe(at_start) == "[S] F\n H  G"
    aside = env.render(at_start._replace(column=jnp.int32(1)))
    assert aside.shape == (128, 128, 3)
    assert aside.dtype == np.uint8
    assert (aside != env.render(at_start)).any()
