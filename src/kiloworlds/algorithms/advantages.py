"""Advantage estimation.

T stands for steps and N for environments in shapes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def generalized_advantages(
    rewards: Float[Array, "T N"],
    values: Float[Array, "T N"],
    next_values: Float[Array, "T N"],
    terminated: Bool[Array, "T N"],
    finished: Bool[Array, "T N"],
    gamma: float,
    gae_lambda: float,
    valid: Bool[Array, "T N"] | None = None,
) -> Float[Array, "T N"]:
    """Generalised advantage estimation (Schulman et al. 2016), exact at truncations.

    Args:
        rewards: reward of each step.
        values: value of the observation acted on.
        next_values: value of the observation the step led to: at the end of an episode that is its
            final observation, never the first one of the next episode.
        terminated: the task ended: nothing follows, so the next value does not count.
        finished: terminated or truncated: the sum of later advantages stops here.
        gamma, gae_lambda: discount and smoothing factor.
        valid: false where the environment was lost in the step; the steps before it then see a
            truncation at the observation it was lost in. None: all are valid.

    Returns:
        Advantages; add `values` for the value targets.
    """
    future = jnp.where(terminated, 0.0, gamma * next_values)
    errors = rewards + future - values
    if valid is not None:
        errors = jnp.where(valid, errors, 0.0)
    carry_on = jnp.where(finished, 0.0, gamma * gae_lambda)

    def back(advantage, step):
        error, weight = step
        advantage = error + weight * advantage
        return advantage, advantage

    last = jnp.zeros_like(values[0])
    _, advantages = jax.lax.scan(back, last, (errors, carry_on), reverse=True)
    return advantages
