"""PettingZoo environments as Gymnasium environments with an agent axis, for the executors to run."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector.utils import iterate

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.pettingzoo.layout import block_space, read_layout
from kiloworlds.vector.pettingzoo.record import Record, RecordWriter
from kiloworlds.vector.pettingzoo.roster import Roster

LAYOUT = "agent_layout"
"""The attribute under which an adapter gives its layout; all others are the environment's own."""

Kinds = Mapping[str, Sequence[Any]] | None


@dataclass(frozen=True)
class Adapting:
    """Builds a PettingZoo environment and adapts it.

    Args:
        make_env: builds it.
        kinds: see `PettingZooVectorEnv`.
    """

    make_env: Callable[[], Any]
    kinds: Kinds

    def __call__(self) -> gymnasium.Env:
        from pettingzoo import AECEnv, ParallelEnv

        env = self.make_env()
        if isinstance(env, ParallelEnv):
            return _ParallelAdapter(env, self.kinds)
        if isinstance(env, AECEnv):
            return _TurnAdapter(env, self.kinds)
        hint = "; kiloworlds.make() runs Gymnasium's" if isinstance(env, gymnasium.Env) else ""
        raise InvalidValueError(
            f"the function made {type(env).__name__}, which is neither a ParallelEnv nor an AECEnv of "
            f"PettingZoo{hint}."
        )


@dataclass
class _Outcome:
    """What one step or reset gave, by agent."""

    observations: dict[Any, Any]
    infos: dict[Any, Any]
    rewards: dict[Any, float]


class _Adapter(gymnasium.Env):
    """Runs one PettingZoo environment; its observations are records (see `RecordWriter`)."""

    turn_based: ClassVar[bool]

    def __init__(self, env: Any, kinds: Kinds):
        self.env = env
        self._layout = read_layout(env, self.turn_based, kinds)
        self._writer = RecordWriter(self._layout)
        self._roster = Roster(self._layout.agents)
        self._spaces = {agent: self._spaces_of(agent) for agent in self._layout.agents}
        self._returns = np.zeros(len(self._layout.agents))
        self.observation_space = self._writer.space
        self.action_space = self._layout.action_space
        self._action_spaces = {
            name: block_space(kind, "action") for name, kind in self._layout.kinds.items()
        }
        self.metadata = dict(getattr(env, "metadata", {}))
        self.render_mode = getattr(env, "render_mode", None)

    @abstractmethod
    def _reset(self, seed: int | None, options: dict | None) -> _Outcome:
        """Resets the environment and begins the roster."""

    @abstractmethod
    def _step(self, actions: list[Any]) -> _Outcome:
        """Steps the environment with actions `[A]` and notes in the roster what became of agents."""

    @abstractmethod
    def _acting(self) -> np.ndarray:
        """Which agents act next, `[A]`."""

    def reset(self, *, seed=None, options=None):
        self._returns[:] = 0.0
        outcome = self._reset(seed, options)
        self._check_spaces()
        return self._record(outcome, "reset()"), self._infos(outcome.infos)

    def step(self, action):
        self._roster.steps += 1
        outcome = self._step(self._by_agent(action))
        over = self._roster.is_over
        if over:
            self._roster.finish()
        record = self._record(outcome, f"step {self._roster.steps}")
        # For the executors one episode is one environment's: all agents together.
        return record, 0.0, over, False, self._infos(outcome.infos)

    def sample_legal(self, record: Record) -> Any:
        """Random actions of all agents, those that can be masked within the masks of a record."""
        blocks = self._layout.blocks(self.action_space.sample())
        for name, mask in record.get("action_mask", {}).items():
            chances = np.where(mask, self.np_random.random(mask.shape), -1.0)
            blocks[name] = self._layout.kinds[name].action_space.start + chances.argmax(-1)  # type: ignore[attr-defined]
        return self._layout.arrange(blocks)

    def _by_agent(self, actions: Any) -> list[Any]:
        # Copied: an environment may keep actions for later, the caller may reuse the array.
        blocks = self._layout.blocks(copy.deepcopy(actions))
        by_agent: list[Any] = [None] * len(self._layout.agents)
        for name, kind in self._layout.kinds.items():
            parts = iterate(self._action_spaces[name], blocks[name])
            for position, part in zip(kind.indices, parts, strict=True):
                by_agent[position] = part
        return by_agent

    def _record(self, outcome: _Outcome, where: str) -> Record:
        roster, acting = self._roster, self._acting()
        cut = roster.truncated & roster.is_over
        record = self._writer.write(outcome.observations, outcome.infos, acting, cut, where)
        rewards = np.zeros(len(self._layout.agents))
        for agent, reward in outcome.rewards.items():
            rewards[roster.index[agent]] = reward
        self._returns += rewards
        return record | {
            "reward": rewards,
            "return": self._returns.copy(),
            "terminated": roster.terminated.copy(),
            "truncated": roster.truncated.copy(),
            "alive": roster.alive.copy(),
            "acting": acting,
        }

    def _infos(self, infos: dict[Any, Any]) -> dict[str, Any]:
        """Infos with the agent axis: of each key the values `[A]` and which agents gave one, `[A]`."""
        columns: dict[str, dict[int, Any]] = {}
        for agent, info in infos.items():
            for key, value in info.items() if agent in self._roster.index else ():
                if key != "action_mask":
                    columns.setdefault(key, {})[self._roster.index[agent]] = value
        shared = {key: info for key, info in infos.items() if key not in self._roster.index}
        given: dict[str, Any] = {}
        if columns:
            count = len(self._layout.agents)
            given["agents"] = {
                "values": {key: _column(column, count) for key, column in columns.items()},
                "given": {
                    key: np.isin(np.arange(count), list(column)) for key, column in columns.items()
                },
            }
        return given | ({"shared": shared} if shared else {})

    def _check_spaces(self) -> None:
        """Refuses spaces that are others than those the arrays were made for."""
        for agent, spaces in self._spaces.items():
            for now, before in zip(self._spaces_of(agent), spaces, strict=True):
                if now is not before and now != before:
                    raise InvalidValueError(
                        f"after reset() agent {agent!r} has the space {now} instead of {before}; spaces "
                        "must stay as they were when the environment was built."
                    )

    def _spaces_of(self, agent: Any) -> tuple[gymnasium.Space, gymnasium.Space]:
        return self.env.observation_space(agent), self.env.action_space(agent)

    def render(self):
        return self.env.render()

    def close(self):
        self.env.close()

    def get_wrapper_attr(self, name: str) -> Any:
        return self._layout if name == LAYOUT else getattr(self.env, name)

    def set_wrapper_attr(self, name: str, value: Any, *, force: bool = True) -> bool:
        setattr(self.env, name, value)
        return True


def _column(values: dict[int, Any], count: int) -> np.ndarray:
    """Values by place, as one array of `count`: of numbers where they are numbers of one shape."""
    try:
        present = np.asarray(list(values.values()))
    except ValueError:  # differing shapes
        present = np.asarray(None)
    if present.dtype.kind in "biuf":
        column = np.zeros((count, *present.shape[1:]), present.dtype)
        column[list(values)] = present
        return column
    column = np.full(count, None, object)
    for position, value in values.items():
        column[position] = value
    return column


class _ParallelAdapter(_Adapter):
    """Runs an environment whose agents act all at once."""

    turn_based = False

    def _reset(self, seed, options):
        observations, infos = _parts(self.env.reset(seed=seed, options=options), "reset()", 2)
        self._roster.begin(list(self.env.agents))
        return self._outcome(self._roster.living, observations, {}, infos)

    def _step(self, actions):
        roster = self._roster
        lived = roster.living
        given = {agent: actions[roster.index[agent]] for agent in self.env.agents}
        observations, rewards, terminations, truncations, infos = _parts(
            self.env.step(given), "step()", 5
        )
        roster.note(list(self.env.agents), terminations, truncations)
        for agent in lived:
            roster.entry(rewards, agent, "rewards")
        # Also those that ended in this step, for their last observation, and those that just came.
        seen = lived + [agent for agent in roster.living if agent not in lived]
        return self._outcome(seen, observations, rewards, infos)

    def _outcome(self, agents: list[Any], observations: Any, rewards: Any, infos: Any) -> _Outcome:
        seen = {agent: self._roster.entry(observations, agent, "observations") for agent in agents}
        known = {agent: reward for agent, reward in rewards.items() if agent in self._roster.index}
        return _Outcome(seen, infos, known)

    def _acting(self):
        return self._roster.alive.copy()


class _TurnAdapter(_Adapter):
    """Runs an AEC environment: one agent acts at a time.

    An agent that has ended gets its last step, whose action is None, from here.
    """

    turn_based = True

    def _reset(self, seed, options):
        self.env.reset(seed=seed, options=options)
        self._roster.begin(list(self.env.agents))
        outcome = _Outcome({}, {}, {})
        self._look(outcome, self._roster.living)
        return outcome

    def _step(self, actions):
        env, roster = self.env, self._roster
        lived = roster.living
        env.step(actions[roster.index[env.agent_selection]])
        outcome = _Outcome({}, {}, dict(env.rewards))
        self._note(outcome)
        for agent in lived:
            roster.entry(outcome.rewards, agent, "rewards")
        while env.agents and not roster.alive[roster.index[env.agent_selection]]:
            gone = env.agent_selection
            env.step(None)
            if gone in env.agents:
                raise InvalidValueError(
                    f"agent {gone!r} ended in step {roster.steps} and got its last step, step(None), "
                    "but is still in agents; step() has to call _was_dead_step(action) for it."
                )
            self._note(outcome)
        # Only now, since what an agent may do depends on whose turn it is.
        self._look(outcome, roster.living)
        return outcome

    def _note(self, outcome: _Outcome) -> None:
        """Takes down who ended, and what they saw last while the environment still knows them."""
        env = self.env
        self._look(outcome, self._roster.note(list(env.agents), env.terminations, env.truncations))

    def _look(self, outcome: _Outcome, agents: list[Any]) -> None:
        for agent in agents:
            outcome.observations[agent] = self.env.observe(agent)
            outcome.infos[agent] = dict(self.env.infos.get(agent, {}))

    def _acting(self):
        acting = np.zeros(len(self._layout.agents), bool)
        if not self._roster.is_over:
            acting[self._roster.index[self.env.agent_selection]] = True
        return acting


def _parts(result: Any, call: str, count: int) -> tuple[Any, ...]:
    if not isinstance(result, tuple) or len(result) != count:
        found = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        names = "observations, infos"
        if count == 5:
            names = "observations, rewards, terminations, truncations, infos"
        raise InvalidValueError(
            f"{call} gave {found}; PettingZoo's parallel API has a tuple of {count}: {names}."
        )
    return result
