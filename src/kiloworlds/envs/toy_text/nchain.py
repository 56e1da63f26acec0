"""NChain: go far along a chain for a large reward, or back for a small one."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Discrete
from kiloworlds.envs.toy_text.grid import GridPicture

NChainState = Int[Array, ""]
_MOST_IN_A_ROW = 10  # places in a picture


class NChain(Environment):
    """Gym's NChain-v0 (part of Gym until 0.19, 2021), state for state.

    Observation: the place on the chain, 0 to `n` - 1, int32; it is also the state.
    Action: 0 goes forwards, 1 returns to the beginning; with probability `slip` the other happens.
    Reward: `large` for going forwards at the end of the chain, `small` for returning, else 0.
    Episode end: never terminates.

    Reference: M. Strens, "A Bayesian Framework for Reinforcement Learning" (2000).
    """

    n: int = eqx.field(static=True, default=5)
    slip: Float[ArrayLike, ""] = 0.2
    small: Float[ArrayLike, ""] = 2.0
    large: Float[ArrayLike, ""] = 10.0

    cheap_reset: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = ("forwards", "back")

    def __check_init__(self):
        if self.n < 2:
            raise InvalidValueError(f"NChain(n={self.n}): a chain has at least 2 places.")

    def reset(self, key: Key[Array, ""]) -> tuple[NChainState, Int[Array, ""]]:
        return jnp.int32(0), jnp.int32(0)

    def step(
        self, key: Key[Array, ""], state: NChainState, action: Int[Array, ""]
    ) -> tuple[NChainState, Step]:
        slipped = jax.random.uniform(key) < self.slip
        back = (action == 1) ^ slipped
        at_end = state == self.n - 1
        reward = jnp.where(back, self.small, jnp.where(at_end, self.large, 0.0))
        state = jnp.where(back, 0, jnp.minimum(state + 1, self.n - 1))
        never = jnp.zeros_like(back)
        return state, Step(state, reward.astype(jnp.float32), never, never, {})

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.n)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def render(self, state: NChainState) -> np.ndarray:
        """The places by number, 64 pixels each, ten in a row; that of the large reward is golden."""
        rows = -(-self.n // _MOST_IN_A_ROW)
        picture = GridPicture(rows, min(self.n, _MOST_IN_A_ROW), background="#cbd5e1")
        for place in range(self.n):
            row, column = divmod(place, _MOST_IN_A_ROW)
            picture.cell(row, column, "#fbbf24" if place == self.n - 1 else "#f8fafc")
            if place == int(state):
                picture.agent(row, column)
            ink = "#ffffff" if place == int(state) else "#64748b"
            picture.text(row, column, str(place), ink, size=20)
        return picture.canvas.pixels()

    def describe(self, state: NChainState) -> str:
        """The chain, the occupied place in brackets."""
        places = range(self.n)
        return "-".join(f"[{place}]" if place == int(state) else f" {place} " for place in places)
