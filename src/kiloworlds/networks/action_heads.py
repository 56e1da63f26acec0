"""From the numbers a policy network puts out to actions and their probabilities.

A head is a frozen description of one action space; its methods work on batches (any leading axes B).
"""

from abc import abstractmethod
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space


@dataclass(frozen=True)
class ActionHead:
    """A distribution over the actions of one space, given network outputs `[*B, num_outputs]`.

    Sampled actions are kept as drawn (`raw`), since their log-probability needs them so;
    `to_environment` maps them into the action space.
    """

    num_outputs: int
    num_free: int = 0
    """Distribution parameters learnt directly, not computed from the observation."""

    @abstractmethod
    def sample(
        self, key: Key[Array, ""], outputs: Float[Array, "*B outputs"], free: Float[Array, " free"]
    ) -> Array:
        """Draws raw actions."""

    @abstractmethod
    def mode(self, outputs: Float[Array, "*B outputs"]) -> Array:
        """The most likely raw actions."""

    @abstractmethod
    def log_prob_and_entropy(
        self, outputs: Float[Array, "*B outputs"], free: Float[Array, " free"], raw: Array
    ) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
        """Log-probability (density) of raw actions, and the entropy, both in nats."""

    @abstractmethod
    def to_environment(self, raw: Array) -> PyTree:
        """Maps raw actions into the action space."""


def _log_softmax_pick(logits: Float[Array, "*B n"], chosen: Array) -> tuple[Array, Array]:
    """Log-probability of `chosen`, and the entropy."""
    log_probs = jax.nn.log_softmax(logits)
    # A comparison vectorises; indexing by row becomes a gather, and a scatter in the gradient.
    picked = jnp.where(chosen[..., None] == jnp.arange(logits.shape[-1]), log_probs, 0.0).sum(-1)
    return picked, -(jnp.exp(log_probs) * log_probs).sum(-1)


def _gumbel_argmax(key: Key[Array, ""], logits: Float[Array, "*B n"]) -> Array:
    return jnp.argmax(logits + jax.random.gumbel(key, logits.shape), axis=-1).astype(jnp.int32)


@dataclass(frozen=True)
class Categorical(ActionHead):
    """One choice among n; outputs are logits."""

    start: int = 0

    def sample(self, key, outputs, free):
        return _gumbel_argmax(key, outputs)

    def mode(self, outputs):
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def log_prob_and_entropy(self, outputs, free, raw):
        return _log_softmax_pick(outputs, raw)

    def to_environment(self, raw):
        return raw + self.start if self.start else raw


@dataclass(frozen=True)
class MultiCategorical(ActionHead):
    """Several independent choices; outputs are their logits side by side."""

    nvec: tuple[int, ...] = ()
    dtype: str = "int32"

    def _parts(self, outputs):
        return jnp.split(outputs, np.cumsum(self.nvec)[:-1], axis=-1)

    def sample(self, key, outputs, free):
        keys = jax.random.split(key, len(self.nvec))
        parts = self._parts(outputs)
        return jnp.stack([_gumbel_argmax(keys[i], part) for i, part in enumerate(parts)], -1)

    def mode(self, outputs):
        choices = [jnp.argmax(part, axis=-1) for part in self._parts(outputs)]
        return jnp.stack(choices, -1).astype(jnp.int32)

    def log_prob_and_entropy(self, outputs, free, raw):
        pairs = [
            _log_softmax_pick(part, raw[..., i]) for i, part in enumerate(self._parts(outputs))
        ]
        log_probs, entropies = zip(*pairs, strict=True)
        return jnp.stack(log_probs).sum(0), jnp.stack(entropies).sum(0)

    def to_environment(self, raw):
        return raw.astype(self.dtype)


@dataclass(frozen=True)
class DiagonalGaussian(ActionHead):
    """Independent normals with learnt standard deviations that do not depend on the observation.

    Raw actions are in units of half the range around the centre where a box has both bounds, and as
    they are where it has one or none. They are clipped to the box only on the way to the
    environment, so that densities stay those of a normal.
    """

    space: Box = field(kw_only=True)

    def sample(self, key, outputs, free):
        return outputs + jnp.exp(free) * jax.random.normal(key, outputs.shape)

    def mode(self, outputs):
        return outputs

    def log_prob_and_entropy(self, outputs, free, raw):
        deviation = (raw - outputs) * jnp.exp(-free)
        log_prob = -(0.5 * deviation**2 + free + 0.5 * np.log(2 * np.pi)).sum(-1)
        entropy = (free + 0.5 * np.log(2 * np.pi * np.e)).sum()
        return log_prob, jnp.broadcast_to(entropy, log_prob.shape)

    def to_environment(self, raw):
        actions = raw.reshape((*raw.shape[:-1], *self.space.shape))
        low, high = self.space.low, self.space.high
        bounded = np.isfinite(low) & np.isfinite(high)
        centre = np.where(bounded, (low + high) / 2, 0.0)
        half_range = np.where(bounded, (high - low) / 2, 1.0)
        return jnp.clip(centre + actions * half_range, low, high)


def action_head(space: Space) -> ActionHead:
    """The head for an action space.

    Raises:
        InvalidValueError: a space no head fits.
    """
    match space:
        case Discrete():
            return Categorical(num_outputs=space.n, start=space.start)
        case MultiDiscrete():
            return MultiCategorical(num_outputs=sum(space.nvec), nvec=space.nvec)
        case MultiBinary() if len(space.shape) == 1:
            nvec = (2,) * space.shape[0]
            return MultiCategorical(num_outputs=sum(nvec), nvec=nvec, dtype="int8")
        case Box() if np.issubdtype(space.dtype, np.floating):
            size = int(np.prod(space.shape))
            return DiagonalGaussian(num_outputs=size, num_free=size, space=space)
    raise InvalidValueError(
        f"no policy for the action space {space}: supported are Discrete, MultiDiscrete, "
        "one-dimensional MultiBinary and Box of floats."
    )
