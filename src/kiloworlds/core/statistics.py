"""How sure a mean is."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from kiloworlds.core.errors import InvalidValueError


class Interval(NamedTuple):
    """A mean with the range that holds it with the stated confidence."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Float[np.ndarray, " n"],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of `values` with its percentile bootstrap interval.

    Args:
        values: independent measurements; one alone gives an interval of width zero.
        confidence: the share of such intervals that hold the true mean, between 0 and 1.
        resamples: how often the values are drawn again with replacement.
        seed: makes the result repeatable.

    Raises:
        InvalidValueError: no values, one that is not finite, or a confidence outside (0, 1).

    Reference: B. Efron, "Bootstrap methods: another look at the jackknife" (1979).
    """
    values = np.asarray(values, np.float64).ravel()
    if values.size == 0:
        raise InvalidValueError("an interval needs at least one value.")
    if not np.isfinite(values).all():
        raise InvalidValueError("an interval needs finite values; some are NaN or infinite.")
    require_confidence(confidence)
    random = np.random.default_rng(seed)
    block = max(1, 2_000_000 // values.size)  # bounds the memory that many values would take
    means = np.concatenate(
        [
            random.choice(values, (min(block, resamples - start), values.size)).mean(axis=1)
            for start in range(0, resamples, block)
        ]
    )
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def require_confidence(confidence: float) -> None:
    """Raises InvalidValueError unless it lies between 0 and 1."""
    if not isinstance(confidence, int | float | np.floating) or not 0 < confidence < 1:
        raise InvalidValueError(
            f"confidence={confidence!r} must lie between 0 and 1, such as 0.95."
        )
