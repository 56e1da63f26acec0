"""STORM for many players: its rules worked out by hand, and what of them jaxmarl keeps against it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import Box
from kiloworlds.envs.multiagent.storm import board
from kiloworlds.envs.multiagent.storm.games import GAMES
from kiloworlds.envs.multiagent.storm.many_players import (
    ManyPlayerStorm,
    ManyPlayerStormState,
    Players,
)
from kiloworlds.testing.distributions import matches_probabilities

CLOCKWISE, COUNTERCLOCKWISE, FORWARD, STAY, NEAR, FAR, ZAP_RIGHT, ZAP_LEFT = range(8)
UP, RIGHT, DOWN, LEFT = range(4)
STEPS = {UP: (0, 1), RIGHT: (1, 0), DOWN: (0, -1), LEFT: (-1, 0)}
PAYOFF = (((1.0, 2.0), (3.0, 4.0)), ((0.5, -1.0), (6.0, -2.5)))  # every number differs
SIZE = 8

_step = eqx.filter_jit(lambda env, key, state, action: env.step(key, state, action))
_steps = eqx.filter_jit(
    lambda env, keys, state, action: jax.vmap(env.step, (0, None, None))(keys, state, action)
)


def _board(cells, size=SIZE):
    return tuple(map(jnp.asarray, board.of_cells([size * x + y for x, y in cells], size)))


def _state(*players, inventories=None, red=(), blue=(), beams=(), freeze=None, partners=()):
    """A state with the players at (x, y, direction)."""
    count = len(players)
    met = np.zeros((count, count), bool)
    for pair in partners:
        met[pair], met[pair[::-1]] = True, True
    if inventories is None:
        inventories = [(1, 0)] * count
    return ManyPlayerStormState(
        Players(*(jnp.array(column) for column in zip(*players, strict=True))),
        jnp.array(inventories),
        _board(red),
        _board(blue),
        _board(beams),
        jnp.array([0] * count if freeze is None else freeze),
        jnp.asarray(met),
        jnp.int32(0),
    )


def _env(state, **settings):
    return ManyPlayerStorm(num_agents=len(state.freeze), **settings)


def _advance(state, *actions, env=None, seed=0):
    return _step(env or _env(state), fast_key(seed), state, jnp.array(actions))


def _where(state):
    return [tuple(map(int, row)) for row in zip(*state.players, strict=True)]


def _flags(words, size):
    """The cells of many boards, `[..., size * size]`."""
    packed = np.stack([np.asarray(word) for word in words], axis=-1).astype("<u4").view(np.uint8)
    return np.unpackbits(packed, axis=-1, bitorder="little")[..., : size * size]


def _cells(words, size=SIZE):
    return sorted(zip(*np.nonzero(board.unpack(words, size)), strict=True))


def test_players_turn_and_walk_until_a_wall():
    state, _ = _advance(_state((6, 7, UP), (3, 3, LEFT), (0, 0, DOWN)), FORWARD, FORWARD, CLOCKWISE)
    assert _where(state) == [(6, 7, UP), (2, 3, LEFT), (0, 0, LEFT)]
    state, _ = _advance(state, CLOCKWISE, COUNTERCLOCKWISE, FORWARD)
    assert _where(state) == [(6, 7, RIGHT), (2, 3, DOWN), (0, 0, LEFT)]


def test_nobody_pushes_anyone_away():
    # Player 2 stays; 1 wants its cell, 0 that of 1, 3 that of 0.
    row = _state((3, 3, RIGHT), (4, 3, RIGHT), (5, 3, RIGHT), (2, 3, RIGHT))
    state, _ = _advance(row, FORWARD, FORWARD, STAY, FORWARD)
    assert _where(state) == _where(row)
    state, _ = _advance(row, FORWARD, FORWARD, FORWARD, FORWARD)
    assert [x for x, *_ in _where(state)] == [4, 5, 6, 3]
    swapped, _ = _advance(_state((3, 3, RIGHT), (4, 3, LEFT)), FORWARD, FORWARD)
    assert _where(swapped) == [(4, 3, RIGHT), (3, 3, LEFT)]


def test_of_several_who_want_one_cell_any_gets_it():
    state = _state((3, 3, RIGHT), (5, 3, LEFT), (4, 4, DOWN), (4, 5, DOWN))
    keys = jax.random.split(fast_key(1), 3000)
    after, _ = _steps(_env(state), keys, state, jnp.array([FORWARD] * 4))
    there = np.asarray((after.players.x == 4) & (after.players.y == 3))
    assert (there.sum(1) == 1).all()
    winner = there.argmax(1)
    assert matches_probabilities(winner, dict.fromkeys(range(3), 1 / 3)) > 1e-3
    # Who follows player 2 moves up only when that one moves.
    np.testing.assert_array_equal(after.players.y[:, 3], np.where(winner == 2, 4, 5))


def test_coins_are_collected_by_colour():
    state = _state(
        (3, 3, RIGHT), (0, 0, UP), inventories=[(0, 2), (0, 0)], red=[(4, 3)], blue=[(0, 1)]
    )
    state, _ = _advance(state, FORWARD, FORWARD)
    np.testing.assert_array_equal(state.inventories, [[1, 2], [0, 1]])
    assert _cells(state.red) == _cells(state.blue) == []


@pytest.mark.parametrize("direction", [UP, RIGHT, DOWN, LEFT])
@pytest.mark.parametrize(
    ("zap", "forward", "rightward"),
    [(NEAR, 1, 0), (FAR, 2, 0), (ZAP_RIGHT, 1, 1), (ZAP_LEFT, 1, -1)],
)
def test_a_zap_hits_one_cell(direction, zap, forward, rightward):
    ahead, right = np.array(STEPS[direction]), np.array(STEPS[(direction + 1) % 4])
    target = tuple((4, 3) + forward * ahead + rightward * right)
    around = [(x, y) for x in range(2, 7) for y in range(1, 6) if (x, y) != (4, 3)]
    states = [_state((4, 3, direction), (*cell, UP)) for cell in around]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    step = jax.jit(jax.vmap(_env(states[0]).step, (None, 0, None)))
    _, result = step(fast_key(0), batch, jnp.array([zap, STAY]))
    hit = np.asarray(result.info["interacted"])
    assert [cell for cell, each in zip(around, hit, strict=True) if each.all()] == [target]
    assert hit.sum() == 2


def test_zaps_beyond_the_edge_hit_what_is_ahead():
    for zap in (FAR, ZAP_LEFT):
        # The wall is two cells ahead of player 0, and on its left.
        corner = _state((0, 6, UP), (0, 7, UP))
        assert _advance(corner, zap, STAY)[1].info["interacted"].all()
    assert not _advance(corner, ZAP_RIGHT, STAY)[1].info["interacted"].any()
    facing_the_wall = _state((0, 7, UP), (1, 7, UP))
    assert not _advance(facing_the_wall, ZAP_RIGHT, STAY)[1].info["interacted"].any()


def test_who_has_no_coins_or_is_frozen_meets_nobody():
    pair = (3, 3, RIGHT), (4, 3, UP)
    for inventories in ([(0, 0), (1, 0)], [(0, 1), (0, 0)]):
        state, step = _advance(_state(*pair, inventories=inventories), NEAR, STAY)
        assert not step.info["interacted"].any()
        assert bool(_cells(state.beams)) == bool(sum(inventories[0]))
    three = _state(*pair, (7, 7, UP), freeze=[0, 2, 2], partners=[(1, 2)])
    assert not _advance(three, NEAR, STAY, STAY)[1].info["interacted"].any()
    assert not _advance(three, STAY, ZAP_LEFT, STAY)[1].info["interacted"].any()


@pytest.mark.parametrize(
    ("zaps", "zappers"),
    [((NEAR, FAR, STAY), [0]), ((NEAR, STAY, NEAR), [0, 2]), ((STAY, FAR, ZAP_LEFT), None)],
)
def test_of_several_who_zap_one_the_nearer_wins_else_any(zaps, zappers):
    # Player 3 is next to 0 and 2, two cells from 1; 2 stands so that its zap ahead hits, too.
    state = _state((3, 3, RIGHT), (6, 3, LEFT), (4, 4, DOWN), (4, 3, UP))
    if zaps[2] == ZAP_LEFT:
        state = state._replace(players=state.players._replace(x=jnp.array([3, 6, 3, 4])))
        zappers = [1, 2]
    keys = jax.random.split(fast_key(2), 2000)
    _, step = _steps(_env(state), keys, state, jnp.array([*zaps, STAY]))
    met = np.asarray(step.info["interacted"])
    assert met[:, 3].all()
    assert (met.sum(1) == 2).all()
    winners = met[:, :3].argmax(1)
    assert matches_probabilities(winners, dict.fromkeys(zappers, 1 / len(zappers))) > 1e-3


def test_payoffs_by_hand():
    def rewards(*actions, inventories):
        state = _state((3, 3, RIGHT), (4, 3, RIGHT), (5, 3, LEFT), inventories=inventories)
        env = _env(state, payoff_matrix=PAYOFF)
        return _advance(state, *actions, env=env)[1].reward

    reds = [(2, 0), (3, 0), (1, 0)]
    np.testing.assert_allclose(rewards(NEAR, STAY, STAY, inventories=reds), [1.0, 0.5, 0])
    np.testing.assert_allclose(rewards(STAY, STAY, NEAR, inventories=reds), [0, 1.0, 0.5])
    # Two who zap each other meet once; player 1 is paid for both meetings.
    np.testing.assert_allclose(rewards(STAY, NEAR, NEAR, inventories=reds), [0, 1.0, 0.5])
    np.testing.assert_allclose(rewards(NEAR, NEAR, STAY, inventories=reds), [1.0, 1.5, 0.5])
    # The player of the lower number is the row player, whoever zaps.
    mixed = [(0, 1), (1, 3), (2, 0)]
    np.testing.assert_allclose(
        rewards(NEAR, STAY, STAY, inventories=mixed), [(3 + 3 * 4) / 4, (6 - 3 * 2.5) / 4, 0]
    )
    np.testing.assert_allclose(
        rewards(STAY, STAY, NEAR, inventories=mixed), [0, (1 + 3 * 3) / 4, (0.5 + 3 * 6) / 4]
    )


def test_a_meeting_freezes_shows_and_parts():
    red, blue = [(0, 0), (7, 7)], [(0, 7)]
    state = _state(
        (3, 3, RIGHT),
        (4, 3, LEFT),
        (2, 3, RIGHT),
        inventories=[(1, 2), (3, 0), (5, 5)],
        red=red,
        blue=blue,
    )
    env = _env(state, freeze_penalty=2, num_coins=3)
    state, step = _advance(state, NEAR, STAY, STAY, env=env)
    np.testing.assert_array_equal(step.info["interacted"], [True, True, False])
    for left in (2, 1):
        np.testing.assert_array_equal(state.freeze, [left, left, 0])
        ahead = np.asarray(step.observation)[:, 2]  # the row of cells straight ahead of each
        assert list(ahead[0, 0, 10:]) == [1, 1, 2, 0]  # oneself
        assert list(ahead[0, 1, 4:]) == [0, 1, 0, 0, 1, 0, 1, 3, 0, 1]  # the other, looking back
        assert list(ahead[1, 1, 10:]) == [1, 1, 2, 1]
        assert list(ahead[2, 1, 10:]) == [1, 0, 0, 1]  # a bystander sees that they are frozen
        assert list(ahead[2, 0, 10:]) == [1, 5, 5, 0]
        state, step = _advance(state, FORWARD, NEAR, STAY, env=env)
        assert (step.reward == 0).all()
    np.testing.assert_array_equal(state.freeze, [0, 0, 0])
    assert not state.partners.any()
    np.testing.assert_array_equal(state.inventories, [[0, 0], [0, 0], [5, 5]])
    assert _where(state)[2] == (2, 3, RIGHT)
    # The coins that were left stay, the others are back.
    assert set(red) < set(_cells(state.red))
    assert set(blue) < set(_cells(state.blue))
    assert len(_cells(state.red)) == len(_cells(state.blue)) == 3


def test_who_is_freed_and_coins_come_back_in_any_free_cell():
    # Of 16 cells player 2 and eight coins hold nine; two players and four coins share the rest.
    red, blue = [(0, 1), (0, 2), (1, 0), (1, 1)], [(1, 2), (2, 0), (2, 1), (2, 2)]
    state = _state((3, 3, RIGHT), (3, 2, LEFT), (0, 3, UP), freeze=[1, 1, 0], partners=[(0, 1)])
    state = state._replace(red=_board(red, 4), blue=_board(blue, 4), beams=_board([(3, 0)], 4))
    env = ManyPlayerStorm(num_agents=3, grid_size=4, num_coins=6)
    free = sorted(set(range(16)) - {4 * x + y for x, y in [*red, *blue, (0, 3)]})
    keys = jax.random.split(fast_key(3), 7000)
    after, _ = _steps(env, keys, state, jnp.array([STAY] * 3))
    places = np.asarray(4 * after.players.x + after.players.y)
    chance = dict.fromkeys(free, 1 / 7)
    assert matches_probabilities(places[:, 0], chance) > 1e-3
    assert matches_probabilities(places[:, 1], chance) > 1e-3
    assert (places[:, 0] != places[:, 1]).all()
    assert (places[:, 2] == 3).all()
    red, blue, beams = (_flags(words, 4) for words in (after.red, after.blue, after.beams))
    assert not (red & blue | beams & (red | blue)).any()
    for coins in (red, blue):
        assert (coins.sum(1) == 6).all()
        assert not np.take_along_axis(coins, places, axis=1).any()
        for cell in free:
            assert matches_probabilities(coins[:, cell], {0: 5 / 7, 1: 2 / 7}) > 1e-3
    turned = np.asarray(after.players.direction)
    assert matches_probabilities(turned[:, 0], dict.fromkeys(range(3), 1 / 3)) > 1e-3
    assert (turned[:, 2] == UP).all()


def test_starts_are_anywhere():
    env = ManyPlayerStorm(num_agents=2, grid_size=4, num_coins=3)
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(4), 20_000))
    places = np.asarray(4 * state.players.x + state.players.y)
    pairs = {(a, b): 1 / 240 for a in range(16) for b in range(16) if a != b}
    assert matches_probabilities(places, pairs) > 1e-3
    red, blue = _flags(state.red, 4), _flags(state.blue, 4)
    for bits in (red, blue):
        assert (bits.sum(1) == 3).all()
        assert not np.take_along_axis(bits, places, axis=1).any()
        assert matches_probabilities(bits[:, 5], {0: 13 / 16, 1: 3 / 16}) > 1e-3
    assert not (red & blue).any()
    joint = np.asarray(3 * state.players.direction[:, 0] + state.players.direction[:, 1])
    assert matches_probabilities(joint, dict.fromkeys(range(9), 1 / 9)) > 1e-3


def _seen(env, state, me):
    """What a player sees, cell by cell."""
    size, width = env.grid_size, env.obs_size
    boards = {1: state.beams, 2: state.red, 3: state.blue}
    boards = {channel: _cells(words, size) for channel, words in boards.items()}
    players, inventories = _where(state), np.asarray(state.inventories)
    frozen = np.asarray(state.freeze) > 0
    x, y, direction = players[me]
    seen = np.zeros((width, width, 14), np.uint8)
    for i, j in np.ndindex(width, width):
        (ahead_x, ahead_y), (right_x, right_y) = STEPS[direction], STEPS[(direction + 1) % 4]
        side = i - width // 2
        cell = x + j * ahead_x + side * right_x, y + j * ahead_y + side * right_y
        seen[i, j, 0] = not (0 <= cell[0] < size and 0 <= cell[1] < size)
        for channel, cells in boards.items():
            seen[i, j, channel] = cell in cells
        for other, (other_x, other_y, other_direction) in enumerate(players):
            if cell != (other_x, other_y):
                continue
            if other == me:
                seen[i, j, 4] = 1
            else:
                seen[i, j, [5, 6 + (other_direction - direction) % 4]] = 1
                seen[i, j, 13] = frozen[other]
            seen[i, j, 10] = inventories[other].any()
            if other == me or state.partners[me, other]:
                seen[i, j, 11:13] = np.minimum(inventories[other], 255)
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {"num_agents": 5, "num_coins": 4},
        pytest.param(
            {"num_agents": 9, "grid_size": 11, "obs_size": 3, "num_coins": 20, "freeze_penalty": 2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_worlds_of_random_actions_keep_the_rules(settings):
    env = ManyPlayerStorm(**settings)
    size, count = env.grid_size, env.num_players

    def advance(state, key):
        odds = jnp.log(jnp.array([1.0, 1, 6, 1, 1, 1, 1, 1]))
        action = jax.random.categorical(key, odds, shape=(count,))
        following, step = env.step(jax.random.fold_in(key, 1), state, action)
        return following, (following, step)

    def rollout(key):
        state, _ = env.reset(key)
        return jax.lax.scan(advance, state, jax.random.split(jax.random.fold_in(key, 1), 200))[1]

    states, steps = jax.jit(jax.vmap(rollout))(jax.random.split(fast_key(5), 16))
    cells = np.asarray(size * states.players.x + states.players.y)
    in_order = np.sort(cells, axis=-1)
    assert (in_order[..., 1:] != in_order[..., :-1]).all()  # nobody shares a cell
    red, blue, beams = (_flags(words, size) for words in (states.red, states.blue, states.beams))
    assert not (red & blue | beams & (red | blue)).any()
    for things in (red, blue, beams):
        assert not np.take_along_axis(things, cells, axis=-1).any()
    met = np.asarray(steps.info["interacted"])
    assert met.any()
    frozen = np.asarray(states.freeze) > 0
    np.testing.assert_array_equal(np.asarray(states.partners).any(-1), frozen)
    assert (frozen[met]).all()
    np.testing.assert_array_equal(states.partners, np.swapaxes(states.partners, -1, -2))
    generator = np.random.default_rng(0)
    for _ in range(25):
        world, time = generator.integers(16), generator.integers(200)
        state = jax.tree.map(lambda leaf, at=(world, time): np.asarray(leaf[at]), states)
        for words in (state.red, state.blue):
            assert len(_cells(words, size)) <= env.num_coins
        for me in range(count):
            np.testing.assert_array_equal(steps.observation[world, time, me], _seen(env, state, me))


@pytest.mark.parametrize("direction", [UP, RIGHT, DOWN, LEFT])
def test_beams_sweep_four_empty_cells(direction):
    ahead, right = np.array(STEPS[direction]), np.array(STEPS[(direction + 1) % 4])
    reached = [tuple((4, 3) + f * ahead + r * right) for f, r in ((1, 0), (2, 0), (1, 1), (1, -1))]
    state = _state((4, 3, direction), (*reached[1], UP), red=[reached[2]])
    state, _ = _advance(state, ZAP_LEFT, STAY)
    assert _cells(state.beams) == sorted([reached[0], reached[3]])
    state, _ = _advance(state, STAY, STAY)
    assert _cells(state.beams) == []


def test_inventories_are_shown_up_to_255():
    state = _state((3, 3, RIGHT), (0, 0, UP), inventories=[(300, 2), (0, 0)])
    assert list(_env(state).observe(state)[0, 2, 0, 10:13]) == [1, 255, 2]


def test_rounds_start_over_without_pay():
    state = _state((3, 3, RIGHT), (4, 3, UP))._replace(round_step=jnp.int32(8))
    after, step = _advance(state, NEAR, STAY, env=_env(state, num_inner_steps=10))
    assert (step.reward == 3.0).all()
    assert int(after.round_step) == 9
    after, step = _advance(state, NEAR, STAY, env=_env(state, num_inner_steps=9))
    assert (step.reward == 0).all()
    assert int(after.round_step) == 0
    assert not after.inventories.any()
    assert not after.freeze.any()
    assert len(_cells(after.red)) == len(_cells(after.blue)) == 6


@pytest.mark.parametrize("game", ["prisoners-dilemma", "chicken", "stag-hunt"])
def test_ids_name_matrix_games(game):
    env = kiloworlds.make_environment(f"storm/np-{game}", num_agents=3)
    np.testing.assert_array_equal(env.unwrapped.payoff_matrix, np.array(GAMES[game]))
    assert env.max_episode_steps == 152
    assert env.possible_agents == ("player_0", "player_1", "player_2")
    most = np.broadcast_to([1] * 11 + [255, 255, 1], (5, 5, 14))
    assert env.kinds[0].observation_space == Box(0, most, dtype=np.uint8)


def test_payoffs_and_freezes_may_differ_between_environments():
    payoffs = np.array([GAMES["chicken"], GAMES["stag-hunt"]])
    envs = kiloworlds.make(
        "storm/np-chicken", 2, num_agents=2, payoff_matrix=payoffs, freeze_penalty=[2, 7]
    )
    functions = envs.functions
    state, _ = jax.jit(functions.init)(fast_key(0))
    start = _state((3, 3, RIGHT), (4, 3, UP))
    two = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), start)
    state = state._replace(environments=state.environments._replace(inner=two))
    state, step = jax.jit(functions.step)(state, jnp.array([[NEAR, STAY]] * 2))
    np.testing.assert_array_equal(step.reward, [[3, 3], [4, 4]])
    np.testing.assert_array_equal(state.environments.inner.freeze, [[2, 2], [7, 7]])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"payoff_matrix": "stag"}, UnknownNameError, "Unknown matrix game 'stag'.* 'stag-hunt'"),
        (
            {"num_agents": 1},
            InvalidValueError,
            "num_agents=1 must be a whole number between 2 and 32",
        ),
        (
            {"grid_size": 3},
            InvalidValueError,
            "grid_size=3 must be a whole number between 4 and 32",
        ),
        ({"obs_size": 4}, InvalidValueError, "obs_size=4 must be odd.* valid value is 5"),
        ({"num_coins": 31}, InvalidValueError, "need 66 cells; grid_size=8 has 64.* them is 9"),
        ({"freeze_penalty": 0}, InvalidValueError, "freeze_penalty=0 must be a whole number of 1"),
        (
            {"num_inner_steps": 0},
            InvalidValueError,
            "num_inner_steps=0 must be a whole number of 1",
        ),
    ],
)
def test_bad_settings_are_refused_in_words(settings, error, message):
    with pytest.raises(error, match=message):
        kiloworlds.make_environment("storm/np-stag-hunt", **settings)


def test_the_text_shows_the_grid():
    state = _state((3, 3, RIGHT), (0, 2, LEFT), inventories=[(1, 0), (2, 3)], freeze=[0, 4])
    state = state._replace(
        red=_board([(1, 0)], 4), blue=_board([(2, 2)], 4), beams=_board([(0, 0)], 4)
    )
    env = ManyPlayerStorm(num_agents=2, grid_size=4, num_coins=2)
    assert env.describe(state).splitlines() == [
        ". . . >",
        "< . b .",
        ". . . .",
        "* r . .",
        "player 0 > at (3, 3): 1 red, 0 blue coins",
        "player 1 < at (0, 2): 2 red, 3 blue coins, frozen for 4 steps",
    ]
    assert (env.render(state) != env.render(state._replace(freeze=jnp.array([0, 0])))).any()


@pytest.mark.parametrize(
    "settings",
    [
        {"num_agents": 3, "grid_size": 6, "num_coins": 4, "freeze_penalty": 3},
        {"num_agents": 4, "grid_size": 9, "num_coins": 12, "obs_size": 3, "payoff_matrix": PAYOFF},
    ],
)
def test_steps_equal_jaxmarls_where_it_keeps_its_rules(settings):
    """All but what the class says of jaxmarl's faults: steps in which they may show are left out."""
    jaxmarl = pytest.importorskip("jaxmarl")
    from jaxmarl.environments.storm.storm import State

    env = ManyPlayerStorm(**settings)
    count, size = env.num_players, env.grid_size
    theirs = jaxmarl.make("storm_np", num_inner_steps=10**6, num_outer_steps=10**6, **settings)
    every, last = jnp.arange(size * size), count - 1

    def converted(state):
        red, blue, beams = (
            board.has(cells, every) for cells in (state.red, state.blue, state.beams)
        )
        grid = jnp.where(red, 3, jnp.where(blue, 4, jnp.where(beams, 2, 0)))
        cells = state.players.x * size + state.players.y
        grid = grid.at[cells].set(5 + jnp.arange(count))

        def places(coins):
            found = jnp.nonzero(coins, size=env.num_coins)[0]
            return jnp.stack([found // size, found % size], axis=-1).astype(jnp.int16)

        # Theirs shows the coins of those whose entry is not 0.
        frozen = jnp.where(state.partners, state.freeze[:, None], 0)
        return State(
            done=jnp.zeros((), bool),
            step=state.round_step,
            agent_locs=jnp.stack(state.players, axis=-1).astype(jnp.int16),
            agent_invs=state.inventories.astype(jnp.int8),
            outer_t=jnp.int32(0),
            grid=grid.astype(jnp.int16).reshape(size, size),
            red_coins=places(red),
            blue_coins=places(blue),
            freeze=frozen.astype(jnp.int16),
        )

    def result(state):
        return {
            "players": state.agent_locs,
            "coins": state.agent_invs,
            "grid": jnp.where(state.grid == 2, 0, state.grid),
            "frozen": jnp.maximum(state.freeze, 0),
        }

    def advance(state, key):
        odds = jnp.log(jnp.array([1.0, 1, 5, 1, 0.6, 0.6, 0.6, 0]))  # no zaps to the left
        action = jax.random.categorical(key, odds, shape=(count,))
        following, step = env.step(jax.random.fold_in(key, 1), state, action)
        keys = jax.random.split(
            jax.random.wrap_key_data(jnp.uint32([1, 2]), impl="threefry2x32"), 3
        )
        _, after, _, _, _ = jax.vmap(theirs.step_env, (0, None, None))(
            keys, converted(state), action
        )
        results = jax.vmap(result)(after)
        mine = result(converted(following))
        zaps = (action >= NEAR) & (state.freeze <= 0)
        x, y, _ = jnp.moveaxis(after.agent_locs[0], -1, 0)
        shared = (x[:, None] == x) & (y[:, None] == y) & ~jnp.eye(count, dtype=bool)
        agree = [(leaf == leaf[0]).all() for leaf in results.values()]
        settled = (
            jnp.stack(agree).all() & (zaps.sum() <= 1) & ~(state.freeze == 1).any() & ~shared.any()
        )
        equal = jnp.stack([(results[name][0] == mine[name]).all() for name in mine]).all()
        # A beam of theirs is one of ours; those after the last player cannot put it out.
        beams = after.grid[0] == 2, board.has(following.beams, every).reshape(size, size)
        no_more = ~(beams[0] & ~beams[1]).any()
        equal = equal & no_more & (~zaps[last] | (beams[0] == beams[1]).all())

        # What each pays the pair that met, whoever zapped.
        pairs = (following.partners & ~state.partners).astype(jnp.float32)
        pays = jax.vmap(
            lambda i: jax.vmap(
                lambda j: jnp.where(
                    i < j,
                    theirs.get_reward(converted(following), i, j)[0],
                    theirs.get_reward(converted(following), j, i)[1],
                )
            )(jnp.arange(count))
        )(jnp.arange(count))
        paid = jnp.isclose(step.reward, (pairs * pays).sum(1), rtol=1e-5).all()

        seen, now = step.observation, converted(following)

        def shown(**changes):
            return theirs.get_obs(now.replace(**changes)).astype(jnp.int32)

        theirs_seen = shown()
        same = (seen == theirs_seen)[..., [0, 1, 2, 3, 6, 7, 8, 9, 10]].all()
        occupied = [each[..., 4] + each[..., 5] for each in (seen, theirs_seen)]
        same = same & (occupied[0] == occupied[1]).all()
        same = same & (seen[last] == theirs_seen[last])[..., 4:6].all()
        # Of who is in a cell theirs shows what is of the player before it, and of the first no coins.
        coins = shown(
            agent_invs=jnp.roll(now.agent_invs, -1, axis=0), freeze=jnp.roll(now.freeze, -1, axis=1)
        )
        same_coins = (seen[last] == coins[last])[..., 11:13].all()
        same = same & (same_coins | following.partners[last, 0])
        frozen = shown(freeze=jnp.roll(now.freeze, -1, axis=0))
        same = same & (seen[last] == frozen[last])[..., 13].all()
        found = {"settled": settled, "equal": equal, "paid": paid, "seen": same}
        # The last sees another's coins, and somebody frozen.
        others = seen[last, ..., 5] > 0
        found["coins_seen"] = (others & (seen[last, ..., 11:13] > 0).any(-1)).any() & same_coins
        found["frozen_seen"] = (seen[last, ..., 13] > 0).any()
        return following, found | {"met": pairs.any() & settled}

    def rollout(key):
        state, _ = env.reset(key)
        return jax.lax.scan(advance, state, jax.random.split(jax.random.fold_in(key, 1), 100))[1]

    found = jax.jit(jax.vmap(rollout))(jax.random.split(fast_key(7), 30))
    found = {name: np.asarray(values) for name, values in found.items()}
    assert found["settled"].mean() > 0.2
    assert found["met"].sum() > 10
    assert found["equal"][found["settled"]].all()
    assert found["paid"].all()
    assert found["seen"].all()
    assert found["coins_seen"].sum() > 10
    assert found["frozen_seen"].sum() > 10
