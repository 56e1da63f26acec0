"""Observations, actions and spaces leaf by leaf: do they fit, are they equal, do they share memory."""

import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces


def arrays(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The arrays and scalars inside a value of dicts, tuples and lists, each with its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from arrays(part, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from arrays(part, f"{name}[{index}]")
    else:
        yield name, value


def why_outside(space: spaces.Space, value: Any, name: str) -> str | None:
    """Why a value is not in its space (the first offending entry, its value and bound), or None."""
    match space:
        case spaces.Dict():
            return _why_not_dict(space, value, name)
        case spaces.Tuple():
            if not isinstance(value, tuple) or len(value) != len(space.spaces):
                return (
                    f"{name} is {_kind(value)}, but its space says a tuple of {len(space.spaces)}"
                )
            pairs = zip(space.spaces, value, strict=True)
            reasons = (why_outside(p, v, f"{name}[{i}]") for i, (p, v) in enumerate(pairs))
            return next(filter(None, reasons), None)
        case spaces.Box():
            return _why_not_box(space, value, name)
        case spaces.Discrete():
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole and not (isinstance(value, np.ndarray) and value.shape == ()):
                return f"{name} is {_kind(value)}, but its space is {space}"
            low, high = int(space.start), int(space.start + space.n - 1)
            return (
                None if low <= value <= high else f"{name} = {value} lies outside {low} to {high}"
            )
    return None if space.contains(value) else f"{name} = {reprlib.repr(value)} is not in {space}"


def _why_not_dict(space: spaces.Dict, value: Any, name: str) -> str | None:
    if not isinstance(value, dict):
        return f"{name} is {_kind(value)}, but its space says a dict"
    missing, extra = set(space.spaces) - set(value), set(value) - set(space.spaces)
    if missing or extra:
        which = f"lacks {sorted(missing)}" if missing else f"has the keys {sorted(extra)} besides"
        return f"{name} {which}; its space says {sorted(space.spaces)}"
    reasons = (why_outside(part, value[k], f"{name}[{k!r}]") for k, part in space.spaces.items())
    return next(filter(None, reasons), None)


def _why_not_box(space: spaces.Box, value: Any, name: str) -> str | None:
    scalar = space.shape == () and isinstance(value, np.generic | int | float)
    if not isinstance(value, np.ndarray) and not scalar:
        return f"{name} is {_kind(value)}, but its space says a {space.dtype} array"
    array = np.asarray(value)
    if array.shape != space.shape:
        return f"{name} has shape {array.shape}, but its space says {space.shape}"
    if array.dtype != space.dtype and not (scalar and not isinstance(value, np.generic)):
        return f"{name} is {array.dtype}, but its space says {space.dtype}"
    wrong = ~((array >= space.low) & (array <= space.high))
    if not wrong.any():
        return None
    index, where = _first(wrong)
    low, high = space.low[index], space.high[index]
    return f"{name}{where} = {array[index]:g} lies outside {low:g} to {high:g}"


def not_finite(value: Any, name: str) -> str | None:
    """The first NaN or infinity among floating-point entries, or None."""
    for path, leaf in arrays(value, name):
        array = np.asarray(leaf)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        index, where = _first(~np.isfinite(array))
        return f"{path}{where} is {array[index]}"
    return None


def difference(first: Any, second: Any, name: str) -> str | None:
    """Where two values of any nesting first differ, exactly, or None; NaN equals NaN."""
    ours, theirs = list(arrays(first, name)), list(arrays(second, name))
    if [path for path, _ in ours] != [path for path, _ in theirs]:
        return f"{name} has other parts: {reprlib.repr(first)} and {reprlib.repr(second)}"
    for (path, one), (_, two) in zip(ours, theirs, strict=True):
        one, two = np.asarray(one), np.asarray(two)
        if one.shape != two.shape:
            return f"{path} has the shapes {one.shape} and {two.shape}"
        wrong = one != two
        if one.dtype.kind == two.dtype.kind == "f":
            wrong &= ~(np.isnan(one) & np.isnan(two))
        if np.any(wrong):
            index, where = _first(np.asarray(wrong))
            return f"{path}{where} is {one[index]} and {two[index]}"
    return None


def shares_memory(first: Any, second: Any) -> bool:
    """Whether any array of one value overlaps an array of the other."""
    ours = [leaf for _, leaf in arrays(first, "") if isinstance(leaf, np.ndarray)]
    theirs = [leaf for _, leaf in arrays(second, "") if isinstance(leaf, np.ndarray)]
    return any(np.may_share_memory(one, two) for one in ours for two in theirs)


def _first(wrong: np.ndarray) -> tuple[tuple[int, ...], str]:
    """The index of the first True, and how it is written after a name."""
    index = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), wrong.shape)))
    return index, f"[{', '.join(map(str, index))}]" if index else ""


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return f"{type(value).__name__} {reprlib.repr(value)}"
