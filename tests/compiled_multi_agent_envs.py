"""Compiled environments of several agents that vectors and adapters run in tests."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.spaces import Box, Discrete


class RelayState(NamedTuple):
    start: Float[Array, ""]
    steps: Int[Array, ""]


class Relay(MultiAgentEnvironment):
    """Runners `runner_0`, ... drop out one after another: runner k in step `k + 1`; then all is over.

    Observes the start (drawn at reset) and the steps, both plus 1; the reward is the action times
    `bonus` plus ten times the runner's number. Runner k may take the actions 0 to `k + steps`. A
    `fault` breaks one rule of the contract.
    """

    bonus: Float[Array, ""] = eqx.field(default=1.0, converter=jnp.float32)
    runners: int = eqx.field(default=3, static=True)
    fault: Literal["", "stalled", "seen", "paid", "revived", "endless"] = eqx.field(
        default="", static=True
    )

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        return (AgentKind.numbered("runner", self.runners, Box(0.0, 2e3, (2,)), Discrete(4)),)

    def alive(self, state):
        lives = jnp.arange(self.runners) >= state.steps
        return lives | (state.steps == 2) if self.fault == "revived" else lives

    def available_actions(self, state):
        number = jnp.arange(self.runners)[:, None]
        legal = jnp.arange(4) <= number + state.steps
        if self.fault == "stalled":  # the second runner has no legal action after the first step
            legal &= ~((number == 1) & (state.steps == 1))
        return legal | ~self.alive(state)[:, None]

    @property
    def global_state_space(self):
        return Box(0.0, 2e3, (2,))

    def global_state(self, state):
        return jnp.stack([state.start, state.steps.astype(jnp.float32)])

    def observe(self, state):
        seen = self.global_state(state) + 1.0
        if self.fault == "seen":
            return jnp.broadcast_to(seen, (self.runners, 2))
        return jnp.where(self.alive(state)[:, None], seen, 0.0)

    def reset(self, key):
        start = jax.random.randint(key, (), 0, 1000).astype(jnp.float32)
        state = RelayState(start, jnp.int32(0))
        return state, self.observe(state)

    def step(self, key, state, action):
        lived = self.alive(state)
        state = state._replace(steps=state.steps + 1)
        number = jnp.arange(self.runners, dtype=jnp.float32)
        reward = jnp.where(lived, action * self.bonus + 10 * number, 0.0).astype(jnp.float32)
        if self.fault == "paid":
            reward = reward + 1.0
        over = (state.steps == self.runners) & (self.fault != "endless")
        info = {"won": over, "shaped_reward": reward / 2}
        return state, Step(self.observe(state), reward, over, jnp.bool_(False), info)

    def describe(self, state):
        return f"step {int(state.steps)} from {float(state.start):g}"


class HuntState(NamedTuple):
    place: Int[Array, ""]
    prey_lives: Array


class Hunt(MultiAgentEnvironment):
    """Two hunters and a prey, of two kinds, with masks in blocks.

    The prey's actions begin at 1. It dies when a hunter takes the action 2; the hunt goes on without it,
    for ever. Reset infos say where it began.
    """

    cheap_reset = True

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        return (
            AgentKind.numbered("hunter", 2, Box(-1.0, 100.0, (3,)), Discrete(3)),
            AgentKind("prey", ("prey",), Box(-1.0, 100.0, (1,)), Discrete(2, start=1)),
        )

    def alive(self, state):
        return jnp.stack([jnp.bool_(True), jnp.bool_(True), state.prey_lives])

    def available_actions(self, state):
        hunters = jnp.ones((2, 3), bool).at[1, 2].set(state.place > 4)
        prey = jnp.stack([jnp.bool_(True), state.place % 2 == 0])[None] | ~state.prey_lives
        return {"hunter": hunters, "prey": prey}

    @property
    def global_state_space(self):
        return Box(0.0, 100.0, (3, 2))

    def global_state(self, state):
        view = jnp.stack([state.place, state.prey_lives.astype(jnp.int32)])
        return jnp.broadcast_to(view, (3, 2)).astype(jnp.float32)

    def observe(self, state):
        place = state.place.astype(jnp.float32)
        return {
            "hunter": jnp.stack([jnp.full(3, place), jnp.full(3, place + 0.5)]),
            "prey": jnp.where(state.prey_lives, place, 0.0).reshape(1, 1),
        }

    def reset(self, key):
        state = HuntState(jax.random.randint(key, (), 1, 5), jnp.bool_(True))
        return state, self.observe(state)

    def reset_info(self, state):
        return {"place": state.place}

    def step(self, key, state, action):
        caught = (action["hunter"] == 2).any() & state.prey_lives
        lived = state.prey_lives
        state = HuntState(state.place + 1, state.prey_lives & ~caught)
        hunters = jnp.where(caught, 5.0, -0.5)
        prey = jnp.where(lived, action["prey"][0] * 1.0, 0.0)
        reward = jnp.stack([hunters, hunters, prey]).astype(jnp.float32)
        never = jnp.bool_(False)
        info = {"place": state.place}
        return state, Step(self.observe(state), reward, never, never, info)

    def render(self, state):
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[..., 0] = int(state.place)
        return picture


def legal_actions(masks: Any, rng: np.random.Generator, first: dict[str, int]) -> Any:
    """Random legal actions `[N, A]`, or in blocks; `first` has the first action of kinds beside 0."""
    if isinstance(masks, dict):
        return {
            name: legal_actions(mask, rng, {}) + first.get(name, 0)
            for name, mask in masks.items()
            if not name.startswith("_")
        }
    return np.where(masks, rng.random(masks.shape), -1.0).argmax(-1)
