import dataclasses

import pytest

from kiloworlds.profiling.tuning.candidates import (
    Candidate,
    Kind,
    first,
    layouts,
    least_steps,
    shortened,
    variations,
)
from kiloworlds.training.config import build_config

COMPILED = Kind(compiled=True, native=False, streams=True, auto="", cores=2, on_cpu=True)
POOLED = dataclasses.replace(COMPILED, compiled=False, auto="process")


def config(algorithm="ppo", env_id="CartPole-v1", **settings):
    return build_config(algorithm, env_id, {"num_envs": 32, "num_steps": 64, **settings})


def settings_of(candidates):
    return [candidate.settings for candidate in candidates]


def test_what_was_asked_for_comes_first_and_nothing_twice():
    found = first(config(num_minibatches=32), COMPILED, ())
    assert found[0] == Candidate()
    assert {"devices": 1, "threads_per_device": 2} in settings_of(found)
    # Small minibatches have one device of one thread by themselves.
    assert {"devices": 1, "threads_per_device": 1} not in settings_of(found)
    assert len(set(found)) == len(found)


def test_several_seeds_are_spread_over_devices():
    found = first(config(num_seeds=4), dataclasses.replace(COMPILED, cores=4), ())
    assert {"devices": 4, "threads_per_device": 1} in settings_of(found)
    assert {"devices": 2, "threads_per_device": 2} in settings_of(found)


def test_accelerators():
    several = dataclasses.replace(COMPILED, on_cpu=False, devices=4)
    assert settings_of(first(config(num_seeds=4), several, ())) == [
        {},
        {"devices": 2},
        {"devices": 4},
    ]


def test_settings_that_are_given_stay():
    assert first(config(devices=1), COMPILED, {"devices"}) == [Candidate()]
    assert layouts(config(), {"num_envs"}) == []
    asked = config(env_id="LunarLander-v3", backend="process", num_workers=2)
    assert settings_of(first(asked, POOLED, {"backend", "num_workers"})) == [{}]


def test_executors_and_workers():
    found = settings_of(first(config(env_id="LunarLander-v3"), POOLED, ()))
    assert found == [
        {},  # two processes
        {"backend": "sync"},
        {"backend": "process", "num_workers": 4},
        {"backend": "thread", "num_workers": 2},
    ]
    native = dataclasses.replace(POOLED, native=True, auto="native")
    assert {"backend": "process", "num_workers": 2} in settings_of(first(config(), native, ()))
    own_pace = config(env_id="LunarLander-v3", batch_size=8)
    assert {"backend": "sync"} not in settings_of(first(own_pace, POOLED, ()))


def test_layouts_keep_the_steps_of_an_update():
    asked = config(gamma=0.95, gae_lambda=0.95)  # a horizon of ten steps
    assert least_steps(asked) == 21
    found = layouts(asked, ())
    assert found == [{"num_envs": 64, "num_steps": 32}, {"num_envs": 16, "num_steps": 128}]
    for each in found:
        assert Candidate().with_(**each).apply(asked).steps_per_update == asked.steps_per_update


def test_rollouts_are_never_shorter_than_two_horizons_or_what_was_asked():
    assert least_steps(config(gamma=1.0, gae_lambda=1.0)) == 64
    assert layouts(config(gamma=1.0, gae_lambda=1.0), ()) == [{"num_envs": 16, "num_steps": 128}]
    assert least_steps(config(num_steps=8)) == 8


def test_memory_and_replay_keep_their_layout():
    assert layouts(config("ippo", "mpe/simple_spread_v3", network="gru"), ()) == []
    assert layouts(config("vdn", "mpe/simple_spread_v3"), ()) == []


def test_variations_of_the_fastest():
    process = Candidate().with_(backend="process", num_workers=4)
    found = variations(config(env_id="LunarLander-v3"), POOLED, {"num_envs"}, [process])
    assert settings_of(found) == [{"backend": "process", "num_workers": 4, "batch_size": 16}]
    assert variations(config(), COMPILED, (), []) == []


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, False),
        ({"devices": 1, "threads_per_device": 2}, False),
        ({"backend": "sync"}, False),
        ({"devices": 2}, True),
        ({"num_envs": 64, "num_steps": 32}, True),
        ({"batch_size": 8}, True),
    ],
)
def test_knows_what_changes_learning(changes, differs):
    assert Candidate().with_(**changes).changes_learning is differs


def test_short_rollouts_to_time_environments():
    short = shortened(config(num_steps=512, num_minibatches=128, max_staleness=1), 64)
    assert (short.settings.num_steps, short.max_staleness) == (64, 0)
    assert short.num_envs == 32
