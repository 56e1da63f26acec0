"""The machinery behind docs/results: what its numbers mean, and that its check can fail."""

import json
import math
from pathlib import Path

import learning
import learning_check
import learning_statistics
import numpy as np
import pytest
import scipy.stats
import summary_learning
from learning_statistics import BELOW, REACHED, WITHIN, change, interval, level, times, verdicts
from learning_tasks import BY_NAME, CLASSIC, Task

ROOT = Path(__file__).parents[2]
CARTPOLE = Task("ppo", "CartPole-v1", CLASSIC)


def record(ends: list[float], errors: list[float] | None = None) -> dict:
    curve = [[10.0 + part * (end - 10.0) / 9 for end in ends] for part in range(10)]
    return {
        "seeds": len(ends),
        "curves": {
            "step": [1000 * (part + 1) for part in range(10)],
            "seconds": [0.5 * (part + 1) for part in range(10)],
            "ep_rew_mean": curve,
        },
        "greedy": {"return": ends, "return_error": errors or [0.0] * len(ends)},
    }


def test_intervals_are_students():
    values = [480.0, 500.0, 470.0, 495.0]
    found = interval(values)
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(values), scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_intervals_hold_what_the_episodes_leave_open():
    assert interval([7.0, 7.0], [0.1, 0.1]).around == pytest.approx(0.196)


def test_one_seed_has_no_interval():
    assert math.isnan(interval([3.0]).around)


def test_a_reference_is_reached_or_within_the_interval_or_above_it():
    def marks(ends: list[float]) -> dict[str, str]:
        return {one.source: one.mark for one in verdicts(CARTPOLE, record(ends), None)}

    assert marks([480.0, 490.0]) == {
        "RL-Zoo": WITHIN,
        "CleanRL": WITHIN,
        "gymnax": WITHIN,
        "solved": REACHED,
        "best possible": WITHIN,
    }
    assert marks([480.0, 480.0, 480.1])["RL-Zoo"] == BELOW
    assert marks([499.9] * 4)["RL-Zoo"] == REACHED
    assert marks([480.0])["RL-Zoo"] == BELOW


def test_times_are_of_the_seeds_that_reach_the_level():
    ours = record([500.0, 490.0, 20.0])
    assert level(CARTPOLE, ours, None).value == 475.0
    found = times(CARTPOLE, ours, 475.0)
    assert found.reached == 2
    assert found.steps == 10_000
    assert found.seconds == 5.0


def test_worse_is_below_what_the_spread_of_the_kept_seeds_explains():
    kept = [500.0, 490.0, 480.0, 495.0, 485.0]
    assert change(kept, [470.0, 500.0, 490.0], learnt=480.0).word == "as before"
    assert change(kept, [400.0, 300.0, 500.0], learnt=480.0).word == "worse"
    assert change(kept, [540.0] * 3, learnt=480.0).word == "better"
    assert change(kept, [float("nan")] * 3, learnt=480.0).word == "worse"


def test_equal_seeds_leave_a_tolerance_of_a_hundredth_of_what_is_learnt():
    assert change([500.0] * 5, [496.0] * 3, learnt=480.0).word == "as before"
    assert change([500.0] * 5, [490.0] * 3, learnt=480.0).word == "worse"


def test_a_preset_that_has_got_worse_fails_the_check(monkeypatch, capfd):
    checks = (learning_check.Check("ppo CartPole-v1", 0.2, 2),)
    monkeypatch.setattr(learning_check, "CHECKS", checks)
    assert learning_check.run(["ppo CartPole-v1"]) == 0
    usual = learning.preset
    monkeypatch.setattr(learning, "preset", lambda *of: usual(*of) | {"learning_rate": 1e-6})
    assert learning_check.run(["ppo CartPole-v1"]) == 1
    assert "ppo CartPole-v1, the first 20%" in capfd.readouterr().err


def test_the_page_is_that_of_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(summary_learning, "PAGE", tmp_path / "README.md")
    monkeypatch.setattr(summary_learning, "IMAGES", tmp_path)
    monkeypatch.setattr(summary_learning, "HERE", tmp_path / "benchmarks")
    summary_learning.write()
    ours = (ROOT / "docs" / "results" / "README.md").read_text()
    assert (tmp_path / "README.md").read_text() == ours, "run scripts/results --page"


def test_what_is_checked_was_measured():
    kept = json.loads(learning.PATH.read_text())["trainings"]
    for which in learning_check.CHECKS:
        assert which.name in BY_NAME
        assert kept[which.name]["seeds"] >= 2


def test_curves_are_means_over_parts_of_the_training():
    rows = np.array([[1.0, np.nan], [3.0, np.nan]])
    assert learning._means(rows) == [2.0, None]
    assert learning_statistics.end_of([[1.0], [5.0]] + [[7.0]] * 8) == [7.0]
