import re
import sys

import numpy as np
import pytest
from PIL import Image

import kiloworlds
from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.evaluation.grid import grid_of, play_grid

TINY = {"total_steps": 512, "num_envs": 4, "num_steps": 64, "hidden_sizes": (8,)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    return kiloworlds.train("ppo", "CartPole-v1", run_dir=path, num_seeds=2, **TINY)


def frames_of(path):
    with Image.open(path) as gif:
        frames = []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB")))
    return frames


@pytest.mark.parametrize(
    ("given", "grid"), [("8x4", (8, 4)), ((3, 2), (3, 2)), (" 16X16 ", (16, 16)), ("1x1", (1, 1))]
)
def test_grids(given, grid):
    assert grid_of(given) == grid


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0x3", "0x3 must have 1 to 16 columns and 1 to 16 rows; the nearest is 1x3"),
        ("100x100", "the nearest is 16x16"),
        ((4, 17), "the nearest is 4x16"),
        ("eight", "'eight' must be columns x rows, each from 1 to 16, such as 8x8"),
        ("8", "such as 8x8"),
        ("-2x2", "such as 8x8"),
        ((2.5, 2), "such as 8x8"),
        ((2, 2, 2), "such as 8x8"),
    ],
)
def test_wrong_grids(given, words):
    with pytest.raises(InvalidValueError, match=words):
        grid_of(given)


def test_all_cells_play_until_the_last_has_ended(run, tmp_path):
    video = play_grid(run, (3, 2), tmp_path / "a.gif", seed=5)
    assert video.seeds == tuple(range(5, 11))
    assert video.ended.all()
    assert video.returns.tolist() == video.lengths.tolist()
    assert video.mean_return == pytest.approx(video.returns.mean())
    frames = frames_of(video.path)
    assert frames[0].shape[1] <= 1280
    assert frames[0].shape[0] <= 960
    # 50 steps a second are shown as 25 frames a second.
    assert (video.steps_per_frame, video.frames_per_second) == (2, 25)
    assert 2 < len(frames) <= video.lengths.max() // 2 + 2
    # The first episode to end stays as it is, and does not flicker.
    first = int(np.argmin(video.lengths))
    width, height = frames[0].shape[1] // 3, (frames[0].shape[0] - 40) // 2
    top, left = 44 + first // 3 * height, 6 + first % 3 * width
    ended = int(np.ceil(video.lengths[first] / 2)) + 1
    cells = [frame[top : top + height - 12, left : left + width - 12] for frame in frames]
    assert ended < len(frames)
    assert all((cell == cells[-1]).all() for cell in cells[ended:])
    assert (cells[-1] != cells[0]).any()


def test_a_grid_repeats_and_so_do_actions_drawn_at_random(run, tmp_path):
    for deterministic in (True, False):
        videos = [
            play_grid(run, "2x1", tmp_path / f"{name}.gif", deterministic=deterministic)
            for name in "ab"
        ]
        assert videos[0].path.read_bytes() == videos[1].path.read_bytes()
        np.testing.assert_array_equal(videos[0].returns, videos[1].returns)


def test_a_cell_plays_what_an_episode_of_its_seed_does(run, tmp_path):
    together = play_grid(run, (2, 2), tmp_path / "a.gif", seed=3, seed_index=1)
    alone = play_grid(run, (1, 1), tmp_path / "b.gif", seed=5, seed_index=1)
    assert alone.returns[0] == together.returns[2]


def test_cut_episodes_and_pace(run, tmp_path):
    video = play_grid(run, (2, 1), tmp_path / "a.gif", max_steps=4, frames_per_second=10)
    assert not video.ended.any()
    assert video.lengths.tolist() == [4, 4]
    assert (video.steps_per_frame, video.frames_per_second) == (1, 10)
    assert len(frames_of(video.path)) == 5
    with pytest.raises(InvalidValueError, match="max_steps"):
        play_grid(run, (2, 1), max_steps=0)
    with pytest.raises(
        InvalidValueError, match=r"frames_per_second=0 .* nearest valid value is 0.1"
    ):
        play_grid(run, (2, 1), frames_per_second=0)


def test_the_grid_of_another_checkpoint_has_a_name_of_its_own(run):
    best = kiloworlds.load(run.path, checkpoint="best")
    paths = [play_grid(each, (1, 1), max_steps=2).path for each in (run, best)]
    assert [path.name for path in paths] == [
        "CartPole-v1-grid1x1-seed0.gif",
        "CartPole-v1-checkpoint-best-grid1x1-seed0.gif",
    ]
    assert run.checkpoint == "newest"
    other = play_grid(run, (1, 1), seed_index=1, max_steps=2)
    assert other.path.name == "CartPole-v1-policy1-grid1x1-seed0.gif"


def test_it_says_how_far_it_is(run, tmp_path):
    said = []
    play_grid(run, (2, 1), tmp_path / "a.gif", max_steps=45, on_progress=said.append)
    assert said[0] == "playing"
    assert "playing: step 20" in said
    assert any(re.fullmatch(r"drawing: step 20 of \d+", words) for words in said)
    assert said[-1] == "writing a.gif"


def test_nothing_is_played_where_mp4_cannot_be_written(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    said = []
    with pytest.raises(MissingDependencyError, match="MP4 needs PyAV"):
        play_grid(run, (2, 1), tmp_path / "a.mp4", on_progress=said.append)
    assert said == []


@pytest.mark.parametrize(
    ("algorithm", "env_id", "options"),
    [
        ("ippo", "mpe/simple_spread_v3", {}),
        ("ppo", "CartPole-v1", {"backend": "sync"}),
        ("ppo", "CartPole-v1", {"backend": "process", "num_workers": 2}),
    ],
)
def test_several_agents_and_simulators(algorithm, env_id, options, tmp_path):
    trained = kiloworlds.train(algorithm, env_id, run_dir=tmp_path / "run", **TINY, **options)
    video = play_grid(trained, (2, 2), max_steps=30)
    assert video.path.parent == tmp_path / "run" / "videos"
    assert video.path.name.endswith("-grid2x2-seed0.gif")
    assert len(frames_of(video.path)) > 2


class Unseen(Environment):
    """Looks like nothing."""

    def reset(self, key):
        return np.float32(0), np.zeros(1, np.float32)

    def step(self, key, state, action):
        never = np.bool_(False)
        return state, Step(np.zeros(1, np.float32), np.float32(1), ~never, never, {})

    def describe(self, state):
        return "nothing"

    @property
    def observation_space(self):
        return Box(0.0, 1.0, (1,))

    @property
    def action_space(self):
        return Discrete(2)


def test_what_has_no_picture_is_refused(tmp_path):
    trained = kiloworlds.train(
        "ppo", f"{__name__}:Unseen", run_dir=tmp_path / "run", backend="compiled", **TINY
    )
    with pytest.raises(InvalidValueError, match="Unseen has no pictures"):
        play_grid(trained, (2, 2))
