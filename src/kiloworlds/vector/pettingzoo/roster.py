"""Who lives in an episode: the rules of PettingZoo about agents that come and go."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from kiloworlds.core.errors import InvalidValueError


class Roster:
    """Which agents of one running episode have come, live and have ended.

    Args:
        agents: all that may appear, in the order of the agent axis.

    Attributes:
        index: an agent's place on that axis.
        alive: whether it has come and not ended, `[A]`.
        terminated, truncated: how it ended, `[A]`; they stay once set.
        steps: of the episode so far.
    """

    def __init__(self, agents: tuple[Any, ...]):
        self._agents = agents
        self.index = {agent: position for position, agent in enumerate(agents)}
        self.alive = np.zeros(len(agents), bool)
        self.terminated, self.truncated = self.alive.copy(), self.alive.copy()
        self.steps = 0
        self._ended_at: dict[Any, int] = {}

    def begin(self, present: list[Any]) -> None:
        """Starts an episode with the agents that are `present`.

        Raises:
            InvalidValueError: there are none, or one that is not among the agents.
        """
        for flags in (self.alive, self.terminated, self.truncated):
            flags[:] = False
        self.steps = 0
        self._ended_at.clear()
        self.note(present, {}, {})
        if not present:
            raise InvalidValueError("reset() left the environment without agents.")

    @property
    def living(self) -> list[Any]:
        """The agents that live, in order."""
        return list(itertools.compress(self._agents, self.alive.tolist()))

    @property
    def is_over(self) -> bool:
        """Whether no agent lives."""
        return not self.alive.any()

    def note(
        self,
        present: list[Any],
        terminations: Mapping[Any, bool],
        truncations: Mapping[Any, bool],
    ) -> list[Any]:
        """Takes down what a step did to the agents.

        Args:
            present: the environment's `agents` after it.
            terminations, truncations: its flags by agent.

        Returns:
            The agents that ended.

        Raises:
            InvalidValueError: an agent without flags, one that vanished without ending, one that is
                not in `possible_agents`, or one that came back.
        """
        ended = []
        for agent in self.living:
            flags = [
                self.entry(by_agent, agent, what)
                for what, by_agent in (("terminations", terminations), ("truncations", truncations))
            ]
            if any(flags):
                self._end(agent, *flags)
                ended.append(agent)
            elif agent not in present:
                raise InvalidValueError(
                    f"agent {agent!r} vanished from agents in step {self.steps} although it is neither "
                    "terminated nor truncated; set one of the two when it ends."
                )
        for agent in present:
            if agent not in self.index:
                raise InvalidValueError(
                    f"agent {agent!r} appeared in step {self.steps} but is not in possible_agents, "
                    f"which are {list(self._agents)}; name it there."
                )
            flags = [bool(terminations.get(agent, False)), bool(truncations.get(agent, False))]
            if agent not in self._ended_at:
                self.alive[self.index[agent]] = True
                if any(flags):  # it came and ended in one step
                    self._end(agent, *flags)
                    ended.append(agent)
            elif not any(flags):
                raise InvalidValueError(
                    f"agent {agent!r} came back in step {self.steps} although it ended in step "
                    f"{self._ended_at[agent]}; an agent that has ended stays away until reset()."
                )
        return ended

    def finish(self) -> None:
        """Ends the episode for agents that never came, so that every agent has a flag set."""
        self.terminated |= ~self.truncated

    def entry(self, by_agent: Any, agent: Any, what: str) -> Any:
        """One agent's entry in a dictionary `what` that an environment gave.

        Raises:
            InvalidValueError: it has none.
        """
        try:
            return by_agent[agent]
        except (KeyError, TypeError, IndexError):
            found = list(by_agent) if isinstance(by_agent, Mapping) else type(by_agent).__name__
            call = f"step {self.steps}" if self.steps else "reset()"
            raise InvalidValueError(
                f"{what} has no entry for agent {agent!r} in {call}; it holds {found}. Every agent "
                "that lived before needs one."
            ) from None

    def _end(self, agent: Any, terminated: bool, truncated: bool) -> None:
        position = self.index[agent]
        self.alive[position] = False
        self.terminated[position], self.truncated[position] = terminated, truncated
        self._ended_at[agent] = self.steps
