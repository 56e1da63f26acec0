"""Going on with a run: as if it had never stopped, and where settings differ."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from training_settings import TINY

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.run_errors import NoRunError, RunDirectoryError
from kiloworlds.training.storage.checkpoint import CheckpointStore, NoCheckpointError
from kiloworlds.training.storage.run_files import read_events
from kiloworlds.training.survival.lifeline import Lifeline

AGENTS = {"num_envs": 4, "num_steps": 8, "total_steps": 4 * 8 * 6, "hidden_sizes": (8,)}
SPREAD, TAG = "mpe/simple_spread_v3", "mpe/simple_tag_v3"
TRAININGS = [
    pytest.param("ppo", "CartPole-v1", TINY | {"num_seeds": 2}, id="ppo"),
    pytest.param(
        "mappo",
        SPREAD,
        AGENTS | {"network": "gru", "recurrent_size": 8, "num_minibatches": 2},
        id="mappo-gru",
        marks=pytest.mark.slow,
    ),
    pytest.param("qmix", SPREAD, AGENTS | {"replay_size": 16}, id="qmix", marks=pytest.mark.slow),
    pytest.param(
        "pqn_vdn",
        SPREAD,
        AGENTS | {"network": "mlp"},
        id="pqn_vdn",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "self_play",
        TAG,
        AGENTS | {"num_envs": 16, "total_steps": 16 * 8 * 6, "snapshot_interval": 2},
        id="self_play",
        marks=pytest.mark.slow,
    ),
]


def interrupt_after(rows):
    """A listener that ends training in its middle, as Ctrl-C does."""
    seen = []

    def listen(row):
        seen.append(row)
        if len(seen) == rows:
            signal.raise_signal(signal.SIGINT)

    return listen


def rows_of(run):
    """Its metrics without what the clock says."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "fps")
    return [
        {name: value for name, value in json.loads(line).items() if name not in timed}
        for line in lines
    ]


def last_of(run):
    return run.load_checkpoint()


def assert_equal(one, other):
    """Both runs ended with the same state and rows, bit by bit."""
    assert rows_of(one) == rows_of(other)
    mine, theirs = last_of(one), last_of(other)
    assert mine.step == theirs.step
    assert mine.arrays.keys() == theirs.arrays.keys()
    for name, array in mine.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name], err_msg=name)


@pytest.mark.parametrize(("algorithm", "env", "settings"), TRAININGS)
def test_a_run_that_goes_on_equals_one_that_never_stopped(algorithm, env, settings, tmp_path):
    whole = kw.train(algorithm, env, run_dir=tmp_path / "whole", **settings)
    path = tmp_path / "parts"
    stopped = kw.train(algorithm, env, run_dir=path, on_metrics=interrupt_after(2), **settings)
    assert stopped.interrupted
    step = last_of(stopped).step
    assert 0 < step < last_of(whole).step
    resumed = kw.train(algorithm, env, run_dir=path, resume=True)
    assert not resumed.interrupted
    assert resumed.path == path
    assert_equal(resumed, whole)
    events = read_events(path)
    assert [(event["event"], event["step"]) for event in events] == [("resumed", step)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a checkpoint after each fourth of its ten updates, and the one at the end."""
    path = tmp_path_factory.mktemp("runs") / "run"

    def wait_for_checkpoints(row):
        """Training waits for none: one that still waits for the disk gives way to the next."""
        due = set(range(256, row["step"], 256))
        deadline = time.monotonic() + 60
        while not due <= set(steps_of(path)) and time.monotonic() < deadline:
            time.sleep(0.01)

    return kw.train(
        "ppo",
        "CartPole-v1",
        run_dir=path,
        checkpoint_updates=4,
        keep_checkpoints=5,
        on_metrics=wait_for_checkpoints,
        **TINY,
    )


@pytest.fixture
def path(trained, tmp_path):
    """A copy of it that ended at its second checkpoint."""
    path = shutil.copytree(trained.path, tmp_path / "run")
    shutil.rmtree(path / "checkpoints" / "640")
    return path


def steps_of(path):
    return CheckpointStore(path / "checkpoints").steps()


def go_on(path, **settings):
    return kw.train("ppo", "CartPole-v1", run_dir=path, resume=True, **settings)


def test_rows_after_the_checkpoint_are_made_again_and_not_doubled(path, trained):
    assert steps_of(path) == [256, 512]
    assert len(rows_of(kw.load(path))) == 10
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    assert_equal(go_on(path), trained)


def test_a_listener_that_fails_ends_training_aloud_and_loses_nothing(path, trained):
    def fail(row):
        if row["step"] == 576:
            raise ConnectionError("the tracker is gone")

    with pytest.raises(ConnectionError, match="the tracker is gone"):
        go_on(path, on_metrics=fail)
    assert steps_of(path)[-1] == 576
    assert_equal(go_on(path), trained)


def test_a_damaged_checkpoint_is_passed_over_aloud(path, trained, capsys):
    state = path / "checkpoints" / "512" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[1000] ^= 1
    state.write_bytes(content)
    assert_equal(go_on(path), trained)
    said = capsys.readouterr().err
    assert "checkpoints/512' is damaged" in said
    assert "state.safetensors is not what was written: its sha256 is" in said
    assert "Trying the one before it" in said


def test_where_the_only_checkpoint_is_damaged_none_before_it_is_tried(path, capsys):
    shutil.rmtree(path / "checkpoints" / "256")
    (path / "checkpoints" / "512" / "manifest.json").write_text("{}")
    with pytest.raises(NoCheckpointError, match=r"all of \[512\] are damaged"):
        go_on(path)
    said = capsys.readouterr().err
    assert "checkpoints/512' is damaged" in said
    assert "Trying" not in said


def test_without_a_checkpoint_nothing_starts_from_scratch(path):
    shutil.rmtree(path / "checkpoints")
    before = (path / "metrics.jsonl").read_bytes()
    with pytest.raises(NoCheckpointError, match="holds no checkpoint"):
        go_on(path)
    assert (path / "metrics.jsonl").read_bytes() == before
    with pytest.raises(NoRunError, match="there is no run directory"):
        go_on(path / "nothing")
    with pytest.raises(InvalidValueError, match="run_dir: say which"):
        kw.train("ppo", "CartPole-v1", resume=True)


def test_nor_does_it_under_a_supervisor_that_saw_no_crash(path, monkeypatch):
    shutil.rmtree(path / "checkpoints")
    before = (path / "metrics.jsonl").read_bytes()
    line = Lifeline.create()
    monkeypatch.setattr(Lifeline, "given", lambda: line)
    monkeypatch.setattr("kiloworlds.training.train.die_with", lambda supervisor: None)
    with pytest.raises(NoCheckpointError, match="holds no checkpoint"):
        go_on(path)
    assert (path / "metrics.jsonl").read_bytes() == before
    line.close()


def test_a_run_that_has_all_its_steps_wants_more(trained):
    with pytest.raises(InvalidValueError, match=r"has all its 640 steps.*total_steps"):
        go_on(trained.path)


def test_a_run_may_become_longer(path, capsys):
    run = go_on(path, total_steps=1280)
    assert last_of(run).step == 1280
    assert run.config["total_steps"] == 1280
    assert "total_steps is 1280 from here on, instead of 640." in capsys.readouterr().err


def test_other_settings_are_refused_in_a_table(path):
    with pytest.raises(InvalidValueError) as caught:
        go_on(path, learning_rate=0.5, gamma=0.5, total_steps=1280)
    assert "\n  learning_rate: 0.002 in the run, 0.5 given" in str(caught.value)
    assert "\n  gamma: 0.98 in the run, 0.5 given" in str(caught.value)
    assert "total_steps" not in str(caught.value)


def test_other_settings_may_be_wanted(path, capsys):
    run = go_on(path, learning_rate=0.5, override=True)
    assert "kiloworlds: goes on from step 512." in capsys.readouterr().err
    assert read_events(path)[-1]["settings"] == {"learning_rate": [0.002, 0.5]}
    assert run.settings_at(511)["learning_rate"] == 0.002
    assert run.settings_at(512)["learning_rate"] == 0.5
    assert run.config["learning_rate"] == 0.5
    assert run.metrics["train/learning_rate"][-1, 0] == pytest.approx(0.5 * 0.1)


@pytest.mark.parametrize("settings", [{"hidden_sizes": (4,)}, {"num_seeds": 2}])
def test_another_network_is_refused_whatever_is_wanted(path, settings):
    before = (path / "config.yaml").read_text()
    (name,) = settings
    with pytest.raises(InvalidValueError, match=rf"\n  {name}: .* given\nLeave them out: what was"):
        go_on(path, override=True, **settings)
    with pytest.raises(InvalidValueError, match="has all its 512 steps"):
        go_on(path, total_steps=64)
    assert (path / "config.yaml").read_text() == before  # settings that failed are not kept
    assert steps_of(path) == [256, 512]


@pytest.mark.parametrize("num_envs", [8, pytest.param(2, marks=pytest.mark.slow)])
def test_the_number_of_environments_may_change(path, num_envs, capsys):
    before = kw.load(path).load_checkpoint()
    run = go_on(path, num_envs=num_envs)
    said = capsys.readouterr().err
    if num_envs == 8:
        assert "4 environments start, beside 4 that go on." in said
    else:
        assert "2 of 4 environments are left out; 2 go on." in said
    after = last_of(run)
    assert after.step == 640
    assert after.arrays["state/environments/keys"].shape[1] == num_envs
    kept = min(num_envs, 4)
    np.testing.assert_array_equal(
        after.arrays["state/environments/keys"][:, :kept],
        before.arrays["state/environments/keys"][:, :kept],
    )
    assert (np.diff(run.metrics["step"]) > 0).all()


def test_a_run_that_is_being_trained_is_left_alone(path, monkeypatch):
    def listen(row):
        with pytest.raises(RunDirectoryError, match="is being trained by another process"):
            go_on(path)
        refused.append(row)

    refused = []
    kw.train("ppo", "CartPole-v1", run_dir=path, resume=True, on_metrics=listen)
    assert refused


def test_policies_of_other_checkpoints(trained):
    newest, middle = kw.load(trained.path), kw.load(trained.path, checkpoint=256)
    best = kw.load(trained.path, checkpoint="best")
    assert newest.load_checkpoint().step == 640
    assert middle.load_checkpoint().step == 256
    returns = {step: _score(trained, step) for step in (256, 512, 640)}
    assert returns[best.load_checkpoint().step] == max(returns.values())
    parameters = [np.asarray(run.policy._states.parameters) for run in (newest, middle)]
    assert not np.array_equal(*parameters)
    with pytest.raises(NoCheckpointError, match=r"no checkpoint of step 3; .* 256, 512, 640"):
        kw.load(trained.path, checkpoint=3).policy  # noqa: B018
    with pytest.raises(InvalidValueError, match="checkpoint='worst' must be"):
        kw.load(trained.path, checkpoint="worst")


def _score(run, step):
    return run.metrics["rollout/ep_rew_mean"][run.metrics["step"] == step][0, 0]


def test_a_checkpoint_that_was_asked_for_is_that_one_or_none(path):
    (path / "checkpoints" / "512" / "manifest.json").write_text("{}")
    assert kw.load(path).load_checkpoint().step == 256
    with pytest.raises(RunDirectoryError, match="checkpoints/512' is damaged"):
        kw.load(path, checkpoint=512).policy  # noqa: B018


def test_environments_outside_xla_start_new_episodes_and_say_so(tmp_path, capsys):
    settings = TINY | {"backend": "sync"}
    listen = interrupt_after(3)
    path = tmp_path / "run"
    stopped = kw.train("ppo", "CartPole-v1", run_dir=path, on_metrics=listen, **settings)
    learner = last_of(stopped).arrays
    run = kw.train("ppo", "CartPole-v1", run_dir=path, resume=True)
    assert "have not saved their states: 4 episodes start over" in capsys.readouterr().err
    assert last_of(run).step == 640
    assert run.metrics["step"].tolist() == list(range(64, 641, 64))
    name = "state/learner/parameters"
    assert not np.array_equal(learner[name], last_of(run).arrays[name])


RESHAPE = """
import signal, sys
import jax
import numpy as np
jax.config.update("jax_num_cpu_devices", 8)
jax.devices()
import kiloworlds as kw
from kiloworlds.training.storage.arrays import part
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.make_training import make_training

def stop(row):
    if row["step"] >= 4 * 128:
        signal.raise_signal(signal.SIGINT)

settings = dict(num_envs=8, num_steps=16, num_minibatches=2, total_steps=10 * 128, hidden_sizes=(8,))
path = sys.argv[1]
run = kw.train("ppo", "CartPole-v1", run_dir=path, devices=8, on_metrics=stop, **settings)
saved = part(run.load_checkpoint().arrays, "state/")
for devices in (1, 2, 4):
    training = make_training(TrainConfig.from_dict(run.config | {"devices": devices}))
    state, updates = training.restore(saved, print)
    assert updates == 4
    for name, array in training.save(state).items():
        np.testing.assert_array_equal(array, saved[name], err_msg=name)
run = kw.train("ppo", "CartPole-v1", run_dir=path, devices=2, resume=True)
assert run.steps == 1280
"""


@pytest.mark.slow
def test_a_run_of_eight_devices_goes_on_on_fewer(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RESHAPE, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "devices is 2 from here on, instead of 8." in done.stderr
