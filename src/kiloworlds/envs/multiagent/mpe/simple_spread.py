"""Spread: agents cover as many landmarks as there are agents, without bumping into each other."""

import operator
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key, Num

from kiloworlds.core.checks import require_flag, require_numbers
from kiloworlds.core.environment import AgentKind
from kiloworlds.envs.multiagent.mpe.checks import is_zero, require_crowd, require_neighbors
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group, each, fill, least, total
from kiloworlds.envs.multiagent.mpe.observing import (
    alike,
    nearest,
    observation_box,
    observations,
    own,
    relative,
)
from kiloworlds.envs.multiagent.mpe.picture import BLUE, GREY, Disc, draw, place
from kiloworlds.envs.multiagent.mpe.world import (
    Body,
    ParticleState,
    contact_forces,
    count_collisions,
    least_distances,
    move,
    scatter,
)

_UNHEARD = 2  # agents observe two numbers of each other, which nobody ever says
_CAPTURE_RADIUS = 0.1


class SimpleSpread(ParticleEnvironment):
    """mpe2's simple_spread_v3, state for state: N agents and N landmarks.

    Observation (each agent), float32: its velocity (2) and position (2), the positions relative to it
    of the landmarks (2 N) and of the other agents (2 (N - 1)), and as many zeros, where mpe2 has the
    messages of the others, who are silent. With `num_landmark_neighbors` or `num_agent_neighbors` only
    so many of the nearest, the nearest first, and zeros where there are fewer.
    Action: 0 nothing, 1 left, 2 right, 3 down, 4 up; continuous `[nothing, left, right, down, up]`,
    each between 0 and 1.
    Reward: `1 - local_ratio` times the team's, minus the sum over the landmarks of the distance to the
    nearest agent, plus `local_ratio` times the agent's own, -`collision_penalty` for each agent it
    overlaps.
    Episode end: never terminates; with `terminate_on_success` when every landmark has an agent within
    0.1, which is info "won".

    mpe2's `curriculum` is the parameter `collision_penalty`: 0 in its first stage. An episode that
    succeeds in its very last step is both terminated and truncated here, in mpe2 only truncated.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    N: int = eqx.field(static=True, default=3)
    local_ratio: Float[ArrayLike, ""] = 0.5
    continuous_actions: bool = eqx.field(static=True, default=False)
    terminate_on_success: bool = eqx.field(static=True, default=False)
    num_agent_neighbors: int | None = eqx.field(static=True, default=None)
    num_landmark_neighbors: int | None = eqx.field(static=True, default=None)
    collision_penalty: Float[ArrayLike, ""] = 1.0
    agent_size: Float[ArrayLike, ""] = 0.15
    agent_accel: Float[ArrayLike, ""] = 5.0
    dt: Float[ArrayLike, ""] = 0.1
    damping: Float[ArrayLike, ""] = 0.25
    contact_force: Float[ArrayLike, ""] = 100.0
    contact_margin: Float[ArrayLike, ""] = 1e-3

    team_reward: ClassVar[Any] = property(lambda self: is_zero(self.local_ratio))

    def __check_init__(self):
        require_crowd("N", self.N)
        require_flag("continuous_actions", self.continuous_actions)
        require_numbers("contact_margin", self.contact_margin, 1e-6)
        require_flag("terminate_on_success", self.terminate_on_success)
        require_neighbors("num_agent_neighbors", self.num_agent_neighbors)
        require_neighbors("num_landmark_neighbors", self.num_landmark_neighbors)
        require_numbers("local_ratio", self.local_ratio, 0.0, 1.0)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        others = self.N - 1 if self.num_agent_neighbors is None else self.num_agent_neighbors
        landmarks = self.N if self.num_landmark_neighbors is None else self.num_landmark_neighbors
        box = observation_box(4 + 2 * landmarks + (2 + _UNHEARD) * others)
        return (AgentKind.numbered("agent", self.N, box, self._controls.space),)

    @property
    def _controls(self) -> Controls:
        return Controls(self.continuous_actions)

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        return scatter(key, self.N, self.N)

    def _act(self, state: ParticleState, action: Num[Array, "A ..."]) -> ParticleState:
        contacts = contact_forces(self._bodies(state), (), self.contact_force, self.contact_margin)
        accelerations = fill(state.positions, (self.agent_accel, self.N))
        pushes = self._controls.pushes(action, accelerations)
        return move(state, each(operator.add, pushes, contacts), self.dt, self.damping)

    def _bodies(self, state: ParticleState) -> Group:
        return each(Body, state.positions, fill(state.positions, (self.agent_size, self.N)))

    def _rewards(self, state: ParticleState) -> Group:
        team = total(least_distances(state.landmarks, state.positions)) * (1.0 - self.local_ratio)
        bumps = count_collisions(self._bodies(state))
        return each(lambda bump: -team - bump * self.collision_penalty * self.local_ratio, bumps)

    def _is_over(self, state: ParticleState) -> Bool[Array, ""]:
        if not self.terminate_on_success:
            return super()._is_over(state)
        uncovered = least_distances(state.landmarks, state.positions)
        return least(each(jnp.negative, uncovered)) > -_CAPTURE_RADIUS

    def reset_info(self, state: ParticleState) -> dict[str, Any]:
        return {"won": self._is_over(state)} if self.terminate_on_success else {}

    def observe(self, state: ParticleState) -> Float[Array, "A W"]:
        """The observation of a state."""
        agents, landmarks = state.positions, state.landmarks
        if self.num_landmark_neighbors is None:
            landmarks_seen = relative(agents, landmarks)
        else:
            landmarks_seen = nearest(self.num_landmark_neighbors, agents, landmarks)
        if self.num_agent_neighbors is None:
            others_seen, others = relative(agents, agents, own_place=0), self.N - 1
        else:
            others = self.num_agent_neighbors
            others_seen = nearest(others, agents, agents, own_place=0)
        return observations(
            own(state.velocities),
            own(agents),
            landmarks_seen,
            others_seen,
            alike([0.0] * (_UNHEARD * others), self.N),
        )

    def render(self, state: ParticleState) -> np.ndarray:
        """The agents, which point where they go, and the landmarks, squares."""
        landmarks = [place(landmark, 0.05, GREY) for landmark in state.landmarks]
        agents = [
            Disc(position, self.agent_size, BLUE, label=str(number), velocity=velocity)
            for number, (position, velocity) in enumerate(
                zip(state.positions, state.velocities, strict=True)
            )
        ]
        return draw([*agents, *landmarks])
