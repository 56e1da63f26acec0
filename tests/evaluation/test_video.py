import numpy as np
import pytest
from PIL import Image

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.video import picture_as_text, play_episode, write_video


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
    moments = list(play_episode(envs, lambda _: np.zeros(1, np.int64), seed=0))
    envs.close()
    assert 8 <= moments[-1].step <= 12  # always pushing left fails at once
    assert [moment.step for moment in moments] == list(range(len(moments)))
    assert moments[-1].episode_return == moments[-1].step
    pictures = [moment.picture for moment in moments]
    assert all(picture is not None and picture.shape == (400, 600, 3) for picture in pictures)
    assert (pictures[0] != pictures[-1]).any()


def test_endless_episode_is_cut():
    envs = kiloworlds.make("CartPole-v1", 1, autoreset_mode="disabled")
    moments = list(play_episode(envs, lambda _: np.zeros(1, np.int64), seed=0, max_steps=3))
    assert [moment.step for moment in moments] == [0, 1, 2, 3]


def test_text_instead_of_picture_where_there_is_one():
    envs = kiloworlds.make("FrozenLake-v1", 1, autoreset_mode="disabled")
    (first, *_) = play_episode(envs, lambda _: np.zeros(1, np.int64), seed=0, as_text=True)
    assert first.picture is None
    assert first.text is not None
    assert "G" in first.text
