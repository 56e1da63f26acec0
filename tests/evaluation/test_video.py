import jax
import numpy as np
import pytest
from PIL import Image

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.video import (
    Moment,
    captioned,
    pace,
    picture_as_text,
    play_episode,
    short,
    write_video,
)


def frames(count, height=30, width=40):
    """A bright square that moves right."""
    pictures = np.zeros((count, height, width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        picture[10:20, index : index + 10] = (200, 100, 50)
    return list(pictures)


@pytest.mark.parametrize(
    ("rate", "count", "milliseconds"),
    [(30, 6, 30), (50, 6, 20), (4, 6, 250), (100, 4, 20)],  # 100: every other and the last
)
def test_gif_keeps_frames_and_pace(tmp_path, rate, count, milliseconds):
    path = tmp_path / "videos" / "a.gif"
    write_video(frames(6), path, rate)
    with Image.open(path) as gif:
        assert gif.n_frames == count
        assert gif.info["duration"] == milliseconds
        gif.seek(gif.n_frames - 1)
        last = np.asarray(gif.convert("RGB"))
    np.testing.assert_allclose(last, frames(6)[-1], atol=3)


@pytest.mark.parametrize("size", [(30, 40), (31, 41)])
def test_mp4_keeps_frames_and_pace(tmp_path, size):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    write_video(frames(6, *size), path, 25)
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(pictures) == 6
    assert pictures[0].shape == (30, 40, 3)


def test_bad_videos(tmp_path):
    with pytest.raises(InvalidValueError, match=r"\.gif or \.mp4"):
        write_video(frames(1), tmp_path / "a.avi", 30)
    with pytest.raises(InvalidValueError, match="at least one frame"):
        write_video([], tmp_path / "a.gif", 30)


def test_picture_as_text_shows_what_differs_from_the_background():
    picture = np.full((40, 80, 3), 250, np.uint8)
    picture[20:, :40] = 10
    lines = picture_as_text(picture, columns=8).splitlines()
    assert lines == ["", "@@@@"]


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


def test_caption_stands_above_the_picture():
    picture = np.full((50, 300, 3), 7, np.uint8)
    moment = Moment(3, "left", -1.0, -3.0, picture, None)
    frame = captioned(moment)
    strip = frame[:-50]
    np.testing.assert_array_equal(frame[-50:], picture)
    assert 20 <= len(strip) <= 40
    assert len(strip) % 2 == 0
    other = captioned(moment._replace(episode_return=-4.0))[:-50]
    changed = np.flatnonzero((strip != other).any(axis=(0, 2)))
    assert changed.min() > 200  # the return stands on the right
    with pytest.raises(InvalidValueError, match="picture"):
        captioned(moment._replace(picture=None))


@pytest.mark.parametrize(
    ("number", "shown"),
    [(-13, "-13"), (0.7656, "0.77"), (3656.03, "3,656.03"), (-0.001, "0"), (100, "100")],
)
def test_numbers_are_short(number, shown):
    assert short(number) == shown
