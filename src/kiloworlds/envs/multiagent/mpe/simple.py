"""Simple: one agent goes to one landmark."""

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Num

from kiloworlds.core.checks import require_flag
from kiloworlds.core.environment import AgentKind
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group
from kiloworlds.envs.multiagent.mpe.observing import observation_box, observations, own, relative
from kiloworlds.envs.multiagent.mpe.picture import BLUE, GREY, Disc, draw, place
from kiloworlds.envs.multiagent.mpe.world import ParticleState, move, scatter


class Simple(ParticleEnvironment):
    """mpe2's simple_v3, state for state: to see whether an algorithm works at all.

    Observation, float32: the agent's velocity (2) and the landmark's position relative to it (2).
    Action: 0 nothing, 1 left, 2 right, 3 down, 4 up; continuous `[nothing, left, right, down, up]`,
    each between 0 and 1.
    Reward: minus the square of the distance to the landmark.
    Episode end: never terminates.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    continuous_actions: bool = eqx.field(static=True, default=False)
    agent_accel: Float[ArrayLike, ""] = 5.0
    dt: Float[ArrayLike, ""] = 0.1
    damping: Float[ArrayLike, ""] = 0.25

    team_reward: ClassVar[bool] = True

    def __check_init__(self):
        require_flag("continuous_actions", self.continuous_actions)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        return (AgentKind.numbered("agent", 1, observation_box(4), self._controls.space),)

    @property
    def _controls(self) -> Controls:
        return Controls(self.continuous_actions)

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        return scatter(key, agents=1, landmarks=1)

    def _act(self, state: ParticleState, action: Num[Array, "1 ..."]) -> ParticleState:
        forces = self._controls.pushes(action, (self.agent_accel,))
        return move(state, forces, self.dt, self.damping)

    def _rewards(self, state: ParticleState) -> Group:
        return (-(state.positions[0] - state.landmarks[0]).square,)

    def observe(self, state: ParticleState) -> Float[Array, "1 4"]:
        """The observation of a state."""
        return observations(own(state.velocities), relative(state.positions, state.landmarks))

    def render(self, state: ParticleState) -> np.ndarray:
        """The landmark, a square, and the agent, which points where it goes."""
        landmark = place(state.landmarks[0], 0.05, GREY)
        agent = Disc(state.positions[0], 0.05, BLUE, velocity=state.velocities[0])
        return draw([landmark, agent])
