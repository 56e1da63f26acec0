"""A policy and a value function: as two separate networks, or as one that reads images for both."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from kiloworlds.core.spaces import Space
from kiloworlds.networks.action_heads import ActionHead
from kiloworlds.networks.cnn import ImageEncoder
from kiloworlds.networks.mlp import MLP, Linear


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


class ImageActorCritic(eqx.Module):
    """A policy and a value function on the features of one convolutional encoder.

    Sharing the encoder, as Mnih et al. (2016) do, saves the work of a second one: an update takes about
    0.6 of the time (docs/pixels.md).
    """

    encoder: ImageEncoder
    policy: Linear
    critic: Linear
    free: Float[Array, " free"]

    def __init__(
        self,
        key: Key[Array, ""],
        observation_space: Space,
        head: ActionHead,
        channels: tuple[int, ...],
        features: int,
        initial_free: float,
    ):
        encoder_key, policy_key, critic_key = jax.random.split(key, 3)
        self.encoder = ImageEncoder(encoder_key, observation_space, channels, features)
        self.policy = Linear(policy_key, features, head.num_outputs, 0.01)
        self.critic = Linear(critic_key, features, 1, 1.0)
        self.free = jnp.full(head.num_free, initial_free)

    def outputs(self, observation: PyTree) -> Float[Array, "*B outputs"]:
        """What the action head reads."""
        return self.policy(self.encoder(observation))

    def value(self, observation: PyTree) -> Float[Array, "*B"]:
        """The value of an observation."""
        return self.critic(self.encoder(observation))[..., 0]

    def outputs_and_value(
        self, observation: PyTree
    ) -> tuple[Float[Array, "*B outputs"], Float[Array, "*B"]]:
        """Both, for the work of one."""
        features = self.encoder(observation)
        return self.policy(features), self.critic(features)[..., 0]
