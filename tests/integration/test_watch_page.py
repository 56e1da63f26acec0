"""The Python of docs/how-to/watch.md runs as it is printed."""

import re
from pathlib import Path

import numpy as np
import pytest

import kiloworlds as kw

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "watch.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with the run that the page names."""
    folder = tmp_path_factory.mktemp("watch")
    kw.train(
        *("ppo", "CartPole-v1"),
        run_dir=folder / "runs" / "ppo" / "CartPole-v1_1",
        total_steps=512,
        num_envs=4,
        num_steps=64,
        hidden_sizes=(8,),
    )
    return folder


def test_there_are_snippets():
    assert len(SNIPPETS) == 3


def whole_grid(left) -> bool:
    return left["video"].returns.shape == (64,) and left["video"].path.exists()


def last_pick(left) -> bool:
    return left["episode"].pick == "worst" and left["episode"].video.exists()


def two_pictures(left) -> bool:
    return [frame.dtype for frame in left["frames"]] == [np.uint8] * 2


@pytest.mark.parametrize(
    ("snippet", "leaves"), list(zip(SNIPPETS, (whole_grid, last_pick, two_pictures), strict=True))
)
def test_a_snippet_runs_alone(snippet, leaves, folder, monkeypatch):
    monkeypatch.chdir(folder)
    left = {}
    exec(compile(snippet, str(PAGE), "exec"), left)
    assert leaves(left)


def test_the_grid_has_the_name_that_the_page_tells(folder):
    (named,) = re.findall(r"# as (\S+\.gif)", PAGE.read_text())
    assert (folder / "runs" / "ppo" / "CartPole-v1_1" / "videos" / named).exists()
