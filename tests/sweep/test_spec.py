import pytest

from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.sweep.spec import Choices, Range, read_spec

RATE = {"min": "1e-4", "max": 0.01, "log": True}  # a word to YAML 1.1
GIVEN = {"algorithm": "ppo", "env": "CartPole-v1", "trials": 8, "search": {"learning_rate": RATE}}


def test_ranges_and_choices_are_read():
    search = {
        "learning_rate": RATE,
        "num_epochs": {"min": 1, "max": 8},
        "gamma": ["1e-1", 0.9],
        "hidden_sizes": [[32], [64, 64]],
    }
    spec = read_spec(GIVEN | {"search": search})
    assert spec.search["learning_rate"] == Range(1e-4, 0.01, True, False)
    assert spec.search["num_epochs"] == Range(1, 8, False, True)
    assert spec.search["gamma"] == Choices((0.1, 0.9))
    assert spec.shared == ("learning_rate", "gamma")  # what one program can hold
    assert spec.wanted == 8


def test_trials_have_the_preset_and_what_is_given():
    spec = read_spec(GIVEN | {"settings": {"num_envs": 16}, "seeds": 3, "seed": 5})
    config = spec.config({"learning_rate": 0.5})
    assert (config.num_envs, config.num_seeds, config.seed) == (16, 3, 5)
    assert config.settings.learning_rate == 0.5
    assert config.settings.gamma == 0.98  # the preset's


@pytest.mark.parametrize(
    ("changes", "at_once"),
    [
        ({}, 2),
        ({"trials": 18}, 4),
        ({"trials": 3}, 1),
        ({"population": None}, 2),
        ({"sampler": "random"}, 16),
        ({"sampler": "grid", "search": {"gamma": [0.9, 0.99]}}, 16),
        ({"population": 5}, 5),
        ({"sampler": "random", "population": 3}, 3),
    ],
)
def test_a_sampler_that_learns_draws_a_quarter_at_once(changes, at_once):
    assert read_spec(GIVEN | changes).drawn_at_once == at_once


def test_a_grid_knows_how_many_trials_there_are():
    search = {"gamma": [0.9, 0.95, 0.99], "num_epochs": [2, 4]}
    grid = {"algorithm": "ppo", "env": "CartPole-v1", "sampler": "grid", "search": search}
    assert read_spec(grid).wanted == 6
    assert read_spec(grid | {"trials": 4}).wanted == 4


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"enviroment": "x"}, UnknownNameError, "unknown entry 'enviroment'.*algorithm, env"),
        ({"search": {}}, InvalidValueError, "name at least one setting"),
        ({"search": ["gamma"]}, InvalidValueError, "search must map settings to values"),
        ({"search": {"gama": [0.5]}}, UnknownNameError, "Did you mean 'gamma'"),
        ({"search": {"gamma": 0.5}}, InvalidValueError, "gamma: 0.5 is neither a list"),
        ({"search": {"gamma": {"min": 0.9, "max": 0.5}}}, InvalidValueError, "with min below max"),
        ({"search": {"gamma": [0.5, 1.5]}}, InvalidValueError, "gamma=1.5 must be"),
        (
            {"search": {"gamma": {"min": 0, "max": 1, "log": True}}},
            InvalidValueError,
            "log: true begins above 0",
        ),
        ({"search": {"seed": [1, 2]}}, InvalidValueError, "seed is among what a sweep decides"),
        (
            {"settings": {"learning_rate": 0.1}},
            InvalidValueError,
            "learning_rate is among settings",
        ),
        ({"sampler": "grid"}, InvalidValueError, "a grid needs lists"),
        ({"sampler": "bayes"}, InvalidValueError, "sampler='bayes'"),
        ({"trials": None}, InvalidValueError, "say how many settings to try"),
        ({"trials": 0}, InvalidValueError, "trials=0"),
        ({"seeds": 0}, InvalidValueError, "seeds=0"),
        ({"population": 0}, InvalidValueError, "population=0"),
        ({"algorithm": "pp"}, UnknownNameError, "Did you mean 'ppo'"),
    ],
)
def test_bad_specifications_are_refused_in_words(changes, error, words):
    with pytest.raises(error, match=words):
        read_spec(GIVEN | changes)


def test_what_is_missing_is_named():
    with pytest.raises(InvalidValueError, match="lacks 'env'"):
        read_spec({"algorithm": "ppo", "search": {"gamma": [0.5]}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"seed": 5}}, "settings: seed is what a sweep decides by itself"),
        ({"settings": {"num_seeds": 5}}, "settings: num_seeds is what a sweep decides"),
        ({"env": None}, "env=None must be a name, such as CartPole-v1"),
        ({"env": "CartPol-v1"}, "Unknown environment 'CartPol-v1'.*CartPole-v1"),
        ({"search": {"gamma": [0.9, 0.9]}}, "gamma has a choice twice"),
        ({"settings": {"backend": "sync"}, "seeds": 2}, "seeds=2: .* give seeds: 1"),
    ],
)
def test_what_a_sweep_would_ignore_or_cannot_do_is_refused(changes, words):
    given = {
        "algorithm": "ppo",
        "env": "CartPole-v1",
        "trials": 2,
        "search": {"gamma": [0.9, 0.99]},
    }
    with pytest.raises((InvalidValueError, UnknownNameError), match=words):
        read_spec(given | changes)
