"""Networks that estimate the value of each action.

Letters in shapes: T steps, B sequences, H numbers of a memory.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.core.spaces import Space
from kiloworlds.networks.mlp import Linear, ObservationLayer, activation
from kiloworlds.networks.recurrent import GRU


class LayerNorm(eqx.Module):
    """Zero mean and unit deviation over a layer's features, then a learnt scale and shift (Ba et al.
    2016)."""

    scale: Float[Array, " features"]
    shift: Float[Array, " features"]

    def __init__(self, features: int):
        self.scale, self.shift = jnp.ones(features), jnp.zeros(features)

    def __call__(self, given: Float[Array, "*B features"]) -> Float[Array, "*B features"]:
        centred = given - given.mean(-1, keepdims=True)
        deviation = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred * deviation * self.scale + self.shift


class QNetwork(eqx.Module):
    """Hidden layers, recurrent units if wanted, and a value for each of n actions.

    Args:
        space: what is observed.
        num_actions: n.
        hidden_sizes: widths of the hidden layers before the recurrent units.
        recurrent_size: H; 0 for a network without a memory.
        activation_name: see `kiloworlds.networks.mlp.ACTIVATIONS`.
        layer_norm: whether hidden layers are normalised.
    """

    first: ObservationLayer
    rest: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    units: GRU | None
    values: Linear
    activation_name: str = eqx.field(static=True)

    def __init__(
        self,
        key: Key[Array, ""],
        space: Space,
        num_actions: int,
        hidden_sizes: tuple[int, ...],
        recurrent_size: int,
        activation_name: str,
        layer_norm: bool,
    ):
        keys = jax.random.split(key, len(hidden_sizes) + 2)
        self.first = ObservationLayer(keys[0], space, hidden_sizes[0], 2**0.5)
        self.rest = tuple(
            Linear(keys[i], hidden_sizes[i - 1], hidden_sizes[i], 2**0.5)
            for i in range(1, len(hidden_sizes))
        )
        self.norms = tuple(map(LayerNorm, hidden_sizes)) if layer_norm else ()
        width = hidden_sizes[-1]
        self.units = GRU(keys[-2], width, recurrent_size) if recurrent_size else None
        self.values = Linear(keys[-1], recurrent_size or width, num_actions, 1.0)
        self.activation_name = activation_name

    def _read(self, observation: PyTree) -> Float[Array, "*B width"]:
        activate = activation(self.activation_name)
        result: Any = observation
        for index, layer in enumerate((self.first, *self.rest)):
            result = layer(result)
            result = activate(self.norms[index](result) if self.norms else result)
        return result

    def step(
        self, observation: PyTree, memory: Float[Array, "*B H"] | None
    ) -> tuple[Float[Array, "*B n"], Float[Array, "*B H"] | None]:
        """The values of all actions, and the memory after the observation."""
        read = self._read(observation)
        if self.units is not None:
            assert memory is not None
            read = memory = self.units.step(read, memory)
        return self.values(read), memory

    def over_time(
        self,
        observation: PyTree,
        starts: Bool[Array, "T B"],
        memory: Float[Array, "B H"] | None,
    ) -> tuple[Float[Array, "T B n"], Float[Array, "T B H"] | None]:
        """The same for each of T observations; the memory is cleared before steps that start anew."""
        read = self._read(observation)
        if self.units is None:
            return self.values(read), None
        assert memory is not None
        memories = self.units.over_time(read, starts, memory)
        return self.values(memories), memories
