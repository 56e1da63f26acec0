"""From rows of metrics to points."""

import math
from typing import Any

from kiloworlds.training.loggers.base import Point

STEP = "time/total_timesteps"
_NAMES = {"step": STEP, "seconds": "time/time_elapsed", "fps": "time/fps"}
"""Of what has another name in the row; these are Stable-Baselines3's, as all others are anyway."""


def to_point(row: dict[str, Any], time: float) -> Point:
    """The point of a row: what is not there yet, or not finite, is left out."""
    seeds = max((len(value) for value in row.values() if isinstance(value, list)), default=0)
    means: dict[str, float] = {}
    by_seed: list[dict[str, float]] = [{} for _ in range(seeds if seeds > 1 else 0)]
    for key, entry in row.items():
        name = _NAMES.get(key, key)
        values = entry if isinstance(entry, list) else [entry]
        known = [float(value) for value in values if _is_finite(value)]
        if known:
            means[name] = sum(known) / len(known)
        if isinstance(entry, list):
            for seed, value in zip(by_seed, entry, strict=False):
                if _is_finite(value):
                    seed[name] = float(value)
    return Point(row["step"], time, means, tuple(by_seed))


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
