"""Networks with memory: gated recurrent units over whole sequences.

Letters in shapes: T steps, B sequences, H units.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.core.spaces import Space
from kiloworlds.networks.action_heads import ActionHead
from kiloworlds.networks.initializers import orthogonal
from kiloworlds.networks.mlp import Linear, ObservationLayer, activation


class GRU(eqx.Module):
    """Gated recurrent units (Cho et al. 2014), with the reset gate after the product.

    What does not depend on the memory, the product with the inputs, is computed for all steps at once.
    """

    inputs: Linear
    recurrent: Float[Array, "H gates"]
    candidate_bias: Float[Array, " H"]

    def __init__(self, key: Key[Array, ""], inputs: int, size: int):
        input_key, recurrent_key = jax.random.split(key)
        self.inputs = Linear(input_key, inputs, 3 * size, 1.0)
        keys = jax.random.split(recurrent_key, 3)
        gates = [orthogonal(gate_key, (size, size), 1.0) for gate_key in keys]
        self.recurrent = jnp.concatenate(gates, axis=1)
        self.candidate_bias = jnp.zeros(size)

    @property
    def size(self) -> int:
        """Numbers of a memory, H."""
        return self.recurrent.shape[0]

    def step(self, given: Float[Array, "*B I"], memory: Float[Array, "*B H"]) -> Array:
        """The memory after one more input."""
        drive = self.inputs(given)
        return _advance(drive, memory @ self.recurrent, memory, self.candidate_bias)[0]

    def over_time(
        self,
        given: Float[Array, "T B I"],
        starts: Bool[Array, "T B"],
        memory: Float[Array, "B H"],
    ) -> Float[Array, "T B H"]:
        """The memory after each step, cleared before the steps that start anew."""
        drive = self.inputs(given)
        return _over_time(drive, starts, memory, self.recurrent, self.candidate_bias)


def _advance(drive, pull, memory, bias):
    """One step; returns the new memory, and what its gradient needs."""
    reset_in, update_in, candidate_in = jnp.split(drive, 3, -1)
    reset_pull, update_pull, candidate_pull = jnp.split(pull, 3, -1)
    reset = jax.nn.sigmoid(reset_in + reset_pull)
    update = jax.nn.sigmoid(update_in + update_pull)
    held = candidate_pull + bias
    candidate = jnp.tanh(candidate_in + reset * held)
    return candidate + update * (memory - candidate), (reset, update, held, candidate)


@jax.custom_vjp
def _over_time(drive, starts, memory, recurrent, bias):
    return _forward(drive, starts, memory, recurrent, bias)[0]


def _forward(drive, starts, memory, recurrent, bias):
    def body(memory, step):
        drive, start = step
        memory = jnp.where(start[:, None], 0.0, memory)
        after, gates = _advance(drive, memory @ recurrent, memory, bias)
        return after, (after, memory, gates)

    _, (after, before, gates) = jax.lax.scan(body, memory, (drive, starts))
    return after, (starts, before, gates, recurrent)


def _backward(kept, gradient):
    """By hand, so that the weights' gradient is one product over all steps instead of one per step."""
    starts, before, gates, recurrent = kept

    def body(carried, step):
        gradient, start, memory, (reset, update, held, candidate) = step
        total = carried + gradient
        to_candidate = total * (1 - update) * (1 - candidate**2)
        to_update = total * (memory - candidate) * update * (1 - update)
        to_reset = to_candidate * held * reset * (1 - reset)
        to_pull = jnp.concatenate((to_reset, to_update, to_candidate * reset), -1)
        carried = total * update + to_pull @ recurrent.T
        return jnp.where(start[:, None], 0.0, carried), (to_pull, to_candidate)

    last = jnp.zeros_like(before[0])
    to_memory, (to_pull, to_candidate) = jax.lax.scan(
        body, last, (gradient, starts, before, gates), reverse=True
    )
    size = before.shape[-1]
    to_drive = jnp.concatenate((to_pull[..., : 2 * size], to_candidate), -1)
    to_recurrent = before.reshape(-1, size).T @ to_pull.reshape(-1, 3 * size)
    to_bias = to_pull[..., 2 * size :].sum((0, 1))
    return to_drive, None, to_memory, to_recurrent, to_bias


_over_time.defvjp(_forward, _backward)


class Memory(eqx.Module):
    """Reads observations into a memory: a layer on each observation, then the recurrent units."""

    first: ObservationLayer
    units: GRU
    activation_name: str = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], space: Space, size: int, activation_name: str):
        first_key, units_key = jax.random.split(key)
        self.first = ObservationLayer(first_key, space, size, 2**0.5)
        self.units = GRU(units_key, size, size)
        self.activation_name = activation_name

    def _read(self, observation: PyTree) -> Array:
        return activation(self.activation_name)(self.first(observation))

    def step(self, observation: PyTree, memory: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
        """The memory after one more observation."""
        return self.units.step(self._read(observation), memory)

    def over_time(
        self, observation: PyTree, starts: Bool[Array, "T B"], memory: Float[Array, "B H"]
    ) -> Float[Array, "T B H"]:
        """The memory after each of T observations."""
        return self.units.over_time(self._read(observation), starts, memory)


class _Head(eqx.Module):
    """A hidden layer and an output layer on a memory."""

    hidden: Linear
    output: Linear
    activation_name: str = eqx.field(static=True)

    def __init__(
        self, key: Key[Array, ""], size: int, outputs: int, activation_name: str, scale: float
    ):
        hidden_key, output_key = jax.random.split(key)
        self.hidden = Linear(hidden_key, size, size, 2**0.5)
        self.output = Linear(output_key, size, outputs, scale)
        self.activation_name = activation_name

    def __call__(self, memory: Float[Array, "*B H"]) -> Float[Array, "*B outputs"]:
        return self.output(activation(self.activation_name)(self.hidden(memory)))


class RecurrentActor(eqx.Module):
    """A policy with a memory; `outputs` reads a memory, `free` are the action head's own parameters."""

    memory: Memory
    outputs: _Head
    free: Float[Array, " free"]

    def __init__(
        self,
        key: Key[Array, ""],
        space: Space,
        head: ActionHead,
        size: int,
        activation_name: str,
        initial_free: float,
    ):
        memory_key, head_key = jax.random.split(key)
        self.memory = Memory(memory_key, space, size, activation_name)
        # A small last layer starts the policy near uniform (Andrychowicz et al. 2021).
        self.outputs = _Head(head_key, size, head.num_outputs, activation_name, 0.01)
        self.free = jnp.full(head.num_free, initial_free)


class RecurrentCritic(eqx.Module):
    """A value function with a memory; `value` reads a memory."""

    memory: Memory
    head: _Head

    def __init__(self, key: Key[Array, ""], space: Space, size: int, activation_name: str):
        memory_key, head_key = jax.random.split(key)
        self.memory = Memory(memory_key, space, size, activation_name)
        self.head = _Head(head_key, size, 1, activation_name, 1.0)

    def value(self, memory: Float[Array, "*B H"]) -> Float[Array, "*B"]:
        """The value of what a memory holds."""
        return self.head(memory)[..., 0]


class RecurrentActorCritic(eqx.Module):
    """A policy and a value function that read one memory: half the work of two."""

    memory: Memory
    outputs: _Head
    critic: _Head
    free: Float[Array, " free"]

    def __init__(
        self,
        key: Key[Array, ""],
        space: Space,
        head: ActionHead,
        size: int,
        activation_name: str,
        initial_free: float,
    ):
        memory_key, head_key, critic_key = jax.random.split(key, 3)
        self.memory = Memory(memory_key, space, size, activation_name)
        self.outputs = _Head(head_key, size, head.num_outputs, activation_name, 0.01)
        self.critic = _Head(critic_key, size, 1, activation_name, 1.0)
        self.free = jnp.full(head.num_free, initial_free)

    def value(self, memory: Float[Array, "*B H"]) -> Float[Array, "*B"]:
        """The value of what a memory holds."""
        return self.critic(memory)[..., 0]
