import os
import signal
import subprocess
import sys
import time

import pytest
from fake_tracker import row

from kiloworlds.training.loggers import feed
from kiloworlds.training.loggers.child import Patience
from kiloworlds.training.loggers.feed import Loggers

SOON = Patience(call=0.5, end=1.0)


@pytest.fixture
def said():
    return []


def log(run, said, steps=range(10, 60, 10)):
    """Logs rows of these steps."""
    with Loggers(("wandb",), said.append) as loggers:
        loggers.start(run)
        for step in steps:
            loggers.log(row(step))


def warnings(said):
    return [words for words in said if "logger wandb" in words]


def is_gone(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


def test_rows_arrive_in_order(tracker, write_rows, said):
    log(write_rows(), said)
    first, *rows, last = tracker.told
    assert first["id"] == "identity"
    assert [entry["step"] for entry in rows] == [10, 20, 30, 40, 50]
    assert rows[0]["values"] == {"time/total_timesteps": 10, "time/time_elapsed": 0.1}
    assert last == {"exit_code": 0}
    assert said == ["logs to wandb: https://somewhere"]
    assert is_gone(first["pid"])


def test_training_that_fails_is_told(tracker, write_rows, said):
    loggers = Loggers(("wandb",), said.append)
    loggers.start(write_rows())
    loggers.log(row(10))
    with pytest.raises(ZeroDivisionError), loggers:
        _ = 1 / 0
    assert tracker.steps == [10]
    assert tracker.told[-1] == {"exit_code": 1}


@pytest.mark.parametrize("how", ["raise", "die"])
@pytest.mark.parametrize("call", ["import", "init", "log", "finish"])
def test_a_tracker_that_fails_is_said_once(tracker, write_rows, said, how, call):
    tracker.install(f"{how} in {call}")
    run = write_rows()
    log(run, said)
    (words,) = warnings(said)
    assert "metrics.jsonl has all rows" in words
    assert ("RuntimeError: no network" if how == "raise" else "ended by itself") in words
    if how == "raise":  # with its traceback
        assert str(run.path / "loggers" / "wandb.log") in words
        assert "no network" in (run.path / "loggers" / "wandb.log").read_text()


@pytest.mark.parametrize("call", ["import", "init", "log", "finish"])
def test_a_tracker_that_hangs_is_said_once_and_ended(tracker, write_rows, said, monkeypatch, call):
    monkeypatch.setattr(feed, "_PATIENCE", SOON)
    tracker.install(f"hang in {call}")
    began = time.monotonic()
    log(write_rows(), said)
    assert time.monotonic() - began < 5
    (words,) = warnings(said)
    assert "has not answered for 0.5 s" in words or "did not end in time" in words
    assert all(is_gone(entry["pid"]) for entry in tracker.told if "pid" in entry)


def test_the_end_waits_for_no_tracker_longer_than_ten_seconds(tracker, write_rows, said):
    tracker.install("hang in log")
    run = write_rows()
    with Loggers(("wandb",), said.append) as loggers:
        loggers.start(run)
        loggers.log(row(10))
        began = time.monotonic()
    assert time.monotonic() - began < 10
    (words,) = warnings(said)
    assert "did not end in time" in words


def test_a_stopped_process_is_ended_too(tracker, write_rows, said, monkeypatch):
    monkeypatch.setattr(feed, "_PATIENCE", SOON)
    with Loggers(("wandb",), said.append) as loggers:
        loggers.start(write_rows())
        loggers.log(row(10))
        while not tracker.steps:
            time.sleep(0.02)
        os.kill(tracker.told[0]["pid"], signal.SIGSTOP)
    assert "did not end in time" in warnings(said)[0]
    assert is_gone(tracker.told[0]["pid"])


def test_the_oldest_rows_make_room(tracker, write_rows, said, monkeypatch):
    monkeypatch.setattr(feed, "_PATIENCE", SOON)
    monkeypatch.setattr(feed, "_WAITING", 5)
    tracker.install("hang in log")
    with Loggers(("wandb",), said.append) as loggers:
        loggers.start(write_rows())
        began = time.monotonic()
        for step in range(1, 3000):  # more than a pipe holds
            loggers.log(row(step, **{"train/x": [1.0] * 30}))
        assert time.monotonic() - began < 1
        (waiting,) = loggers._feeds
        assert len(waiting._lines) <= 5
        assert waiting._dropped > 0
    assert len(warnings(said)) == 1


def test_one_that_was_slow_for_a_while_is_said_with_what_it_missed(
    tracker, write_rows, said, monkeypatch
):
    monkeypatch.setattr(feed, "_WAITING", 5)
    with Loggers(("wandb",), said.append) as loggers:
        loggers.start(write_rows())
        for step in range(1, 3000):
            loggers.log(row(step, **{"train/x": [1.0] * 30}))
    (words,) = warnings(said)
    assert f"{2999 - len(tracker.steps)} rows are left out there" in words
    assert tracker.steps[-1] == 2999


def test_a_process_that_cannot_start_is_said(tracker, write_rows, said, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    log(write_rows(), said)
    (words,) = warnings(said)
    assert "cannot be started (No such file or directory)" in words


def test_what_was_there_before_is_handed_over_and_nothing_twice(tracker, write_rows, said):
    tracker.install(starting_step=21)
    log(write_rows(10, 20, 30, 40), said, steps=(50, 60))
    assert tracker.steps == [30, 40, 50, 60]
    tracker.install(starting_step=71)  # rows after 60 were cut back, and are made again
    log(write_rows(10, 20, 30, 40, 50, 60), said, steps=(70, 80))
    assert tracker.steps[4:] == [80]


def test_of_a_tracker_that_cannot_tell_how_far_it_is_that_is_kept(tracker, write_rows, said):
    tracker.install(offline=True)
    log(write_rows(10, 20), said, steps=(30, 40))
    assert tracker.steps == [10, 20, 30, 40]
    log(write_rows(10, 20), said, steps=(30, 40, 50))
    assert tracker.steps[4:] == [50]


KILLED = """
import os, signal, sys, time
from kiloworlds.training.loggers import feed
from kiloworlds.training.loggers.base import LoggedRun
from kiloworlds.training.loggers.child import Patience
from pathlib import Path
feed._PATIENCE = Patience(end=1.0)
if __name__ == "__main__":
    with feed.Loggers(("wandb",), print) as loggers:
        loggers.start(LoggedRun(Path(sys.argv[1]), "identity", {}))
        loggers.log({"step": 1, "seconds": 0.0})
        time.sleep(float(sys.argv[2]))
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("failure", ["", "hang in log"])
def test_no_process_outlives_a_killed_trainer(tracker, write_rows, failure):
    tracker.install(failure)
    command = [sys.executable, "-c", KILLED, str(write_rows().path), "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, timeout=60).returncode == -signal.SIGKILL
    until = time.monotonic() + 5
    while not is_gone(tracker.told[0]["pid"]):
        assert time.monotonic() < until
        time.sleep(0.05)
    if not failure:
        assert tracker.told[-1] == {"exit_code": 1}
