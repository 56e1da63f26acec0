"""Checks of numbers that may differ between environments."""

from typing import Any

import numpy as np
from jax.core import Tracer

from kiloworlds.core.checks import require_number

MOST_COOK_TIME = 100


def checked(
    name: str, value: Any, low: float, high: float | None = None, whole: bool = False
) -> Any:
    """Returns a number, or an array of one for each environment, if all lie in their bounds.

    Raises:
        InvalidValueError: one does not.
    """
    if not isinstance(value, Tracer):  # a value being traced cannot be looked at
        for number in np.ravel(value).tolist() if np.ndim(value) else [value]:
            require_number(name, number, low, high, whole)
    return value
