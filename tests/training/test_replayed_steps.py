"""Single steps of a training, made again."""

import json
import shutil

import jax
import numpy as np
import pytest
from poisoned_envs import Poisoned

import kiloworlds as kw
from kiloworlds.cli.main import main
from kiloworlds.core import registry
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.run_errors import RunDirectoryError

SMALL = {"num_envs": 4, "num_steps": 16, "num_minibatches": 4, "hidden_sizes": (8,)}
UPDATE = 64


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    registry.list_envs()  # what comes with the package is there before the copy
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    kw.register("Poisoned-v0", Poisoned)


def assert_follow(first, second, moment_of):
    """What a step leads to is what the next one begins with."""
    with moment_of(first) as moment:
        outcome = moment.step()
    with moment_of(second) as after:
        led_to = jax.tree.leaves((outcome.observation, outcome.state))
        for mine, theirs in zip(
            led_to, jax.tree.leaves((after.observation, after.state)), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_a_recorded_fault_happens_again(tmp_path, capsys):
    run = kw.train(
        "ppo",
        "Poisoned-v0",
        run_dir=tmp_path / "run",
        num_seeds=2,
        seed=5,
        total_steps=8 * UPDATE,
        env_kwargs={"poison": [0.0, 0.0, 1.0, 0.0]},
        checkpoint_updates=2,
        keep_checkpoints=1,
        **SMALL,
    )
    assert "(`kiloworlds replay` shows it)" in capsys.readouterr().err
    moment = run.replay()
    assert moment.place == (1, 3, 2)
    assert (moment.state, moment.env.poison) == (19.0, 1.0)
    outcome = moment.step()
    assert outcome.state == 20.0
    assert np.isnan(outcome.observation).all()
    assert main(["replay", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert "environment 2 at step 3 of update 1" in out
    assert "[nan]   not finite at 0" in out
    assert main(["replay", str(run.path), "--step", str(moment_number(7, 8, 2)), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    # It started over after updates 1, 3 and 5.
    assert told["before"]["state"] == 24.0
    assert told["after"]["observation"] == [0.25]


def moment_number(update, step, environment):
    return (update * SMALL["num_steps"] + step) * SMALL["num_envs"] + environment


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env_id"), [("ppo", "CartPole-v1"), ("ippo", "mpe/simple_spread_v3")]
)
def test_steps_follow_each_other_also_from_a_checkpoint(algorithm, env_id, tmp_path):
    run = kw.train(
        algorithm,
        env_id,
        run_dir=tmp_path / "run",
        total_steps=6 * UPDATE,
        checkpoint_updates=1,
        keep_checkpoints=10,
        **SMALL,
    )
    update = run.checkpoints.steps()[0] // UPDATE  # as soon as one could be written
    assert 0 < update < 5
    last = moment_number(update, 15, 1)
    assert_follow(last, moment_number(update + 1, 0, 1), run.replay)
    from_checkpoint = run.replay(last)
    shutil.rmtree(run.path / "checkpoints")
    from_start = run.replay(last)
    for mine, theirs in zip(
        jax.tree.leaves((from_checkpoint.state, from_checkpoint.action)),
        jax.tree.leaves((from_start.state, from_start.action)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_an_environment_outside_xla_steps_again_also_after_a_resume(tmp_path):
    settings = SMALL | {"total_steps": 6 * UPDATE, "backend": "sync"}
    path = tmp_path / "run"

    def stop(row):
        if row["step"] >= 2 * UPDATE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kw.train("ppo", "LunarLander-v3", run_dir=path, on_metrics=stop, **settings)
    run = kw.train(
        "ppo",
        "LunarLander-v3",
        run_dir=path,
        resume=True,
        checkpoint_updates=1,
        keep_checkpoint_every=2 * UPDATE,
    )
    assert_follow(moment_number(0, 15, 3), moment_number(1, 0, 3), kw.load(path).replay)
    assert_follow(moment_number(4, 15, 3), moment_number(5, 0, 3), run.replay)
    shutil.rmtree(path / "checkpoints" / str(2 * UPDATE))
    with pytest.raises(RunDirectoryError, match=r"episodes started over at step 128, and no"):
        run.replay(moment_number(4, 0, 0))


def test_what_cannot_be_made_again_says_why(tmp_path):
    run = kw.train("ppo", "Poisoned-v0", run_dir=tmp_path / "a", total_steps=2 * UPDATE, **SMALL)
    with pytest.raises(InvalidValueError, match="recorded no number of an environment that is not"):
        run.replay()
    with pytest.raises(
        InvalidValueError, match="step=128 must be a whole number between 0 and 127"
    ):
        run.replay(2 * UPDATE)
    with pytest.raises(InvalidValueError, match="seed=1 must be one of the run's 1 trainings"):
        run.replay(0, seed=1)
    (run.path / "events.jsonl").write_text('{"event": "x"}\n\n{"event": "half of')
    run.replay(0)
    (run.path / "events.jsonl").write_text("[1]\n")
    with pytest.raises(RunDirectoryError, match=r"events\.jsonl' is damaged"):
        run.replay(0)
    run = kw.train(
        "ppo",
        "LunarLander-v3",
        run_dir=tmp_path / "b",
        total_steps=2 * UPDATE,
        max_staleness=1,
        backend="sync",
        **SMALL,
    )
    with pytest.raises(InvalidValueError, match="not with max_staleness or batch_size, nor for"):
        run.replay(3)


@pytest.mark.slow
def test_a_step_from_before_settings_changed_is_made_with_those_of_then(tmp_path):
    path = tmp_path / "run"
    settings = SMALL | {"total_steps": 4 * UPDATE, "anneal_learning_rate": True}
    first = kw.train("ppo", "CartPole-v1", run_dir=path, **settings)
    number = moment_number(3, 5, 2)
    before = first.replay(number)
    run = kw.train(
        "ppo",
        "CartPole-v1",
        run_dir=path,
        resume=True,
        total_steps=8 * UPDATE,
        num_envs=8,
        keep_checkpoints=1,
    )
    shutil.rmtree(path / "checkpoints" / str(4 * UPDATE), ignore_errors=True)
    again = run.replay(number)
    assert again.place == before.place
    for mine, theirs in zip(
        jax.tree.leaves((before.state, before.action)),
        jax.tree.leaves((again.state, again.action)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(RunDirectoryError, match="settings changed at step 256, and no checkpoint"):
        run.replay(5 * UPDATE)


def test_several_agents_outside_xla_are_refused_in_a_sentence(tmp_path):
    pytest.importorskip("mpe2")
    run = kw.train(
        "ippo",
        "pettingzoo:mpe2.simple_spread_v3",
        run_dir=tmp_path / "run",
        num_envs=2,
        num_steps=8,
        num_minibatches=1,
        total_steps=32,
        hidden_sizes=(8,),
        backend="sync",
    )
    with pytest.raises(InvalidValueError, match="nor for several agents outside XLA"):
        run.replay(3)
