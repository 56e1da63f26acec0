"""What several runs on several tasks say about algorithms, and how sure it is.

Point estimates of a handful of runs mislead; these are the estimates, and their intervals, that hold up
with few runs: R. Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(2021).

Letters in shapes: R runs of a task, T tasks, B resamples, P points.

Scores of an algorithm are one array `[R]` per task, already on one scale: 0 and 1 mean the same on every
task (see `normalized`).
"""

import math
import numbers
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from kiloworlds.core.checks import require_number
from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.statistics import require_confidence

Scores = Sequence[Float[np.ndarray, " R"]]
"""One algorithm's runs, task by task."""

_BLOCK = 400_000
"""Values that are drawn at a time: they fit into a processor's cache."""


class Estimate(NamedTuple):
    """A statistic with the interval that holds it with the stated confidence.

    `low` and `high` are None where there is no interval: with one run on a task, nothing is known about
    how much runs differ.
    """

    value: float
    low: float | None
    high: float | None


class Aggregates(NamedTuple):
    """What one algorithm reaches over all tasks, field by field with its interval.

    Attributes:
        iqm: the interquartile mean: of the middle half of all runs on all tasks.
        mean, median: over tasks of each task's mean over runs.
        optimality_gap: by how much runs stay below the goal, on average; what lies above does not count.
    """

    iqm: Estimate
    mean: Estimate
    median: Estimate
    optimality_gap: Estimate


def interquartile_mean(values: Float[np.ndarray, "*B n"]) -> Float[np.ndarray, "*B"]:
    """The mean of the middle half of the last axis.

    A quarter of the values, rounded down, is left out at each end: as many as
    `scipy.stats.trim_mean(values, 0.25)` leaves out. NaN where any value is.
    """
    values = np.asarray(values, float)
    cut = values.shape[-1] // 4
    means = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1)
    return np.where(
        np.isnan(values).any(axis=-1), np.nan, means
    )  # sorted last, it would be cut off


def optimality_gap(values: Float[np.ndarray, "*B n"], goal: float = 1.0) -> Float[np.ndarray, "*B"]:
    """How far below `goal` the last axis lies on average; what lies above it does not count."""
    return goal - np.minimum(values, goal).mean(axis=-1)


def normalized(
    returns: Float[np.ndarray, " R"], *, zero: float, one: float
) -> Float[np.ndarray, " R"]:
    """Returns on the scale on which `zero` is 0 and `one` is 1.

    Raises:
        InvalidValueError: the two are the same, or not finite.
    """
    _require_finite(zero=zero, one=one)
    if zero == one:
        raise InvalidValueError(f"scores cannot be normalized between {zero} and {one}.")
    return (np.asarray(returns, float) - zero) / (one - zero)


def aggregate(
    scores: Mapping[str, Scores],
    *,
    goal: float = 1.0,
    resamples: int = 50_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Aggregates]:
    """Each algorithm's aggregates with their stratified bootstrap intervals.

    Runs are drawn again, with replacement, task by task: the intervals tell what other seeds on the same
    tasks would give, not what other tasks would.

    Args:
        scores: of each algorithm, in the same order of tasks.
        goal: of the optimality gap.
        resamples: how often runs are drawn again.
        confidence: the share of such intervals that hold the true value.

    Raises:
        InvalidValueError: no scores, scores of other numbers of tasks, some that are not finite; a goal
            that is not.
    """
    _require_finite(goal=goal)
    _check(scores, resamples, confidence, seed)

    def statistics(drawn: list[Float[np.ndarray, "B R"]]) -> Float[np.ndarray, "4 B"]:
        values = np.concatenate(drawn, axis=-1)
        means = np.stack([task.mean(axis=-1) for task in drawn], axis=-1)
        return np.stack(
            [
                interquartile_mean(values),
                means.mean(axis=-1),
                np.median(means, axis=-1),
                optimality_gap(values, goal),
            ]
        )

    results = {}
    for name, tasks in scores.items():
        tasks = [np.asarray(runs, float) for runs in tasks]
        points = statistics([runs[None] for runs in tasks])[:, 0]
        intervals = _intervals(statistics, tasks, resamples, confidence, seed)
        results[name] = Aggregates(
            *(Estimate(float(point), *each) for point, each in zip(points, intervals, strict=True))
        )
    return results


def estimate(
    runs: Float[np.ndarray, " R"],
    statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean,
    *,
    resamples: int = 50_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of one task's runs, in its own units, with its bootstrap interval.

    Args:
        statistic: of the last axis, as `functools.partial(numpy.mean, axis=-1)` is.

    Raises:
        InvalidValueError: as `aggregate` does, and for a statistic of all axes.
    """
    _check({"an estimate": [runs]}, resamples, confidence, seed)
    runs = np.asarray(runs, float)
    if np.shape(statistic(runs[None])) != (1,):
        raise InvalidValueError(
            "statistic must give one value for each row, of its last axis, such as "
            "functools.partial(numpy.mean, axis=-1)."
        )
    (interval,) = _intervals(
        lambda drawn: statistic(drawn[0])[None], [runs], resamples, confidence, seed
    )
    return Estimate(float(statistic(runs)), *interval)


def probability_of_improvement(
    first: Scores,
    second: Scores,
    *,
    resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """How likely a run of the first algorithm beats one of the second, on a task drawn at random.

    Ties count as half: the Mann-Whitney U statistic over the number of pairs, averaged over tasks.

    Raises:
        InvalidValueError: as `aggregate` does.
    """
    _check({"the first": first, "the second": second}, resamples, confidence, seed)
    beats = [
        (np.asarray(ours, float)[:, None] > np.asarray(theirs, float)[None])
        + 0.5 * (np.asarray(ours, float)[:, None] == np.asarray(theirs, float)[None])
        for ours, theirs in zip(first, second, strict=True)
    ]
    point = float(np.mean([pairs.mean() for pairs in beats]))
    if not _several([*first, *second]):
        return Estimate(point, None, None)
    random = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for pairs in beats:
        ours, theirs = (_shares(random, resamples, count) for count in pairs.shape)
        drawn += np.einsum("bi,ij,bj->b", ours, pairs, theirs, optimize=True)
    return Estimate(point, *_percentiles(drawn / len(beats), confidence))


def _shares(random: np.random.Generator, resamples: int, runs: int) -> Float[np.ndarray, "B R"]:
    """How often each run is in a resample, as a share of it."""
    return random.multinomial(runs, np.full(runs, 1 / runs), resamples) / runs


class Profile(NamedTuple):
    """A performance profile: the share of runs above each score, with its interval.

    Attributes:
        scores: `[P]`.
        share, low, high: `[P]`; low and high are None with one run on a task.
    """

    scores: Float[np.ndarray, " P"]
    share: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"] | None
    high: Float[np.ndarray, " P"] | None


def performance_profile(
    scores: Scores,
    points: Float[np.ndarray, " P"],
    *,
    resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Profile:
    """The share of runs, each task counting the same, that score more than each of `points`.

    Raises:
        InvalidValueError: as `aggregate` does.
    """
    _check({"a profile": scores}, resamples, confidence, seed)
    points = np.atleast_1d(np.asarray(points, float))
    above = [np.asarray(runs, float)[:, None] > points for runs in scores]
    share = np.mean([task.mean(axis=0) for task in above], axis=0)
    if not _several(scores):
        return Profile(points, share, None, None)
    random = np.random.default_rng(seed)
    drawn = np.zeros((resamples, len(points)))
    for task in above:
        drawn += _shares(random, resamples, len(task)) @ task
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn / len(above), [tail, 100 - tail], axis=0)
    return Profile(points, share, low, high)


def steps_to_threshold(
    steps: Float[np.ndarray, " rows"],
    returns: Float[np.ndarray, "rows seeds"],
    threshold: float,
) -> Float[np.ndarray, " seeds"]:
    """When each seed's return first reaches a threshold and is there in the next row too.

    One row may be luck: a seed that only touches the threshold has not reached it, unless training ends
    there.

    Args:
        steps: or seconds, of each row.
        returns: NaN where there is none.

    Returns:
        infinity for seeds that never do.

    Raises:
        InvalidValueError: there are not as many steps as rows of returns.
    """
    steps, returns = np.asarray(steps, float), np.asarray(returns, float)
    if returns.ndim != 2 or steps.shape != returns.shape[:1]:
        raise InvalidValueError(
            f"returns of the shape {list(returns.shape)} must have rows and seeds, and a row for each "
            f"of the {steps.size} steps."
        )
    if not steps.size:
        return np.full(returns.shape[1], np.inf)
    reached = np.isfinite(returns) & (returns >= threshold)
    stays = reached & np.append(reached[1:], reached[-1:], axis=0)
    first = stays.argmax(axis=0)
    return np.where(stays.any(axis=0), steps[first], np.inf)


def _intervals(
    statistics: Callable[[list[np.ndarray]], np.ndarray],
    tasks: list[np.ndarray],
    resamples: int,
    confidence: float,
    seed: int,
) -> list[tuple[float | None, float | None]]:
    """The bootstrap interval of each statistic of an algorithm."""
    if not _several(tasks):
        count = len(statistics([runs[None] for runs in tasks]))
        return [(None, None)] * count
    block = max(1, _BLOCK // sum(map(len, tasks)))
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))  # the same whatever the threads

    def work(part: tuple[np.random.SeedSequence, int]) -> np.ndarray:
        random = np.random.default_rng(part[0])
        return statistics(list(_resampled(random, tasks, part[1])))

    with ThreadPoolExecutor(available_cores()) as threads:  # numpy lets go of the interpreter
        drawn = np.concatenate(list(threads.map(work, zip(seeds, sizes, strict=True))), axis=1)
    return [_percentiles(each, confidence) for each in drawn]


def _resampled(
    random: np.random.Generator, tasks: list[np.ndarray], resamples: int
) -> Iterator[Float[np.ndarray, "B R"]]:
    for runs in tasks:
        kind = np.uint16 if len(runs) <= 2**16 else np.uint32  # the smaller, the faster
        yield runs.take(random.integers(len(runs), size=(resamples, len(runs)), dtype=kind))


def _percentiles(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def _several(tasks: Scores) -> bool:
    return all(len(runs) > 1 for runs in tasks)


def _require_finite(**named: float) -> None:
    for name, value in named.items():
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise InvalidValueError(f"{name}={value!r} must be a finite number, such as 1.0.")


def _check(scores: Mapping[str, Scores], resamples: int, confidence: float, seed: int) -> None:
    require_confidence(confidence)
    require_number("resamples", resamples, 1, whole=True)
    require_number("seed", seed, 0, whole=True)
    counts = {name: len(tasks) for name, tasks in scores.items()}
    if not counts or 0 in counts.values():
        raise InvalidValueError("statistics need scores on one task at least.")
    if len(set(counts.values())) > 1:
        raise InvalidValueError(
            f"algorithms must be compared on the same tasks; here they have {counts} of them."
        )
    for name, tasks in scores.items():
        for number, runs in enumerate(tasks):
            _check_runs(f"{name} on task {number}", runs)


def _check_runs(whose: str, runs: Any) -> None:
    try:
        values = np.asarray(runs, float)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(
            f"the scores of {whose} are no numbers: {reprlib.repr(runs)}."
        ) from error
    if values.ndim != 1:
        raise InvalidValueError(
            f"the scores of {whose} must be one list of runs, such as [0.5, 0.7] for two, and have "
            f"{values.ndim} dimensions: {reprlib.repr(runs)}."
        )
    if not len(values):
        raise InvalidValueError(f"there is no run of {whose}.")
    if not np.isfinite(values).all():
        raise InvalidValueError(f"there are scores of {whose} that are not finite: {values}.")
