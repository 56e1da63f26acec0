"""Push: an adversary keeps an agent away from a landmark that only the agent knows."""

import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from kiloworlds.core.checks import require_flag
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.random import random_index
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group, each, pick
from kiloworlds.envs.multiagent.mpe.observing import (
    alike,
    observation_box,
    observations,
    own,
    relative,
)
from kiloworlds.envs.multiagent.mpe.picture import (
    COLORED,
    ORANGE,
    SLATE,
    Disc,
    colored_places,
    draw,
)
from kiloworlds.envs.multiagent.mpe.world import (
    Body,
    ParticleState,
    contact_forces,
    distance,
    move,
    scatter,
)

_ADVERSARY, _AGENT = 0, 1
_LANDMARK_COLORS = ((0.1, 0.9, 0.1), (0.1, 0.1, 0.9))
_GOAL_COLORS = ((0.25, 0.75, 0.25), (0.25, 0.25, 0.75))  # how the agent is coloured by its goal


class SimplePush(ParticleEnvironment):
    """mpe2's simple_push_v3, state for state: one adversary, one agent and two landmarks.

    Observation, float32: the agent sees its velocity (2), the position of its goal relative to it (2),
    its own colour, which tells the goal (3), the positions (4) and colours (6) of the landmarks and the
    adversary's position (2), 19 numbers; the adversary its velocity (2) and the positions relative to
    it of the landmarks (4) and of the agent (2).
    Action: 0 nothing, 1 left, 2 right, 3 down, 4 up; continuous `[nothing, left, right, down, up]`,
    each between 0 and 1.
    Reward: the agent gets minus its distance to the goal; the adversary the agent's distance minus its
    own.
    Episode end: never terminates.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    continuous_actions: bool = eqx.field(static=True, default=False)
    agent_size: Float[ArrayLike, ""] = 0.05
    adversary_size: Float[ArrayLike, ""] = 0.05
    agent_accel: Float[ArrayLike, ""] = 5.0
    adversary_accel: Float[ArrayLike, ""] = 5.0
    dt: Float[ArrayLike, ""] = 0.1
    damping: Float[ArrayLike, ""] = 0.25
    contact_force: Float[ArrayLike, ""] = 100.0
    contact_margin: Float[ArrayLike, ""] = 1e-3

    def __check_init__(self):
        require_flag("continuous_actions", self.continuous_actions)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        space = self._controls.space
        return (
            AgentKind.numbered("adversary", 1, observation_box(8), space),
            AgentKind.numbered("agent", 1, observation_box(19), space),
        )

    @property
    def _controls(self) -> Controls:
        return Controls(self.continuous_actions)

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        goal = random_index(jax.random.fold_in(key, 1), 2)
        return scatter(key, agents=2, landmarks=2)._replace(goals=(goal,))

    def _act(self, state: ParticleState, action: PyTree) -> ParticleState:
        bodies = each(Body, state.positions, (self.adversary_size, self.agent_size))
        contacts = contact_forces(bodies, (), self.contact_force, self.contact_margin)
        actions = jnp.concatenate([action["adversary"], action["agent"]])
        pushes = self._controls.pushes(actions, (self.adversary_accel, self.agent_accel))
        return move(state, each(operator.add, pushes, contacts), self.dt, self.damping)

    def _rewards(self, state: ParticleState) -> Group:
        goal = pick(state.goals[0], state.landmarks)
        adversary, agent = (distance(position, goal) for position in state.positions)
        return agent - adversary, -agent

    def observe(self, state: ParticleState) -> dict[str, Any]:
        """The observation of a state."""
        adversary, agent = ((position,) for position in state.positions)
        goal = pick(state.goals[0], state.landmarks)
        color = pick(state.goals[0], _GOAL_COLORS)
        return {
            "adversary": observations(
                own(state.velocities[:1]),
                relative(adversary, state.landmarks),
                relative(adversary, agent),
            ),
            "agent": observations(
                own(state.velocities[1:]),
                relative(agent, (goal,)),
                alike(color, 1),
                relative(agent, state.landmarks),
                alike([*_LANDMARK_COLORS[0], *_LANDMARK_COLORS[1]], 1),
                relative(agent, adversary),
            ),
        }

    def render(self, state: ParticleState) -> np.ndarray:
        """The landmarks, squares; the adversary, orange; the agent with a ring of its goal's colour."""
        ring = COLORED[1 + int(state.goals[0])][1]
        adversary, agent = state.positions
        velocities = state.velocities
        return draw(
            [
                *colored_places(state.landmarks, first=1),
                Disc(adversary, self.adversary_size, ORANGE, velocity=velocities[_ADVERSARY]),
                Disc(agent, self.agent_size, SLATE, ring=ring, velocity=velocities[_AGENT]),
            ]
        )
