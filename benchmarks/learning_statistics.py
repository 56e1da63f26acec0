"""How sure the numbers of docs/results are, and when one of them has got worse."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from learning_tasks import BEST, PEER, REFERENCES, Task, score_of
from scipy.stats import t as student

from kiloworlds.evaluation.comparison import final_means
from kiloworlds.evaluation.statistics import steps_to_threshold
from kiloworlds.evaluation.task import reward_threshold

CONFIDENCE = 0.95
_CURVE_OF = {"return": "ep_rew_mean", "win_rate": "win_rate"}


class Interval(NamedTuple):
    """A mean over seeds, and the interval that holds it with the stated confidence; `around` is half of
    it, NaN for one seed."""

    mean: float
    around: float

    @property
    def low(self) -> float:
        return self.mean - self.around

    @property
    def high(self) -> float:
        return self.mean + self.around


def interval(values: Sequence[float], errors: Sequence[float] = ()) -> Interval:
    """Of a mean over seeds: Student's t, and what the episodes that were played leave open.

    Args:
        values: of each seed.
        errors: each one's standard error over its episodes. All seeds play the same ones, so that
            errors do not average out.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    between = quantile * statistics.stdev(values) / len(values) ** 0.5
    within = 1.96 * statistics.fmean(errors) if errors else 0.0
    return Interval(mean, math.hypot(between, within))


def curve_name(task: Task) -> str:
    """Which curve of a record tells how well it does."""
    return _CURVE_OF[score_of(task.env)]


def greedy(task: Task, record: dict[str, Any]) -> Interval:
    """What the final policies reach by their most likely actions."""
    score, played = score_of(task.env), record["greedy"]
    return interval(played[score], played.get(f"{score}_error", ()))


def row_interval(values: Sequence[float | None]) -> Interval | None:
    """Of a point of a curve; None where no seed has a value."""
    found = [value for value in values if value is not None]
    return interval(found) if found else None


def end_of(curve: Sequence[Sequence[float | None]]) -> list[float]:
    """Each seed's mean over the last tenth of a curve."""
    return final_means(np.array(curve, float)).tolist()


def start_of(curve: Sequence[Sequence[float | None]]) -> float:
    """The mean over seeds where a curve begins: in the first part in which an episode ended."""
    return next(row for row in map(row_interval, curve) if row is not None).mean


# ------------------------------------------------------------------------------------ references


class Level(NamedTuple):
    """A mean score to be reached, and what it is."""

    value: float
    what: str


REACHED, WITHIN, BELOW = "✓", "≈", "✗"


class Verdict(NamedTuple):
    """How a training stands to a reference: its value, by what, from whom, and whether our mean is not
    below it, the interval holds it, or all of the interval is below."""

    value: float
    by: str
    source: str
    note: str
    mark: str


def verdicts(task: Task, record: dict[str, Any], peer: dict[str, Any] | None) -> list[Verdict]:
    """Of every reference there is: published, measured beside ours, the threshold of the task, and what
    is possible at best."""
    ours = greedy(task, record)
    found = [
        Verdict(each.value, each.by, each.source, each.note, _mark(ours, each.value))
        for each in REFERENCES.get(task.env, [])
    ]
    if peer is not None:  # of whom only training returns are known
        theirs, training = (
            interval(end_of(one["curves"][curve_name(task)])) for one in (peer, record)
        )
        note = f"training: ours {training.mean:.3g}"
        found.append(Verdict(theirs.mean, "", PEER, note, _mark(training, theirs.mean)))
    for value, what in (
        (reward_threshold(task.env), "solved"),
        (BEST.get(task.env), "best possible"),
    ):
        if value is not None:
            found.append(Verdict(value, "", what, "", _mark(ours, value)))
    return found


def _mark(ours: Interval, value: float) -> str:
    # Rounded figures of others, and means over finitely many episodes, are not met to the last digit.
    if ours.mean >= value - 0.0005 * abs(value):
        return REACHED
    return WITHIN if ours.high >= value else BELOW


def level(task: Task, record: dict[str, Any], peer: dict[str, Any] | None) -> Level:
    """The score whose time is told: the threshold of the task if it can be reached, what the peer ends
    with, or nine tenths of the way from the first to the last of our own scores."""
    threshold, best = reward_threshold(task.env), BEST.get(task.env, math.inf)
    if threshold is not None and threshold <= best:
        return Level(threshold, "solved")
    if peer is not None:
        return Level(statistics.fmean(end_of(peer["curves"][curve_name(task)])), PEER)
    curve = record["curves"][curve_name(task)]
    first = start_of(curve)
    return Level(first + 0.9 * (statistics.fmean(end_of(curve)) - first), "90% of the way")


class Times(NamedTuple):
    """When seeds reach a level: the median of those that do, and how many do; None where none does."""

    steps: float | None
    seconds: float | None
    reached: int


def times(task: Task, record: dict[str, Any], threshold: float) -> Times:
    curves = record["curves"]
    values = np.array(curves[curve_name(task)], float)
    steps, seconds = (
        steps_to_threshold(np.array(curves[by], float), values, threshold)
        for by in ("step", "seconds")
    )
    reached = np.isfinite(steps)
    if not reached.any():
        return Times(None, None, 0)
    return Times(
        float(np.median(steps[reached])), float(np.median(seconds[reached])), int(reached.sum())
    )


# ------------------------------------------------------------------------------------ regressions

_TOLERANCE = 0.01
"""Of what is learnt, by which a mean may stay below the interval: seeds that all end with the same
return leave an interval of nothing."""


class Change(NamedTuple):
    """How a new measurement stands to the one that was kept.

    Attributes:
        mean: of the new one.
        low, high: where a mean of so many seeds lies with the stated confidence.
        word: "worse", "better" or "as before".
    """

    mean: float
    low: float
    high: float
    word: str


def change(kept: Sequence[float], new: Sequence[float], learnt: float) -> Change:
    """Whether new seeds do worse than the spread of the kept ones explains.

    The interval is that of the mean of as many further seeds as there are new ones (a prediction
    interval), from the spread of the kept ones only: seeds that do badly must not widen it.

    Args:
        kept: scores of at least two seeds.
        new: of other seeds, or of the same.
        learnt: the score that training adds, which gives the tolerance its scale.

    Raises:
        ValueError: fewer kept seeds, or some whose scores are not finite; no new seed.
    """
    if len(kept) < 2 or not np.isfinite([*kept, learnt]).all():
        raise ValueError(f"a record must have finite scores of two seeds or more, and has {kept}.")
    if not new:
        raise ValueError("no seed was trained anew.")
    mean, spread = statistics.fmean(kept), statistics.stdev(kept)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(kept) - 1))
    around = quantile * spread * (1 / len(kept) + 1 / len(new)) ** 0.5
    around += _TOLERANCE * abs(learnt)
    low, high, now = mean - around, mean + around, statistics.fmean(new)
    word = "worse" if not now >= low else "better" if now > high else "as before"
    return Change(now, low, high, word)
