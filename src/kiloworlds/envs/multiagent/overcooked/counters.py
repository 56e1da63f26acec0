"""What lies on counters, packed: for each bit of an item words with one bit for each counter.

To read or change one counter is then a few shifts, however many there are. C counts the cells of a
kitchen.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from kiloworlds.envs.multiagent.overcooked.items import COOKED, NOTHING, PLATE
from kiloworlds.envs.multiagent.overcooked.kitchen import Kitchen

Words = tuple[UInt32[Array, ""], ...]
Counters = tuple[Words, ...]


def empty_counters(kitchen: Kitchen, item_bits: int) -> Counters:
    """Counters with nothing on them."""
    return ((jnp.uint32(0),) * kitchen.num_counter_words,) * item_bits


def items_on_counters(kitchen: Kitchen, counters: Counters) -> Int[Array, " C"]:
    """The item on each cell, 0 where there is no counter."""
    items = jnp.zeros(len(kitchen.cells), jnp.int32)
    for bit, words in enumerate(counters):
        items = items | spread(kitchen, words).astype(jnp.int32) << bit
    return items


def spread(kitchen: Kitchen, words: Words) -> UInt32[Array, " C"]:
    """The bit of the counter on each cell, 0 where there is none."""
    result = jnp.zeros(len(kitchen.cells), jnp.uint32)
    for index, word in enumerate(words):
        mask, shift = _word_of_cells(kitchen, index)
        result = result | (word >> shift) & mask
    return result


def counters_with(kitchen: Kitchen, items: Int[Array, " counters"], item_bits: int) -> Counters:
    """The counters with an item on each, in the order of `Kitchen.counters`."""
    shifts = np.arange(len(kitchen.counters), dtype=np.uint32) & 31
    return tuple(
        tuple(
            ((items.astype(jnp.uint32) >> bit & 1) << shifts)[32 * word : 32 * word + 32].sum(
                dtype=jnp.uint32
            )
            for word in range(kitchen.num_counter_words)
        )
        for bit in range(item_bits)
    )


def _word_of_cells(kitchen: Kitchen, index: int) -> tuple[np.ndarray, np.ndarray]:
    """For one word: 1 for the cells of its counters, and their bit in it."""
    mask, shift = np.zeros((2, len(kitchen.cells)), np.uint32)
    for bit, cell in enumerate(kitchen.counters[32 * index : 32 * (index + 1)]):
        mask[cell], shift[cell] = 1, bit
    return mask, shift


def read(counters: Counters, index: Int[Array, ""]) -> Int[Array, ""]:
    """The item on the counter of that number."""
    item, shift = jnp.int32(0), (index & 31).astype(jnp.uint32)
    for bit, words in enumerate(counters):
        word = words[0]
        for number, other in enumerate(words[1:], 1):
            word = jnp.where(index >> 5 == number, other, word)
        item = item | ((word >> shift) & 1).astype(jnp.int32) << bit
    return item


def flip(counters: Counters, index: Int[Array, ""], change: Int[Array, ""]) -> Counters:
    """The counters, but that the bits of `change` are other than before on one of them."""
    shift = (index & 31).astype(jnp.uint32)
    changed = []
    for bit, words in enumerate(counters):
        flip = (change.astype(jnp.uint32) >> bit & 1) << shift
        changed.append(
            tuple(
                word ^ jnp.where(index >> 5 == number, flip, jnp.uint32(0))
                for number, word in enumerate(words)
            )
        )
    return tuple(changed)


def have_plate(counters: Counters) -> Bool[Array, ""]:
    """Whether a plate without soup lies on any counter."""
    plates, cooked = (counters[item.bit_length() - 1] for item in (PLATE, COOKED))
    found = jnp.zeros((), bool)
    for on_plate, soup in zip(plates, cooked, strict=True):
        found = found | (on_plate & ~soup != 0)
    return found


def items_by_cell(kitchen: Kitchen, counters: Counters) -> dict[int, int]:
    """What lies on the counters of one environment, by cell; on the host."""
    items = {}
    for index, cell in enumerate(kitchen.counters):
        bits = [int(words[index // 32]) >> index % 32 & 1 for words in counters]
        item = sum(bit << place for place, bit in enumerate(bits))
        if item != NOTHING:
            items[cell] = item
    return items
