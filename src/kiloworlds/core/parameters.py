"""Checks of the arguments of environments, before they are built."""

import inspect
import reprlib
from collections.abc import Callable
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from kiloworlds.core.errors import InvalidValueError, did_you_mean


def check_names(
    id: str, constructor: Callable[..., Any], arguments: dict[str, Any], also: str
) -> None:
    """Raises InvalidValueError, with the nearest name, for an argument that `constructor` does not take.

    Args:
        also: an argument that every environment takes.
    """
    parameters = inspect.signature(constructor).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in arguments:
        if name not in parameters:
            known = [*parameters, also]
            raise InvalidValueError(
                f"{id} takes no argument {name!r}.{did_you_mean(name, known)} "
                f"It takes: {', '.join(known)}."
            )


def check_numbers(id: str, constructor: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Raises InvalidValueError for what is no finite number, nor an array of them, where it should be.

    Those are parameters whose default is a float, or None where the annotation allows a float.
    """
    parameters = inspect.signature(constructor).parameters
    for name, value in arguments.items():
        if name not in parameters:
            continue
        default = parameters[name].default
        is_optional = default is None and float in get_args(parameters[name].annotation)
        if (is_optional and value is None) or not (is_optional or isinstance(default, float)):
            continue
        if not _is_finite(value):
            shown = "None" if default is None else format(default, "g")
            raise InvalidValueError(
                f"{id}: {name}={reprlib.repr(value)} must be a finite number, or one for each "
                f"environment; the default is {shown}."
            )


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tracer):
        return True
    array = np.asarray(value)
    is_number = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.integer, jnp.floating))
    if not is_number or not array.size:
        return False
    return bool(np.isfinite(array).all())


def is_batched(value: Any) -> bool:
    """Whether a parameter is a list with a number for each environment."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in value)
    )
