"""Initial weights."""

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

_SMALL = 1 << 16
"""Up to so many numbers a matrix is computed side by side with others."""

Built = TypeVar("Built")


class _Request(NamedTuple):
    """A matrix that is asked for."""

    key: Key[Array, ""]
    shape: tuple[int, int]
    scale: float

    @property
    def tall(self) -> tuple[int, int]:
        """Its shape with the longer side first."""
        return max(self.shape), min(self.shape)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return self.shape[0] * self.shape[1]


class _Batch:
    """The matrices of one `built_together`: first asked for, then handed out in the same order."""

    def __init__(self):
        self.requests: list[_Request] = []
        self.answers: Iterator[Array] | None = None

    def take(self, request: _Request) -> Array:
        if self.answers is not None:
            return next(self.answers)
        self.requests.append(request)
        return jnp.zeros(request.shape)


_batch: ContextVar[_Batch | None] = ContextVar("batch of initial weights", default=None)


def orthogonal(key: Key[Array, ""], shape: tuple[int, int], scale: float) -> Float[Array, "..."]:
    """A random matrix with orthonormal rows or columns, times `scale` (Saxe et al. 2013).

    Modified Gram-Schmidt, applied twice per column, instead of LAPACK's QR: XLA's batched QR
    (`jax.nn.initializers.orthogonal` under `vmap`) can wait for itself forever on a CPU with few
    threads (seen with JAX 0.10.2 on two cores and eight seeds).
    """
    request, batch = _Request(key, shape, scale), _batch.get()
    return batch.take(request) if batch is not None else _side_by_side([request])[0]


def built_together(build: Callable[[], Built]) -> Built:
    """`build()`, which makes networks, with all small orthogonal matrices computed in one loop: its
    program compiles the faster, the more layers there are.

    `build` is called twice, the first time to learn which matrices it asks for. Within another call
    they are computed with those of the outer one.
    """
    if _batch.get() is not None:
        return build()
    batch = _Batch()
    token = _batch.set(batch)
    try:
        build()
        batch.answers = iter(_matrices(batch.requests))
        return build()
    finally:
        _batch.reset(token)


def shapes_of(build: Callable[[], Built]) -> Built:
    """What `build()`, which makes networks, would give, as shapes: nothing is computed."""

    def blank() -> Built:
        token = _batch.set(_Batch())  # which answers with zeros
        try:
            return build()
        finally:
            _batch.reset(token)

    return jax.eval_shape(blank)


def _matrices(requests: Sequence[_Request]) -> list[Float[Array, "..."]]:
    """The matrices of all requests: small ones side by side, large ones each by itself."""
    small = [index for index, one in enumerate(requests) if one.size <= _SMALL]
    groups = [small, *([index] for index in range(len(requests)) if index not in small)]
    found = {}
    for group in groups:
        matrices = _side_by_side([requests[index] for index in group])
        found.update(zip(group, matrices, strict=True))
    return [found[index] for index in range(len(requests))]


def _side_by_side(requests: Sequence[_Request]) -> list[Float[Array, "..."]]:
    """The matrices of all requests; each is what it would be alone."""
    if not requests:
        return []
    rows, columns = (max(sides) for sides in zip(*(one.tall for one in requests), strict=True))
    longest = max(one.size for one in requests)
    # Words of fast keys depend on their place alone, so that short matrices are beginnings of these.
    keys = jnp.stack([one.key for one in requests])
    numbers = jax.vmap(lambda key: jax.random.normal(key, (longest,)))(keys)

    def padded(index: int, request: _Request) -> Array:
        height, width = request.tall
        matrix = numbers[index, : request.size].reshape(height, width)
        return jnp.pad(matrix, ((0, rows - height), (0, columns - width)))

    stack = jnp.stack([padded(index, one) for index, one in enumerate(requests)])

    def orthonormalise(index, stack):
        column = stack[:, :, index]
        before = jnp.arange(columns) < index
        for _ in range(2):
            overlap = jnp.where(before, jnp.einsum("lr,lrc->lc", column, stack), 0.0)
            column = column - jnp.einsum("lrc,lc->lr", stack, overlap)
        length = jnp.linalg.norm(column, axis=1, keepdims=True)
        # Columns of padding are zeros and stay it.
        return stack.at[:, :, index].set(column / jnp.where(length > 0, length, 1.0))

    stack = jax.lax.fori_loop(0, columns, orthonormalise, stack)
    matrices = []
    for matrix, request in zip(stack, requests, strict=True):
        height, width = request.tall
        matrix = matrix[:height, :width]
        matrices.append(
            request.scale * (matrix if request.shape[0] >= request.shape[1] else matrix.T)
        )
    return matrices
