"""What the tasks of the particle world have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, PyTree

from kiloworlds.core.environment import MultiAgentEnvironment, Step
from kiloworlds.envs.multiagent.mpe.groups import Group, Many
from kiloworlds.envs.multiagent.mpe.world import ParticleState


class ParticleEnvironment(MultiAgentEnvironment):
    """A task of the particle world: its agents act all at once and are rewarded for the new state."""

    cheap_reset: ClassVar[bool] = True
    render_fps: ClassVar[float | None] = 10.0

    @abstractmethod
    def _act(self, state: ParticleState, action: PyTree) -> ParticleState:
        """The state after all agents have acted."""

    @abstractmethod
    def _rewards(self, state: ParticleState) -> Group:
        """The reward of each agent for a state stepped to."""

    def _is_over(self, state: ParticleState) -> Bool[Array, ""]:
        """Whether a state ends the task."""
        return jnp.zeros((), bool)

    def step(
        self, key: Key[Array, ""], state: ParticleState, action: PyTree
    ) -> tuple[ParticleState, Step]:
        state = self._act(state, action)
        rewards = self._rewards(state)
        rewards = rewards.tree if isinstance(rewards, Many) else jnp.stack(rewards)
        step = Step(
            self.observe(state),
            rewards.astype(jnp.float32),
            self._is_over(state),
            jnp.zeros((), bool),
            self.reset_info(state),
        )
        return state, step

    def reset(self, key: Key[Array, ""]) -> tuple[ParticleState, PyTree]:
        state = self._start(key)
        return state, self.observe(state)

    @abstractmethod
    def _start(self, key: Key[Array, ""]) -> ParticleState:
        """Draws a first state."""

    @abstractmethod
    def observe(self, state: ParticleState) -> Any:
        """The observation of a state."""
