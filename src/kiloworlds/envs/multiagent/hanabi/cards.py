"""Sets and piles of cards as the bits of 32-bit words.

The kind of a card is its colour and its rank: bit `color * num_ranks + rank` of a word is one kind, and
a word a set of kinds. A pile, which may hold several cards of a kind, is a tuple of such sets, its
layers: a pile holds as many cards of a kind as it has layers with the kind in it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

Kinds = UInt32[Array, "..."]
Pile = tuple[UInt32[Array, ""], ...]

MOST_CARDS = 255  # in a pile from which cards are drawn: `draw` needs their number in 8 bits


def count(kinds: Kinds) -> Int[Array, "..."]:
    """How many kinds a set holds."""
    return jax.lax.population_count(kinds).astype(jnp.int32)


def size(pile: Pile) -> Int[Array, ""]:
    """How many cards a pile holds."""
    return sum((count(layer) for layer in pile[1:]), count(pile[0]))


def is_empty(pile: Pile) -> Bool[Array, ""]:
    """Whether a pile holds no cards."""
    kinds = pile[0]
    for layer in pile[1:]:
        kinds = kinds | layer
    return kinds == 0


def put(pile: Pile, kind: UInt32[Array, ""]) -> Pile:
    """The pile with one more card, into the first layer that lacks its kind; none if `kind` is 0."""
    layers = []
    for layer in pile:
        layers.append(layer | kind)
        kind = kind & layer
    return tuple(layers)


def take(pile: Pile, kind: UInt32[Array, ""]) -> Pile:
    """The pile without one card of a kind that it holds; unchanged if `kind` is 0."""
    layers = []
    for layer in pile:
        layers.append(layer & ~kind)
        kind = kind & ~layer
    return tuple(layers)


def draw(word: UInt32[Array, ""], pile: Pile) -> UInt32[Array, ""]:
    """The kind of a card drawn from a pile, every card as likely; 0 if the pile is empty.

    Args:
        word: a random word. No card is more than `MOST_CARDS` / 2^24 (relative) too likely.
    """
    index = (((word >> 8) * size(pile).astype(jnp.uint32)) >> 24).astype(jnp.int32)
    # The card is the index-th of all, layer after layer.
    chosen, place, before = pile[0], index, count(pile[0])
    for layer in pile[1:]:
        further = index >= before
        chosen = jnp.where(further, layer, chosen)
        place = jnp.where(further, index - before, place)
        before = before + count(layer)
    return _bit_at(chosen, place)


def _bit_at(kinds: UInt32[Array, ""], place: Int[Array, ""]) -> UInt32[Array, ""]:
    """The kind with `place` others below it in a set, by halving the word; 0 if the set is empty."""
    rest, position = kinds, jnp.zeros_like(kinds)
    for half in (16, 8, 4, 2, 1):
        below = count(rest & np.uint32((1 << half) - 1))
        above = place >= below
        place = jnp.where(above, place - below, place)
        rest = jnp.where(above, rest >> half, rest)
        position = position + jnp.where(above, np.uint32(half), np.uint32(0))
    return kinds & (np.uint32(1) << (position & 31))
