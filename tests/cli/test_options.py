import json

import numpy as np
import pytest

from kiloworlds.cli.options import parse_value, print_json, split_env_flags, whole_number


@pytest.mark.parametrize(
    ("word", "value"), [("500", 500), ("500_000", 500_000), ("5e5", 500_000), ("-3", -3)]
)
def test_whole_numbers(word, value):
    assert whole_number(word) == value
    assert isinstance(whole_number(word), int)


@pytest.mark.parametrize("word", ["5.5", "many", "inf", "nan", ""])
def test_what_is_no_whole_number(word):
    with pytest.raises(ValueError, match=r"whole number|convert"):
        whole_number(word)


def test_environment_flags_are_taken_out():
    rest, settings = split_env_flags(
        ["ppo", "--env.length", "-0.7", "--seed", "3", "--env.is-slippery=false", "--env.name=abc"]
    )
    assert rest == ["ppo", "--seed", "3"]
    assert settings == {"length": -0.7, "is_slippery": False, "name": "abc"}


def test_exponents_are_numbers():
    assert parse_value("1e-3") == 0.001


def test_json_has_no_nan(capsys):
    print_json({"array": np.array([1.0, np.nan]), "scalar": np.float32(2), "text": "a"})
    assert json.loads(capsys.readouterr().out) == {"array": [1.0, None], "scalar": 2.0, "text": "a"}
