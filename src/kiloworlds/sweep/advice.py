"""What to do after a sweep, and how far its best trial is to be trusted."""

import math
from collections.abc import Sequence
from typing import Any

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.scores import ENOUGH_SEEDS
from kiloworlds.sweep.outcome import Outcome
from kiloworlds.sweep.spec import Range, SweepSpec

_EDGE = 0.05
"""Share of a range, at either end, that is its edge."""


def recommended(spec: SweepSpec, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The settings of the best trial, on seeds that it was not picked on.

    Args:
        spec: the sweep.
        outcomes: at least one, the best first.
    """
    seeds = {"seed": spec.seed + spec.seeds, "num_seeds": ENOUGH_SEEDS}
    return spec.settings | outcomes[0].values | seeds


def caveats(spec: SweepSpec, outcomes: Sequence[Outcome]) -> list[str]:
    """Why the best trial may not be the best there is, in sentences.

    Args:
        spec: the sweep.
        outcomes: at least one, the best first.
    """
    told = [
        f"{name} is best at the edge of its range: widen it."
        for name, space in spec.search.items()
        if isinstance(space, Range) and _at_edge(spec, name, space, outcomes[0].values[name])
    ]
    if len(outcomes) > 1:
        told += _too_close(*outcomes[:2])
    return told


def _at_edge(spec: SweepSpec, name: str, space: Range, value: float) -> bool:
    """Whether a value lies at an end beyond which a setting may go."""
    scale, back = (math.log, math.exp) if space.log else (float, float)
    low, high = scale(space.low), scale(space.high)
    margin = _EDGE * (high - low)
    if scale(value) <= low + margin:
        return _may_be(spec, name, space.low - 1 if space.whole else back(low - margin))
    if scale(value) >= high - margin:
        return _may_be(spec, name, space.high + 1 if space.whole else back(high + margin))
    return False


def _may_be(spec: SweepSpec, name: str, value: float) -> bool:
    try:
        spec.config({name: value})
    except InvalidValueError:  # where a range cannot be widened, its end is no finding
        return False
    return True


def _too_close(best: Outcome, second: Outcome) -> list[str]:
    """Of the best trial and the runner-up."""
    pair = f"trials {best.number} and {second.number}, the best two, are not told apart"
    (_, low, _), (_, _, high) = best.estimate, second.estimate
    if low is None or high is None:
        return [f"{pair}: one seed tells nothing of others."]
    return [f"{pair}: their intervals overlap."] if high >= low else []
