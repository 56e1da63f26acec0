import numpy as np
import pytest

from kiloworlds.core.checks import (
    require_choice,
    require_count,
    require_flag,
    require_number,
    require_positive,
)
from kiloworlds.core.errors import InvalidValueError


@pytest.mark.parametrize("value", [0, 0.25, 1, np.float32(0.5), np.int8(1)])
def test_numbers_in_range(value):
    require_number("gamma", value, 0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (1.5, {}, "gamma=1.5 must be a number between 0.0 and 1.0; the nearest valid value is 1."),
        (np.float64(-1), {}, "gamma=.*-1.* must be a number .*; the nearest valid value is 0."),
        (float("nan"), {}, "gamma=nan must be a number between 0.0 and 1.0."),
        ("1", {}, "gamma='1' must be a number between 0.0 and 1.0."),
        (True, {}, "gamma=True must be a number between 0.0 and 1.0."),
        (
            2.4,
            {"low": 1, "high": 3, "whole": True},
            "a whole number .*; the nearest valid value is 2.",
        ),
        (0, {"low": 1, "high": None, "whole": True}, "of 1 or more; the nearest valid value is 1."),
        (2**40, {"high": None, "whole": True}, "nearest valid value is 2147483647."),
        (float("inf"), {"high": None}, "the nearest valid value is 3.40282e\\+38."),
    ],
)
def test_numbers_out_of_range(value, options, message):
    with pytest.raises(InvalidValueError, match=f"^gamma=.*{message.removeprefix('gamma=')}$"):
        require_number("gamma", value, **({"low": 0.0, "high": 1.0} | options))


def test_counts():
    assert require_count("batch_size", np.int64(3), 4, "num_envs") == 3
    assert type(require_count("num_envs", np.uint8(3))) is int
    for value in (0, 1.0, "3", None, True):
        with pytest.raises(InvalidValueError, match="must be a whole number of 1 or more"):
            require_count("num_envs", value)
    with pytest.raises(InvalidValueError, match=r"batch_size=5 is more than num_envs=4; .* is 4"):
        require_count("batch_size", 5, 4, "num_envs")


def test_positive_numbers():
    require_positive("step_timeout", float("inf"), "seconds", "60")
    for value in (0, -1.0, float("nan"), "60", True):
        with pytest.raises(InvalidValueError, match="must be seconds above 0, such as 60, or None"):
            require_positive("step_timeout", value, "seconds", "60")


def test_flags():
    require_flag("copy", True)
    require_flag("ordered", np.False_)
    require_flag("episode_statistics", "environment", "environment")
    with pytest.raises(InvalidValueError, match="ordered=1 must be True or False"):
        require_flag("ordered", 1)
    with pytest.raises(
        InvalidValueError, match="episode_statistics='no' must be True, 'environment' or False"
    ):
        require_flag("episode_statistics", "no", "environment")


def test_choices():
    require_choice("on_error", "raise", ("raise", "restart"))
    for value in ("rise", np.array([1, 2]), None, 1):
        with pytest.raises(InvalidValueError, match="is not one of 'raise', 'restart'"):
            require_choice("on_error", value, ("raise", "restart"))
    with pytest.raises(InvalidValueError, match="Did you mean 'raise'"):
        require_choice("on_error", "rise", ("raise", "restart"))
