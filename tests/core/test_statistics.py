import numpy as np
import pytest
import scipy.stats

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.statistics import bootstrap_interval


def test_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=60)
    ours = bootstrap_interval(values, confidence=0.9)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, method="percentile", rng=2
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    samples = random.normal(3.0, 1.0, (300, 50))
    intervals = [bootstrap_interval(sample, resamples=500) for sample in samples]
    covered = np.mean([interval.low <= 3.0 <= interval.high for interval in intervals])
    assert 0.89 <= covered <= 0.98


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=20)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_one_value_has_no_width():
    assert bootstrap_interval(np.array([2.5])) == (2.5, 2.5, 2.5)


def test_many_values_are_drawn_in_blocks():
    values = np.concatenate([np.zeros(1_500_000), np.ones(1_500_000)])
    interval = bootstrap_interval(values, resamples=20)
    assert 0.49 < interval.low <= 0.5 <= interval.high < 0.51


@pytest.mark.parametrize(
    ("values", "options", "complaint"),
    [
        ([], {}, "at least one value"),
        ([1.0, np.nan], {}, "finite"),
        ([1.0], {"confidence": 1.0}, "confidence=1.0"),
    ],
)
def test_bad_input(values, options, complaint):
    with pytest.raises(InvalidValueError, match=complaint):
        bootstrap_interval(np.array(values), **options)
