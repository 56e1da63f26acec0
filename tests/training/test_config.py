import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.training.config import TrainConfig, build_config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seed": 1.5}, r"seed=1\.5 must be a whole number.*nearest valid value is 2"),
        ({"seed": True}, "seed=True"),
        ({"seed": "1"}, "seed='1'"),
        ({"seed": 2**32}, "seed=4294967296.*between 0 and 4294967294"),
        ({"seed": -1}, "nearest valid value is 0"),
        ({"total_steps": True}, "total_steps=True"),
        ({"total_steps": 10**400}, r"total_steps=1000.*\.\.\.0+ must be.*between 1 and"),
        ({"num_steps": 10**400}, "nearest valid value is 2147483647"),
        ({"devices": 0}, "devices=0"),
        ({"normalize_advantage": "no"}, "normalize_advantage='no' must be True or False"),
        ({"anneal_learning_rate": 1}, "anneal_learning_rate=1 must be True or False"),
        ({"hidden_sizes": 64}, "hidden_sizes=64 must be a tuple"),
        ({"hidden_sizes": "64"}, "hidden_sizes='64' must be a tuple"),
        ({"hidden_sizes": (64, 1.5)}, r"hidden_sizes=1\.5 must be a whole number"),
        ({"activation": 3}, "activation=3 must be a name"),
        ({"initial_log_std": "x"}, "initial_log_std='x' must be a number"),
        ({"initial_log_std": float("nan")}, "initial_log_std=nan"),
        ({"learning_rate": float("inf")}, "learning_rate=inf must be a number between"),
        ({"learning_rate": 10**400}, "learning_rate=1000"),
        ({"gamma": float("inf")}, "nearest valid value is 1"),
        ({"learning_rate": 1j}, "learning_rate=1j must be a number"),
        ({"env_kwargs": [1]}, r"env_kwargs=\[1\]"),
        ({"env_kwargs": {1: 2}}, "env_kwargs={1: 2}"),
    ],
)
def test_wrong_values_are_named(overrides, message):
    with pytest.raises(InvalidValueError, match=message):
        build_config("ppo", "CartPole-v1", overrides)


def test_numbers_of_numpy_are_numbers():
    overrides = {"seed": np.int64(3), "gamma": np.float32(0.5), "normalize_rewards": np.True_}
    config = build_config("ppo", "CartPole-v1", overrides)
    assert (config.seed, config.settings.gamma, config.settings.normalize_rewards) == (3, 0.5, True)


@pytest.mark.parametrize("values", [{}, {"algorithm": [1], "env_id": "CartPole-v1"}])
def test_values_without_an_algorithm_are_refused(values):
    with pytest.raises((InvalidValueError, UnknownNameError)):
        TrainConfig.from_dict(values)


class Unregistered:
    """An environment that has no id."""


def test_class_instead_of_an_id_is_told_the_string_that_works():
    with pytest.raises(InvalidValueError, match=f"not the class .* as '{__name__}:Unregistered'"):
        build_config("ppo", Unregistered, {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidValueError, match=r"not function, .* as 'my_file:MyEnv'"):
        build_config("ppo", lambda: Unregistered(), {})  # pyright: ignore[reportArgumentType]


def test_parameter_of_the_environment_as_a_setting_is_told_where_it_goes():
    with pytest.raises(UnknownNameError, match=r"'length'.* goes into env_kwargs=\{'length': "):
        build_config("ppo", "CartPole-v1", {"length": 3})
