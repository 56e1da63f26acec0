"""Speaker and listener: who cannot move tells who cannot speak which landmark to go to."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from kiloworlds.core.checks import require_flag
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.random import random_index
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group, pick
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
from kiloworlds.envs.multiagent.mpe.world import ParticleState, move, scatter, silence

_SYMBOLS = 3
_LANDMARK_COLORS = ((0.65, 0.15, 0.15), (0.15, 0.65, 0.15), (0.15, 0.15, 0.65))


class SimpleSpeakerListener(ParticleEnvironment):
    """mpe2's simple_speaker_listener_v4, state for state: three landmarks, red, green and blue.

    Observation, float32: the speaker sees the colour of the goal (3); the listener its velocity (2),
    the positions of the landmarks relative to it (6) and what the speaker said (3).
    Action: the speaker says a symbol, 0 to 2; the listener 0 nothing, 1 left, 2 right, 3 down, 4 up.
    Continuous: a number for each of these, between 0 and 1.
    Reward: minus the square of the listener's distance to the goal, for both.
    Episode end: never terminates.

    The speaker has no position here: in mpe2 it stands somewhere, which nobody observes.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    continuous_actions: bool = eqx.field(static=True, default=False)
    listener_accel: Float[ArrayLike, ""] = 5.0
    dt: Float[ArrayLike, ""] = 0.1
    damping: Float[ArrayLike, ""] = 0.25

    team_reward: ClassVar[bool] = True

    def __check_init__(self):
        require_flag("continuous_actions", self.continuous_actions)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        box = observation_box(2 + 6 + _SYMBOLS)
        return (
            AgentKind.numbered("speaker", 1, observation_box(3), self._speech.space),
            AgentKind.numbered("listener", 1, box, self._motion.space),
        )

    @property
    def _speech(self) -> Controls:
        return Controls(self.continuous_actions, moves=False, symbols=_SYMBOLS)

    @property
    def _motion(self) -> Controls:
        return Controls(self.continuous_actions)

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        goal = random_index(jax.random.fold_in(key, 1), 3)
        return scatter(key, agents=1, landmarks=3)._replace(
            messages=(silence(_SYMBOLS),), goals=(goal,)
        )

    def _act(self, state: ParticleState, action: PyTree) -> ParticleState:
        forces = self._motion.pushes(action["listener"], (self.listener_accel,))
        message = self._speech.message(action["speaker"][0])
        return move(state, forces, self.dt, self.damping)._replace(messages=(message,))

    def _rewards(self, state: ParticleState) -> Group:
        goal = pick(state.goals[0], state.landmarks)
        reward = -(state.positions[0] - goal).square
        return reward, reward

    def observe(self, state: ParticleState) -> dict[str, Any]:
        """The observation of a state."""
        return {
            "speaker": observations([list(pick(state.goals[0], _LANDMARK_COLORS))]),
            "listener": observations(
                own(state.velocities),
                relative(state.positions, state.landmarks),
                [list(state.messages[0])],
            ),
        }

    def render(self, state: ParticleState) -> np.ndarray:
        """The landmarks, squares; the listener, with a ring of the goal's colour; what it is told."""
        discs = colored_places(state.landmarks)
        ring = COLORED[int(state.goals[0])][1]
        discs.append(
            Disc(state.positions[0], 0.075, SLATE, ring=ring, velocity=state.velocities[0])
        )
        return draw(discs, [Speech("speaker_0", state.messages[0], PURPLE)])
