import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.statistics import (
    aggregate,
    estimate,
    interquartile_mean,
    normalized,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    steps_to_threshold,
)


def runs(tasks: int = 6, count: int = 8, shift: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.gamma(2.0, 0.3 + 0.1 * task, count) + shift for task in range(tasks)]


def test_interquartile_mean_is_the_trimmed_mean():
    for count in (1, 2, 3, 4, 7, 8, 101):
        values = np.random.default_rng(count).normal(size=(3, count))
        assert interquartile_mean(values) == pytest.approx(
            scipy.stats.trim_mean(values, 0.25, axis=1)
        )


def test_optimality_gap_counts_only_what_lies_below_the_goal():
    assert optimality_gap(np.array([0.5, 1.0, 3.0])) == pytest.approx(0.5 / 3)
    assert optimality_gap(np.array([0.5, 1.0, 3.0]), goal=2.0) == pytest.approx((1.5 + 1.0) / 3)


def test_aggregates_are_of_all_runs_or_of_the_means_of_tasks():
    scores = runs()
    told = aggregate({"ppo": scores}, resamples=100)["ppo"]
    pooled, means = np.concatenate(scores), [task.mean() for task in scores]
    assert told.iqm.value == pytest.approx(scipy.stats.trim_mean(pooled, 0.25))
    assert told.mean.value == pytest.approx(np.mean(means))
    assert told.median.value == pytest.approx(np.median(means))
    assert told.optimality_gap.value == pytest.approx(1 - np.minimum(pooled, 1).mean())


def test_aggregates_are_those_that_were_published_for_the_same_runs():
    data = json.loads((Path(__file__).parent / "atari_100k.json").read_text())
    scores = {
        name: [
            normalized(np.array(values), zero=random, one=human)
            for values, random, human in zip(tasks, data["random"], data["human"], strict=True)
        ]
        for name, tasks in data["runs"].items()
    }
    for name, told in aggregate(scores, resamples=2_000).items():
        for statistic, published in data["published"][name].items():
            estimate = getattr(told, statistic)
            assert estimate.value == pytest.approx(published, abs=0.0005)
            assert estimate.low < published < estimate.high


def test_an_estimate_of_one_task_is_its_aggregate():
    (task,) = runs(1, 12)
    assert estimate(task, resamples=500) == aggregate({"it": [task]}, resamples=500)["it"].iqm
    assert estimate(task[:1]).low is None


def test_intervals_agree_with_scipy_where_there_is_one_task():
    (task,) = runs(1, 40)
    ours = aggregate({"it": [task]}, resamples=20_000, confidence=0.9)["it"]
    for name, statistic in (
        ("iqm", lambda values, axis: scipy.stats.trim_mean(values, 0.25, axis)),
        ("mean", np.mean),
    ):
        theirs = scipy.stats.bootstrap(
            (task,),
            statistic,
            n_resamples=20_000,
            confidence_level=0.9,
            method="percentile",
            rng=3,
        )
        low, high = theirs.confidence_interval
        width = high - low
        estimate = getattr(ours, name)
        assert estimate.low == pytest.approx(low, abs=0.03 * width)
        assert estimate.high == pytest.approx(high, abs=0.03 * width)


def test_runs_are_drawn_again_task_by_task():
    # All runs of a task are the same, tasks differ: other seeds would change nothing.
    told = aggregate({"it": [np.full(5, 0.2), np.full(5, 0.9)]}, resamples=500)["it"]
    for each in told:
        assert each.low == pytest.approx(each.value) == each.high


def test_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    held = []
    for _ in range(200):
        scores = [random.normal(task, 1.0, 10) for task in range(4)]
        mean = aggregate({"it": scores}, resamples=400)["it"].mean
        held.append(mean.low <= 1.5 <= mean.high)
    assert 0.87 <= np.mean(held) <= 0.99


def test_the_same_seed_gives_the_same_intervals_and_another_does_not():
    first, again, other = (
        aggregate({"it": runs()}, resamples=3000, seed=seed)["it"].iqm for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_one_run_has_no_interval():
    told = aggregate({"it": [np.array([0.5]), np.array([0.7, 0.8])]})["it"]
    assert told.mean == (pytest.approx(0.625), None, None)
    assert probability_of_improvement([np.array([1.0])], [np.array([0.0, 2.0])]).low is None
    assert performance_profile([np.array([1.0])], np.array([0.5])).low is None


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    ours, theirs = runs(3, 9, seed=1), runs(3, 7, shift=0.2, seed=2)
    ours[0][0] = theirs[0][0]  # a tie
    wanted = np.mean(
        [
            scipy.stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
            for x, y in zip(ours, theirs, strict=True)
        ]
    )
    told = probability_of_improvement(ours, theirs)
    assert told.value == pytest.approx(wanted)
    assert told.low < told.value < told.high
    back = probability_of_improvement(theirs, ours)
    assert back.value == pytest.approx(1 - wanted)
    assert probability_of_improvement(runs(shift=50), runs()) == (1.0, 1.0, 1.0)


def test_profile_is_the_share_of_runs_above_each_score():
    scores = [np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.5, 3.5])]
    profile = performance_profile(scores, np.array([-1.0, 0.5, 2.0, 4.0]))
    assert profile.share == pytest.approx([1.0, 0.875, 0.625, 0.0])
    assert (profile.low <= profile.share).all()
    assert (profile.share <= profile.high).all()
    assert profile.low[2] < profile.high[2]


def test_threshold_is_reached_where_two_rows_do():
    steps = np.array([10.0, 20.0, 30.0, 40.0])
    returns = np.array([[0, 5, 9], [9, 9, 0], [0, 9, np.nan], [0, 0, 9]], float)
    assert steps_to_threshold(steps, returns, 9).tolist() == [np.inf, 20.0, 40.0]


def test_scores_on_one_scale():
    assert normalized(np.array([-50.0, 200.0]), zero=-50, one=450).tolist() == [0.0, 0.5]
    with pytest.raises(InvalidValueError, match=r"between 3\.0 and 3\.0"):
        normalized(np.array([1.0]), zero=3.0, one=3.0)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({}, "on one task at least"),
        ({"a": []}, "on one task at least"),
        ({"a": runs(2), "b": runs(3)}, r"here they have \{'a': 2, 'b': 3\}"),
        ({"a": [np.array([])]}, "no run of a on task 0"),
        (
            {"a": [np.array([1.0]), np.array([1.0, np.nan])]},
            "scores of a on task 1 that are not finite",
        ),
    ],
)
def test_scores_that_cannot_be_are_refused_in_words(scores, words):
    with pytest.raises(InvalidValueError, match=words):
        aggregate(scores)


def test_confidence_and_resamples_are_checked():
    with pytest.raises(InvalidValueError, match=r"confidence=1\.5"):
        aggregate({"it": runs()}, confidence=1.5)
    with pytest.raises(InvalidValueError, match="resamples=0"):
        probability_of_improvement(runs(), runs(), resamples=0)


def test_infinity_reaches_no_threshold():
    returns = np.array([[1.0, np.inf], [2.0, np.inf]])
    assert steps_to_threshold(np.array([10.0, 20.0]), returns, 2.0).tolist() == [20.0, np.inf]


def test_nothing_is_cut_off_that_is_not_known():
    assert np.isnan(interquartile_mean(np.array([1.0, 2.0, 3.0, np.nan])))
    assert interquartile_mean([1, 2, 3, 4]) == 2.5


def test_many_runs_and_runs_that_are_no_list():
    assert estimate(np.arange(70_000.0), resamples=5).value == pytest.approx(34_999.5)
    with pytest.raises(InvalidValueError, match="must be one list of runs"):
        aggregate({"it": np.array([1.0, 2.0])})  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"resamples=1\.5 must be a whole number"):
        estimate(np.array([1.0, 2.0]), resamples=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: estimate(3.0), "must be one list of runs, such as .* and have 0 dimensions: 3.0"),
        (lambda: estimate(None), "0 dimensions: None"),
        (lambda: estimate(["a", "b"]), "are no numbers: .'a', 'b'"),
        (lambda: estimate([1.0, 2.0], seed=-1), "seed=-1 .* the nearest valid value is 0"),
        (lambda: estimate([1.0, 2.0], np.mean), "one value for each row, of its last axis"),
        (lambda: normalized(np.ones(1), zero=0, one=np.inf), "one=inf must be a finite number"),
        (lambda: normalized(np.ones(1), zero=np.nan, one=1), "zero=nan must be a finite number"),
        (lambda: aggregate({"a": runs(1)}, goal=np.nan), "goal=nan must be a finite number"),
        (lambda: aggregate({"a": runs(1)}, goal=None), "goal=None must be a finite number"),
        (
            lambda: steps_to_threshold([1, 2, 3], [[0], [1]], 1),
            r"returns of the shape \[2, 1\] must have rows and seeds, .* each of the 3 steps",
        ),
    ],
)
def test_what_is_no_score_is_refused_in_words(wrong, words):
    with pytest.raises(InvalidValueError, match=words):
        wrong()


def test_without_rows_no_threshold_is_reached():
    assert steps_to_threshold([], np.zeros((0, 2)), 1.0).tolist() == [np.inf, np.inf]
