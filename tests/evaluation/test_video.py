import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.evaluation.video import Film, video_path, write_video


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


def test_mp4_without_its_package_asks_for_no_frame(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)

    def never():
        pytest.fail("a frame was made for nothing")
        yield

    with pytest.raises(MissingDependencyError, match="MP4 needs PyAV"):
        write_video(never(), tmp_path / "a.mp4", 30)


def test_the_default_path_says_what_is_shown():
    run = SimpleNamespace(path=Path("run"), config={"env_id": "ALE/Pong-v5"}, checkpoint="newest")
    assert video_path(run, seed=3) == Path("run/videos/ALE-Pong-v5-seed3.gif")
    run.checkpoint = 512
    path = video_path(run, "grid2x1", seed=0, seed_index=4, format="mp4")
    assert path.name == "ALE-Pong-v5-policy4-checkpoint-512-grid2x1-seed0.mp4"


def test_bad_videos(tmp_path):
    with pytest.raises(InvalidValueError, match=r"\.gif or \.mp4"):
        write_video(frames(1), tmp_path / "a.avi", 30)
    with pytest.raises(InvalidValueError, match="at least one frame"):
        write_video([], tmp_path / "a.gif", 30)
    with pytest.raises(
        InvalidValueError, match="frame 1 has 40 x 20 pixels, and the first 40 x 30"
    ):
        write_video([*frames(1), *frames(1, height=20)], tmp_path / "a.gif", 30)


def test_a_film_keeps_its_frames_in_little_memory():
    film = Film(frames(3, 300, 400))
    assert len(film) == 3
    np.testing.assert_array_equal(film[1], frames(3, 300, 400)[1])
    assert [frame.shape for frame in film] == [(300, 400, 3)] * 3
    assert sum(len(packed) for packed, _ in film._packed) < 300 * 400 * 3 / 20


def test_what_does_not_move_does_not_flicker(tmp_path):
    moving = frames(30)
    noise = np.random.default_rng(0).integers(0, 256, (5, 40, 3), np.uint8)
    for frame in moving:
        frame[-5:] = noise
    write_video(moving, tmp_path / "a.gif", 10)
    with Image.open(tmp_path / "a.gif") as gif:
        rows = []
        for index in range(gif.n_frames):
            gif.seek(index)
            rows.append(np.asarray(gif.convert("RGB"))[-5:])
    assert len(rows) == 30
    assert all((row == rows[0]).all() for row in rows)
