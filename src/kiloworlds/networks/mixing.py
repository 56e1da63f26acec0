"""Mixing networks: from each agent's value to the team's."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from kiloworlds.networks.mlp import Linear


class MonotonicMixer(eqx.Module):
    """The team's value as a function of the agents' values that never falls when one of them rises.

    Its weights are computed from the state of the world and made positive by their absolute value, so
    that the best joint action is each agent's own best (Rashid et al., "QMIX: Monotonic Value Function
    Factorisation for Deep Multi-Agent Reinforcement Learning", 2018).

    Args:
        num_agents: A.
        state_size: numbers of the state of the world.
        size: hidden units of the mixing network.
        hyper_size: hidden units of the networks that compute its weights.
    """

    first_hidden: Linear
    first_weight: Linear
    first_bias: Linear
    second_hidden: Linear
    second_weight: Linear
    second_bias_hidden: Linear
    second_bias: Linear
    num_agents: int = eqx.field(static=True)

    def __init__(
        self, key: Key[Array, ""], num_agents: int, state_size: int, size: int, hyper_size: int
    ):
        keys = jax.random.split(key, 7)
        # Small at first: large values of states not yet seen, which targets repeat, would grow.
        hidden, small = 2**0.5, 0.01
        self.first_hidden = Linear(keys[0], state_size, hyper_size, hidden)
        # Weights that make it the sum of the values: learning begins where VDN does.
        even = size**-0.5
        self.first_weight = _about(even, Linear(keys[1], hyper_size, num_agents * size, small))
        self.first_bias = Linear(keys[2], state_size, size, small)
        self.second_hidden = Linear(keys[3], state_size, hyper_size, hidden)
        self.second_weight = _about(even, Linear(keys[4], hyper_size, size, small))
        self.second_bias_hidden = Linear(keys[5], state_size, size, hidden)
        self.second_bias = Linear(keys[6], size, 1, small)
        self.num_agents = num_agents

    def __call__(
        self, values: Float[Array, "*B A"], state: Float[Array, "*B state"]
    ) -> Float[Array, "*B"]:
        """The value of what all agents do together."""
        weight = jnp.abs(self.first_weight(jax.nn.relu(self.first_hidden(state))))
        weight = weight.reshape(*weight.shape[:-1], self.num_agents, -1)
        hidden = (values[..., None] * weight).sum(-2) + self.first_bias(state)
        weight = jnp.abs(self.second_weight(jax.nn.relu(self.second_hidden(state))))
        bias = self.second_bias(jax.nn.relu(self.second_bias_hidden(state)))[..., 0]
        return (jax.nn.elu(hidden) * weight).sum(-1) + bias


def _about(value: float, layer: Linear) -> Linear:
    """The layer with outputs around a value instead of zero."""
    return eqx.tree_at(lambda one: one.bias, layer, jnp.full_like(layer.bias, value))
