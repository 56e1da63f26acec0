"""Checks of settings, each with one sentence for what does not fit: what was given, what is allowed and
the nearest valid value."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.core import Tracer

from kiloworlds.core.errors import InvalidValueError, did_you_mean

_MOST = {True: 2**31 - 1, False: float(np.finfo(np.float32).max)}
"""The largest number compiled code holds, by whether it is whole."""


def require_number(
    name: str, value: Any, low: float, high: float | None = None, whole: bool = False
) -> None:
    """Raises InvalidValueError unless `value` is a finite number between `low` and `high`."""
    most = _MOST[whole] if high is None else high
    kinds = int | np.integer if whole else int | float | np.integer | np.floating
    if isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= most:
        return
    is_number = isinstance(value, int | float | np.integer | np.floating)
    is_number = is_number and not isinstance(value, bool) and value == value
    above = is_number and value > most
    bounds = f"of {low} or more" if high is None and not above else f"between {low} and {most}"
    nearest = ""
    if is_number:
        near = min(max(value, low), most)
        nearest = f"; the nearest valid value is {round(near) if whole else format(near, 'g')}"
    kind = "a whole number" if whole else "a number"
    raise InvalidValueError(f"{name}={reprlib.repr(value)} must be {kind} {bounds}{nearest}.")


def require_numbers(
    name: str, value: Any, low: float, high: float | None = None, whole: bool = False
) -> Any:
    """Returns a parameter if it is a number, or an array of numbers, between `low` and `high`.

    Raises:
        InvalidValueError: one is not.
    """
    if not isinstance(value, Tracer):  # a value being traced cannot be looked at
        is_array = isinstance(value, list | tuple) or hasattr(value, "dtype")
        for number in np.ravel(value).tolist() if is_array else [value]:
            require_number(name, number, low, high, whole)
    return value


def require_array(name: str, value: Any, shape: tuple[int, ...], what: str) -> Any:
    """Returns finite numbers of a shape, or of one for each environment, as a float32 array.

    Args:
        what: the numbers in words, such as "one number for each of marine, zealot".

    Raises:
        InvalidValueError: they are not.
    """
    if isinstance(value, Tracer):  # only its shape can be looked at
        array = value
    else:
        try:
            array = np.asarray(value, np.float32)
        except (TypeError, ValueError):  # no numbers, or lists of unequal lengths
            array = np.zeros(0)
    if array.shape[-len(shape) :] != shape or (array is not value and not np.isfinite(array).all()):
        sizes = ", ".join(map(str, shape))
        raise InvalidValueError(
            f"{name}={reprlib.repr(value)} must be finite numbers of the shape [{sizes}], {what}."
        )
    return array


def require_count(name: str, value: Any, most: int | None = None, of: str = "") -> int:
    """Returns `value` as an int if it is a whole number of 1 or more.

    Args:
        most: the largest that is allowed, the value of the setting `of`.

    Raises:
        InvalidValueError: it is not, or more than `most`.
    """
    require_number(name, value, 1, whole=True)
    if most is not None and value > most:
        raise InvalidValueError(
            f"{name}={value} is more than {of}={most}; the nearest valid value is {most}."
        )
    return int(value)


def require_sizes(name: str, value: Any, example: str = "(64, 64)") -> tuple[int, ...]:
    """Returns `value` as a tuple if it is a list of whole numbers of 1 or more."""
    if not isinstance(value, list | tuple):
        raise InvalidValueError(
            f"{name}={reprlib.repr(value)} must be a tuple of whole numbers, one per layer, such as "
            f"{example}."
        )
    for size in value:
        require_number(name, size, 1, whole=True)
    return tuple(value)


def require_positive(name: str, value: Any, unit: str, example: str) -> None:
    """Raises InvalidValueError unless `value` is a number above 0; infinity is one."""
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if not is_number or isinstance(value, bool) or not value > 0:
        raise InvalidValueError(
            f"{name}={reprlib.repr(value)} must be {unit} above 0, such as {example}, or None."
        )


def require_flag(name: str, value: Any, *others: str) -> None:
    """Raises InvalidValueError for what is neither True nor False, nor one of the words `others`."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and value in others):
        return
    allowed = ", ".join(["True", *map(repr, others)])
    raise InvalidValueError(f"{name}={reprlib.repr(value)} must be {allowed} or False.")


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises InvalidValueError, with the nearest choice, unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise InvalidValueError(
            f"{name}={reprlib.repr(value)} is not one of {allowed}.{did_you_mean(str(value), choices)}"
        )
