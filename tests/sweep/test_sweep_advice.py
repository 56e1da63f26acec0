from pathlib import Path

import pytest

from kiloworlds.sweep.advice import caveats, recommended
from kiloworlds.sweep.outcome import Outcome
from kiloworlds.sweep.spec import read_spec

GIVEN = {
    "algorithm": "ppo",
    "env": "CartPole-v1",
    "settings": {"num_envs": 8},
    "trials": 8,
    "seeds": 3,
    "seed": 20,
    "search": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
}
HIGH, LOW = [9.0, 9.5, 10.0], [1.0, 1.5, 2.0]


def outcome(number: int, returns: list[float], **values) -> Outcome:
    mean = sum(returns) / len(returns)
    return Outcome(number, values, mean, returns, 1.0, 1, Path("run"), 0)


def told_of(space: dict, name: str, value: float) -> list[str]:
    spec = read_spec(GIVEN | {"search": {name: space}})
    return caveats(spec, [outcome(0, HIGH, **{name: value}), outcome(1, LOW, **{name: value})])


@pytest.mark.parametrize(
    ("name", "space", "value", "is_edge"),
    [
        ("learning_rate", {"min": 1e-4, "max": 1e-2, "log": True}, 1.25e-4, True),
        ("learning_rate", {"min": 1e-4, "max": 1e-2, "log": True}, 1.27e-4, False),
        ("learning_rate", {"min": 1e-4, "max": 1e-2, "log": True}, 8e-3, True),
        ("learning_rate", {"min": 1e-4, "max": 1e-2, "log": True}, 7.9e-3, False),
        ("learning_rate", {"min": 0.1, "max": 0.3}, 0.109, True),
        ("learning_rate", {"min": 0.1, "max": 0.3}, 0.111, False),
        ("num_epochs", {"min": 2, "max": 8}, 2, True),
        ("num_epochs", {"min": 2, "max": 8}, 3, False),
        ("num_epochs", {"min": 1, "max": 8}, 1, False),  # none are fewer
        ("num_epochs", {"min": 1, "max": 8, "log": True}, 1, False),
        ("num_epochs", {"min": 1, "max": 8, "log": True}, 8, True),
        ("gamma", {"min": 0.9, "max": 1.0}, 0.999, False),  # nor can it be more than 1
        ("gamma", {"min": 0.9, "max": 1.0}, 0.901, True),
    ],
)
def test_a_best_value_at_the_edge_of_its_range_is_told(name, space, value, is_edge):
    expected = [f"{name} is best at the edge of its range: widen it."]
    assert told_of(space, name, value) == (expected if is_edge else [])


def test_choices_have_no_edge():
    spec = read_spec(GIVEN | {"search": {"gamma": [0.9, 0.99]}})
    assert caveats(spec, [outcome(0, HIGH, gamma=0.9)]) == []


def test_a_runner_up_that_is_not_told_apart_is_told():
    spec = read_spec(GIVEN)
    best = outcome(4, HIGH, learning_rate=1e-3)
    close = outcome(2, [5.0, 9.0, 10.0], learning_rate=2e-3)
    pair = "trials 4 and 2, the best two, are not told apart"
    assert caveats(spec, [best, close]) == [f"{pair}: their intervals overlap."]
    assert caveats(spec, [best, outcome(2, LOW, learning_rate=2e-3)]) == []
    assert caveats(spec, [best]) == []
    single = [outcome(4, [3.0], learning_rate=1e-3), outcome(2, [1.0], learning_rate=2e-3)]
    assert caveats(spec, single) == [f"{pair}: one seed tells nothing of others."]


def test_the_best_is_trained_on_other_seeds_than_the_sweep_used():
    best = outcome(0, HIGH, learning_rate=1e-3)
    assert recommended(read_spec(GIVEN), [best]) == {
        "num_envs": 8,
        "learning_rate": 1e-3,
        "seed": 23,
        "num_seeds": 5,
    }
