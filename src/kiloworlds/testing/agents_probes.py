"""Tiny environments of several agents whose right answers are known, for testing algorithms.

The twins of `kiloworlds.testing.probes` for teams: each adds one thing an algorithm must get right.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.spaces import Box, Discrete


class TeamState(NamedTuple):
    """What each agent sees, and the steps taken."""

    seen: Float[Array, " A"]
    time: Int[Array, ""]


class _TeamProbe(MultiAgentEnvironment):
    cheap_reset: ClassVar[bool] = True
    team_reward: ClassVar[bool] = True

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        return (AgentKind.numbered("agent", 2, Box(-1.0, 1.0, (1,)), Discrete(2)),)

    def reset(self, key: Key[Array, ""]) -> tuple[TeamState, Any]:
        seen = jnp.where(jax.random.bernoulli(key, 0.5, (2,)), 1.0, -1.0)
        state = TeamState(seen, jnp.int32(0))
        return state, self.observe(state)

    def observe(self, state: TeamState) -> Any:
        return state.seen[:, None]

    def _step(self, state: TeamState, reward: Any, over: Any) -> tuple[TeamState, Step]:
        reward = jnp.broadcast_to(jnp.asarray(reward, jnp.float32), (2,))
        over = jnp.asarray(over, bool)
        return state, Step(
            self.observe(state), reward, over, jnp.zeros_like(over), {"won": over & (reward[0] > 0)}
        )

    def describe(self, state: TeamState) -> str:
        return f"agents see {state.seen} at step {int(state.time)}"

    def reset_info(self, state: TeamState) -> dict[str, Any]:
        return {"won": jnp.zeros((), bool)}


class BothAsSeen(_TeamProbe):
    """One step; 1 if each agent does what it sees (0 for -1, 1 for 1), else 0: the best is 1."""

    def step(self, key: Key[Array, ""], state: TeamState, action: Int[Array, " 2"]):
        return self._step(state, jnp.all(action == (state.seen > 0)), True)


class Roles(_TeamProbe):
    """One step, the same seen by both; 1 if the first does 0 and the second does 1, else 0."""

    def reset(self, key: Key[Array, ""]) -> tuple[TeamState, Any]:
        state = TeamState(jnp.zeros(2), jnp.int32(0))
        return state, self.observe(state)

    def step(self, key: Key[Array, ""], state: TeamState, action: Int[Array, " 2"]):
        return self._step(state, (action[0] == 0) & (action[1] == 1), True)


class Remember(_TeamProbe):
    """Each agent sees -1 or 1, then twice 0; 1 if in the last step each does what it saw, else 0."""

    def step(self, key: Key[Array, ""], state: TeamState, action: Int[Array, " 2"]):
        last = state.time == 2
        right = jnp.all(action == (state.seen > 0))
        return self._step(state._replace(time=state.time + 1), right & last, last)

    def observe(self, state: TeamState) -> Any:
        return jnp.where(state.time == 0, state.seen, 0.0)[:, None]


class OnlyLegal(_TeamProbe):
    """One step; each agent may only do what it sees, and gets 1 for the other action: the best is 0."""

    def available_actions(self, state: TeamState) -> Bool[Array, "2 2"]:
        return (state.seen > 0)[:, None] == jnp.asarray([False, True])

    def step(self, key: Key[Array, ""], state: TeamState, action: Int[Array, " 2"]):
        return self._step(state, jnp.any(action != (state.seen > 0)), True)


class TwoKinds(_TeamProbe):
    """One step; a speaker sees a number and names it, a listener sees what was named in the step before.

    Two steps: in the first the speaker's choice counts as a word, in the second the listener gets 1 for
    doing what the speaker had seen. What is said is heard, so the best is 1.
    """

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        return (
            AgentKind.numbered("speaker", 1, Box(-1.0, 1.0, (1,)), Discrete(2)),
            AgentKind.numbered("listener", 1, Box(-1.0, 1.0, (2,)), Discrete(3)),
        )

    def observe(self, state: TeamState) -> Any:
        heard = jnp.where(state.time == 1, state.seen[1], 0.0)
        listener = jnp.stack([heard, (state.time == 1).astype(jnp.float32)])
        return {"speaker": state.seen[:1][None], "listener": listener[None]}

    def step(self, key: Key[Array, ""], state: TeamState, action: dict[str, Array]):
        last = state.time == 1
        word = jnp.where(action["speaker"][0] == 1, 1.0, -1.0)
        right = action["listener"][0] == (state.seen[0] > 0)
        seen = jnp.stack([state.seen[0], jnp.where(last, state.seen[1], word)])
        return self._step(TeamState(seen, state.time + 1), right & last, last)


class Death(_TeamProbe):
    """Two steps; the first agent dies in the first if it does 1, after which the team gets 1, else 0.

    The reward of its death comes when it is dead: the best is 1.
    """

    def alive(self, state: TeamState) -> Bool[Array, " 2"]:
        return jnp.stack([state.seen[0] > -0.5, jnp.ones((), bool)])

    def reset(self, key: Key[Array, ""]) -> tuple[TeamState, Any]:
        state = TeamState(jnp.ones(2), jnp.int32(0))
        return state, self.observe(state)

    def observe(self, state: TeamState) -> Any:
        return (state.seen * self.alive(state))[:, None]

    def step(self, key: Key[Array, ""], state: TeamState, action: Int[Array, " 2"]):
        last = state.time == 1
        dies = (action[0] == 1) & ~last
        seen = state.seen.at[0].set(jnp.where(dies, -1.0, state.seen[0]))
        return self._step(TeamState(seen, state.time + 1), last & (state.seen[0] < 0), last)


PROBES = (BothAsSeen, Roles, Remember, OnlyLegal, TwoKinds, Death)
"""All of them."""
