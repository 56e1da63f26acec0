import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.toy_text.catch import Catch, CatchState
from kiloworlds.testing.distributions import matches_probabilities


def _board(rows, columns, ball_row, ball_column, paddle):
    board = np.zeros((rows, columns), np.float32)
    board[ball_row, ball_column] = board[rows - 1, paddle] = 1.0
    return board


@pytest.mark.parametrize(("rows", "columns"), [(10, 5), (4, 3)])
def test_every_transition_follows_the_rules(rows, columns):
    env = Catch(rows=rows, columns=columns)
    cases = itertools.product(range(rows - 1), range(columns), range(columns), range(3))
    ball_row, ball_column, paddle, action = jnp.array(list(cases)).T
    states = CatchState(ball_row, ball_column, paddle)
    after, step = jax.vmap(env.step, (None, 0, 0))(fast_key(0), states, action)
    for i in range(len(action)):
        moved = min(max(int(paddle[i]) + (-1, 0, 1)[action[i]], 0), columns - 1)
        fallen = int(ball_row[i]) + 1
        lands = fallen == rows - 1
        expected = _board(rows, columns, fallen, ball_column[i], moved)
        np.testing.assert_array_equal(step.observation[i], expected)
        reward = (1.0 if moved == ball_column[i] else -1.0) if lands else 0.0
        assert (step.reward[i], step.terminated[i]) == (reward, lands)
        assert (after.ball_row[i], after.paddle[i]) == (fallen, moved)
    assert not step.truncated.any()


def test_the_ball_starts_anywhere_and_the_paddle_in_the_middle():
    state, observation = jax.vmap(Catch().reset)(jax.random.split(fast_key(1), 5000))
    assert matches_probabilities(state.ball_column, dict.fromkeys(range(5), 0.2)) > 1e-3
    assert (state.paddle == 2).all()
    expected = _board(10, 5, 0, state.ball_column[0], 2)
    np.testing.assert_array_equal(observation[0], expected)


def test_an_episode_lasts_nine_steps_and_can_be_won():
    env = make_environment("Catch-v0")
    state, _ = env.reset(fast_key(2))
    for count in range(1, 10):
        action = 1 + jnp.sign(state.ball_column - state.paddle)
        state, step = env.step(fast_key(count), state, action)
        assert bool(step.terminated) == (count == 9)
    assert step.reward == 1.0


def test_stepping_on_after_the_end_stays_inside():
    env = Catch()
    ended = CatchState(jnp.int32(9), jnp.int32(0), jnp.int32(4))
    _, step = env.step(fast_key(0), ended, jnp.int32(2))
    assert step.terminated
    assert env.observation_space.contains(step.observation)
    assert step.observation.sum() == 2


def test_a_board_without_room_is_refused():
    with pytest.raises(InvalidValueError, match="rows=1"):
        Catch(rows=1)


def test_ball_and_paddle_are_shown_in_text_and_picture():
    env = Catch(rows=3, columns=3)
    state = CatchState(jnp.int32(0), jnp.int32(2), jnp.int32(1))
    assert env.describe(state) == ". . o\n. . .\n. = ."
    assert env.describe(CatchState(jnp.int32(2), jnp.int32(1), jnp.int32(1))).endswith(". @ .")
    picture = env.render(state)
    assert picture.shape == (192, 192, 3)
    assert (picture != env.render(state._replace(ball_row=jnp.int32(1)))).any()
