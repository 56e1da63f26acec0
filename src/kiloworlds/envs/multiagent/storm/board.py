"""Sets of cells of a square grid as bits, 32 to a word: a shift tests a cell where a gather would cost
many times as much.

Cell `x * size + y` is that bit, lowest first.
"""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

Board = tuple[UInt32[Array, ""], ...]

_WORD_BITS = 5
_IN_WORD = (1 << _WORD_BITS) - 1


def num_words(size: int) -> int:
    """How many words hold the cells of a grid of `size` by `size`."""
    return -(-size * size >> _WORD_BITS)


def empty(size: int) -> Board:
    return of_cells((), size)


def full(size: int) -> Board:
    """All cells; the bits beyond the last stay 0."""
    return of_cells(range(size * size), size)


def of_cells(cells: Sequence[int] | range, size: int) -> Board:
    """The set of cells known before compilation, in words of numpy."""
    words = [0] * num_words(size)
    for cell in cells:
        words[cell >> _WORD_BITS] |= 1 << (cell & _IN_WORD)
    return cast(Board, tuple(map(np.uint32, words)))


def of_cell(cell: Int[Array, "..."], words: int) -> tuple[UInt32[Array, "..."], ...]:
    """The set of one cell in so many words, for each of several."""
    bit = jnp.uint32(1) << (cell & _IN_WORD).astype(jnp.uint32)
    return tuple(jnp.where(cell >> _WORD_BITS == word, bit, jnp.uint32(0)) for word in range(words))


def has(board: Board, cell: Int[Array, "..."]) -> Bool[Array, "..."]:
    """Whether cells of the grid are in a set; for numbers beyond it the result means nothing."""
    word = jnp.asarray(board[0])
    for index in range(1, len(board)):
        word = jnp.where(cell >> _WORD_BITS == index, board[index], word)
    return ((word >> (cell & _IN_WORD).astype(jnp.uint32)) & 1) == 1


def count(board: Board) -> Int[Array, ""]:
    """How many cells a set has."""
    return sum(jax.lax.population_count(word) for word in board).astype(jnp.int32)  # type: ignore[union-attr]


def nth(board: Board, rank: Int[Array, ""]) -> Int[Array, ""]:
    """The cell of a set that follows `rank` others; for a rank beyond the last it means nothing."""
    # The word it is in, then the half, the quarter, ... of that word.
    chosen, cell = jnp.uint32(0), jnp.int32(0)
    for index, word in enumerate(board):
        here = jax.lax.population_count(word).astype(jnp.int32)
        is_here = (rank >= 0) & (rank < here)
        chosen = jnp.where(is_here, word, chosen)
        cell = jnp.where(is_here, (index << _WORD_BITS) + rank, cell)
        rank = rank - here
    rank, cell = cell & _IN_WORD, cell & ~_IN_WORD
    for bits in (16, 8, 4, 2, 1):
        below = jax.lax.population_count(chosen & np.uint32((1 << bits) - 1)).astype(jnp.int32)
        skips = rank >= below
        chosen = jnp.where(skips, chosen >> bits, chosen)
        rank = rank - jnp.where(skips, below, 0)
        cell = cell + jnp.where(skips, bits, 0)
    return cell


def union(first: Board, *others: Board) -> Board:
    for other in others:
        first = tuple(a | b for a, b in zip(first, other, strict=True))
    return first


def without(board: Board, taken: Board) -> Board:
    return tuple(a & ~b for a, b in zip(board, taken, strict=True))


def where(condition: Bool[Array, ""], board: Board, other: Board) -> Board:
    return tuple(jnp.where(condition, a, b) for a, b in zip(board, other, strict=True))


def unpack(board: Board, size: int) -> Bool[np.ndarray, "size size"]:
    """The cells as an array, on the host."""
    words = np.array([int(word) for word in board], "<u4").view(np.uint8)
    bits = np.unpackbits(words, bitorder="little")
    return bits[: size * size].reshape(size, size).astype(bool)
