import sys

import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.testing.distributions import matches_probabilities, same_distribution


def _p_values(draw_pair, repeats=200):
    return np.array([draw_pair(np.random.default_rng(seed)) for seed in range(repeats)])


@pytest.mark.parametrize(
    "draw",
    [
        lambda g, n: g.integers(0, 6, n),
        lambda g, n: g.integers(0, 3, (n, 2)),
        lambda g, n: g.geometric(0.3, n),  # a tail of rare outcomes to pool
        lambda g, n: g.normal(size=n),
        lambda g, n: g.uniform(size=(n, 3)),
    ],
)
def test_equal_distributions_rarely_give_small_p_values(draw):
    p_values = _p_values(lambda g: same_distribution(draw(g, 400), draw(g, 600)))
    assert p_values.min() >= 0.0
    assert p_values.max() <= 1.0
    # 200 draws at level 0.05: 10 expected, more than 22 with probability 2e-4.
    assert (p_values < 0.05).sum() <= 22


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda g: g.integers(0, 6, 2000), lambda g: g.binomial(5, 0.5, 2000)),
        (lambda g: g.normal(size=2000), lambda g: g.normal(0.4, size=2000)),
        (lambda g: g.normal(size=(2000, 3)), lambda g: g.normal(scale=[1, 1, 1.6], size=(2000, 3))),
        # Equal columns, but here they depend on each other: rows are compared as a whole.
        (
            lambda g: g.integers(0, 2, (2000, 2)),
            lambda g: np.repeat(g.integers(0, 2, (2000, 1)), 2, 1),
        ),
    ],
)
def test_different_distributions_give_tiny_p_values(first, second):
    generator = np.random.default_rng(0)
    assert same_distribution(first(generator), second(generator)) < 1e-6


def test_identical_constants_are_one_distribution():
    assert same_distribution(np.zeros(10, int), np.zeros(20, int)) == 1.0


def test_the_kind_of_test_can_be_chosen():
    generator = np.random.default_rng(3)
    grid = generator.integers(0, 2, (500, 2)).astype(float)
    diagonal = np.repeat(generator.integers(0, 2, (500, 1)), 2, axis=1).astype(float)
    assert same_distribution(grid, diagonal, discrete=True) < 1e-6
    assert same_distribution(grid, diagonal) > 1e-3


def test_right_probabilities_rarely_give_small_p_values():
    probabilities = {0: 0.7, 1: 0.2, 2: 0.0999, 3: 0.0001}
    p_values = _p_values(
        lambda g: matches_probabilities(
            g.choice(4, 500, p=list(probabilities.values())), probabilities
        )
    )
    assert (p_values < 0.05).sum() <= 22
    assert 0.3 < p_values.mean() < 0.7


def test_wrong_probabilities_give_tiny_p_values():
    samples = np.random.default_rng(0).choice(3, 3000, p=[0.5, 0.3, 0.2])
    assert matches_probabilities(samples, {0: 0.4, 1: 0.4, 2: 0.2}) < 1e-6


def test_an_impossible_outcome_gives_zero():
    assert matches_probabilities([0, 1, 1, 2], {0: 0.5, 1: 0.5}) == 0.0
    assert matches_probabilities([0, 1, 1, 2], {0: 0.5, 1: 0.5, 2: 0.0}) == 0.0


def test_outcomes_can_be_rows():
    samples = np.random.default_rng(0).integers(0, 2, (1000, 2))
    even = {(first, second): 0.25 for first in range(2) for second in range(2)}
    assert matches_probabilities(samples, even) > 1e-3
    assert matches_probabilities(samples, even | {(0, 0): 0.1, (1, 1): 0.4}) < 1e-6


def test_a_certain_outcome_has_p_value_one():
    assert matches_probabilities([7, 7, 7], {7: 1.0}) == 1.0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: same_distribution([], [1]), "not empty"),
        (lambda: same_distribution([1.0, np.nan], [1.0, 2.0]), "NaN"),
        (lambda: same_distribution(np.zeros((4, 2)), np.zeros((4, 3))), "2 and 3 columns"),
        (lambda: matches_probabilities([0, 1], {0: 0.5, 1: 0.4}), "add up to 0.9"),
    ],
)
def test_wrong_use_is_explained(call, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        call()


def test_without_scipy_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match="pip install scipy"):
        same_distribution([1, 2], [1, 2])
