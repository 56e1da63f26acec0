"""The contract of a compiled environment: pure functions over explicit state.

Letters used in shapes: A agents, K agents of one kind, and `...` for whatever a space prescribes.
"""

import reprlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.core.checks import require_number
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Dict, Repeated, Space

State = PyTree
Observation = PyTree
Action = PyTree


_MOST_AGENTS = 100_000
"""Of a kind."""


class Step(NamedTuple):
    """What one step of an environment returns.

    `terminated` says that the task itself ended; `truncated` that it was cut off (a time limit) while
    the future still had value. They are never merged: value estimates bootstrap from `observation`
    after a truncation and never after a termination.

    A `MultiAgentEnvironment` puts a leading agent axis on observation and reward; who lives and which
    actions are legal are functions of its state.
    """

    observation: Observation
    reward: Float[Array, "..."]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    info: dict[str, Any]


class Environment(eqx.Module):
    """A compiled environment: an immutable pytree of physical parameters with pure methods.

    Fields are parameters (gravity, pole length, a map). A batch of different environments is the
    same type whose fields carry a leading axis. Methods describe one environment; running many is the
    vector's job (`kiloworlds.make`), and so is starting over: no environment resets itself.

    Implementations are final classes: a variant is an argument, not a subclass.
    """

    render_fps: ClassVar[float | None] = None
    """The frames per second at which to show an episode; None: Gymnasium's of that id, else 30."""

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

    def __hash__(self) -> int:
        # jax.jit(env.step) hashes the environment, and arrays among its parameters have no hash.
        try:
            return super().__hash__()
        except TypeError:
            return id(self)

    @property
    def unwrapped(self) -> "Environment":
        """The environment beneath wrappers such as `TimeLimit`."""
        return self


@dataclass(frozen=True)
class AgentKind:
    """Agents that are alike: they share their spaces and lie in one block `[K, ...]`.

    Attributes:
        name: such as "adversary".
        agents: their names, in the order of the block: "adversary_0", "adversary_1", ...
        observation_space, action_space: of one agent.
    """

    name: str
    agents: tuple[str, ...]
    observation_space: Space
    action_space: Space

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise InvalidValueError(f"a kind of agents needs a name, not {self.name!r}.")
        if not self.agents:
            raise InvalidValueError(f"the kind {self.name!r} has no agents; give it one or more.")
        if isinstance(self.agents, str) or not all(isinstance(one, str) for one in self.agents):
            raise InvalidValueError(
                f"the agents of the kind {self.name!r} are {reprlib.repr(self.agents)}; give their "
                f"names, such as ('{self.name}_0',)."
            )
        for what in ("observation_space", "action_space"):
            space = getattr(self, what)
            if not isinstance(space, Space):
                raise InvalidValueError(
                    f"the {what} of the kind {self.name!r} is {reprlib.repr(space)}; give one of "
                    "kiloworlds.core.spaces (its from_gymnasium converts Gymnasium's)."
                )

    @classmethod
    def numbered(
        cls, name: str, count: int, observation_space: Space, action_space: Space
    ) -> "AgentKind":
        """`count` agents called "name_0", "name_1", ..."""
        require_number("count", count, 0, _MOST_AGENTS, whole=True)
        agents = tuple(f"{name}_{index}" for index in range(count))
        return cls(name, agents, observation_space, action_space)


class MultiAgentEnvironment(Environment):
    """An environment with several agents, all of which act at each step.

    Agents lie on a leading axis A, in the order of `kinds`. Rewards are float32 `[A]`. Observations,
    actions and masks of legal actions are `[A, ...]` where all agents are of one kind, else a
    dictionary of blocks `[K, ...]` keyed by the names of the kinds.

    `Step.terminated` and `Step.truncated` speak of the episode of all agents. An agent that is out
    before its end is no longer `alive`: it observes zeros, its actions are not read, and it stays out
    until the next reset. It gets no reward any more, unless rewards are the team's.

    Info `"won"` (bool), where there is such a thing, says that the agents won in this step;
    `"shaped_reward"` (`[A]`) holds hints on the way to sparse rewards, which count for nothing by
    themselves: a training may add them for a while.
    """

    team_reward: ClassVar[bool] = False
    """Whether all agents get the same reward, the team's, whether they live or not."""

    @property
    @abstractmethod
    def kinds(self) -> tuple[AgentKind, ...]:
        """The kinds of agents; the agent axis holds the first kind's agents first."""

    @property
    def num_agents(self) -> int:
        """How many agents there are, A, dead ones included."""
        return sum(len(kind.agents) for kind in self.kinds)

    @property
    def possible_agents(self) -> tuple[str, ...]:
        """The names of all agents, in the order of the agent axis."""
        return tuple(agent for kind in self.kinds for agent in kind.agents)

    @property
    def observation_space(self) -> Space:
        """The space of what all agents observe: `[A, ...]`, or a dictionary of blocks."""
        return _of_all(self.kinds, "observation_space")

    @property
    def action_space(self) -> Space:
        """The space of what all agents do: `[A, ...]`, or a dictionary of blocks."""
        return _of_all(self.kinds, "action_space")

    def alive(self, state: State) -> Bool[Array, " A"]:
        """Which agents live in a state."""
        return jnp.ones(self.num_agents, bool)

    def available_actions(self, state: State) -> PyTree | None:
        """Which actions are legal in a state, for each agent of discrete actions `[A, n]`, or in blocks;
        None where all always are.

        Every agent has a legal action in every state; all of a dead agent's are legal.
        """
        return None

    @property
    def global_state_space(self) -> Box | None:
        """The space of `global_state`; None where the observations of all agents stand for it."""
        return None

    def global_state(self, state: State) -> Float[Array, "..."]:
        """What a centralised critic sees of a state: `[...]`, or `[A, ...]` for one view per agent."""
        raise NotImplementedError(f"{type(self).__name__} does not define global_state().")


def check_kinds(kinds: tuple[AgentKind, ...]) -> None:
    """Raises InvalidValueError where two kinds, or two agents, have one name."""
    names = [kind.name for kind in kinds]
    agents = [agent for kind in kinds for agent in kind.agents]
    for what, given in (("kinds", names), ("agents", agents)):
        twice = next((name for name in given if given.count(name) > 1), None)
        if twice is not None:
            raise InvalidValueError(
                f"two {what} of the environment are called {twice!r}; each needs a name of its own."
            )


def _of_all(kinds: tuple[AgentKind, ...], which: str) -> Space:
    blocks = {kind.name: Repeated(getattr(kind, which), len(kind.agents)) for kind in kinds}
    return Dict(blocks) if len(blocks) > 1 else next(iter(blocks.values()))
