import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import yaml
from training_settings import TINY

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training import run as run_module
from kiloworlds.training.config import build_config
from kiloworlds.training.run_errors import NoRunError, RunDirectoryError
from kiloworlds.training.storage.metrics_file import read_metrics
from kiloworlds.training.storage.run_directory import create_run_directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return kw.train("ppo", "CartPole-v1", run_dir=tmp_path_factory.mktemp("runs") / "run", **TINY)


@pytest.fixture
def path(trained, tmp_path):
    """A copy of a run, to be damaged."""
    return shutil.copytree(trained.path, tmp_path / "run")


@pytest.fixture
def config():
    return build_config("ppo", "CartPole-v1", TINY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"env_id: [", "ParserError"),
        (b"env_id: \xff\xfe", "UnicodeDecodeError"),
        (b"", "no names and values"),
        (b"env_id: CartPole-v1", "lacks algorithm, env_kwargs, num_envs, backend"),
        (b"env_id: 2024-13-45", "month must be in"),
        (b"env_kwargs: &a {x: *a}", "lacks"),
    ],
)
def test_a_damaged_config_is_named(path, content, message):
    (path / "config.yaml").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=rf"config\.yaml' is damaged.*{message}"):
        kw.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "abc"}, "seed='abc' must be a whole number"),
        ({"env_kwargs": [1]}, r"env_kwargs=\[1\] must map names"),
        ({"env_kwargs": {1: 2}}, "env_kwargs={1: 2} must map names"),
        ({"env_id": [1]}, "the id of an environment, not list"),
        ({"algorithm": [1]}, "Unknown algorithm"),
        ({3: 4}, "Unknown setting '3'"),
    ],
)
def test_a_wrong_setting_in_the_config_is_named(path, change, message):
    values = yaml.safe_load((path / "config.yaml").read_text()) | change
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(RunDirectoryError, match=rf"config\.yaml.*{message}"):
        kw.load(path)


def test_a_setting_newer_than_the_run_has_its_default(path):
    values = yaml.safe_load((path / "config.yaml").read_text())
    del values["devices"]
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    assert kw.load(path).config["devices"] is None


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b"\xff"])
def test_a_damaged_environment_is_named(path, content):
    (path / "environment.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"environment\.json' is damaged"):
        kw.load(path).evaluate(episodes=1)


def _checkpoint(path):
    (checkpoint,) = (path / "checkpoints").iterdir()
    return checkpoint


def test_strange_entries_do_not_hide_the_checkpoint(path):
    _checkpoint(path)
    for name in ("²", "99999", "99998.tmp"):
        (path / "checkpoints" / name).mkdir()
    (path / "checkpoints" / "99997").write_text("a file")
    assert kw.load(path).policy.num_seeds == 1


def test_a_run_without_a_checkpoint_says_so(path):
    shutil.rmtree(_checkpoint(path))
    (path / "checkpoints" / "640").mkdir()
    with pytest.raises(RunDirectoryError, match="holds no checkpoint"):
        kw.load(path).policy  # noqa: B018


@pytest.mark.parametrize(
    "line",
    [b"5", b'{"step": 9}', b'"x"', b"{}", b"\xff\xfe", b"[" * 100_000, b"9" * 5000],
)
def test_metrics_end_before_a_line_that_is_no_row(path, line):
    whole = read_metrics(path)["step"]
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    np.testing.assert_array_equal(read_metrics(path)["step"], whole)


def test_a_row_of_other_lengths_ends_the_metrics(tmp_path):
    values = enumerate([[1, 2], [1, None], [1], [1, 2]])
    rows = [{"step": step, "seconds": step / 8, "a": pair} for step, pair in values]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.testing.assert_array_equal(read_metrics(tmp_path)["a"], [[1, 2], [1, np.nan]])


def test_metrics_are_numbers(trained):
    metrics = trained.metrics
    assert metrics["fps"].dtype == float
    assert np.isnan(metrics["fps"][0])
    assert metrics["step"].dtype.kind == "i"


def test_missing_metrics_are_named(path):
    (path / "metrics.jsonl").unlink()
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl' is missing\.$"):
        kw.load(path).metrics  # noqa: B018


def test_the_current_directory_may_hold_a_run_or_not(tmp_path, monkeypatch, config):
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert create_run_directory(config, ".").resolve() == here
    assert create_run_directory(config, ".") == tmp_path / "here_1"
    monkeypatch.chdir(here / "sub")
    assert create_run_directory(config, "..") == tmp_path / "here_2"


@pytest.mark.parametrize("run_dir", ["", 3])
def test_what_is_no_directory_name_is_refused(run_dir, config):
    with pytest.raises(InvalidValueError, match="run_dir="):
        create_run_directory(config, run_dir)


def test_a_file_is_no_run_directory(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="file' is a file"):
        create_run_directory(config, tmp_path / "file")
    with pytest.raises(RunDirectoryError, match="null"):
        create_run_directory(config, "a\0b")


def test_runs_near_a_wrong_path_are_named_two_levels_down(tmp_path):
    for folder in ("a", "b/c", "d/e/f"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "environment.json").touch()
    with pytest.raises(NoRunError) as error:
        kw.load(tmp_path / "nothing")
    assert str(tmp_path / "a") in str(error.value)
    assert str(tmp_path / "b/c") in str(error.value)
    assert "d/e" not in str(error.value)


def test_the_search_for_runs_is_bounded(tmp_path, monkeypatch):
    for index in range(20):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "environment.json").touch()
    monkeypatch.setattr(run_module, "_NEARBY_ENTRIES", 4)
    with pytest.raises(NoRunError) as error:
        kw.load(tmp_path)
    assert str(error.value).count(f"{tmp_path}/") == 2  # a folder and its file each


def test_a_path_too_long_is_no_run():
    with pytest.raises(NoRunError, match="no run directory"):
        kw.load("x" * 5000)


MODULE = """
import kiloworlds as kw
from kiloworlds.envs.classic.cartpole import CartPole

kw.register("Own-v0", CartPole, max_episode_steps=50)
"""


def test_loading_a_run_imports_no_module(tmp_path, monkeypatch):
    (tmp_path / "own_environment.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    run = kw.train("ppo", "own_environment:Own-v0", run_dir=tmp_path / "run", **TINY)
    assert run.evaluate(episodes=1).episodes == 1
    module = sys.modules.pop("own_environment")
    loaded = kw.load(run.path)
    for use in (lambda: loaded.policy, lambda: loaded.make_envs(1)):
        with pytest.raises(InvalidValueError, match="--import own_environment"):
            use()
    assert "own_environment" not in sys.modules
    monkeypatch.setitem(sys.modules, "own_environment", module)
    assert loaded.evaluate(episodes=1).episodes == 1


def _edited(run, **changes):
    """The run with other settings, as somebody might send it."""
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    (run.path / "config.yaml").write_text(yaml.safe_dump(config | changes))
    return kw.load(run.path)


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("os:system", "neither an environment class nor a function"),  # it is posix's
        ("subprocess:getoutput", "function of installed code.*--import subprocess"),
        ("own_world:os.system", "neither an environment class nor a function of 'own_world'"),
        ("own_world:shell", "neither an environment class nor a function of 'own_world'"),
    ],
)
def test_a_stored_run_calls_nothing_but_environments(tmp_path, monkeypatch, env_id, words):
    (tmp_path / "own_world.py").write_text("import os\nfrom subprocess import getoutput as shell\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_world")
    trace = tmp_path / "trace"
    run = kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", **TINY)
    word = "command" if env_id == "os:system" else "cmd"
    loaded = _edited(run, env_id=env_id, env_kwargs={word: f"touch {trace}"}, backend="sync")
    for use in (lambda: loaded.policy, lambda: loaded.make_envs(1)):
        with pytest.raises(InvalidValueError, match=words):
            use()
    assert not trace.exists()
    del sys.modules["own_world"]


def test_a_stored_run_changes_no_search_path(tmp_path):
    (tmp_path / "os.py").write_text("raise SystemExit\n")
    run = kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", **TINY)
    loaded = _edited(run, env_id=f"{tmp_path}/os.py:Foo", backend="sync")
    with pytest.raises(InvalidValueError, match="--import"):
        _ = loaded.policy
    assert str(tmp_path) not in sys.path
