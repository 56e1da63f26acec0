"""Times of several things, taken in turn."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

_LEAST = 5
"""Measurements of each, at least."""
_MOST = 200
_LEAST_SECONDS = 0.01
"""Of a measurement: below, the clock and the call would count."""


class Timing(NamedTuple):
    """Seconds of one call: the median, and half the distance between the quartiles."""

    seconds: float
    spread: float


def in_turn(
    calls: Mapping[str, Callable[[int], None]], seconds: float
) -> tuple[dict[str, Timing], dict[str, list[float]]]:
    """Times several things one after the other, again and again, so that what else the machine does
    meets all of them alike.

    Args:
        calls: by name, `call(count)` that does a thing `count` times and waits for it.
        seconds: for all together, about.

    Returns:
        By name, of doing it once; and all measurements.
    """
    counts = {name: _count(call) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    until = time.perf_counter() + seconds
    for turn in range(_MOST):
        if turn >= _LEAST and time.perf_counter() > until:
            break
        for name, call in calls.items():
            taken[name].append(_timed(call, counts[name]) / counts[name])
    return {name: of(each) for name, each in taken.items()}, taken


def of(measurements: list[float]) -> Timing:
    """The median of measurements and their spread."""
    low, middle, high = np.percentile(measurements, (25, 50, 75))
    return Timing(float(middle), float(high - low) / 2)


def differences(more: list[float], less: list[float]) -> Timing:
    """How much longer one thing takes than another that was timed in the same turns; 0 at least."""
    found = of([a - b for a, b in zip(more, less, strict=True)])
    return found._replace(seconds=max(0.0, found.seconds))


def _count(call: Callable[[int], None]) -> int:
    """How often to do a thing in one measurement."""
    call(1)  # whatever is done once only
    once = _timed(call, 1)
    return max(1, min(100, round(_LEAST_SECONDS / max(once, 1e-6))))


def _timed(call: Callable[[int], None], count: int) -> float:
    began = time.perf_counter()
    call(count)
    return time.perf_counter() - began
