"""Adversary: agents go to a landmark without showing an adversary which it is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from kiloworlds.core.checks import require_flag
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.random import random_index
from kiloworlds.envs.multiagent.mpe.checks import require_crowd, require_neighbors
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group, each, fill, least, pick
from kiloworlds.envs.multiagent.mpe.observing import (
    Block,
    nearest,
    observation_box,
    observations,
    own,
    relative,
)
from kiloworlds.envs.multiagent.mpe.picture import BLUE, GREEN, GREY, ORANGE, Disc, draw, place
from kiloworlds.envs.multiagent.mpe.world import (
    ParticleState,
    Vector,
    distance,
    move,
    scatter,
)

_SIZE, _LANDMARK_SIZE = 0.15, 0.08  # nothing collides: of the picture only


class SimpleAdversary(ParticleEnvironment):
    """mpe2's simple_adversary_v3, state for state: one adversary, N agents and N landmarks.

    One landmark is the goal, which the adversary does not know. The agents do best who let one of
    them go there and the others elsewhere.

    Observation, float32: an agent sees the positions relative to it of the goal (2), of the landmarks
    (2 N) and of the others (2 N), the adversary first; the adversary all of it but the goal. With
    `num_landmark_neighbors` or `num_agent_neighbors` only so many of the nearest, the nearest first,
    and zeros where there are fewer.
    Action: 0 nothing, 1 left, 2 right, 3 down, 4 up; continuous `[nothing, left, right, down, up]`,
    each between 0 and 1.
    Reward: each agent gets the adversary's distance to the goal minus that of the nearest agent, the
    adversary minus its own distance.
    Episode end: never terminates.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    N: int = eqx.field(static=True, default=2)
    continuous_actions: bool = eqx.field(static=True, default=False)
    num_agent_neighbors: int | None = eqx.field(static=True, default=None)
    num_landmark_neighbors: int | None = eqx.field(static=True, default=None)
    agent_accel: Float[ArrayLike, ""] = 5.0
    adversary_accel: Float[ArrayLike, ""] = 5.0
    dt: Float[ArrayLike, ""] = 0.1
    damping: Float[ArrayLike, ""] = 0.25

    def __check_init__(self):
        require_crowd("N", self.N)
        require_flag("continuous_actions", self.continuous_actions)
        require_neighbors("num_agent_neighbors", self.num_agent_neighbors)
        require_neighbors("num_landmark_neighbors", self.num_landmark_neighbors)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        others = self.N if self.num_agent_neighbors is None else self.num_agent_neighbors
        landmarks = self.N if self.num_landmark_neighbors is None else self.num_landmark_neighbors
        size, space = 2 * (others + landmarks), self._controls.space
        return (
            AgentKind.numbered("adversary", 1, observation_box(size), space),
            AgentKind.numbered("agent", self.N, observation_box(size + 2), space),
        )

    @property
    def _controls(self) -> Controls:
        return Controls(self.continuous_actions)

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        goal = random_index(jax.random.fold_in(key, 1), self.N)
        return scatter(key, 1 + self.N, self.N)._replace(goals=(goal,))

    def _act(self, state: ParticleState, action: PyTree) -> ParticleState:
        actions = jnp.concatenate([action["adversary"], action["agent"]])
        accelerations = fill(state.positions, (self.adversary_accel, 1), (self.agent_accel, self.N))
        forces = self._controls.pushes(actions, accelerations)
        return move(state, forces, self.dt, self.damping)

    def _goal(self, state: ParticleState) -> Vector:
        return pick(state.goals[0], state.landmarks)

    def _rewards(self, state: ParticleState) -> Group:
        goal = self._goal(state)
        gaps = each(lambda position: distance(position, goal), state.positions)
        team = gaps[0] - least(gaps[1:])
        return fill(state.positions, (-gaps[0], 1), (team, self.N))

    def observe(self, state: ParticleState) -> dict[str, Float[Array, "K W"]]:
        """The observation of a state."""
        goal = self._goal(state)
        to_goal = each(lambda position: goal - position, state.positions[1:])
        return {
            "adversary": self._observe_from(state, 0, 1),
            "agent": self._observe_from(state, 1, 1 + self.N, own(to_goal)),
        }

    def _observe_from(
        self, state: ParticleState, first: int, end: int, *before: Block
    ) -> Float[Array, "K W"]:
        observers, landmarks, everyone = (
            state.positions[first:end],
            state.landmarks,
            state.positions,
        )
        if self.num_landmark_neighbors is None:
            landmarks_seen = relative(observers, landmarks)
        else:
            landmarks_seen = nearest(self.num_landmark_neighbors, observers, landmarks)
        if self.num_agent_neighbors is None:
            others_seen = relative(observers, everyone, own_place=first)
        else:
            others_seen = nearest(self.num_agent_neighbors, observers, everyone, own_place=first)
        return observations(*before, landmarks_seen, others_seen)

    def render(self, state: ParticleState) -> np.ndarray:
        """The adversary, orange, the agents, blue, and the landmarks, squares; the goal is green."""
        discs = []
        for index, position in enumerate(state.positions):
            color, label = (BLUE, str(index - 1)) if index else (ORANGE, "")
            velocity = state.velocities[index]
            discs.append(Disc(position, _SIZE, color, label=label, velocity=velocity))
        goal = int(state.goals[0])
        for index, landmark in enumerate(state.landmarks):
            discs.append(place(landmark, _LANDMARK_SIZE, GREEN if index == goal else GREY))
        return draw(discs)
