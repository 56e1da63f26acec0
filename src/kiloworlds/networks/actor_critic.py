"""A policy and a value function as two separate networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from kiloworlds.core.spaces import Space
from kiloworlds.networks.action_heads import ActionHead
from kiloworlds.networks.mlp import MLP


class ActorCritic(eqx.Module):
    """`actor` gives the head's outputs, `critic` the value; `free` are the head's own parameters."""

    actor: MLP
    critic: MLP
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
        actor_key, critic_key = jax.random.split(key)
        # A small last layer starts the policy near uniform (Andrychowicz et al. 2021).
        self.actor = MLP(
            actor_key, observation_space, hidden_sizes, head.num_outputs, activation_name, 0.01
        )
        self.critic = MLP(critic_key, observation_space, hidden_sizes, 1, activation_name, 1.0)
        self.free = jnp.full(head.num_free, initial_free)

    def value(self, observation: PyTree) -> Float[Array, "*B"]:
        return self.critic(observation)[..., 0]
