"""Checks of settings that several tasks of the particle world have."""

from typing import Any

import numpy as np

from kiloworlds.core.checks import require_number

_MOST = 1000
"""Of agents or landmarks of a kind: each pair of them is looked at."""


def require_crowd(name: str, value: Any, fewest: int = 1) -> None:
    """Raises InvalidValueError unless `value` is a number of agents or landmarks that can be run."""
    require_number(name, value, fewest, _MOST, whole=True)


def require_neighbors(name: str, value: Any) -> None:
    """Raises InvalidValueError unless `value` is None or a whole number of 1 or more."""
    if value is not None:
        require_crowd(name, value)


def is_zero(ratio: Any) -> bool:
    """Whether a parameter is known to be 0, in every environment."""
    return isinstance(ratio, int | float | np.ndarray) and not np.any(ratio)
