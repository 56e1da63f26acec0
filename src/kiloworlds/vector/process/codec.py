"""How values of a Gymnasium space lie in shared arrays, one row per environment."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from kiloworlds.vector.process.memory import ArraySpec


class SpaceMismatchError(ValueError):
    """A value that does not fit its space."""


class Codec(ABC):
    """Writes single values into rows of arrays `[N, ...]` and reads batches from them.

    Attributes:
        specs: the arrays needed.
    """

    specs: list[ArraySpec]

    @abstractmethod
    def write(self, arrays: list[np.ndarray], row: int, value: Any) -> None:
        """Puts a value into a row.

        Raises:
            SpaceMismatchError: its shape or type is not that of the space. Nothing is cast.
        """

    def writer(self, arrays: list[np.ndarray]) -> Callable[[int, Any], None]:
        """`write` for these arrays, for many calls."""
        return functools.partial(self.write, arrays)

    def values(self, arrays: list[np.ndarray], rows: slice | np.ndarray) -> Sequence[Any]:
        """Copies of the values in `rows`, a slice or indices."""
        indices = range(rows.start, rows.stop) if isinstance(rows, slice) else rows.tolist()
        return [self.value(arrays, row) for row in indices]

    @abstractmethod
    def batch(self, arrays: list[np.ndarray]) -> Any:
        """All rows, in the form `gymnasium.vector` gives batches of this space. Arrays are views."""

    @abstractmethod
    def value(self, arrays: list[np.ndarray], row: int) -> Any:
        """A copy of the value in one row."""

    @abstractmethod
    def write_batch(self, arrays: list[np.ndarray], rows: Any, batch: Any) -> None:
        """Puts a batch, as `gymnasium.vector` forms it, into rows (a slice or indices)."""


class ArrayCodec(Codec):
    """Spaces whose values are one array: Box, Discrete, MultiDiscrete, MultiBinary."""

    def __init__(self, space: gymnasium.Space, num_envs: int, where: str):
        self._where = where
        self._dtype = np.dtype(space.dtype)
        self._shape = tuple(space.shape or ())
        self.specs = [ArraySpec(self._dtype.str, (num_envs, *self._shape))]

    def write(self, arrays, row, value):
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if shape == self._shape and dtype == self._dtype:
            arrays[0][row] = value
            return
        # Plain numbers stand for scalars of the same kind; Gymnasium's Discrete gives np.int64, many
        # environments an int.
        if self._shape == () and shape in (None, ()):
            if type(value) is int and self._dtype.kind == "i":
                arrays[0][row] = value
                return
            kind = np.asarray(value).dtype.kind
            if kind == self._dtype.kind or kind + self._dtype.kind in ("iu", "ui", "bi", "if"):
                arrays[0][row] = value
                return
        found = f"{type(value).__name__}" if shape is None else f"{dtype} of shape {shape}"
        raise SpaceMismatchError(
            f"{self._where} is {found}, but its space says {self._dtype} of shape {self._shape}."
        )

    def writer(self, arrays):
        if not self._shape:
            return super().writer(arrays)
        if len(self._shape) == 1 and self._dtype.isnative:
            return self._vector_writer(arrays)
        views, write = list(arrays[0]), self.write
        shape, dtype, ndarray = self._shape, self._dtype, np.ndarray

        def write_row(row: int, value: Any) -> None:
            if type(value) is ndarray and value.dtype is dtype and value.shape == shape:
                views[row][...] = value  # twice as fast as arrays[0][row] = value
            else:
                write(arrays, row, value)

        return write_row

    def _vector_writer(self, arrays: list[np.ndarray]) -> Callable[[int, Any], None]:
        # A memoryview assigns a slice in half the time of an array, and refuses what has another
        # type or length. It knows this machine's byte order only.
        flat, (width,), write = arrays[0].reshape(-1).data, self._shape, self.write
        slices = [slice(width * row, width * (row + 1)) for row in range(len(arrays[0]))]

        def write_row(row: int, value: Any) -> None:
            try:
                flat[slices[row]] = value
            except (TypeError, ValueError, BufferError):
                write(arrays, row, value)

        return write_row

    def values(self, arrays, rows):
        return list(arrays[0][rows].copy() if isinstance(rows, slice) else arrays[0][rows])

    def batch(self, arrays):
        return arrays[0]

    def value(self, arrays, row):
        value = arrays[0][row]
        return value.copy() if self._shape else value

    def write_batch(self, arrays, rows, batch):
        arrays[0][rows] = batch


class TextCodec(Codec):
    """Text: the length, then the code points."""

    def __init__(self, space: spaces.Text, num_envs: int, where: str):
        self._where, self._longest = where, space.max_length
        self.specs = [ArraySpec("<u4", (num_envs, space.max_length + 1))]

    def write(self, arrays, row, value):
        if not isinstance(value, str) or len(value) > self._longest:
            raise SpaceMismatchError(
                f"{self._where} is {value!r}, but its space says text of up to {self._longest} "
                "characters."
            )
        arrays[0][row, 0] = len(value)
        arrays[0][row, 1 : len(value) + 1] = [ord(character) for character in value]

    def batch(self, arrays):
        return tuple(self.value(arrays, row) for row in range(len(arrays[0])))

    def value(self, arrays, row):
        length, *points = arrays[0][row].tolist()
        return "".join(map(chr, points[:length]))

    def write_batch(self, arrays, rows, batch):
        indices = np.arange(len(arrays[0]))[rows]
        for row, value in zip(indices.tolist(), batch, strict=True):
            self.write(arrays, row, value)


class NestedCodec(Codec):
    """Dict and Tuple: the arrays of the parts, one part after the other."""

    def __init__(self, parts: dict[Any, Codec], kind: type, where: str):
        self._parts, self._kind, self._where = parts, kind, where
        self.specs, self._slices = [], {}
        for key, part in parts.items():
            self._slices[key] = slice(len(self.specs), len(self.specs) + len(part.specs))
            self.specs = self.specs + part.specs

    def _form(self, values: dict[Any, Any]) -> Any:
        return values if self._kind is dict else tuple(values.values())

    def write(self, arrays, row, value):
        if self._kind is dict:
            found = set(value) if isinstance(value, dict) else None
            if found != set(self._parts):
                raise SpaceMismatchError(
                    f"{self._where} has {_keys(value)}, but its space says {_keys(self._parts)}."
                )
        elif not isinstance(value, tuple) or len(value) != len(self._parts):
            raise SpaceMismatchError(
                f"{self._where} is {type(value).__name__}, but its space says a tuple of "
                f"{len(self._parts)}."
            )
        for key, part in self._parts.items():
            part.write(arrays[self._slices[key]], row, value[key])

    def batch(self, arrays):
        return self._form(
            {key: part.batch(arrays[self._slices[key]]) for key, part in self._parts.items()}
        )

    def value(self, arrays, row):
        return self._form(
            {key: part.value(arrays[self._slices[key]], row) for key, part in self._parts.items()}
        )

    def write_batch(self, arrays, rows, batch):
        for key, part in self._parts.items():
            part.write_batch(arrays[self._slices[key]], rows, batch[key])


def _keys(value: Any) -> str:
    if not isinstance(value, dict):
        return f"the type {type(value).__name__}"
    return f"the keys {sorted(map(str, value))}"


def codec(space: gymnasium.Space, num_envs: int, where: str) -> Codec | None:
    """The codec of a space for `num_envs` rows; None where sizes vary (Graph, Sequence, custom).

    Args:
        where: what the value is, for error messages, such as "the observation".
    """
    match space:
        case spaces.Box() | spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return ArrayCodec(space, num_envs, where)
        case spaces.Text():
            return TextCodec(space, num_envs, where)
        case spaces.Dict() | spaces.Tuple():
            is_dict = isinstance(space, spaces.Dict)
            named = space.spaces.items() if is_dict else enumerate(space.spaces)
            parts = {key: codec(part, num_envs, f"{where}[{key!r}]") for key, part in named}
            if any(part is None for part in parts.values()):
                return None
            return NestedCodec(parts, dict if is_dict else tuple, where)  # type: ignore[arg-type]
    return None
