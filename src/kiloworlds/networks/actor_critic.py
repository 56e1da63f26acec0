"""A policy and a value function as two separate networks."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from kiloworlds.core.spaces import Space
from kiloworlds.networks.action_heads import ActionHead
from kiloworlds.networks.mlp import MLP


class Actor(eqx.Module):
    """`outputs` are what the action head reads; `free` are the head's own parameters."""

    outputs: MLP
    free: Float[Array, " free"]

    def __init__(
        self,
        key: Key[Array, ""],
        observation_space: Space,
        head: ActionHead,
        hidden_sizes: tuple[int, ...],
        activation_name: str,
        initial_free: float,
    ):
        # A small last layer starts the policy near uniform (Andrychowicz et al. 2021).
        self.outputs = MLP(
            key, observation_space, hidden_sizes, head.num_outputs, activation_name, 0.01
        )
        self.free = jnp.full(head.num_free, initial_free)


class Critic(eqx.Module):
    """The value of an observation."""

    network: MLP

    def __init__(
        self,
        key: Key[Array, ""],
        observation_space: Space,
        hidden_sizes: tuple[int, ...],
        activation_name: str,
    ):
        self.network = MLP(key, observation_space, hidden_sizes, 1, activation_name, 1.0)

    def __call__(self, observation: PyTree) -> Float[Array, "*B"]:
        return self.network(observation)[..., 0]
