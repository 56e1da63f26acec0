"""Autotuning real trainings, tiny ones, with little time."""

import time

import pytest
from training_settings import TINY

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.profiling.tuning import arena, autotune
from kiloworlds.profiling.tuning.arena import Processes
from kiloworlds.profiling.tuning.autotune import tune
from kiloworlds.profiling.tuning.candidates import Candidate
from kiloworlds.profiling.tuning.process import TooLateError, TrialError, TrialProcess
from kiloworlds.training.config import build_config


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KILOWORLDS_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_chooses_keeps_and_uses_again(cache):
    tuned = kw.autotune("ppo", "CartPole-v1", seconds=30, **TINY)
    # JAX is open in this process: devices and threads stay.
    assert not {"devices", "threads_per_device"} & set(tuned.settings)
    asked = next(one for one in tuned.tried if not one.settings)
    assert asked.steps_per_second > 0
    assert [one.is_chosen for one in tuned.tried].count(True) == 1
    assert tuned.why
    assert (cache / "measured" / "autotune.json").exists()
    began = time.monotonic()
    again = kw.autotune("ppo", "CartPole-v1", seconds=30, **TINY)
    assert time.monotonic() - began < 1
    assert again.is_stored
    assert again.settings == tuned.settings
    assert again.tried == tuned.tried


def test_other_settings_are_measured_anew(cache, monkeypatch):
    keys = set()
    monkeypatch.setattr(
        "kiloworlds.profiling.store.read",
        lambda name, key: (
            keys.add(key)
            or {
                "settings": {},
                "speedup": 1.0,
                "why": [],
                "tried": [],
                "seconds": 1.0,
                "measured": "today",
            }
        ),
    )
    for given in ({}, {"hidden_sizes": (16,)}, {"num_envs": 8}, {"seed": 3}):
        config = build_config("ppo", "CartPole-v1", TINY | given)
        tune(config, given)
    assert len(keys) == 3  # the seed says nothing about speed


def test_environments_outside_xla(cache):
    config = build_config("ppo", "Acrobot-v1", TINY | {"backend": "process"})
    processes = Processes(config, (), None, time.monotonic() + 60)
    try:
        kind = processes.describe()
        assert (kind.compiled, kind.streams, kind.auto) == (False, True, "")
        slow, fast = Candidate().with_(batch_size=2), Candidate()
        entrants = processes.open([fast, slow], time.monotonic() + 60)
        assert [one.failure for one in entrants] == ["", ""]
        assert processes.measure(fast, 0.1) > 0
        assert processes.measure(slow, 0.1) > 0
        processes.close(slow)
        with pytest.raises(TrialError, match="KeyError"):
            processes.measure(slow, 0.1)
    finally:
        processes.close_all()


def test_no_time_to_build(cache):
    config = build_config("ppo", "CartPole-v1", TINY)
    processes = Processes(config, (), None, time.monotonic() + 60)
    try:
        (entrant,) = processes.open([Candidate()], 0.0)
        assert entrant.failure == arena.NO_TIME
    finally:
        processes.close_all()


def test_without_time_everything_stays_as_it_is(cache, monkeypatch):
    monkeypatch.setattr(autotune, "_LATEST", 0.0)
    tuned = tune(build_config("ppo", "CartPole-v1", TINY), (), seconds=5)
    assert (tuned.settings, tuned.speedup, tuned.tried) == ({}, 1.0, [])
    assert "Nothing was measured in" in tuned.why[0]
    assert not list(cache.rglob("*.json"))  # next time it is tried again


def test_an_environment_that_other_processes_do_not_know(cache):
    config = build_config("ppo", "Nowhere-v1", TINY)
    with pytest.raises(TrialError, match="Nowhere-v1"):
        tune(config, (), seconds=20)


def test_a_process_that_does_not_answer_is_ended():
    process = TrialProcess(1, 1)
    config = build_config("ppo", "CartPole-v1", TINY).as_dict()
    with pytest.raises(TooLateError):
        process.ask(time.monotonic(), do="open", name="", config=config)
    assert not process.is_alive
    with pytest.raises(TrialError):
        process.ask(time.monotonic() + 5, do="close", name="")
    process.close()


def test_too_little_time_is_refused():
    with pytest.raises(InvalidValueError, match=r"seconds=1 must be a number between 5.0"):
        kw.autotune("ppo", "CartPole-v1", seconds=1)
