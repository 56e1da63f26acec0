"""An environment that gives NaN when it is told to."""

from typing import ClassVar

import jax
import jax.numpy as jnp

import kiloworlds as kw
from kiloworlds.core.spaces import Box, Discrete


class Poisoned(kw.Environment):
    """Counts steps. Where `poison` is 1, `field` is NaN at a step of the episode."""

    poison: float | jax.Array = 0.0
    at: float = 20.0
    in_reward: bool = False

    cheap_reset: ClassVar[bool] = True

    @property
    def observation_space(self):
        return Box(0.0, 100.0, (1,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        return jnp.float32(0), jnp.zeros(1)

    def step(self, key, state, action):
        state = state + 1
        nan = jnp.where((self.poison == 1) & (state == self.at), jnp.nan, 1.0)
        seen = state[None] / 100 * (1.0 if self.in_reward else nan)
        reward = nan if self.in_reward else jnp.float32(1)
        return state, kw.Step(seen, reward, jnp.bool_(False), state == 60, {})
