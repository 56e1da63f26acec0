"""Reference: two agents tell each other which landmark to go to."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Num

from kiloworlds.core.checks import require_flag, require_numbers
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.random import random_index
from kiloworlds.envs.multiagent.mpe.checks import is_zero
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group, each, pick
from kiloworlds.envs.multiagent.mpe.observing import observation_box, observations, own, relative
from kiloworlds.envs.multiagent.mpe.picture import (
    COLORED,
    PURPLE,
    SLATE,
    Disc,
    Speech,
    colored_places,
    draw,
)
from kiloworlds.envs.multiagent.mpe.world import (
    ParticleState,
    distance,
    move,
    scatter,
    silence,
)

_SYMBOLS = 10
_LANDMARK_COLORS = ((0.75, 0.25, 0.25), (0.25, 0.75, 0.25), (0.25, 0.25, 0.75))


class SimpleReference(ParticleEnvironment):
    """mpe2's simple_reference_v3, state for state: two agents and three landmarks, red, green and blue.

    Each agent knows the landmark to which the other one should go.

    Observation (each agent), float32: its velocity (2), the positions of the landmarks relative to it
    (6), the colour of the landmark to which the other should go (3) and what the other said (10).
    Action: 0 nothing, 1 left, 2 right, 3 down, 4 up, plus 5 times the symbol said, 0 to 9; continuous
    `[nothing, left, right, down, up]` and a number for each symbol, all between 0 and 1.
    Reward: `local_ratio` times minus the distance of the other agent to its landmark, plus
    `1 - local_ratio` times the mean of both.
    Episode end: never terminates.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    local_ratio: Float[ArrayLike, ""] = 0.5
    continuous_actions: bool = eqx.field(static=True, default=False)
    agent_accel: Float[ArrayLike, ""] = 5.0
    dt: Float[ArrayLike, ""] = 0.1
    damping: Float[ArrayLike, ""] = 0.25

    team_reward: ClassVar[Any] = property(lambda self: is_zero(self.local_ratio))

    def __check_init__(self):
        require_flag("continuous_actions", self.continuous_actions)
        require_numbers("local_ratio", self.local_ratio, 0.0, 1.0)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        box = observation_box(2 + 6 + 3 + _SYMBOLS)
        return (AgentKind.numbered("agent", 2, box, self._controls.space),)

    @property
    def _controls(self) -> Controls:
        return Controls(self.continuous_actions, symbols=_SYMBOLS)

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        goals = random_index(jax.random.fold_in(key, 1), 3, (2,))
        return scatter(key, agents=2, landmarks=3)._replace(
            messages=(silence(_SYMBOLS),) * 2, goals=tuple(jnp.unstack(goals))
        )

    def _act(self, state: ParticleState, action: Num[Array, "2 ..."]) -> ParticleState:
        forces = self._controls.pushes(action, (self.agent_accel, self.agent_accel))
        messages = tuple(self._controls.message(action[agent]) for agent in range(2))
        return move(state, forces, self.dt, self.damping)._replace(messages=messages)

    def _rewards(self, state: ParticleState) -> Group:
        first, second = state.positions
        first_goal, second_goal = (pick(goal, state.landmarks) for goal in state.goals)
        own_ones = (-distance(second, first_goal), -distance(first, second_goal))
        team = (own_ones[0] + own_ones[1]) * (0.5 * (1.0 - self.local_ratio))
        return each(lambda reward: team + reward * self.local_ratio, own_ones)

    def observe(self, state: ParticleState) -> Float[Array, "2 21"]:
        """The observation of a state."""
        return observations(
            own(state.velocities),
            relative(state.positions, state.landmarks),
            [list(pick(goal, _LANDMARK_COLORS)) for goal in state.goals],
            [list(message) for message in reversed(state.messages)],
        )

    def render(self, state: ParticleState) -> np.ndarray:
        """The landmarks, squares; agents, each with a ring of its goal's colour; what both say."""
        discs = colored_places(state.landmarks)
        speeches = []
        for agent, color in enumerate((SLATE, PURPLE)):
            ring = COLORED[int(state.goals[1 - agent])][1]
            position, velocity = state.positions[agent], state.velocities[agent]
            discs.append(Disc(position, 0.05, color, str(agent), ring, velocity))
            speeches.append(Speech(f"agent_{agent}", state.messages[agent], color))
        return draw(discs, speeches)
