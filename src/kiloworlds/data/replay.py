"""Experience kept for learning from it more than once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree


class Replay(NamedTuple):
    """A ring of items: once it is full, new items take the places of the oldest.

    Attributes:
        items: arrays `[capacity, ...]`.
        added: how many items were ever added.
    """

    items: PyTree
    added: Int[Array, ""]

    @classmethod
    def like(cls, item: PyTree, capacity: int) -> "Replay":
        """An empty ring for items like `item` (arrays, or their shapes)."""
        items = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), item)
        return cls(items, jnp.int32(0))

    @property
    def capacity(self) -> int:
        """How many items it holds at most."""
        return jax.tree.leaves(self.items)[0].shape[0]

    @property
    def size(self) -> Int[Array, ""]:
        """How many items it holds."""
        return jnp.minimum(self.added, self.capacity)

    def add(self, items: PyTree) -> "Replay":
        """Adds items `[M, ...]`, M at most the capacity."""
        count = jax.tree.leaves(items)[0].shape[0]
        # The count itself would overflow in a long training; what matters is where to go on.
        places = (self.added + jnp.arange(count)) % self.capacity
        kept = jax.tree.map(lambda leaf, new: leaf.at[places].set(new), self.items, items)
        added = self.added + count
        wrapped = self.capacity + added % self.capacity
        return Replay(kept, jnp.where(added >= 2 * self.capacity, wrapped, added))

    def sample(self, key: Key[Array, ""], count: int) -> PyTree:
        """Draws items `[count, ...]`, each as likely, with repetition."""
        places = jax.random.randint(key, (count,), 0, jnp.maximum(self.size, 1))
        return jax.tree.map(lambda leaf: leaf[places], self.items)
