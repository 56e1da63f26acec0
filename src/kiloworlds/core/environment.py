"""The contract of a compiled environment: pure functions over explicit state.

Letters used in shapes: A agents, and `...` for whatever a space prescribes.
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.core.spaces import Space

State = PyTree
Observation = PyTree
Action = PyTree


class Step(NamedTuple):
    """What one step of an environment returns.

    `terminated` says that the task itself ended; `truncated` that it was cut off (a time limit) while
    the future still had value. They are never merged: value estimates bootstrap from `observation`
    after a truncation and never after a termination.

    A `MultiAgentEnvironment` puts a leading agent axis on observation and reward, and fills `alive`
    and `available_actions`; single-agent environments leave both None.
    """

    observation: Observation
    reward: Float[Array, "..."]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    info: dict[str, Any]
    alive: Bool[Array, " A"] | None = None
    available_actions: Bool[Array, "A actions"] | None = None


class Environment(eqx.Module):
    """A compiled environment: an immutable pytree of physical parameters with pure methods.

    Fields are parameters (gravity, pole length, a map). A batch of different environments is the
    same type whose fields carry a leading axis. Methods describe one environment; running many is the
    vector's job (`kiloworlds.make`), and so is starting over: no environment resets itself.

    Implementations are final classes: a variant is an argument, not a subclass.
    """

    cheap_reset: ClassVar[bool] = False
    """Whether `reset` costs about as much as `step`.

    If so the vector computes a fresh start for every environment at every step and selects, which
    fuses best; otherwise it computes fresh starts only for the environments that need one.
    """

    @abstractmethod
    def reset(self, key: Key[Array, ""]) -> tuple[State, Observation]:
        """Draws an initial state; returns it with its observation."""

    @abstractmethod
    def step(self, key: Key[Array, ""], state: State, action: Action) -> tuple[State, Step]:
        """Advances by one action.

        After termination the result is defined (no NaN) but meaningless.
        """

    @property
    @abstractmethod
    def observation_space(self) -> Space:
        """The space of one observation."""

    @property
    @abstractmethod
    def action_space(self) -> Space:
        """The space of one action."""

    def observe(self, state: State) -> Observation:
        """The observation of a state, for environments whose observation is a function of it.

        Optional. Where it is given (and resets are cheap) the vector observes once, after choosing
        between the state stepped to and a fresh one; choosing between two observations makes XLA on
        CPU compute the step again for each of their entries.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define observe().")

    @property
    def is_observable(self) -> bool:
        """Whether `observe` is defined."""
        return type(self).observe is not Environment.observe

    def reset_info(self, state: State) -> dict[str, Any]:
        """The info of a freshly reset state; has either no keys or exactly those of `Step.info`."""
        return {}

    def render(self, state: State) -> np.ndarray | None:
        """A picture of one state as uint8 RGB `[height, width, 3]`, or None if it has none.

        Runs on the host, outside compiled code.
        """
        return None

    def describe(self, state: State) -> str | None:
        """One state as text for a terminal, or None if the environment offers none."""
        return None

    @property
    def unwrapped(self) -> "Environment":
        """The environment beneath wrappers such as `TimeLimit`."""
        return self


class MultiAgentEnvironment(Environment):
    """An environment with several agents of one kind.

    Observations, actions and rewards carry a leading agent axis `[A, ...]`; `observation_space` and
    `action_space` describe one agent. `Step.terminated` and `Step.truncated` speak of the episode of
    all agents; an agent that is out before its end has `Step.alive` False, a reward of 0, and stays
    out until the next reset.
    """

    @property
    @abstractmethod
    def num_agents(self) -> int:
        """How many agents act at each step, dead ones included."""
