"""Spaces: what observations and actions look like.

Immutable, hashable and usable inside compiled code, unlike `gymnasium.spaces`, whose objects carry a
random generator. `to_gymnasium` and `from_gymnasium` convert at the border.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector.utils import batch_space
from jaxtyping import Array, Bool, Key, PyTree

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import MOST_INDICES, random_index


@dataclass(frozen=True)
class Space:
    """A set of values of one shape and type."""

    @abstractmethod
    def sample(self, key: Key[Array, ""]) -> PyTree:
        """Draws one value; use `jax.vmap` for a batch."""

    @abstractmethod
    def contains(self, value: PyTree) -> Bool[Array, ""]:
        """Whether `value` (of the right shape) lies in the space; usable inside `jax.jit`."""

    @abstractmethod
    def to_gymnasium(self) -> gymnasium.Space:
        """The equal `gymnasium.spaces` object."""


def _bound(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Any, ...]:
    given = np.asarray(value)
    if np.isnan(given).any():
        raise InvalidValueError("Box: a bound is NaN; use an infinite bound for none.")
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        if (given < limits.min).any() or (given > limits.max).any():
            raise InvalidValueError(
                f"Box: the bound {value} does not fit into {dtype}, which holds {limits.min} to "
                f"{limits.max}."
            )
    try:
        return tuple(np.broadcast_to(given.astype(dtype), shape).ravel().tolist())
    except ValueError as error:
        raise InvalidValueError(
            f"Box: a bound of shape {given.shape} does not spread over the shape {shape}."
        ) from error


@dataclass(frozen=True, init=False)
class Box(Space):
    """Arrays of `shape` and `dtype` whose entries lie between `low` and `high`, both included.

    Args:
        low, high: bounds, scalars or arrays of `shape`; infinite for none.
        shape: the shape of one value; that of `low` and `high` if not given.
        dtype: the type of the entries.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    _low: tuple[Any, ...] = field(repr=False)
    _high: tuple[Any, ...] = field(repr=False)

    def __init__(
        self,
        low: Any,
        high: Any,
        shape: tuple[int, ...] | None = None,
        dtype: Any = np.float32,
    ):
        if shape is None:
            shape = np.broadcast_shapes(np.shape(low), np.shape(high))
        object.__setattr__(self, "shape", tuple(int(size) for size in shape))
        object.__setattr__(self, "dtype", np.dtype(dtype))
        object.__setattr__(self, "_low", _bound(low, self.shape, self.dtype))
        object.__setattr__(self, "_high", _bound(high, self.shape, self.dtype))
        if (self.low > self.high).any():
            raise InvalidValueError(f"Box: low={low} is above high={high}.")

    @property
    def low(self) -> np.ndarray:
        return np.asarray(self._low, self.dtype).reshape(self.shape)

    @property
    def high(self) -> np.ndarray:
        return np.asarray(self._high, self.dtype).reshape(self.shape)

    @property
    def is_bounded(self) -> bool:
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def _jax_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds in JAX's type: without `jax_enable_x64`, 64-bit types are cut to 32 bits."""
        dtype = jax.dtypes.canonicalize_dtype(self.dtype)
        low, high = self.low, self.high
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            low, high = np.clip(low, limits.min, limits.max), np.clip(high, limits.min, limits.max)
        with np.errstate(over="ignore"):  # beyond float32 there is no bound
            return low.astype(dtype), high.astype(dtype)

    def sample(self, key: Key[Array, ""]) -> Array:
        """Uniform where bounded, exponential beyond one bound, normal where there is none."""
        low, high = self._jax_bounds()
        dtype = low.dtype
        if not np.issubdtype(dtype, np.floating):
            # Offsets from `low` fit into the unsigned type, wherever the bounds lie.
            unsigned = np.dtype(f"u{dtype.itemsize}")
            with np.errstate(over="ignore"):  # the count of a whole type wraps around to 0
                count = high.astype(unsigned) - low.astype(unsigned) + unsigned.type(1)
            draws = jax.random.randint(key, self.shape, 0, np.maximum(count, 1), unsigned)
            draws = jnp.where(count == 0, jax.random.bits(key, self.shape, unsigned), draws)
            return (jnp.asarray(low.astype(unsigned)) + draws).astype(dtype)
        below, above = np.isfinite(low), np.isfinite(high)
        low, high = np.where(below, low, 0).astype(dtype), np.where(above, high, 1).astype(dtype)
        uniform_key, tail_key = jax.random.split(key)
        part = jax.random.uniform(uniform_key, self.shape, dtype)
        # Not low + part * (high - low): the difference of two large bounds overflows.
        inside = jnp.clip(low * (1 - part) + high * part, low, high)
        tail = jax.random.exponential(tail_key, self.shape, dtype)
        normal = jax.random.normal(uniform_key, self.shape, dtype)
        beyond = jnp.where(below, low + tail, jnp.where(above, high - tail, normal))
        return jnp.where(below & above, inside, beyond)

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        value = jnp.asarray(value)
        low, high = self._jax_bounds()
        return jnp.all((value >= low) & (value <= high))

    def to_gymnasium(self) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(self.low, self.high, self.shape, self.dtype.type)


@dataclass(frozen=True)
class Discrete(Space):
    """The integers `start`, `start` + 1, ..., `start` + `n` - 1, as int32."""

    n: int
    start: int = 0

    shape = ()

    def __post_init__(self):
        if self.n < 1:
            raise InvalidValueError(f"Discrete(n={self.n}): n must be 1 or more.")

    def sample(self, key: Key[Array, ""]) -> Array:
        if self.n <= MOST_INDICES:
            return self.start + random_index(key, self.n)
        return jax.random.randint(key, (), self.start, self.start + self.n, jnp.int32)

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        value = jnp.asarray(value)
        return (value >= self.start) & (value < self.start + self.n)

    def to_gymnasium(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.n, start=self.start)


@dataclass(frozen=True)
class MultiDiscrete(Space):
    """Vectors of integers (int32) whose entry i lies between 0 and `nvec[i]` - 1."""

    nvec: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "nvec", tuple(int(n) for n in self.nvec))
        if not self.nvec or min(self.nvec) < 1:
            raise InvalidValueError(
                f"MultiDiscrete(nvec={self.nvec}): it needs at least one entry, each 1 or more."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    def sample(self, key: Key[Array, ""]) -> Array:
        return jax.random.randint(key, self.shape, 0, jnp.asarray(self.nvec), jnp.int32)

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        value = jnp.asarray(value)
        return jnp.all((value >= 0) & (value < jnp.asarray(self.nvec)))

    def to_gymnasium(self) -> gymnasium.spaces.MultiDiscrete:
        return gymnasium.spaces.MultiDiscrete(list(self.nvec))


@dataclass(frozen=True)
class MultiBinary(Space):
    """Arrays of `shape` with entries 0 and 1, as int8."""

    shape: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(np.atleast_1d(self.shape).tolist()))
        if min(self.shape, default=0) < 1:
            raise InvalidValueError(f"MultiBinary(shape={self.shape}): sizes must be 1 or more.")

    def sample(self, key: Key[Array, ""]) -> Array:
        return jax.random.bernoulli(key, 0.5, self.shape).astype(jnp.int8)

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        value = jnp.asarray(value)
        return jnp.all((value == 0) | (value == 1))

    def to_gymnasium(self) -> gymnasium.spaces.MultiBinary:
        size = self.shape if len(self.shape) > 1 else int(np.prod(self.shape))
        return gymnasium.spaces.MultiBinary(size)


@dataclass(frozen=True)
class Tuple(Space):
    """Tuples with one value from each of `spaces`."""

    spaces: tuple[Space, ...]

    def __post_init__(self):
        object.__setattr__(self, "spaces", tuple(self.spaces))
        if not self.spaces:
            raise InvalidValueError("Tuple(()): it needs at least one space.")

    def sample(self, key: Key[Array, ""]) -> tuple:
        keys = jax.random.split(key, len(self.spaces))
        return tuple(space.sample(keys[i]) for i, space in enumerate(self.spaces))

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        parts = [space.contains(part) for space, part in zip(self.spaces, value, strict=True)]
        return jnp.stack(parts).all()

    def to_gymnasium(self) -> gymnasium.spaces.Tuple:
        return gymnasium.spaces.Tuple([space.to_gymnasium() for space in self.spaces])


@dataclass(frozen=True, init=False)
class Dict(Space):
    """Dictionaries with one value from each named space, ordered by name."""

    items: tuple[tuple[str, Space], ...]

    def __init__(self, spaces: Mapping[str, Space]):
        object.__setattr__(self, "items", tuple(sorted(spaces.items(), key=lambda item: item[0])))
        if not self.items:
            raise InvalidValueError("Dict({}): it needs at least one space.")

    def __getitem__(self, name: str) -> Space:
        return dict(self.items)[name]

    def sample(self, key: Key[Array, ""]) -> dict:
        keys = jax.random.split(key, len(self.items))
        return {name: space.sample(keys[i]) for i, (name, space) in enumerate(self.items)}

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        return jnp.stack([space.contains(value[name]) for name, space in self.items]).all()

    def to_gymnasium(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({name: space.to_gymnasium() for name, space in self.items})


@dataclass(frozen=True)
class Repeated(Space):
    """`count` values of one space, along a leading axis: such as one for each of several agents."""

    space: Space
    count: int

    def __post_init__(self):
        if self.count < 1:
            raise InvalidValueError(f"Repeated(count={self.count}): count must be 1 or more.")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the arrays; AttributeError where the space repeated has none."""
        return (self.count, *self.space.shape)  # type: ignore[attr-defined]

    def sample(self, key: Key[Array, ""]) -> PyTree:
        if isinstance(self.space, Discrete) and self.space.n <= MOST_INDICES:
            return self.space.start + random_index(key, self.space.n, (self.count,))
        return jax.vmap(self.space.sample)(jax.random.split(key, self.count))

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        return jax.vmap(self.space.contains)(value).all()

    def to_gymnasium(self) -> gymnasium.Space:
        return batch_space(self.space.to_gymnasium(), self.count)


def from_gymnasium(space: gymnasium.Space) -> Space:
    """Converts a `gymnasium.spaces` object.

    Raises:
        InvalidValueError: the kind of space has no fixed shape (Text, Graph, Sequence, OneOf) or is
            unknown.
    """
    match space:
        case gymnasium.spaces.Box():
            return Box(space.low, space.high, space.shape, space.dtype)
        case gymnasium.spaces.Discrete():
            return Discrete(int(space.n), int(space.start))
        case gymnasium.spaces.MultiDiscrete() if space.nvec.ndim == 1 and not np.any(space.start):
            return MultiDiscrete(tuple(space.nvec.tolist()))
        case gymnasium.spaces.MultiBinary():
            return MultiBinary(space.shape)
        case gymnasium.spaces.Tuple():
            return Tuple(tuple(from_gymnasium(part) for part in space.spaces))
        case gymnasium.spaces.Dict():
            return Dict({name: from_gymnasium(part) for name, part in space.spaces.items()})
    raise InvalidValueError(
        f"The space {space} has no kiloworlds counterpart; supported are Box, Discrete, one-"
        "dimensional MultiDiscrete starting at 0, MultiBinary, Tuple and Dict. Wrap the environment "
        "so that it gives one of these (gymnasium.wrappers.TransformObservation / TransformAction)."
    )
