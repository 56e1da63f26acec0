"""What trials of a sweep reached, and which of them are worth a look."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kiloworlds.evaluation.statistics import Estimate, estimate

_NEARLY_THE_SAME = 1.1
"""Costs within this factor are not told apart."""


class Outcome(NamedTuple):
    """A trial that ended.

    Attributes:
        number: among the trials.
        values: what was looked for.
        value: the mean over seeds of the return at the end.
        returns: each seed's.
        seconds: that its training took, compilation left out where it can be told. Programs train
            several trials side by side, so this is a share: of the time of all programs that differ in
            nothing that changes the work, by the steps of the trial.
        steps: per seed; fewer than asked for where it was stopped early.
        run, first: the directory of the run, and where its seeds begin in it.
        stopped: whether it was stopped early, so that its return and its seconds are of less training.
    """

    number: int
    values: dict[str, Any]
    value: float
    returns: list[float]
    seconds: float
    steps: int
    run: Path
    first: int
    stopped: bool = False

    @property
    def estimate(self) -> Estimate:
        """The mean over seeds, with its interval."""
        return estimate(np.array(self.returns), partial(np.mean, axis=-1), resamples=2000)


def pareto_front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that no other beats in return and in seconds, the cheapest first.

    A return below the median is worth nothing, however cheap, and trials that were stopped early cost
    less for that alone. Where all cost nearly the same, only the best is left.
    """
    if not costs_differ(outcomes):
        return [max(outcomes, key=lambda each: each.value)] if outcomes else []
    median = np.median([outcome.value for outcome in outcomes])
    whole = [outcome for outcome in outcomes if not outcome.stopped]
    front: list[Outcome] = []
    for outcome in sorted(whole, key=lambda each: (each.seconds, -each.value)):
        if outcome.value >= median and (not front or outcome.value > front[-1].value):
            front.append(outcome)
    return front


def costs_differ(outcomes: Sequence[Outcome]) -> bool:
    """Whether the dearest trial cost more than a tenth more than the cheapest, of those that trained to
    the end."""
    seconds = [outcome.seconds for outcome in outcomes if not outcome.stopped]
    return bool(seconds) and max(seconds) > _NEARLY_THE_SAME * min(seconds)
