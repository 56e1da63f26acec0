import json

import pytest
from fake_tracker import FakeTracker, row

from kiloworlds.training.loggers.base import LoggedRun


@pytest.fixture
def tracker(tmp_path, monkeypatch):
    """Stands for the package `wandb`."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return FakeTracker(folder)


@pytest.fixture
def write_rows(tmp_path):
    """Writes `metrics.jsonl` of a run with rows of these steps; returns the run at the last of them."""

    def write(*steps):
        path = tmp_path / "run"
        path.mkdir(exist_ok=True)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row(step)) + "\n" for step in steps))
        return LoggedRun(path, "identity", {"seed": 3}, max(steps, default=0))

    return write
