"""STORM for two players: its rules worked out by hand, and step by step against the jaxmarl package."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.storm import board
from kiloworlds.envs.multiagent.storm.games import GAMES
from kiloworlds.envs.multiagent.storm.two_players import (
    Players,
    TwoPlayerStorm,
    TwoPlayerStormState,
)
from kiloworlds.testing.distributions import matches_probabilities, same_distribution

CLOCKWISE, COUNTERCLOCKWISE, FORWARD, INTERACT, STAY = range(5)
UP, RIGHT, DOWN, LEFT = range(4)
STEPS = {UP: (0, 1), RIGHT: (1, 0), DOWN: (0, -1), LEFT: (-1, 0)}
RED_CELLS = [(1, 2), (1, 5), (1, 6), (5, 1), (5, 6), (6, 6)]
BLUE_CELLS = [(1, 1), (2, 1), (2, 6), (6, 1), (6, 2), (6, 5)]
PAYOFF = (((1.0, 2.0), (3.0, 4.0)), ((0.5, -1.0), (6.0, -2.5)))  # every number differs

_step = eqx.filter_jit(lambda env, key, state, action: env.step(key, state, action))


def _board(cells):
    return board.of_cells([8 * x + y for x, y in cells], 8)


def _state(
    *players, inventories=((0, 0), (0, 0)), red=RED_CELLS, blue=BLUE_CELLS, beams=(), freeze=-1
):
    """A state with the players at (x, y, direction)."""
    state = TwoPlayerStormState(
        Players(*zip(*players, strict=True)),
        inventories,
        _board(red),
        _board(blue),
        _board(RED_CELLS),
        _board(beams),
        freeze,
        0,
    )
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.uint32 if isinstance(leaf, np.uint32) else jnp.int32),
        state,
    )


def _advance(env, state, *actions, seed=0):
    return _step(env, fast_key(seed), state, jnp.array(actions))


def _where(state, player):
    return tuple(int(field[player]) for field in state.players)


def _cells(words):
    return sorted(zip(*np.nonzero(board.unpack(words, 8)), strict=True))


def test_players_turn_and_walk_until_a_wall():
    env = TwoPlayerStorm()
    state = _state((6, 7, UP), (3, 3, LEFT))
    state, _ = _advance(env, state, FORWARD, FORWARD)
    assert _where(state, 0) == (6, 7, UP)
    assert _where(state, 1) == (2, 3, LEFT)
    state, _ = _advance(env, state, CLOCKWISE, COUNTERCLOCKWISE)
    assert _where(state, 0) == (6, 7, RIGHT)
    assert _where(state, 1) == (2, 3, DOWN)
    state, _ = _advance(env, state, FORWARD, CLOCKWISE)
    assert _where(state, 0) == (7, 7, RIGHT)
    assert _where(state, 1) == (2, 3, LEFT)
    state, _ = _advance(env, state, FORWARD, CLOCKWISE)
    assert _where(state, 0) == (7, 7, RIGHT)
    assert _where(state, 1) == (2, 3, UP)


def test_who_stays_keeps_its_cell_and_places_can_be_swapped():
    env = TwoPlayerStorm()
    state = _state((3, 3, RIGHT), (4, 3, LEFT))
    after, _ = _advance(env, state, FORWARD, CLOCKWISE)
    assert _where(after, 0) == (3, 3, RIGHT)
    assert _where(after, 1) == (4, 3, UP)
    after, _ = _advance(env, state, STAY, FORWARD)
    assert _where(after, 1) == (4, 3, LEFT)
    after, _ = _advance(env, state, FORWARD, FORWARD)
    assert _where(after, 0) == (4, 3, RIGHT)
    assert _where(after, 1) == (3, 3, LEFT)
    against_the_wall, _ = _advance(env, _state((0, 3, LEFT), (1, 3, LEFT)), FORWARD, FORWARD)
    assert _where(against_the_wall, 1) == (1, 3, LEFT)


def test_of_two_who_want_one_cell_each_gets_it_half_the_time():
    state = _state((3, 3, RIGHT), (5, 3, LEFT))
    keys = jax.random.split(fast_key(1), 4000)
    many = jax.jit(jax.vmap(TwoPlayerStorm().step, (0, None, None)))
    after, _ = many(keys, state, jnp.array([FORWARD] * 2))
    first, second = (np.asarray(x) for x in after.players.x)
    first_won = first == 4
    assert matches_probabilities(first_won, {True: 0.5, False: 0.5}) > 1e-3
    np.testing.assert_array_equal(second, np.where(first_won, 5, 4))


def test_coins_are_collected_by_colour():
    env = TwoPlayerStorm()
    state, _ = _advance(env, _state((0, 1, RIGHT), (5, 2, DOWN)), FORWARD, FORWARD)
    assert jax.tree.leaves(state.inventories) == [0, 1, 1, 0]
    assert _cells(state.red) == sorted(set(RED_CELLS) - {(5, 1)})
    assert _cells(state.blue) == sorted(set(BLUE_CELLS) - {(1, 1)})


def test_a_coin_where_a_player_starts_is_taken_by_staying_and_lost_by_leaving():
    env = TwoPlayerStorm()
    state = _state((2, 1, RIGHT), (5, 6, LEFT))
    seen = env.observe(state)["observation"]
    assert list(seen[0, 2, 0, :4]) == [0, 0, 0, 1]  # the blue coin, not the player
    state, step = _advance(env, state, STAY, FORWARD)
    assert jax.tree.leaves(state.inventories) == [0, 1, 0, 0]
    assert (2, 1) not in _cells(state.blue)
    assert (5, 6) not in _cells(state.red)
    assert list(step.observation["observation"][0, 2, 0, :4]) == [1, 0, 0, 0]


@pytest.mark.parametrize("direction", [UP, RIGHT, DOWN, LEFT])
def test_a_beam_reaches_four_cells(direction):
    env = TwoPlayerStorm()
    ahead, right = np.array(STEPS[direction]), np.array(STEPS[(direction + 1) % 4])
    reached = [tuple((4, 3) + f * ahead + r * right) for f, r in ((1, 0), (2, 0), (1, 1), (1, -1))]
    hit, swept = [], []
    for x, y in np.ndindex(8, 8):
        if (x, y) == (4, 3):
            continue
        start = _state((4, 3, direction), (x, y, UP), inventories=((1, 0), (0, 1)), red=(), blue=())
        state, step = _advance(env, start, INTERACT, STAY)
        if step.info["interacted"]:
            hit.append((x, y))
        swept.append(_cells(state.beams))
        assert swept[-1] == sorted(set(reached) - {(x, y)})
        # The other's beam counts as much.
        _, mirrored = _advance(
            env,
            start._replace(players=Players(*(field[::-1] for field in start.players))),
            STAY,
            INTERACT,
        )
        assert bool(mirrored.info["interacted"]) == bool(step.info["interacted"])
    assert sorted(hit) == sorted(reached)


def test_beams_stop_at_walls_and_leave_coins_alone():
    env = TwoPlayerStorm()
    state, _ = _advance(env, _state((0, 1, RIGHT), (7, 7, UP)), INTERACT, INTERACT)
    # Coins lie in two of the first player's four cells; the second faces the wall.
    assert _cells(state.beams) == [(1, 0)]
    assert len(_cells(state.red)) == len(_cells(state.blue)) == 6
    state, _ = _advance(env, state, STAY, STAY)
    assert _cells(state.beams) == []


@pytest.mark.parametrize(
    ("inventories", "rewards"),
    [
        (((2, 0), (1, 0)), (1.0, 0.5)),
        (((2, 0), (0, 3)), (2.0, -1.0)),
        (((0, 1), (4, 0)), (3.0, 6.0)),
        (((0, 1), (0, 1)), (4.0, -2.5)),
        # p = (1/4, 3/4), q = (2/3, 1/3)
        (((1, 3), (2, 1)), ((2 * 1 + 2 + 3 * (6 + 4)) / 12, (2 * 0.5 - 1 + 3 * (12 - 2.5)) / 12)),
        (((0, 0), (0, 1)), None),
        (((2, 2), (0, 0)), None),
    ],
)
def test_payoffs_of_a_meeting_by_hand(inventories, rewards):
    state = _state((3, 3, RIGHT), (4, 3, UP), inventories=inventories)
    after, step = _advance(TwoPlayerStorm(payoff_matrix=PAYOFF), state, INTERACT, STAY)
    assert bool(step.info["interacted"]) == (rewards is not None)
    np.testing.assert_allclose(step.reward, rewards or (0, 0), rtol=1e-6)
    assert int(after.freeze) == (-1 if rewards is None else 5)
    reds = [red / max(red + blue, 1) for red, blue in inventories]
    np.testing.assert_allclose(step.info["red_share"], reds, rtol=1e-6)


def test_a_meeting_freezes_shows_and_parts():
    env = TwoPlayerStorm(freeze_penalty=3)
    state = _state(
        (3, 3, RIGHT),
        (4, 3, UP),
        inventories=((1, 2), (3, 0)),
        red=RED_CELLS[:2],
        blue=BLUE_CELLS[:4],
    )
    np.testing.assert_array_equal(
        env.observe(state)["inventory"], [[1, 2, 1, 1, 0, 0], [3, 0, 1, 1, 0, 0]]
    )
    state, step = _advance(
        env, state, INTERACT, FORWARD
    )  # the second walks into the beam's far end
    assert step.info["interacted"]
    for left in (3, 2, 1):
        assert int(state.freeze) == left
        assert _where(state, 0) == (3, 3, RIGHT)
        np.testing.assert_array_equal(
            step.observation["inventory"], [[1, 2, 1, 1, 3, 0], [3, 0, 1, 1, 1, 2]]
        )
        state, step = _advance(env, state, INTERACT, FORWARD)
        assert (step.reward == 0).all()
    assert int(state.freeze) == -1
    assert not step.observation["inventory"].any()
    places = [_where(state, player)[:2] for player in (0, 1)]
    assert _cells(state.red) == sorted(set(RED_CELLS) - set(places))
    assert _cells(state.blue) == sorted(set(BLUE_CELLS) - set(places))
    assert _cells(state.beams) == []


def _window(state, me):
    """What a player sees, cell by cell."""
    x, y, direction = _where(state, me)
    other_x, other_y, other_direction = _where(state, 1 - me)
    boards = {2: _cells(state.red), 3: _cells(state.blue), 5: _cells(state.beams)}
    seen = np.zeros((5, 5, 10), np.uint8)
    for i, j in np.ndindex(5, 5):
        (ahead_x, ahead_y), (right_x, right_y) = STEPS[direction], STEPS[(direction + 1) % 4]
        cell = x + j * ahead_x + (i - 2) * right_x, y + j * ahead_y + (i - 2) * right_y
        for channel, cells in boards.items():
            seen[i, j, channel] = cell in cells
        if not (0 <= cell[0] < 8 and 0 <= cell[1] < 8):
            seen[i, j, 4] = 1
        elif seen[i, j, 2:4].any():
            continue  # a coin covers who stands on it
        elif cell == (other_x, other_y):
            seen[i, j, [1, 6 + (other_direction - direction) % 4]] = 1
        elif cell == (x, y):
            seen[i, j, 0] = 1
    return seen


@pytest.mark.parametrize("direction", [UP, RIGHT, DOWN, LEFT])
def test_windows_by_hand(direction):
    env = TwoPlayerStorm()
    for other in ((4, 4), (1, 3), (2, 1), (0, 0), (3, 5)):
        for x, y in ((2, 3), (0, 7), (6, 1), (2, 4)):
            state = _state((x, y, direction), (*other, RIGHT), beams=((4, 5), (3, 3), (1, 7)))
            windows = env.observe(state)["observation"]
            np.testing.assert_array_equal(windows, [_window(state, 0), _window(state, 1)])


def test_starts_are_symmetric_and_where_the_map_says():
    state, _ = jax.jit(jax.vmap(TwoPlayerStorm().reset))(jax.random.split(fast_key(2), 20_000))
    (x, other_x), (y, other_y), directions = (np.stack(field) for field in state.players)
    np.testing.assert_array_equal(other_x, 7 - x)
    np.testing.assert_array_equal(other_y, 7 - y)
    corner = [(0, 0), (1, 0), (2, 0), (0, 1)]
    cells = {(cx, cy) for px, py in corner for cx in (px, 7 - px) for cy in (py, 7 - py)}
    cells |= {(2, 1), (5, 6)}
    assert matches_probabilities(8 * x + y, {8 * cx + cy: 1 / 18 for cx, cy in cells}) > 1e-3
    joint = 3 * directions[0] + directions[1]
    assert matches_probabilities(joint, dict.fromkeys(range(9), 1 / 9)) > 1e-3
    assert (state.freeze == -1).all()
    first = jax.tree.map(lambda leaf: leaf[0], state)
    assert _cells(first.red) == RED_CELLS
    assert _cells(first.blue) == BLUE_CELLS


def test_colours_of_coins_may_be_drawn():
    env = TwoPlayerStorm(fixed_coin_location=False)
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(3), 5000))
    red, blue = (
        np.stack([np.asarray(word) for word in words], -1).astype("<u4").view(np.uint8)
        for words in (state.red, state.blue)
    )
    red, blue = (np.unpackbits(each, axis=1, bitorder="little") for each in (red, blue))
    assert (red.sum(1) == 6).all()
    cells = sorted(8 * x + y for x, y in RED_CELLS + BLUE_CELLS)
    np.testing.assert_array_equal(np.flatnonzero((red | blue).any(0)), cells)
    assert not (red & blue).any()
    for cell in cells:
        assert matches_probabilities(red[:, cell], {0: 0.5, 1: 0.5}) > 1e-4
    # They stay what they are until the next start.
    state = jax.tree.map(lambda leaf: leaf[0], state)
    met = state._replace(freeze=jnp.int32(1), red=board.empty(8), blue=board.empty(8))
    met = jax.tree.map(jnp.asarray, met)
    after, _ = _advance(env, met, STAY, STAY)
    assert set(_cells(after.red)) <= set(_cells(state.red))
    assert len(_cells(after.red)) + len(_cells(after.blue)) >= 10


def test_rounds_start_over_without_pay():
    env = TwoPlayerStorm(num_inner_steps=3)
    state = _state((3, 3, RIGHT), (4, 3, UP), inventories=((1, 0), (1, 0)), red=(), blue=())
    after, step = _advance(env, state._replace(round_step=jnp.int32(1)), INTERACT, STAY)
    assert step.reward[0] == 3.0
    assert int(after.round_step) == 2
    after, step = _advance(env, state._replace(round_step=jnp.int32(2)), INTERACT, STAY)
    assert (step.reward == 0).all()
    assert int(after.round_step) == 0
    assert int(after.freeze) == -1
    assert _cells(after.red) == RED_CELLS
    assert jax.tree.leaves(after.inventories) == [0] * 4


@pytest.mark.parametrize(
    "game", ["prisoners-dilemma", "chicken", "stag-hunt", "bach-or-stravinsky"]
)
def test_ids_name_matrix_games(game):
    env = kiloworlds.make_environment(f"storm/2p-{game}")
    np.testing.assert_array_equal(env.unwrapped.payoff_matrix, np.array(GAMES[game]))
    assert env.max_episode_steps == 152
    assert env.possible_agents == ("player_0", "player_1")


def test_payoffs_and_freezes_may_differ_between_environments():
    payoffs = np.array([GAMES["chicken"], GAMES["stag-hunt"], GAMES["matching-pennies"]])
    envs = kiloworlds.make("storm/2p-chicken", 3, payoff_matrix=payoffs, freeze_penalty=[2, 3, 4])
    functions = envs.functions
    state, _ = jax.jit(functions.init)(fast_key(0))
    start = _state((3, 3, RIGHT), (4, 3, UP), inventories=((1, 0), (1, 0)))
    three = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), start)
    state = state._replace(environments=state.environments._replace(inner=three))
    state, step = jax.jit(functions.step)(state, jnp.array([[INTERACT, STAY]] * 3))
    np.testing.assert_array_equal(step.reward, [[3, 3], [4, 4], [1, -1]])
    np.testing.assert_array_equal(state.environments.inner.freeze, [2, 3, 4])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"payoff_matrix": "chiken"}, UnknownNameError, "Unknown matrix game 'chiken'.* 'chicken'"),
        ({"payoff_matrix": ((1, 2), (3, 4))}, InvalidValueError, r"the shape \[2, 2, 2\]"),
        ({"payoff_matrix": (((1, 2), (3,)), 4)}, InvalidValueError, r"the shape \[2, 2, 2\]"),
        ({"payoff_matrix": np.full((2, 2, 2), np.nan)}, InvalidValueError, "must be finite"),
        ({"freeze_penalty": 0}, InvalidValueError, "freeze_penalty=0 must be a whole number of 1"),
        (
            {"num_inner_steps": 0},
            InvalidValueError,
            "num_inner_steps=0 must be a whole number of 1",
        ),
        (
            {"fixed_coin_location": 1},
            InvalidValueError,
            "fixed_coin_location=1 must be True or False",
        ),
    ],
)
def test_bad_settings_are_refused_in_words(settings, error, message):
    with pytest.raises(error, match=message):
        kiloworlds.make_environment("storm/2p-stag-hunt", **settings)


def test_the_text_shows_the_grid():
    state = _state(
        (3, 3, RIGHT), (5, 6, DOWN), inventories=((1, 0), (2, 3)), beams=((4, 3),), freeze=2
    )
    env = TwoPlayerStorm()
    assert env.describe(state).splitlines() == [
        ". . . . . . . .",
        ". r b . . r r .",
        ". r . . . . b .",
        ". . . . . . . .",
        ". . . > * . . .",
        ". r . . . . b .",
        ". b b . . r b .",
        ". . . . . . . .",
        "player 0 > at (3, 3): 1 red, 0 blue coins, frozen for 2 steps",
        "player 1 v at (5, 6): 2 red, 3 blue coins, frozen for 2 steps",
    ]
    picture = env.render(state)
    for other in (
        state._replace(beams=board.empty(8)),
        state._replace(freeze=jnp.int32(-1)),
        state._replace(red=state.blue, blue=state.red),
        state._replace(players=state.players._replace(direction=(jnp.int32(UP), jnp.int32(DOWN)))),
    ):
        assert (env.render(other) != picture).any()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"payoff_matrix": PAYOFF, "freeze_penalty": 2, "num_inner_steps": 37},
        {"fixed_coin_location": False, "freeze_penalty": 1, "num_inner_steps": 60},
    ],
)
def test_every_step_equals_jaxmarls(settings):
    jaxmarl = pytest.importorskip("jaxmarl")
    from jaxmarl.environments.storm.storm_2p import State

    env = TwoPlayerStorm(**settings)
    rounds = {"num_inner_steps": 10**6, "num_outer_steps": 10**6} | settings
    if "payoff_matrix" in rounds:
        rounds["payoff_matrix"] = jnp.array(rounds["payoff_matrix"])
    theirs = jaxmarl.make("storm_2p", **rounds)
    # Keys with which theirs lets the second, and the first, have a cell that both want.
    choices = [int(jax.random.choice(jax.random.PRNGKey(i), jnp.array([0, 1]))) for i in range(20)]
    tie_keys = jnp.stack([jax.random.PRNGKey(choices.index(winner)) for winner in (0, 1)])

    def places(words, count):
        cells = jnp.nonzero(board.has(words, jnp.arange(64)), size=count)[0]
        return jnp.stack([cells // 8, cells % 8], axis=-1).astype(jnp.int8)

    def converted(state):
        positions = [
            jnp.stack([field[i] for field in state.players]).astype(jnp.int8) for i in (0, 1)
        ]
        every = jnp.arange(64)
        red, blue, beams = (
            board.has(cells, every) for cells in (state.red, state.blue, state.beams)
        )
        grid = jnp.where(beams, 6, 0)
        for i in (0, 1):
            grid = jnp.where(every == state.players.cell(i), 1 + i, grid)
        grid = jnp.where(red, 3, jnp.where(blue, 4, grid)).astype(jnp.int8).reshape(8, 8)
        inventories = [jnp.stack(each).astype(jnp.float32) for each in state.inventories]
        home = board.of_cells([8 * x + y for x, y in RED_CELLS + BLUE_CELLS], 8)
        return State(
            done=jnp.zeros((), bool),
            step=state.round_step,
            red_pos=positions[0],
            blue_pos=positions[1],
            outer_t=jnp.int32(0),
            grid=grid,
            red_inventory=inventories[0],
            blue_inventory=inventories[1],
            red_coins=places(state.red_home, 6),
            blue_coins=places(board.without(home, state.red_home), 6),
            freeze=state.freeze.astype(jnp.int16),
        )

    def result(after, reward):
        return {
            "reward": jnp.stack(reward),
            "positions": jnp.stack([after.red_pos, after.blue_pos]),
            "grid": after.grid,
            "inventories": jnp.stack([after.red_inventory, after.blue_inventory]),
            "freeze": after.freeze,
            "step": after.step,
        }

    def flat(observation):
        return jnp.concatenate(
            [leaf.reshape(2, -1) for leaf in jax.tree.leaves(observation)], axis=1
        )

    def advance(state, key):
        action = jax.random.categorical(key, jnp.log(jnp.array([1.0, 1, 5, 2, 1])), shape=(2,))
        following, step = env.step(jax.random.fold_in(key, 1), state, action)
        ours = result(converted(following), tuple(step.reward))
        _, after, reward, _, _ = jax.vmap(theirs.step_env, (0, None, None))(
            tie_keys, converted(state), (action[0], action[1])
        )
        expected = jax.vmap(result)(after, reward)
        # What was drawn is compared elsewhere.
        starts = (following.freeze < 0) & (state.freeze >= 0) | (following.round_step == 0)
        if settings.get("freeze_penalty") == 1:  # players part in the step they meet
            starts |= step.info["interacted"]
        for part in (ours, expected):
            part["positions"] = jnp.where(starts, 0, part["positions"])
            part["grid"] = jnp.where(starts, 0, part["grid"])
        same = {
            name: jnp.isclose(ours[name], expected[name], rtol=1e-5).reshape(2, -1).all(axis=1)
            for name in ours
        }
        seen = theirs.get_obs(converted(following))
        theirs_seen = jnp.stack(
            [flat(jax.tree.map(lambda x: x[None].repeat(2, 0), each))[0] for each in seen]
        )
        return following, {
            "equal": jnp.stack(list(same.values())).all(0).any(),
            "seen": (flat(step.observation) == theirs_seen).all(),
            "starts": starts,
            "met": step.info["interacted"],
        }

    def rollout(key):
        state, _ = env.reset(key)
        return jax.lax.scan(advance, state, jax.random.split(jax.random.fold_in(key, 1), 150))[1]

    found = jax.jit(jax.vmap(rollout))(jax.random.split(fast_key(7), 200))
    assert found["equal"].all()
    assert found["seen"].all()
    assert found["met"].sum() > 50  # short rounds leave little time to collect coins and meet
    assert found["starts"].sum() > 20


def test_starts_have_jaxmarls_distribution():
    jaxmarl = pytest.importorskip("jaxmarl")
    theirs = jaxmarl.make("storm_2p")
    _, expected = jax.jit(jax.vmap(theirs.reset))(jax.random.split(jax.random.PRNGKey(0), 20_000))
    state, _ = jax.jit(jax.vmap(TwoPlayerStorm().reset))(jax.random.split(fast_key(0), 20_000))
    ours = [np.stack([field[i] for field in state.players], axis=-1) for i in (0, 1)]
    for i, positions in enumerate((expected.red_pos, expected.blue_pos)):
        positions = np.asarray(positions)
        assert same_distribution(ours[i][:, :2], positions[:, :2]) > 1e-3
        assert same_distribution(ours[i][:, 2], positions[:, 2]) > 1e-3
