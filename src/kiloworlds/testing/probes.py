"""Tiny environments whose right answers are known, for testing algorithms.

After the probe environments of A. Jones, "Debugging RL, Without the Agonizing Pain" (2021): each adds
one thing an algorithm must get right, so the first one it fails tells where the fault lies.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.spaces import Box, Discrete, Space


class ProbeState(NamedTuple):
    """What is seen, and the steps taken."""

    seen: Float[Array, ""]
    time: Int[Array, ""]


def _step(
    state: ProbeState,
    observation: ArrayLike,
    reward: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike = False,
) -> tuple[ProbeState, Step]:
    return state, Step(
        jnp.reshape(observation, (1,)),
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(terminated, bool),
        jnp.asarray(truncated, bool),
        {},
    )


class _Probe(Environment):
    cheap_reset: ClassVar[bool] = True

    @property
    def observation_space(self) -> Box:
        return Box(-1.0, 1.0, (1,))

    @property
    def action_space(self) -> Space:
        return Discrete(2)

    def describe(self, state: ProbeState) -> str:
        return f"sees {float(state.seen):+.0f} at step {int(state.time)}"


class PredictReward(_Probe):
    """One step, reward 1 whatever is done: the value of the observation 0 is 1."""

    def reset(self, key: Key[Array, ""]):
        return ProbeState(jnp.float32(0), jnp.int32(0)), jnp.zeros(1)

    def step(self, key: Key[Array, ""], state: ProbeState, action: Int[Array, ""]):
        return _step(state, 0.0, 1.0, True)


class PredictSeenReward(_Probe):
    """One step, reward equal to the observation, -1 or 1: so is its value."""

    def reset(self, key: Key[Array, ""]):
        seen = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return ProbeState(seen, jnp.int32(0)), seen[None]

    def step(self, key: Key[Array, ""], state: ProbeState, action: Int[Array, ""]):
        return _step(state, state.seen, state.seen, True)


class Discount(_Probe):
    """Sees 0, then 1, then gets 1: the values are `gamma` and 1."""

    def reset(self, key: Key[Array, ""]):
        return ProbeState(jnp.float32(0), jnp.int32(0)), jnp.zeros(1)

    def step(self, key: Key[Array, ""], state: ProbeState, action: Int[Array, ""]):
        last = state.time == 1
        return _step(ProbeState(jnp.float32(1), state.time + 1), 1.0, last, last)


class Choose(_Probe):
    """One step; action 1 gives 1, action 0 gives -1."""

    def reset(self, key: Key[Array, ""]):
        return ProbeState(jnp.float32(0), jnp.int32(0)), jnp.zeros(1)

    def step(self, key: Key[Array, ""], state: ProbeState, action: Int[Array, ""]):
        return _step(state, 0.0, jnp.where(action == 1, 1.0, -1.0), True)


class ChooseAsSeen(_Probe):
    """One step; action 1 is right when 1 is seen, action 0 when -1 is: 1 if right, else -1."""

    def reset(self, key: Key[Array, ""]):
        seen = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return ProbeState(seen, jnp.int32(0)), seen[None]

    def step(self, key: Key[Array, ""], state: ProbeState, action: Int[Array, ""]):
        right = (action == 1) == (state.seen > 0)
        return _step(state, state.seen, jnp.where(right, 1.0, -1.0), True)


class BootstrapAtTruncation(_Probe):
    """Sees -1 and earns 0, then sees 1 and earns 1 for ever, but is cut off after `length` steps.

    The value of 1 is 1 / (1 - gamma), that of -1 is gamma times it. An algorithm that treats the cut
    as an end learns less; so does one that bootstraps from the first observation of the next episode.
    """

    length: Int[ArrayLike, ""] = 3

    def reset(self, key: Key[Array, ""]):
        return ProbeState(jnp.float32(-1), jnp.int32(0)), -jnp.ones(1)

    def step(self, key: Key[Array, ""], state: ProbeState, action: Int[Array, ""]):
        time = state.time + 1
        reward = jnp.where(state.time == 0, 0.0, 1.0)
        return _step(ProbeState(jnp.float32(1), time), 1.0, reward, False, time >= self.length)


class ChooseContinuous(_Probe):
    """One step with an action in [-2, 2]; the reward is minus its squared distance from 1."""

    def reset(self, key: Key[Array, ""]):
        return ProbeState(jnp.float32(0), jnp.int32(0)), jnp.zeros(1)

    def step(self, key: Key[Array, ""], state: ProbeState, action: Float[Array, "1"]):
        return _step(state, 0.0, -((action[0] - 1.0) ** 2), True)

    @property
    def action_space(self) -> Box:
        return Box(-2.0, 2.0, (1,))


PROBES: tuple[type[Environment], ...] = (
    PredictReward,
    PredictSeenReward,
    Discount,
    Choose,
    ChooseAsSeen,
    BootstrapAtTruncation,
    ChooseContinuous,
)
