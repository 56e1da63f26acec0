"""Do random draws have the distribution they should? Tests that return p-values.

A correct implementation gives p-values uniform between 0 and 1; compare with a small level such as
1e-4 and fix the seeds, so that a test is either always right or always wrong.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError

_LEAST_EXPECTED = 5.0  # below it a count is too far from normal for the chi-square test


def same_distribution(first: Any, second: Any, *, discrete: bool | None = None) -> float:
    """The p-value of two samples coming from one distribution.

    Discrete samples: two-sample chi-square test in which each distinct row is a category and rare
    rows are pooled. Continuous samples: two-sample Kolmogorov-Smirnov test of each column, with
    Bonferroni's correction; it does not see how columns depend on each other.

    Args:
        first, second: arrays `[n]` or `[n, columns]`; n may differ.
        discrete: which test; None chooses the discrete one for integers and booleans.

    Raises:
        InvalidValueError: an empty sample, NaN, or samples of different shape.
        MissingDependencyError: scipy is not installed.
    """
    first, second = _rows(first), _rows(second)
    if first.shape[1] != second.shape[1]:
        raise InvalidValueError(
            f"The samples have {first.shape[1]} and {second.shape[1]} columns; they must agree."
        )
    if discrete is None:
        discrete = all(sample.dtype.kind in "iub" for sample in (first, second))
    stats = _scipy_stats()
    if not discrete:
        columns = range(first.shape[1])
        least = min(stats.ks_2samp(first[:, i], second[:, i]).pvalue for i in columns)
        return float(min(1.0, least * len(columns)))
    _, category = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    category = category.ravel()
    most = int(category.max()) + 1
    parts = category[: len(first)], category[len(first) :]
    counts = np.stack([np.bincount(part, minlength=most) for part in parts])
    expected = counts.sum(0) * min(len(first), len(second)) / (len(first) + len(second))
    counts = _pool(counts, expected)
    if counts.shape[1] == 1:
        return 1.0
    return float(stats.chi2_contingency(counts, correction=False).pvalue)


def matches_probabilities(samples: Any, probabilities: Mapping[Hashable, float]) -> float:
    """The p-value (chi-square) of samples having the given probabilities.

    Args:
        samples: array `[n]`, whose entries are outcomes, or `[n, columns]`, whose rows are.
        probabilities: of every possible outcome: a number, or for rows a tuple of numbers. They
            add up to 1.

    Returns:
        The p-value; 0 if a sample is no possible outcome at all.

    Raises:
        InvalidValueError: an empty sample, NaN, or probabilities that do not add up to 1.
        MissingDependencyError: scipy is not installed.
    """
    total = sum(probabilities.values())
    if not np.isclose(total, 1.0, atol=1e-6) or min(probabilities.values()) < 0:
        raise InvalidValueError(
            f"The probabilities add up to {total}; it must be 1, none negative."
        )
    rows = _rows(samples)
    outcomes = rows.tolist() if np.ndim(samples) == 1 else map(tuple, rows.tolist())
    seen = Counter(row[0] if np.ndim(samples) == 1 else row for row in outcomes)
    if any(probabilities.get(outcome, 0.0) == 0.0 for outcome in seen):
        return 0.0
    possible = [outcome for outcome, probability in probabilities.items() if probability > 0]
    expected = np.array([probabilities[outcome] for outcome in possible]) / total * len(rows)
    observed = np.array([seen[outcome] for outcome in possible])
    observed, expected = _pool(np.stack([observed, expected]), expected)
    if len(observed) == 1:
        return 1.0
    return float(_scipy_stats().chisquare(observed, expected).pvalue)


def _rows(samples: Any) -> np.ndarray:
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or array.size == 0:
        raise InvalidValueError(
            f"A sample of shape {array.shape}: it must be [n] or [n, columns], and not empty."
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InvalidValueError("A sample contains NaN, which belongs to no distribution.")
    return array.reshape(len(array), -1)


def _pool(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Adds up columns of `counts` `[k, categories]` until each has enough expected."""
    order = np.argsort(expected, kind="stable")
    counts, cumulative = counts[:, order], np.cumsum(expected[order])
    rare = int(np.searchsorted(expected[order], _LEAST_EXPECTED))
    # The pool of the rare ones takes in the next ones until it is itself no longer rare.
    pooled = max(rare, int(np.searchsorted(cumulative, _LEAST_EXPECTED)) + 1) if rare else 0
    pool = counts[:, :pooled].sum(1, keepdims=True)
    return np.concatenate([pool, counts[:, pooled:]], axis=1) if pooled else counts


def _scipy_stats() -> ModuleType:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingDependencyError(
            "Tests of distributions need scipy. Install it with: pip install scipy"
        ) from error
    return stats
