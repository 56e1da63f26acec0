"""Whole trainings that are logged, to trackers that stand for others and to real ones."""

import json
import shutil
import sqlite3
import struct
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_settings import TINY

import kiloworlds as kw
from kiloworlds.core.errors import MissingDependencyError
from kiloworlds.training.loggers import known
from kiloworlds.training.storage.run_files import RunFiles

RETURN = "rollout/ep_rew_mean"
SETTINGS = TINY | {"num_seeds": 2, "checkpoint_updates": 4, "keep_checkpoints": 5}


def train(path, **more):
    return kw.train("ppo", "CartPole-v1", run_dir=path, **SETTINGS | more)


def go_on_from_an_earlier_checkpoint(run):
    """Resumes a run that was killed after it had written more rows than its checkpoint knows of."""
    *_, _, last = sorted(run.checkpoints.steps())
    shutil.rmtree(run.path / "checkpoints" / str(last))
    assert run.metrics["step"][-1] > max(run.checkpoints.steps())
    return train(run.path, resume=True)


def scalars(run, folder="tensorboard/mean", tag=RETURN):
    events = EventAccumulator(str(run.path / folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def column(run, seed=None):
    """What a tracker should have of the return."""
    values = run.metrics[RETURN]
    values = np.nanmean(values, axis=1) if seed is None else values[:, seed]
    steps = run.metrics["step"].tolist()
    return [(s, pytest.approx(x)) for s, x in zip(steps, values, strict=True) if np.isfinite(x)]


def test_tensorboard_has_what_the_run_has(tmp_path, capsys):
    run = train(tmp_path / "run", log="tensorboard")
    assert scalars(run) == column(run)
    assert scalars(run, "tensorboard/seed_1") == column(run, 1)
    steps = [step for step, _ in scalars(run, tag="time/total_timesteps")]
    assert steps == run.metrics["step"].tolist()
    assert f"tensorboard --logdir {run.path}" in capsys.readouterr().err
    assert not (run.path / "loggers").exists()  # nothing went wrong


def test_a_run_that_goes_on_goes_on_there_without_overlap(tmp_path):
    run = go_on_from_an_earlier_checkpoint(train(tmp_path / "run", log="tensorboard"))
    assert scalars(run) == column(run)
    assert scalars(run, "tensorboard/seed_0") == column(run, 0)
    assert len(list((run.path / "tensorboard" / "mean").glob("events*"))) == 2


def test_what_was_chosen_is_no_setting_and_can_be_changed(tmp_path):
    run = train(tmp_path / "run", total_steps=320)
    assert not (run.path / "loggers.json").exists()
    run = train(run.path, resume=True, log=["tensorboard"])
    assert scalars(run) == column(run)  # the rows from before too
    run = train(run.path, resume=True, total_steps=960, log=())
    assert run.metrics["step"][-1] == 960
    assert scalars(run)[-1][0] == 640
    run = train(run.path, resume=True, total_steps=1280)
    assert scalars(run)[-1][0] == 640
    assert "tensorboard" not in (run.path / "config.yaml").read_text()


def test_training_is_the_same_whatever_becomes_of_the_tracker(tmp_path, tracker, capsys):
    plain = train(tmp_path / "plain")
    for failure in ("raise in init", "die in log", "raise in finish", "hang in log"):
        tracker.install(failure)
        began = time.monotonic()
        run = train(tmp_path / failure, log="wandb")
        took = time.monotonic() - began - run.metrics["seconds"][-1]
        assert took < 10 + 5  # to compile and to save, beside the tracker
        err = capsys.readouterr().err
        assert err.count("the logger wandb") == 1, err
        for name, values in plain.metrics.items():
            if name not in ("seconds", "fps"):
                np.testing.assert_array_equal(run.metrics[name], values, err_msg=name)


def test_a_deleted_folder_of_tensorboard_is_said_once(tmp_path, capsys):
    path = tmp_path / "run"

    def delete(row):
        if row["step"] == 128:
            until = time.monotonic() + 30
            while not list(path.glob("tensorboard/seed_1/events*")) and time.monotonic() < until:
                time.sleep(0.05)
            shutil.rmtree(path / "tensorboard")

    run = train(path, log="tensorboard", on_metrics=delete)
    err = capsys.readouterr().err
    assert err.count("the logger tensorboard failed") == 1
    assert "was deleted" in err
    assert run.metrics["step"].tolist() == list(range(64, 641, 64))


def test_a_deleted_run_directory_gets_its_choice_of_loggers_again(tmp_path, capsys):
    path = tmp_path / "run"

    def delete(row):
        if row["step"] == 128:
            shutil.rmtree(path)

    run = train(path, log="tensorboard", on_metrics=delete)
    assert run.metrics["step"].tolist() == list(range(64, 641, 64))
    assert json.loads((path / "loggers.json").read_text())["names"] == ["tensorboard"]
    capsys.readouterr()
    run = train(path, resume=True, total_steps=704)
    assert scalars(run) == column(run)


def test_a_missing_tracker_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(known.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "kiloworlds\[wandb\]"'):
        train(tmp_path / "run", log="wandb")
    assert not (tmp_path / "run").exists()


def test_a_row_that_cannot_be_written_locally_is_logged(tmp_path, monkeypatch, tracker):
    def full(self, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"{RunFiles.__module__}.MetricsFile.write", full)
    train(tmp_path / "run", log="wandb")
    assert tracker.steps == list(range(64, 641, 64))


def records_of_wandb(file):
    """The records of a file of Weights & Biases': a log as LevelDB has it, in blocks of 32 KiB."""
    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its end
            yield record
            record = b""


def test_real_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = go_on_from_an_earlier_checkpoint(train(tmp_path / "run", log="wandb"))
    logged = []
    for file in sorted(run.path.glob("wandb/offline-run-*/*.wandb")):
        for data in records_of_wandb(file):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {i.key or "/".join(i.nested_key): i for i in record.history.item}
                value = items.get(f"{RETURN}/seed_1")
                if value is not None:
                    logged.append((record.history.step.num, json.loads(value.value_json)))
    assert logged == column(run, 1)


@pytest.mark.filterwarnings("ignore")  # its own, of libraries beneath it
def test_real_mlflow_in_a_file(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow.MlflowClient(uri)
    # Tables are made now: that takes longer than this training, after which nobody waits for it.
    experiment = client.create_experiment("kiloworlds")
    run = go_on_from_an_earlier_checkpoint(train(tmp_path / "run", log="mlflow"))
    (known_run,) = client.search_runs([experiment])
    assert known_run.info.status == "FINISHED"
    assert known_run.data.params["env_id"] == "CartPole-v1"
    history = client.get_metric_history(known_run.info.run_id, f"{RETURN}/seed_1")
    assert [(metric.step, metric.value) for metric in history] == column(run, 1)


def test_real_trackio(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = go_on_from_an_earlier_checkpoint(train(tmp_path / "run", log="trackio"))
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    database.close()
    name = f"{RETURN}/seed_1"
    values = [(step, json.loads(metrics).get(name)) for step, metrics in rows]
    assert [(step, value) for step, value in values if value is not None] == column(run, 1)
