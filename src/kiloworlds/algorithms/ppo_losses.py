"""What PPO minimises: the clipped loss of the policy, and the squared error of the value function.

Letters in shapes: B transitions of a minibatch, T steps of a sequence.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from kiloworlds.algorithms.normalization import mean_over_devices
from kiloworlds.algorithms.ppo_config import PPOConfig
from kiloworlds.networks.action_heads import ActionHead
from kiloworlds.networks.recurrent import Memory
from kiloworlds.networks.rows import NetworkRows

POLICY, VALUE = 0, 1
"""Rows of the parameters."""

_POLICY_LOSSES = ("policy_gradient_loss", "entropy_loss", "approx_kl", "clip_fraction")
_VALUE_LOSSES = ("value_loss",)
LOSSES = _POLICY_LOSSES + _VALUE_LOSSES
"""Names of what every loss function returns beside the loss; those it does not know are 0."""

_ILLEGAL = -1e9
"""The logit of an action that may not be chosen: its probability is 0 in float32."""


class Minibatch(NamedTuple):
    """Rows to learn from: B transitions, or of recurrent networks B sequences `[B, T, ...]`."""

    observation: PyTree
    raw_action: Array
    log_prob: Float[Array, " *B"]
    value: Float[Array, " *B"]
    advantage: Float[Array, " *B"]
    target: Float[Array, " *B"]
    weight: Float[Array, " *B"] | None = None
    """1 for transitions to learn from, 0 for others; None: all are."""
    policy_weight: Float[Array, " *B"] | None = None
    """The same for the policy, which learns from its own choices only; None: as `weight`."""
    legal: Bool[Array, "*B n"] | None = None
    critic_observation: PyTree | None = None
    starts: Bool[Array, "B T"] | None = None
    memory: Float[Array, "B H"] | None = None
    critic_memory: Float[Array, "B H"] | None = None


class PPOLosses:
    """The losses of networks laid out as rows of parameters.

    Args:
        config: the settings.
        head: turns outputs of the policy into actions.
        rows: the layout of the networks.
        recurrent_size: numbers of the networks' memory; 0 for networks without one.
    """

    def __init__(self, config: PPOConfig, head: ActionHead, rows: NetworkRows, recurrent_size: int):
        self._config = config
        self._head = head
        self._rows = rows
        self._recurrent_size = recurrent_size

    def policy(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        actor = self._rows.unpack(POLICY, row)
        seen = batch.observation
        if self._recurrent_size:
            seen = _remembered(actor.memory, seen, batch.starts, batch.memory)
        return self.of_outputs(actor.outputs(seen), actor.free, batch)

    def of_outputs(
        self, outputs: Float[Array, "B outputs"], free: Float[Array, " free"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        config = self._config
        weight = batch.weight if batch.policy_weight is None else batch.policy_weight
        outputs = masked(outputs, batch.legal)
        log_prob, entropy = self._head.log_prob_and_entropy(outputs, free, batch.raw_action)
        log_ratio = log_prob - batch.log_prob
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1 - config.clip_range, 1 + config.clip_range)
        loss = -jnp.minimum(ratio * batch.advantage, clipped * batch.advantage)
        metrics = [
            loss,
            -entropy,
            # The low-variance estimator k3 of J. Schulman, "Approximating KL divergence" (2020).
            ratio - 1 - log_ratio,
            (jnp.abs(ratio - 1) > config.clip_range).astype(ratio.dtype),
        ]
        # One reduction for all: on small networks every kernel counts.
        means = _weighted_mean(jnp.stack(metrics), weight)
        losses = jnp.pad(means, (0, len(_VALUE_LOSSES)))
        loss = loss - config.entropy_coefficient * entropy
        return _weighted_mean(loss[None], weight)[0], losses

    def value(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        critic = self._rows.unpack(VALUE, row)
        seen = batch.observation if batch.critic_observation is None else batch.critic_observation
        if self._recurrent_size:
            memories = _remembered(critic.memory, seen, batch.starts, batch.critic_memory)
            return self.of_values(critic.value(memories), batch)
        return self.of_values(critic(seen), batch)

    def of_values(
        self, value: Float[Array, " B"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        config = self._config
        squared_error = (value - batch.target) ** 2
        if config.clip_range_value is not None:
            limit = config.clip_range_value
            near = batch.value + jnp.clip(value - batch.value, -limit, limit)
            squared_error = jnp.maximum(squared_error, (near - batch.target) ** 2)
        loss = 0.5 * _weighted_mean(squared_error[None], batch.weight)[0]
        return config.value_coefficient * loss, jnp.pad(loss[None], (len(_POLICY_LOSSES), 0))

    def shared(
        self, row: Float[Array, " width"], batch: Minibatch
    ) -> tuple[Float[Array, ""], Float[Array, " losses"]]:
        """Of a network that is policy and value function: what both see is read once."""
        network = self._rows.unpack(POLICY, row)
        if self._recurrent_size:
            seen = _remembered(network.memory, batch.observation, batch.starts, batch.memory)
            outputs, value = network.outputs(seen), network.value(seen)
        else:
            outputs, value = network.outputs_and_value(batch.observation)
        policy_loss, policy_losses = self.of_outputs(outputs, network.free, batch)
        value_loss, value_losses = self.of_values(value, batch)
        return policy_loss + value_loss, policy_losses + value_losses


def _weighted_mean(
    values: Float[Array, "K ..."], weight: Float[Array, " *B"] | None
) -> Float[Array, " K"]:
    """The means of K quantities over all transitions of a minibatch."""
    flat = values.reshape(values.shape[0], -1)
    return mean_over_devices(flat, -1, None, None if weight is None else weight.reshape(-1))


def masked(
    outputs: Float[Array, "*B n"], legal: Bool[Array, "*B n"] | None
) -> Float[Array, "*B n"]:
    """Logits of legal actions; the others can neither be drawn nor change what is learnt."""
    return outputs if legal is None else jnp.where(legal, outputs, _ILLEGAL)


def _remembered(
    network: Memory,
    observation: PyTree,
    starts: Bool[Array, "B T"] | None,
    first: Float[Array, "B H"] | None,
) -> Float[Array, "B T H"]:
    """The memory after each step of B sequences."""

    def swap(leaf):
        return jnp.moveaxis(leaf, 0, 1)

    assert starts is not None
    assert first is not None
    return swap(network.over_time(jax.tree.map(swap, observation), swap(starts), first))
