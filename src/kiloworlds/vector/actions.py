"""How batches of actions are checked, and brought to their type, before an executor takes them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from kiloworlds.core.errors import InvalidValueError, did_you_mean

_INTEGERS = "bhilqBHILQ"  # NumPy's codes
# Faster than an array's methods: that counts where the arrays are small, and at every step.
_MIN, _MAX, _ALL = np.minimum.reduce, np.maximum.reduce, np.logical_and.reduce


class ActionCheck(ABC):
    """Checks batches of actions of one space, in the form `gymnasium.vector` gives them.

    Args:
        space: of one action.
        part: which part of a nested space it is, such as "['arm'][0]"; "" for all of it.
    """

    def __init__(self, space: gymnasium.Space, part: str):
        self._space, self._part = space, part

    @abstractmethod
    def __call__(self, actions: Any, count: int, env_ids: np.ndarray | None = None) -> Any:
        """Returns `count` actions in the form and of the type executors write.

        Args:
            env_ids: whose they are, for error messages; environments 0 to count - 1 if None.

        Raises:
            InvalidValueError: another form, shape or type, or an action outside the space.
        """

    def _whose(self, index: int, env_ids: np.ndarray | None) -> str:
        number = index if env_ids is None else env_ids[index]
        return f"the action of environment {number}{self._part and f' at {self._part}'}"


class _ArrayCheck(ActionCheck):
    """What spaces whose batches are arrays `[count, ...]` share.

    Attributes:
        _kinds: the kinds of numbers that can stand for those of the space.
    """

    _kinds: str

    def __init__(self, space: gymnasium.Space, part: str):
        super().__init__(space, part)
        self._dtype, self._shape = np.dtype(space.dtype), tuple(space.shape or ())

    def _array(self, actions: Any, count: int) -> Any:
        """An array of the right shape and kind of numbers; one of JAX stays one."""
        array = actions if isinstance(actions, np.ndarray) else _as_array(actions, self._part)
        if array.shape != (count, *self._shape):
            raise InvalidValueError(
                f"actions{self._part} {_form(actions, array)}; {count} environments need "
                f"{(count, *self._shape)}."
            )
        if array.dtype.kind not in self._kinds:
            wanted = "integers (int32 or int64)" if self._kinds == "iu" else self._dtype
            raise InvalidValueError(
                f"actions{self._part} are {array.dtype}; {_line(self._space)} needs {wanted}."
            )
        return array


class _FloatCheck(_ArrayCheck):
    """Boxes of floats: finite numbers, whatever the bounds."""

    _kinds = "fiu"

    def __init__(self, space: gymnasium.Space, part: str):
        super().__init__(space, part)
        self._most = float(np.finfo(self._dtype).max)

    def __call__(self, actions, count, env_ids=None):
        array = self._array(actions, count)
        given = np.asarray(array)
        if given.dtype == self._dtype:
            finite = np.isfinite(given)
            if not _ALL(finite, axis=None):
                self._refuse(given, finite, env_ids)
            return array
        values = self._converted(given, env_ids)
        return values if array is given or array.dtype.kind != "f" else array

    def _converted(self, given: np.ndarray, env_ids: np.ndarray | None) -> np.ndarray:
        # Asking beforehand takes half as long as keeping NumPy's warnings quiet.
        if given.dtype.kind == "f" and _MAX(np.abs(given), axis=None, initial=0.0) <= self._most:
            return given.astype(self._dtype)
        values = _cast(given, self._dtype)
        finite = np.isfinite(values)
        if not finite.all():
            self._refuse(given, finite, env_ids)
        return values

    def _refuse(self, given: np.ndarray, finite: np.ndarray, env_ids: np.ndarray | None) -> None:
        index = int(np.nonzero(~finite)[0][0])
        beyond = np.isfinite(given[index]).all()
        raise InvalidValueError(
            f"{self._whose(index, env_ids)} is {_line(given[index])}; actions must be finite"
            f"{f', and {self._dtype} ends at {self._most:g}' if beyond else ''}."
        )


class _IntegerCheck(_ArrayCheck):
    """Discrete, MultiDiscrete, MultiBinary and boxes of integers or truth values."""

    def __init__(self, space: gymnasium.Space, part: str):
        super().__init__(space, part)
        counts = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        self._kinds = "iu" if counts else "iufb"  # of floats whole ones, such as 1.0
        self._low, self._high = _bounds(space)
        # Narrower integers are in the space too: to convert them would only take time.
        narrower = [np.dtype(c) for c in _INTEGERS if np.can_cast(c, self._dtype)]
        self._types = frozenset([self._dtype, *narrower])

    def __call__(self, actions, count, env_ids=None):
        array = self._array(actions, count)
        given = np.asarray(array)
        if given.dtype.kind == "f":
            values = _cast(given, self._dtype)
            if (values != given).any() or not self._all_fit(values):
                self._refuse(given, values, env_ids)
            return values
        if not self._all_fit(given):
            self._refuse(given, given, env_ids)
        if given.dtype in self._types or (array is not given and given.dtype.kind != "b"):
            return array  # also one of a device, in any integer type
        return given.astype(self._dtype)

    def _all_fit(self, values: np.ndarray) -> bool:
        low, high = self._low, self._high
        if isinstance(low, int):
            return bool(_MIN(values, axis=None) >= low and _MAX(values, axis=None) <= high)
        return bool(((values >= low) & (values <= high)).all())

    def _refuse(self, given: np.ndarray, values: np.ndarray, env_ids: np.ndarray | None) -> None:
        wrong = (values != given) | (values < self._low) | (values > self._high)
        index = int(np.nonzero(wrong)[0][0])
        value = given[index]
        advice = "actions must be finite"
        if np.isfinite(value).all():
            whole = np.rint(value) if given.dtype.kind == "f" else value
            # As objects: an unsigned type cannot hold a negative bound.
            nearest = np.clip(np.asarray(whole, object), self._low, self._high)
            advice = f"the nearest valid one is {_line(np.asarray(nearest, self._dtype))}"
        raise InvalidValueError(
            f"{self._whose(index, env_ids)} is {_line(value)}, outside {_line(self._space)}; {advice}."
        )


class _SingleCheck(ActionCheck):
    """Spaces without an array form (Text, Sequence, Graph, OneOf, custom ones): one action after the
    other."""

    def __init__(self, space: gymnasium.Space, part: str):
        super().__init__(space, part)
        self._batched = batch_space(space, 1)

    def __call__(self, actions, count, env_ids=None):
        singles = self._singles(actions)
        if singles is None:
            raise InvalidValueError(
                f"actions{self._part} are {_type(actions)}; {count} environments need {count} "
                f"in {_line(self._space)}."
            )
        if len(singles) != count:
            raise InvalidValueError(
                f"actions{self._part} are {len(singles)}; {count} environments need one each."
            )
        for index, single in enumerate(singles):
            if not self._fits(single):
                raise InvalidValueError(
                    f"{self._whose(index, env_ids)} is {_line(repr(single))}, outside "
                    f"{_line(self._space)}."
                )
        return singles if isinstance(self._batched, spaces.Tuple) else actions

    def _singles(self, actions: Any) -> tuple[Any, ...] | None:
        if isinstance(self._batched, spaces.Tuple):
            return _as_tuple(actions)
        try:  # a custom space that has registered another form of its batches with Gymnasium
            return tuple(iterate(self._batched, actions))
        except Exception:
            return None

    def _fits(self, single: Any) -> bool:
        try:
            return bool(self._space.contains(single))
        except NotImplementedError:  # a custom space that cannot tell
            return True
        except Exception:  # some spaces of Gymnasium raise for what has another form than theirs
            return False


class _DictCheck(ActionCheck):
    """Dict: a dictionary of batches, one of each part."""

    def __init__(self, space: spaces.Dict, part: str):
        super().__init__(space, part)
        self._checks = {
            key: action_check(inner, f"{part}[{key!r}]") for key, inner in space.spaces.items()
        }

    def __call__(self, actions, count, env_ids=None):
        checks = self._checks
        if not isinstance(actions, Mapping):
            raise InvalidValueError(
                f"actions{self._part} are {_type(actions)}; this environment needs a dict of one batch "
                f"per part: {list(checks)}."
            )
        unknown = [key for key in actions if key not in checks]
        missing = [key for key in checks if key not in actions]
        if unknown or missing:
            what = f"hold {unknown[0]!r}" if unknown else f"lack {missing[0]!r}"
            raise InvalidValueError(
                f"actions{self._part} {what}; the parts are {list(checks)}."
                f"{did_you_mean(str(unknown[0]), map(str, checks)) if unknown else ''}"
            )
        return {key: check(actions[key], count, env_ids) for key, check in checks.items()}


class _TupleCheck(ActionCheck):
    """Tuple: a tuple of batches, one of each part."""

    def __init__(self, space: spaces.Tuple, part: str):
        super().__init__(space, part)
        self._checks = [
            action_check(inner, f"{part}[{index}]") for index, inner in enumerate(space.spaces)
        ]

    def __call__(self, actions, count, env_ids=None):
        parts = _as_tuple(actions)
        if parts is None or len(parts) != len(self._checks):
            found = _type(actions) if parts is None else f"{len(parts)} parts"
            raise InvalidValueError(
                f"actions{self._part} are {found}; this environment needs a tuple of "
                f"{len(self._checks)} batches, one per part."
            )
        checked = zip(self._checks, parts, strict=True)
        return tuple(check(part, count, env_ids) for check, part in checked)


def action_check(space: gymnasium.Space, part: str = "") -> ActionCheck:
    """What checks batches of actions of a space; `part` as in `ActionCheck`."""
    match space:
        case spaces.Box() if space.dtype.kind == "f":
            return _FloatCheck(space, part)
        case spaces.Box() | spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return _IntegerCheck(space, part)
        case spaces.Dict():
            return _DictCheck(space, part)
        case spaces.Tuple():
            return _TupleCheck(space, part)
    return _SingleCheck(space, part)


def _bounds(space: gymnasium.Space) -> tuple[Any, Any]:
    """The smallest and the largest valid action: ints where they are the same for all entries."""
    match space:
        case spaces.Discrete():
            return int(space.start), int(space.start) + int(space.n) - 1
        case spaces.MultiBinary():
            return 0, 1
        case spaces.MultiDiscrete():
            low = space.start.astype(np.int64)  # a narrow type may not hold the sum
            return low, low + space.nvec.astype(np.int64) - 1
    assert isinstance(space, spaces.Box)
    low, high = space.low, space.high
    if low.size and (low == low.flat[0]).all() and (high == high.flat[0]).all():
        return int(low.flat[0]), int(high.flat[0])
    return low, high


def _as_array(actions: Any, part: str) -> Any:
    """Arrays of NumPy and JAX as they are, what else looks like an array as NumPy's."""
    if hasattr(getattr(actions, "dtype", None), "kind"):
        return actions
    try:
        return np.asarray(actions)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unequal length, or on a GPU
        raise InvalidValueError(f"actions{part} are no array of numbers: {error}") from error


def _as_tuple(actions: Any) -> tuple[Any, ...] | None:
    """What lies in a list, array or the like; None for what has no order or is one value."""
    if isinstance(actions, str | bytes | Mapping | Set):
        return None
    try:
        return tuple(actions)
    except TypeError:
        return None


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`astype`, without NumPy's warnings: what did not fit is found afterwards."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype)


def _form(actions: Any, array: Any) -> str:
    """What was given in place of an array of the right shape."""
    if array.shape == () and array.dtype.kind not in "iufb":
        return f"are {_type(actions)}"
    return f"have shape {tuple(array.shape)}"


def _type(actions: Any) -> str:
    return f"of type {type(actions).__name__}"


def _line(value: Any) -> str:
    """A value or a space on one line, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
