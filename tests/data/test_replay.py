"""The ring of kept experience."""

import jax
import jax.numpy as jnp
import numpy as np

from kiloworlds.data.replay import Replay


def filled(batches, capacity=5):
    replay = Replay.like({"number": jax.ShapeDtypeStruct((2,), jnp.float32)}, capacity)
    for first in batches:
        numbers = first + np.arange(2, dtype=np.float32)
        replay = replay.add({"number": np.stack([numbers, -numbers], axis=1)})
    return replay


def test_new_items_take_the_places_of_the_oldest():
    replay = filled([0, 2])
    assert (int(replay.size), replay.capacity) == (4, 5)
    np.testing.assert_array_equal(replay.items["number"][:, 0], [0, 1, 2, 3, 0])
    replay = filled([0, 2, 4])
    assert int(replay.size) == 5
    np.testing.assert_array_equal(replay.items["number"][:, 0], [5, 1, 2, 3, 4])
    np.testing.assert_array_equal(replay.items["number"][:, 1], [-5, -1, -2, -3, -4])


def test_the_ring_goes_on_after_many_rounds():
    replay = filled(range(0, 200, 2))
    assert int(replay.size) == 5
    assert sorted(np.asarray(replay.items["number"][:, 0])) == [195, 196, 197, 198, 199]
    assert int(replay.added) < 2 * 5  # a count that grows for ever would overflow


def test_only_what_was_added_is_drawn_and_all_of_it():
    drawn = filled([7]).sample(jax.random.key(0), 64)["number"]
    assert drawn.shape == (64, 2)
    assert set(np.asarray(drawn[:, 0]).tolist()) == {7.0, 8.0}
    drawn = filled([0, 2, 4]).sample(jax.random.key(1), 400)["number"][:, 0]
    numbers, counts = np.unique(drawn, return_counts=True)
    assert numbers.tolist() == [1, 2, 3, 4, 5]
    assert counts.min() > 50
