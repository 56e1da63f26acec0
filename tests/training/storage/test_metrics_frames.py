import builtins
import json

import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, UnknownNameError
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.run import Run
from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.metrics import Metrics
from kiloworlds.training.storage.metrics_file import read_metrics


@pytest.fixture
def metrics():
    return Metrics(
        {
            "step": np.array([64, 128]),
            "fps": np.array([np.nan, 100.0]),
            "rollout/ep_rew_mean": np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]]),
            "seconds": np.array([0.5, 1.0]),
        }
    )


def test_it_is_a_mapping_of_arrays(metrics):
    assert list(metrics) == ["step", "fps", "rollout/ep_rew_mean", "seconds"]
    assert len(metrics) == 4
    assert metrics["rollout/ep_rew_mean"].shape == (2, 3)
    assert "step" in metrics
    assert "steps" not in metrics
    assert metrics.get("steps", 3) == 3
    assert dict(metrics).keys() == metrics.keys()


def test_it_says_what_it_holds(metrics):
    assert repr(metrics) == (
        "Metrics of 2 rows and 3 seeds: step, fps, rollout/ep_rew_mean, seconds"
    )
    assert repr(Metrics({})) == "Metrics of 0 rows and 1 seed: none"


def test_an_unknown_metric_is_named_with_its_neighbours(metrics):
    with pytest.raises(
        UnknownNameError, match=r"'ep_rew_mean'\. Did you mean 'rollout/ep_rew_mean'"
    ):
        metrics["ep_rew_mean"]
    with pytest.raises(KeyError):
        metrics["nothing"]


def rows_of(frame):
    """Plain rows; None where nothing is."""
    return [
        {name: None if value != value else value for name, value in row.items()} for row in frame
    ]


EXPECTED = [
    {"step": step, "seconds": seconds, "seed": seed, "fps": fps, "rollout/ep_rew_mean": value}
    for step, seconds, fps, values in ((64, 0.5, None, (1, None, 3)), (128, 1.0, 100, (4, 5, 6)))
    for seed, value in enumerate(values)
]


def test_pandas(metrics):
    frame = metrics.to_pandas()
    assert list(frame.columns) == ["step", "seconds", "seed", "fps", "rollout/ep_rew_mean"]
    assert rows_of(frame.to_dict("records")) == EXPECTED
    assert frame["step"].dtype.kind == frame["seed"].dtype.kind == "i"


def test_polars(metrics):
    frame = metrics.to_polars()
    assert frame.columns == ["step", "seconds", "seed", "fps", "rollout/ep_rew_mean"]
    assert rows_of(frame.to_dicts()) == EXPECTED
    assert frame["rollout/ep_rew_mean"].mean() == pytest.approx((1 + 3 + 4 + 5 + 6) / 5)


def test_one_seed_and_none(metrics):
    one = Metrics({"step": np.array([1]), "seconds": np.array([0.1]), "a": np.array([[2.0]])})
    assert one.to_pandas().to_dict("records") == [{"step": 1, "seconds": 0.1, "seed": 0, "a": 2.0}]
    assert len(Metrics({}).to_pandas()) == 0
    assert len(Metrics({}).to_polars()) == 0


def test_values_of_no_common_seeds_are_refused():
    metrics = Metrics({"a": np.ones((2, 3)), "b": np.ones((2, 2))})
    with pytest.raises(InvalidValueError, match="'b' has 2 values a row, and other metrics have 3"):
        metrics.to_pandas()


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_missing_package_comes_with_the_command_that_installs_it(metrics, monkeypatch, package):
    known = builtins.__import__

    def lacking(name, *arguments, **named):
        if name == package:
            raise ImportError(name)
        return known(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        getattr(metrics, f"to_{package}")()


ROWS = [json.dumps({"step": step, "seconds": step / 8, "a": [1.0, None]}) for step in (1, 2, 3, 4)]


def read(folder, content):
    (folder / "metrics.jsonl").write_bytes(content)
    said = []
    return read_metrics(folder, said.append).get("step", np.zeros(0)).tolist(), said


def test_a_whole_file_and_a_torn_last_line_are_no_damage(tmp_path):
    whole = "\n".join(ROWS) + "\n"
    assert read(tmp_path, whole.encode()) == ([1, 2, 3, 4], [])
    assert read(tmp_path, whole[:-8].encode()) == ([1, 2, 3], [])
    assert read(tmp_path, whole[:-1].encode()) == ([1, 2, 3, 4], [])
    assert read(tmp_path, b"") == ([], [])


@pytest.mark.parametrize(
    "line",
    [
        *("{", "5", "\x00\x00", "\u2028", '{"step": 9}', ""),
        '{"step": 2, "a": [1.0, 2.0]}',
        '{"step": 2, "seconds": 1.0, "a": [1e300, 2.0]}',
        '{"step": 2, "seconds": 1.0, "a": ["1.0", 2.0]}',
        '{"step": [2], "seconds": 1.0, "a": [1.0, 2.0]}',
        '{"step": null, "seconds": 1.0, "a": [1.0, 2.0]}',
        '{"step": 2, "seconds": NaN, "a": [1.0, 2.0]}',
    ],
)
def test_a_damaged_line_is_said_with_what_is_left_out(tmp_path, line):
    lines = [ROWS[0], line, *ROWS[2:], ""]
    steps, (words,) = read(tmp_path, "\n".join(lines).encode())
    assert steps == [1]
    assert words == (
        f"'{tmp_path}/metrics.jsonl' is damaged in line 2: metrics end before it, and 3 lines are "
        "left out."
    )


@pytest.mark.parametrize("content", [b"\xff\xfe\x00" * 9, b"\xef\xbb\xbf{}", b"[" * 9, b"[1]"])
def test_what_holds_no_row_is_damaged_and_not_torn(tmp_path, content):
    steps, (words,) = read(tmp_path, content)
    assert steps == []
    assert "in line 1: metrics end before it, and 1 line is left out" in words
    assert read(tmp_path, ROWS[0][:9].encode()) == ([], [])  # as a kill leaves it


def test_a_damaged_last_line_is_said(tmp_path):
    steps, (words,) = read(tmp_path, "\n".join([*ROWS, "{", ""]).encode())
    assert steps == [1, 2, 3, 4]
    assert "in line 5: metrics end before it, and 1 line is left out" in words


def test_a_run_says_it_once_on_standard_error_or_to_whom_one_likes(tmp_path, monkeypatch, capsys):
    config = TrainConfig("ppo", "CartPole-v1", num_seeds=2).as_dict()
    monkeypatch.setattr("kiloworlds.training.run._read_config", lambda file: config)
    (tmp_path / "metrics.jsonl").write_text(f"{ROWS[0]}\n{{\n{ROWS[1]}\n")
    run = Run(tmp_path)
    assert run.metrics["step"].tolist() == [1]
    assert run.metrics["step"].tolist() == [1]
    assert capsys.readouterr().err.count("is damaged in line 2") == 1
    said = []
    assert isinstance(run.read_metrics(said.append), Metrics)
    assert len(said) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "has metrics of 2 values a row, and its config.yaml tells of 1 seed"),
        ({"num_seeds": 10**9}, "tells of 1000000000 seeds"),
        ({"num_seeds": 2, "population": {"gamma": [0.9, 0.8]}}, "tells of 2 x 2 trainings"),
    ],
)
def test_metrics_of_another_run_are_refused(tmp_path, monkeypatch, settings, words):
    config = TrainConfig("ppo", "CartPole-v1", **settings).as_dict()
    monkeypatch.setattr("kiloworlds.training.run._read_config", lambda file: config)
    (tmp_path / "metrics.jsonl").write_text("\n".join(ROWS))
    with pytest.raises(RunDirectoryError, match=words):
        Run(tmp_path).metrics  # noqa: B018


@pytest.mark.parametrize("step", [2, 1, -1, 0, None, float("nan"), 10**400])
def test_rows_whose_steps_do_not_rise_are_damage(tmp_path, step):
    lines = [json.dumps({"step": number, "seconds": 0.5}) for number in (1, 2, step, 4)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    said = []
    assert read_metrics(tmp_path, said.append)["step"].tolist() == [1, 2]
    assert "damaged in line 3: metrics end before it, and 2 lines are left out" in said[0]
