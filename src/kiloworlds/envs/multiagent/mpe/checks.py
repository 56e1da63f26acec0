"""Checks of settings that several tasks of the particle world have."""

from typing import Any

import numpy as np

from kiloworlds.core.checks import require_count, require_number


def require_neighbors(name: str, value: Any) -> None:
    """Raises InvalidValueError unless `value` is None or a whole number of 1 or more."""
    if value is not None:
        require_count(name, value)


def require_proportion(name: str, value: Any) -> None:
    """Raises InvalidValueError for a number outside 0 to 1; arrays are taken as they are."""
    if isinstance(value, int | float | str | None):
        require_number(name, value, 0.0, 1.0)


def is_zero(ratio: Any) -> bool:
    """Whether a parameter is known to be 0, in every environment."""
    return isinstance(ratio, int | float | np.ndarray) and not np.any(ratio)
