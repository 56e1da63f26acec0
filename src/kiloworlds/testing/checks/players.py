"""Random play of one environment of any interface, told in one form."""

import copy
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np

Agent = Any
"""An agent's name; None in an environment of one agent."""

_OLD_API = (
    "this is the interface of old Gym (before 0.26). Return (observation, info) from "
    "reset(*, seed=None, options=None) and (observation, reward, terminated, truncated, info) from "
    "step; gymnasium.farama.org/introduction/migration_guide tells how"
)


class InterfaceError(Exception):
    """What reset or step returned has not the form that the interface says."""

    def __init__(self, seen: str, mend: str = ""):
        super().__init__(seen)
        self.seen, self.mend = seen, mend


@dataclass(frozen=True)
class Transition:
    """What one reset or step gave, by agent.

    Attributes:
        step: how many steps the episode has had; 0 after a reset.
        spaces: the observation space of each agent observed.
        actions: the actions as they are after the step.
        actions_given: copies made before the step.
        over: whether the episode of all agents has ended.
    """

    step: int
    observations: dict[Agent, Any]
    spaces: dict[Agent, gymnasium.Space]
    rewards: dict[Agent, Any]
    terminated: dict[Agent, Any]
    truncated: dict[Agent, Any]
    infos: dict[Agent, Any]
    actions: dict[Agent, Any]
    actions_given: dict[Agent, Any]
    over: bool

    def copy(self) -> "Transition":
        """With observations of its own."""
        return replace(self, observations=copy.deepcopy(self.observations))

    def compared(self) -> dict[str, Any]:
        """What must be equal where two runs are equal."""
        return {
            name: _unkeyed(getattr(self, name))
            for name in ("observations", "rewards", "terminated", "truncated")
        }


def _unkeyed(values: dict[Agent, Any]) -> Any:
    return values.get(None, values)


def labelled(word: str, agent: Agent) -> str:
    """Such as "observation", or "observation of agent_0"."""
    return word if agent is None else f"{word} of {agent}"


class Player(ABC):
    """Plays an environment with random actions that depend on `action_seed` alone.

    Args:
        env: the environment; it is not closed here.
        action_seed: of the action samples.
    """

    def __init__(self, env: Any, action_seed: int):
        self.env, self._action_seed = env, action_seed
        self.steps = 0
        self._action_spaces: dict[Agent, tuple[gymnasium.Space, gymnasium.Space]] = {}

    @abstractmethod
    def reset(self, seed: int | None = None) -> Transition:
        """Starts an episode."""

    @abstractmethod
    def step(self) -> Transition:
        """Takes one random action (of each agent that acts)."""

    def _sample(self, agent: Agent, space: gymnasium.Space, mask: Any = None) -> Any:
        known, ours = self._action_spaces.get(agent, (None, None))
        if ours is None or known != space:  # an agent may come back with another space
            ours = copy.deepcopy(space)  # the environment may draw from its own
            offset = 0 if agent is None else zlib.crc32(str(agent).encode()) % 1000
            ours.seed(self._action_seed + offset)
            self._action_spaces[agent] = (copy.deepcopy(space), ours)
        return ours.sample(mask)


class _GymnasiumPlayer(Player):
    def reset(self, seed=None):
        self.steps = 0
        try:
            result = self.env.reset() if seed is None else self.env.reset(seed=seed)
        except TypeError as error:
            if "seed" in str(error) and "unexpected keyword" in str(error):
                raise InterfaceError("reset takes no seed", _OLD_API) from error
            raise
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        if not pair:
            raise InterfaceError(
                f"reset returns {_form(result)}, not (observation, info)", _OLD_API
            )
        return self._transition(*result)

    def step(self):
        action = self._sample(None, self.env.action_space)
        given = copy.deepcopy(action)
        result = self.env.step(action)
        self.steps += 1
        if isinstance(result, tuple) and len(result) == 4:
            raise InterfaceError("step returns 4 values", _OLD_API)
        if not isinstance(result, tuple) or len(result) != 5 or not isinstance(result[4], dict):
            raise InterfaceError(
                f"step returns {_form(result)}",
                "return (observation, reward, terminated, truncated, info), info a dict",
            )
        observation, reward, terminated, truncated, info = result
        return self._transition(
            observation, info, reward, terminated, truncated, {None: action}, {None: given}
        )

    def _transition(
        self,
        observation,
        info,
        reward=0.0,
        terminated=False,
        truncated=False,
        actions=None,
        given=None,
    ) -> Transition:
        return Transition(
            self.steps,
            {None: observation},
            {None: self.env.observation_space},
            {None: reward},
            {None: terminated},
            {None: truncated},
            {None: info},
            actions or {},
            given or {},
            bool(np.any(terminated) or np.any(truncated)),
        )


class _ParallelPlayer(Player):
    def reset(self, seed=None):
        self.steps = 0
        result = self.env.reset() if seed is None else self.env.reset(seed=seed)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], dict)):
            raise InterfaceError(
                f"reset returns {_form(result)}",
                "return (observations, infos), two dicts keyed by agent",
            )
        self._seen, self._infos = result
        return self._transition(self._seen, self._infos)

    def step(self):
        actions = {
            agent: self._sample(
                agent, self.env.action_space(agent), _mask(self._seen, self._infos, agent)
            )
            for agent in self.env.agents
        }
        given = copy.deepcopy(actions)
        result = self.env.step(actions)
        self.steps += 1
        if not (
            isinstance(result, tuple)
            and len(result) == 5
            and all(isinstance(part, dict) for part in result)
        ):
            raise InterfaceError(
                f"step returns {_form(result)}",
                "return (observations, rewards, terminations, truncations, infos), dicts keyed by "
                "agent",
            )
        self._seen, rewards, terminated, truncated, self._infos = result
        return self._transition(
            self._seen, self._infos, rewards, terminated, truncated, actions, given
        )

    def _transition(
        self,
        observations,
        infos,
        rewards=None,
        terminated=None,
        truncated=None,
        actions=None,
        given=None,
    ) -> Transition:
        return Transition(
            self.steps,
            observations,
            {agent: self.env.observation_space(agent) for agent in observations},
            rewards or {},
            terminated or {},
            truncated or {},
            infos,
            actions or {},
            given or {},
            not self.env.agents,
        )


class _AecPlayer(Player):
    """One step is one turn of one agent, which is the agent told."""

    def reset(self, seed=None):
        self.steps = 0
        if seed is None:
            self.env.reset()
        else:
            self.env.reset(seed=seed)
        return self._transition({}, {})

    def step(self):
        agent = self.env.agent_selection
        observation, _, terminated, truncated, info = self.env.last()
        action = None  # what PettingZoo asks of an agent that is out
        if not (terminated or truncated):
            mask = _mask({agent: observation}, {agent: info}, agent)
            action = self._sample(agent, self.env.action_space(agent), mask)
        given = copy.deepcopy(action)
        self.env.step(action)
        self.steps += 1
        return self._transition({agent: action}, {agent: given})

    def _transition(self, actions, given) -> Transition:
        if not self.env.agents:
            return Transition(self.steps, {}, {}, {}, {}, {}, {}, actions, given, True)
        agent = self.env.agent_selection
        observation, reward, terminated, truncated, info = self.env.last()
        return Transition(
            self.steps,
            {agent: observation},
            {agent: self.env.observation_space(agent)},
            {agent: reward},
            {agent: terminated},
            {agent: truncated},
            {agent: info},
            actions,
            given,
            False,
        )


def _mask(observations: dict, infos: dict, agent: Agent) -> Any:
    """The mask of valid actions where the environment gives one."""
    for source in (observations.get(agent), infos.get(agent)):
        if isinstance(source, dict) and "action_mask" in source:
            return source["action_mask"]
    return None


def _form(result: Any) -> str:
    if isinstance(result, tuple):
        return f"{len(result)} values ({', '.join(type(part).__name__ for part in result)})"
    return f"one {type(result).__name__}"


_PLAYERS = {"gymnasium": _GymnasiumPlayer, "parallel": _ParallelPlayer, "aec": _AecPlayer}


def make_player(env: Any, kind: str, action_seed: int) -> Player:
    """The player for an environment of `kind`: "gymnasium", "parallel" or "aec"."""
    return _PLAYERS[kind](env, action_seed)
