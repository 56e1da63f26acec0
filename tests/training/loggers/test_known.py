import subprocess
import sys

import pytest

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, UnknownNameError
from kiloworlds.training.loggers import known
from kiloworlds.training.loggers.known import TRACKERS, check_loggers, make_logger


def test_names_are_taken_once_and_one_may_come_alone():
    assert check_loggers(("tensorboard", "tensorboard")) == ("tensorboard",)
    assert check_loggers("tensorboard") == ("tensorboard",)
    assert check_loggers(()) == ()


def test_an_unknown_logger_is_named_with_its_neighbours():
    with pytest.raises(UnknownNameError, match=r"'tensorbord'\. Did you mean 'tensorboard'"):
        check_loggers(["tensorbord"])


@pytest.mark.parametrize("log", [3, [3], {"tensorboard": 1}])
def test_what_is_no_name_is_refused(log):
    with pytest.raises(InvalidValueError, match=r"log=.*tensorboard, wandb, mlflow, trackio"):
        check_loggers(log)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_missing_package_comes_with_the_command_that_installs_it(name, monkeypatch):
    monkeypatch.setattr(known.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(MissingDependencyError, match=rf'pip install "kiloworlds\[{name}\]"'):
        check_loggers([name])


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "kiloworlds_nothing").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TRACKERS, "wandb", known.Tracker("", "kiloworlds_nothing", "it"))
    with pytest.raises(MissingDependencyError, match='pip install "it"'):
        check_loggers(["wandb"])


@pytest.mark.parametrize("name", TRACKERS)
def test_each_logger_is_made_by_its_name(name):
    logger = make_logger(name)
    assert all(callable(getattr(logger, method)) for method in ("start", "log", "close"))


def test_trackers_are_not_imported_where_training_is():
    words = (
        "import sys, kiloworlds.training.train, kiloworlds.cli.train; "
        "print(sorted({'tensorboardX', 'google.protobuf', 'wandb', 'mlflow', 'trackio', 'pandas', "
        "'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
