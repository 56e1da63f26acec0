"""Sets of cells as bits against sets of numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.envs.multiagent.storm import board


@pytest.mark.parametrize("size", [4, 8, 11])
def test_boards_are_sets(size):
    generator = np.random.default_rng(size)
    cells = size * size

    @jax.jit
    def found(words, other):
        every = jnp.arange(cells)
        return {
            "has": board.has(words, every),
            "count": board.count(words),
            "nth": jax.vmap(lambda rank: board.nth(words, rank))(every),
            "union": board.has(board.union(words, other), every),
            "without": board.has(board.without(words, other), every),
        }

    for density in (0.02, 0.5, 0.97):
        first, second = generator.random((2, cells)) < density
        words, other = (
            board.of_cells(np.flatnonzero(each).tolist(), size) for each in (first, second)
        )
        assert len(words) == board.num_words(size)
        results = found(words, other)
        np.testing.assert_array_equal(results["has"], first)
        assert results["count"] == first.sum()
        np.testing.assert_array_equal(results["nth"][: first.sum()], np.flatnonzero(first))
        np.testing.assert_array_equal(results["union"], first | second)
        np.testing.assert_array_equal(results["without"], first & ~second)
        np.testing.assert_array_equal(board.unpack(words, size), first.reshape(size, size))


def test_one_cell_alone_and_all_cells():
    size = 9
    words = board.num_words(size)
    for cell in (0, 31, 32, 80):
        alone = board.unpack(board.of_cell(jnp.int32(cell), words), size)
        assert np.flatnonzero(alone).tolist() == [cell]
    assert board.unpack(board.full(size), size).all()
    assert board.count(tuple(map(jnp.asarray, board.full(size)))) == 81
    assert not board.unpack(board.empty(size), size).any()
