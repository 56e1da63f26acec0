"""The Coin Game: its rules worked out by hand, and step by step against the jaxmarl package."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import Box
from kiloworlds.envs.multiagent.coin_game import CoinGame, CoinGameState
from kiloworlds.testing.distributions import matches_probabilities

RIGHT, LEFT, UP, DOWN, STAY = range(5)
PAYOFF = ((1.5, 0.5, -3.0), (0.25, 2.0, -4.0))  # every number differs
EVERY_CELL = dict.fromkeys(range(9), 1 / 9)


def _state(red, blue, red_coin, blue_coin, round_step=0):
    rows, columns = zip(red, blue, red_coin, blue_coin, strict=True)
    zero = jnp.int32(0)
    integers = tuple(map(jnp.int32, rows)), tuple(map(jnp.int32, columns))
    return CoinGameState(*integers, (zero, zero), (zero, zero), jnp.int32(round_step))


@eqx.filter_jit
def _steps(env, state, actions, keys):
    """The same state stepped with each of several actions."""
    return jax.vmap(env.step, (0, None, 0))(keys, state, actions)


def _step(env, state, red, blue, seed=0):
    keys = jax.random.split(fast_key(seed), 1)
    results = _steps(env, state, jnp.array([[red, blue]]), keys)
    return jax.tree.map(lambda leaf: leaf[0], results)


def _cells(state):
    return 3 * np.stack(state.rows) + np.stack(state.columns)


@pytest.mark.parametrize(
    ("action", "place"),
    [(RIGHT, (2, 0)), (LEFT, (2, 1)), (UP, (0, 2)), (DOWN, (1, 2)), (STAY, (2, 2))],
)
def test_players_move_on_a_torus(action, place):
    # Both players in the corner, the coins out of reach.
    state, _ = _step(CoinGame(), _state((2, 2), (2, 2), (1, 1), (0, 0)), action, STAY)
    assert (state.rows[0], state.columns[0]) == place
    assert (state.rows[1], state.columns[1]) == (2, 2)


@pytest.mark.parametrize(
    ("red", "blue", "rewards", "own", "other"),
    [
        ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)),
        ((1, 0), (0, 1), (1.5, 0), (1, 0), (0, 0)),  # red takes its own coin
        ((2, 0), (0, 1), (0.5, -4.0), (0, 0), (1, 0)),  # red takes the blue coin
        ((0, 0), (1, 0), (-3.0, 0.25), (0, 0), (0, 1)),  # blue takes the red coin
        ((0, 0), (2, 0), (0, 2.0), (0, 1), (0, 0)),
        ((1, 0), (1, 0), (-1.5, 0.25), (1, 0), (0, 1)),  # both on the red coin: both take it
        ((2, 0), (1, 0), (-2.5, -3.75), (0, 0), (1, 1)),  # each takes the other's
    ],
)
def test_rewards_and_counts_by_hand(red, blue, rewards, own, other):
    # Players move left onto the places given.
    start = _state((red[0], 1), (blue[0], (blue[1] + 1) % 3), (1, 0), (2, 0))
    _, step = _step(CoinGame(payoff_matrix=PAYOFF), start, LEFT, LEFT)
    np.testing.assert_allclose(step.reward, rewards)
    np.testing.assert_array_equal(step.info["own_coins"], own)
    np.testing.assert_array_equal(step.info["other_coins"], other)
    _, shared = _step(CoinGame(payoff_matrix=PAYOFF, shared_rewards=True), start, LEFT, LEFT)
    np.testing.assert_allclose(shared.reward, [sum(rewards)] * 2)


def test_coins_in_one_cell_are_taken_together():
    state, step = _step(CoinGame(), _state((0, 0), (2, 2), (0, 1), (0, 1)), RIGHT, STAY)
    np.testing.assert_allclose(step.reward, [2.0, -2.0])
    assert int(state.own_coins[0]), int(state.other_coins[0]) == (1, 1)


def test_a_coin_that_was_taken_appears_in_any_cell_and_the_other_stays():
    count = 20_000
    start = _state((0, 0), (2, 2), (0, 1), (1, 1))
    actions = jnp.tile(jnp.array([[RIGHT, STAY]]), (count, 1))
    state, _ = _steps(CoinGame(), start, actions, jax.random.split(fast_key(3), count))
    red, blue, red_coin, blue_coin = _cells(state)
    assert (red == 1).all()
    assert (blue == 8).all()
    assert (blue_coin == 4).all()
    assert matches_probabilities(red_coin, EVERY_CELL) > 1e-3


def test_a_round_ends_without_pay_and_begins_anywhere():
    count = 20_000
    env = CoinGame(num_inner_steps=4)
    start = _state((0, 0), (2, 2), (0, 1), (1, 1), round_step=3)
    actions = jnp.tile(jnp.array([[RIGHT, STAY]]), (count, 1))
    state, step = _steps(env, start, actions, jax.random.split(fast_key(4), count))
    assert step.info["inner_episode_done"].all()
    assert (step.reward == 0).all()
    assert (state.round_step == 0).all()
    assert not step.terminated.any()
    np.testing.assert_array_equal(step.info["own_coins"][0], [1, 0])
    cells = _cells(state)
    for pair in ((0, 1), (1, 2), (2, 3), (3, 0)):  # pairs are independent, too
        joint = 9 * cells[pair[0]] + cells[pair[1]]
        assert matches_probabilities(joint, dict.fromkeys(range(81), 1 / 81)) > 1e-3
    _, step = _step(env, start._replace(round_step=jnp.int32(2)), RIGHT, STAY)
    assert not step.info["inner_episode_done"]
    assert step.reward[0] == 1.0


def test_starts_are_anywhere():
    state, _ = jax.jit(jax.vmap(CoinGame().reset))(jax.random.split(fast_key(5), 20_000))
    for cells in _cells(state):
        assert matches_probabilities(cells, EVERY_CELL) > 1e-3
    assert not np.any(np.stack([*state.own_coins, *state.other_coins, state.round_step]))


def test_observations_by_hand():
    state = _state(red=(0, 1), blue=(2, 2), red_coin=(1, 0), blue_coin=(2, 2))
    images = np.asarray(CoinGame(cnn=True).observe(state))
    expected = np.zeros((2, 3, 3, 4), np.uint8)
    for player, places in enumerate(
        [[(0, 1), (2, 2), (1, 0), (2, 2)], [(2, 2), (0, 1), (2, 2), (1, 0)]]
    ):
        for thing, (row, column) in enumerate(places):
            expected[player, row, column, thing] = 1
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(CoinGame().observe(state), expected.reshape(2, 36))
    # In the middle oneself: red's torus is moved down by one row, blue's up and left by one.
    images = np.asarray(CoinGame(cnn=True, egocentric=True).observe(state))
    moved = [np.roll(expected[0], 1, axis=0), np.roll(expected[1], (-1, -1), axis=(0, 1))]
    np.testing.assert_array_equal(images, moved)


def test_an_episode_is_cut_off_after_a_hundred_steps():
    envs = kiloworlds.make("coin_game", 3)
    envs.reset(seed=1)
    for step in range(1, 101):
        *_, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert not np.any(terminated)
        assert np.all(truncated == (step == 100))
    assert kiloworlds.make_environment("coin_game").unwrapped.num_inner_steps == 10


def test_payoffs_may_differ_between_environments():
    matrices = np.stack([np.full((2, 3), factor) * PAYOFF for factor in (1.0, 2.0, 5.0)])
    envs = kiloworlds.make("coin_game", 3, payoff_matrix=matrices)
    functions = envs.functions
    state, _ = jax.jit(functions.init)(fast_key(0))
    start = _state((0, 0), (2, 2), (0, 1), (1, 1))
    three = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), start)
    state = state._replace(environments=state.environments._replace(inner=three))
    _, step = jax.jit(functions.step)(state, jnp.array([[RIGHT, STAY]] * 3))
    np.testing.assert_allclose(step.reward[:, 0], [1.5, 3.0, 7.5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"payoff_matrix": ((1, 1), (1, 1))},
            r"payoff_matrix=\(\(1, 1\), \(1, 1\)\) must be finite numbers of the shape \[2, 3\], three",
        ),
        ({"payoff_matrix": "x"}, "payoff_matrix='x' must be finite numbers"),
        ({"payoff_matrix": [[1, 2, 3], [4, 5]]}, "payoff_matrix=.* must be finite numbers"),
        ({"payoff_matrix": np.full((2, 3), np.nan)}, "payoff_matrix=.* must be finite numbers"),
        ({"num_inner_steps": 0}, "num_inner_steps=0 must be a whole number of 1 or more"),
        ({"cnn": "yes"}, "cnn='yes' must be True or False"),
    ],
)
def test_bad_settings_are_refused_in_words(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        kiloworlds.make_environment("coin_game", **settings)


def test_spaces_and_team():
    env = kiloworlds.make_environment("coin_game", cnn=True, shared_rewards=True)
    assert env.possible_agents == ("red", "blue")
    assert env.kinds[0].observation_space == Box(0, 1, (3, 3, 4), np.uint8)
    assert env.team_reward
    assert not kiloworlds.make_environment("coin_game").team_reward


def test_pictures_show_where_things_are_and_what_was_taken():
    env = CoinGame()
    state = _state((0, 1), (2, 2), (1, 0), (2, 2))
    assert env.describe(state).splitlines()[:3] == [".    .    Bb", "r    .    .", ".    R    ."]
    counted = state._replace(
        own_coins=(jnp.int32(2), jnp.int32(0)), other_coins=(jnp.int32(0), jnp.int32(7))
    )
    assert env.describe(counted).splitlines()[4] == "blue: 0 own, 7 of the other's coins"
    pictures = [env.render(each) for each in (state, counted)]
    assert (pictures[0][:192] == pictures[1][:192]).all()
    assert (pictures[0][192:] != pictures[1][192:]).any()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"egocentric": True, "payoff_matrix": PAYOFF},
        {"cnn": True, "shared_rewards": True, "num_inner_steps": 3},
        {"cnn": True, "egocentric": True, "num_inner_steps": 7, "payoff_matrix": PAYOFF},
    ],
)
def test_every_step_equals_jaxmarls(settings):
    jaxmarl = pytest.importorskip("jaxmarl")
    from jaxmarl.environments.coin_game.coin_game import EnvState

    env = CoinGame(**settings)
    theirs = jaxmarl.make("coin_game", **settings)

    def converted(state):
        places = [jnp.stack(pair) for pair in zip(state.rows, state.columns, strict=True)]
        nothing, statistics = jnp.zeros(10, jnp.int8), jnp.zeros(9)
        return EnvState(
            step=state.round_step,
            done=jnp.zeros((), bool),
            red_pos=places[0],
            blue_pos=places[1],
            red_coin_pos=places[2],
            blue_coin_pos=places[3],
            outer_t=jnp.int32(0),
            red_coop=nothing,
            red_defect=nothing,
            blue_coop=nothing,
            blue_defect=nothing,
            counter=statistics,
            coop1=statistics,
            coop2=statistics,
            last_state=jnp.zeros(2),
        )

    def advance(state, key):
        action = jax.random.randint(key, (2,), 0, 5)
        following, step = env.step(jax.random.fold_in(key, 1), state, action)
        actions = {"0": action[0], "1": action[1]}
        _, after, reward, _, info = theirs.step_env(
            jax.random.PRNGKey(0), converted(state), actions
        )
        seen = theirs.get_obs(converted(following))
        ours = {
            "reward": step.reward,
            "round over": step.info["inner_episode_done"],
            "observation": step.observation,
            "own coins": step.info["own_coins"] - jnp.stack(state.own_coins),
            "other coins": step.info["other_coins"] - jnp.stack(state.other_coins),
        }
        expected = {
            "reward": jnp.stack([reward["0"], reward["1"]]),
            "round over": info["inner_episode_done"],
            "observation": jnp.stack([seen["0"], seen["1"]]),
            "own coins": jnp.stack([after.red_coop.sum(), after.blue_coop.sum()]),
            "other coins": jnp.stack([after.red_defect.sum(), after.blue_defect.sum()]),
        }
        # Where things are, but for what was drawn: all of a new round, and coins that were taken.
        drawn = jnp.stack([info["inner_episode_done"]] * 4)
        taken = jnp.stack([after.red_coop + after.blue_defect, after.blue_coop + after.red_defect])
        drawn = drawn.at[2:].set(drawn[2:] | (taken.sum(-1) > 0))
        for part, reached in ((ours, converted(following)), (expected, after)):
            positions = (
                reached.red_pos,
                reached.blue_pos,
                reached.red_coin_pos,
                reached.blue_coin_pos,
            )
            part["positions"] = jnp.where(drawn[:, None], 0, jnp.stack(positions))
        return following, (ours, expected)

    def rollout(key):
        state, _ = env.reset(key)
        return jax.lax.scan(advance, state, jax.random.split(jax.random.fold_in(key, 1), 60))[1]

    ours, expected = jax.jit(jax.vmap(rollout))(jax.random.split(fast_key(7), 200))
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-6, err_msg=name)
    assert (np.asarray(expected["reward"]) < 0).any()
    assert np.asarray(expected["round over"]).any()
