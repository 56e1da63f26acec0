import itertools

import jax
import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.episode import (
    as_picture,
    moment_of,
    pace,
    play_episode,
    play_together,
    short,
)
from kiloworlds.evaluation.pictures import captioned


@pytest.mark.parametrize("backend", ["compiled", "sync"])
def test_episode_is_seen_from_first_to_last_moment(backend):
    render = {} if backend == "compiled" else {"render_mode": "rgb_array"}
    envs = kiloworlds.make("CartPole-v1", 1, backend=backend, autoreset_mode="disabled", **render)
    moments = list(play_episode(envs, lambda *_: np.zeros(1, np.int64), seed=0))
    envs.close()
    assert 8 <= moments[-1].step <= 12  # always pushing left fails at once
    assert [moment.step for moment in moments] == list(range(len(moments)))
    assert moments[-1].episode_return == moments[-1].step
    pictures = [moment.picture for moment in moments]
    assert all(picture is not None and picture.shape == (400, 600, 3) for picture in pictures)
    assert (pictures[0] != pictures[-1]).any()


def test_endless_episode_is_cut():
    envs = kiloworlds.make("CartPole-v1", 1, autoreset_mode="disabled")
    moments = list(play_episode(envs, lambda *_: np.zeros(1, np.int64), seed=0, max_steps=3))
    assert [moment.step for moment in moments] == [0, 1, 2, 3]


def test_text_instead_of_picture_where_there_is_one():
    envs = kiloworlds.make("FrozenLake-v1", 1, autoreset_mode="disabled")
    (first, *_) = play_episode(envs, lambda *_: np.zeros(1, np.int64), seed=0, as_text=True)
    assert first.picture is None
    assert first.text is not None
    assert "G" in first.text


@pytest.mark.parametrize(
    ("env_id", "rate"),
    [("Taxi-v3", 4), ("Catch-v0", 4), ("NChain-v0", 4), ("Blackjack-v1", 4), ("CartPole-v1", 50)],
)
def test_games_of_turns_are_shown_slowly(env_id, rate):
    assert pace(kiloworlds.make(env_id, 1), env_id) == rate


@pytest.mark.parametrize(
    ("env_id", "actions", "words"),
    [
        ("switch_riddle", [[0, 1, 2]], "nothing, switch, tell"),
        ("smax/3m", [[0, 4, 2]], "north, stop, south"),
        ("mpe/simple_tag_v3", {"adversary": [[3, 1, 0]], "agent": [[4]]}, "3, 1, 0, 4"),
    ],
)
def test_actions_of_several_agents_in_words(env_id, actions, words):
    envs = kiloworlds.make(env_id, 1, autoreset_mode="disabled", check_legal=False)
    actions = jax.tree.map(np.array, actions, is_leaf=lambda part: isinstance(part, list))
    _, moment = play_episode(envs, lambda *_: actions, seed=0, max_steps=1)
    assert moment.action == words
    assert captioned(moment).shape[0] > moment.picture.shape[0]


def test_every_action_of_a_battle_has_a_name():
    battle = kiloworlds.make_environment("smax/5m_vs_6m").unwrapped
    (kind,) = battle.kinds
    assert battle.action_names[4:6] == ("stop", "attack 0")
    assert len(battle.action_names) == kind.action_space.n


def test_of_agents_in_turn_only_the_one_to_move_is_told():
    pytest.importorskip("pettingzoo")
    envs = kiloworlds.make(
        "pettingzoo:classic/tictactoe_v3", 1, backend="sync", autoreset_mode="disabled"
    )
    moves = iter([0, 4, 8])
    moments = list(play_episode(envs, lambda *_: np.full((1, 2), next(moves)), seed=0, max_steps=3))
    assert [moment.action for moment in moments] == [None, "0", "4", "8"]
    assert pace(envs, "pettingzoo:classic/tictactoe_v3") == 4
    envs.close()


def test_particles_move_slower_than_games_of_reflexes():
    assert pace(kiloworlds.make("mpe/simple_v3", 1), "mpe/simple_v3") == 10


def test_pace_of_other_backends_is_gymnasiums():
    envs = kiloworlds.make("FrozenLake-v1", 1, backend="sync")
    assert pace(envs, "FrozenLake-v1") == 4
    envs.close()


@pytest.mark.parametrize(
    ("env_id", "action", "words"),
    [("Taxi-v3", 5, "drop off"), ("CartPole-v1", 1, "1"), ("Pendulum-v1", [-1.25], "-1.25")],
)
def test_moments_say_what_was_done_and_earned(env_id, action, words):
    envs = kiloworlds.make(env_id, 1, autoreset_mode="disabled")
    first, *_, last = play_episode(envs, lambda *_: np.array([action]), seed=0, max_steps=2)
    assert (first.action, first.reward) == (None, 0)
    assert last.action == words
    if env_id == "Taxi-v3":
        assert (last.reward, last.episode_return) == (-10, -20)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(-13, "-13"), (0.7656, "0.77"), (3656.03, "3,656.03"), (-0.001, "0"), (100, "100")],
)
def test_numbers_are_short(number, shown):
    assert short(number) == shown


def push_left(observations, _):
    return np.zeros(len(observations), np.int64)


@pytest.mark.parametrize("backend", ["compiled", "sync"])
def test_episodes_played_together_are_those_played_alone(backend):
    envs = kiloworlds.make("CartPole-v1", 6, backend=backend, autoreset_mode="next_step")
    *_, last = play_together(envs, push_left, seed=3, max_steps=100)
    envs.close()
    assert not last.goes_on.any()
    assert len(set(last.lengths.tolist())) > 1  # some went on while others had ended
    assert last.step == last.lengths.max()
    np.testing.assert_array_equal(last.returns, last.lengths)
    alone = kiloworlds.make("CartPole-v1", 1, backend=backend, autoreset_mode="disabled")
    for index in range(6):
        *_, moment = play_episode(alone, push_left, seed=3 + index)
        assert (moment.step, moment.episode_return) == (last.lengths[index], last.returns[index])
    alone.close()


def test_each_episode_ends_once_and_counts_no_more():
    envs = kiloworlds.make("CartPole-v1", 6, autoreset_mode="next_step")
    instants = list(play_together(envs, push_left, seed=[9, 8, 7, 6, 5, 4], max_steps=100))
    assert sum(instant.ends for instant in instants).tolist() == [1] * 6
    for before, after in itertools.pairwise(instants):
        np.testing.assert_array_equal(after.lengths - before.lengths, before.goes_on)
        assert (after.rewards[~before.goes_on] == 0).all()


def test_episodes_that_do_not_end_are_cut():
    envs = kiloworlds.make("CartPole-v1", 3, autoreset_mode="next_step")
    *_, last = play_together(envs, push_left, seed=0, max_steps=4)
    assert last.goes_on.all()
    assert last.lengths.tolist() == [4, 4, 4]


def test_an_instant_is_told_of_any_environment():
    envs = kiloworlds.make("Taxi-v3", 3, autoreset_mode="next_step")
    *_, last = play_together(envs, lambda *_: np.array([5, 1, 1]), seed=0, max_steps=2)
    moments = [moment_of(envs, last, index, None, "text") for index in range(3)]
    assert [moment.action for moment in moments] == ["drop off", "north", "north"]
    assert [moment.episode_return for moment in moments] == [-20, -2, -2]
    assert moments[0].reward == -10


def test_several_agents_end_together_and_earn_their_mean():
    envs = kiloworlds.make("mpe/simple_spread_v3", 2, autoreset_mode="next_step")
    *_, last = play_together(envs, lambda *_: np.zeros((2, 3), int), seed=0, max_steps=100)
    assert last.lengths.tolist() == [25, 25]
    assert last.returns.shape == (2,)
    assert not last.goes_on.any()


def test_pictures_of_any_kind_have_three_colours():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colours = np.stack([grey, grey + 1, grey + 2], axis=-1)
    assert as_picture(colours) is not None
    np.testing.assert_array_equal(as_picture(colours.tolist()), colours)
    np.testing.assert_array_equal(as_picture(np.dstack([colours, grey])), colours)  # alpha
    for rendered in (grey, grey[..., None]):
        np.testing.assert_array_equal(as_picture(rendered), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize(
    ("rendered", "given"),
    [
        (None, r"no picture \(NoneType\)"),
        ("a word", r"no picture \(str\)"),
        (np.zeros((3, 8, 8)), r"the shape \[3, 8, 8\] \(ndarray\)"),
        (np.zeros(5), r"the shape \[5\] \(ndarray\)"),
        (np.zeros((0, 8, 3)), r"no picture \(ndarray\)"),
        ([[1], [1, 2]], r"no picture \(list\)"),
    ],
)
def test_what_is_no_picture_is_said(rendered, given):
    with pytest.raises(
        InvalidValueError, match=rf"render\(\) of the environment gave {given}: a pic"
    ):
        as_picture(rendered)
