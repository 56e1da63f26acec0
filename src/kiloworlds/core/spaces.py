"""Spaces: what observations and actions look like.

Immutable, hashable and usable inside compiled code, unlike `gymnasium.spaces`, whose objects carry a
random generator. `to_gymnasium` and `from_gymnasium` convert at the border.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree

from kiloworlds.core.errors import InvalidValueError


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
    return tuple(np.broadcast_to(np.asarray(value, dtype), shape).ravel().tolist())


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

    @property
    def low(self) -> np.ndarray:
        return np.asarray(self._low, self.dtype).reshape(self.shape)

    @property
    def high(self) -> np.ndarray:
        return np.asarray(self._high, self.dtype).reshape(self.shape)

    @property
    def is_bounded(self) -> bool:
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def sample(self, key: Key[Array, ""]) -> Array:
        """Uniform where bounded, exponential beyond one bound, normal where there is none."""
        if not np.issubdtype(self.dtype, np.floating):
            low, high = self.low.astype(np.int64), self.high.astype(np.int64)
            draws = jax.random.uniform(key, self.shape)
            return jnp.asarray(low + jnp.floor(draws * (high - low + 1)), self.dtype)
        below, above = np.isfinite(self.low), np.isfinite(self.high)
        low = np.where(below, self.low, 0).astype(self.dtype)
        high = np.where(above, self.high, 1).astype(self.dtype)
        uniform_key, tail_key = jax.random.split(key)
        inside = low + jax.random.uniform(uniform_key, self.shape, self.dtype) * (high - low)
        tail = jax.random.exponential(tail_key, self.shape, self.dtype)
        normal = jax.random.normal(uniform_key, self.shape, self.dtype)
        beyond = jnp.where(below, low + tail, jnp.where(above, high - tail, normal))
        return jnp.where(below & above, inside, beyond)

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        value = jnp.asarray(value)
        return jnp.all((value >= self.low) & (value <= self.high))

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
        # One word and one product, where `randint` draws two words and divides.
        share = jax.random.uniform(key)
        return self.start + jnp.floor(share * self.n).astype(jnp.int32)

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

    def __init__(self, spaces: dict[str, Space]):
        object.__setattr__(self, "items", tuple(sorted(spaces.items())))

    def __getitem__(self, name: str) -> Space:
        return dict(self.items)[name]

    def sample(self, key: Key[Array, ""]) -> dict:
        keys = jax.random.split(key, len(self.items))
        return {name: space.sample(keys[i]) for i, (name, space) in enumerate(self.items)}

    def contains(self, value: PyTree) -> Bool[Array, ""]:
        return jnp.stack([space.contains(value[name]) for name, space in self.items]).all()

    def to_gymnasium(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({name: space.to_gymnasium() for name, space in self.items})


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
