"""Many PettingZoo environments behind the gymnasium.vector interface, with an agent axis."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import InvalidValueError, WrongCallError, did_you_mean
from kiloworlds.vector.base import VectorEnv, make_env_list
from kiloworlds.vector.choice import host_backend
from kiloworlds.vector.infos import with_masks
from kiloworlds.vector.pettingzoo.adapters import LAYOUT, Adapting
from kiloworlds.vector.pettingzoo.layout import AgentKind, AgentLayout
from kiloworlds.vector.pettingzoo.record import Record
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.sync import SyncExecutor
from kiloworlds.vector.thread import ThreadExecutor

_EXECUTORS: dict[str, type[VectorEnv]] = {
    "process": ProcessExecutor,
    "thread": ThreadExecutor,
    "sync": SyncExecutor,
}

_Results = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class PettingZooVectorEnv(VectorEnv):
    """Steps `N` copies of a PettingZoo environment with `A` agents each.

    Agents lie on the second axis, in the order of `possible_agents`: observations and actions are
    `[N, A, ...]`, rewards and flags `[N, A]`. Agents whose spaces differ lie in one block per kind:
    observations, actions and action masks are then dictionaries of `[N, K, ...]`, keyed by kind.

    An agent's `terminated` or `truncated` is set when it ends and stays set until the episode is over,
    which it is when all agents have one of the two. An agent that has ended, or not yet come, observes
    zeros and receives no reward; its actions are not read.

    Infos, each beside its mask "_key":
        alive: which agents live, `[N, A]`.
        acting: whose actions the next step reads, `[N, A]`: all that live; in turn-based (AEC)
            environments the one agent whose turn it is.
        agent_selection: in turn-based environments the place of that agent on the agent axis, `[N]`;
            -1 where the episode is over.
        action_mask: which actions are allowed, `[N, A, n]`, where the environment says so; all True
            for agents that do not act.
        agent_infos: what else the environment reports of its agents: `[N, A, ...]` by key, beside masks
            `[N, A]`.
        shared_infos: what it reports under names that are no agents.
        episode: where an episode ended, its returns "r" `[N, A]`, length "l" in steps and seconds "t".
        final_obs, final_info, lost: as of other vectors.

    Args:
        make_env: builds one environment, a `ParallelEnv` or an `AECEnv`; or one function per
            environment.
        num_envs: how many, N.
        backend: "process", "thread", "sync", or "auto": process where an option of it is given, else
            process or sync, whichever is faster.
        kinds: names of agents by kind, where they shall be sorted otherwise than by their spaces and
            names, `{"wolf": ["agent_0"], "sheep": ["agent_1", "agent_2"]}`. Observations and actions
            are then always blocks keyed by kind.
        **options: of the executor: see `SyncExecutor` (`seed`, `autoreset_mode`, `episode_statistics`)
            and `ProcessExecutor` (`num_workers`, `batch_size`, ...).

    Raises:
        InvalidValueError: what is built is no PettingZoo environment, breaks its rules, or has agents
            that cannot share an axis.

    Example:
        >>> from mpe2 import simple_spread_v3
        >>> envs = PettingZooVectorEnv(lambda: simple_spread_v3.parallel_env(N=3), 2, backend="sync")
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape, infos["alive"].shape
        ((2, 3, 18), (2, 3))

    Reference: Terry et al., "PettingZoo: Gym for Multi-Agent Reinforcement Learning", 2021.
    """

    def __init__(
        self,
        make_env: Callable[[], Any] | Sequence[Callable[[], Any]],
        num_envs: int = 1,
        *,
        backend: str = "auto",
        kinds: Mapping[str, Sequence[Any]] | None = None,
        **options: Any,
    ):
        num_envs = require_count("num_envs", num_envs)
        make_envs = [Adapting(build, kinds) for build in make_env_list(make_env, num_envs)]
        executor_class = _executor_class(backend, make_envs, options)
        self.executor: Any = executor_class(make_envs, num_envs, **options)
        """The executor that runs the environments."""
        try:
            self._layout = _common_layout(self.executor)
        except BaseException:
            self.executor.close()
            raise
        self._describe(
            num_envs,
            self._layout.observation_space,
            self._layout.action_space,
            self.executor.autoreset_mode,
            self.executor.metadata,
        )
        self.render_mode = self.executor.render_mode
        self.backend = self.executor.backend

    def __repr__(self) -> str:
        name = self.metadata.get("name", "?")
        return (
            f"PettingZooVectorEnv({name}, num_envs={self.num_envs}, num_agents={self.num_agents}, "
            f"backend={self.backend!r})"
        )

    @property
    def possible_agents(self) -> tuple[Any, ...]:
        """The names of the agents, in the order of the agent axis."""
        return self._layout.agents

    @property
    def num_agents(self) -> int:
        """The length of the agent axis, A."""
        return len(self._layout.agents)

    @property
    def kinds(self) -> dict[str, AgentKind]:
        """The kinds of agents: their names, places on the agent axis and spaces."""
        return self._layout.kinds

    @property
    def is_turn_based(self) -> bool:
        """Whether one agent acts at a time."""
        return self._layout.turn_based

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts all environments over, or those in `options["reset_mask"]` (boolean `[N]`)."""
        records, infos = self.executor.reset(seed=seed, options=options)
        self._was_reset = True
        return records["observation"], self._infos(records, infos)

    def step(self, actions: Any) -> _Results:
        """Steps all environments with actions `[N, A, ...]`, or blocks of them keyed by kind."""
        self._check_steppable()
        return self._unpack(*self.executor.step(actions))

    def async_reset(self, seed: int | list[int] | None = None) -> None:
        """Starts all environments over; `recv` then gives their first observations."""
        self._check_asynchronous("async_reset")
        self.executor.async_reset(seed)
        self._was_reset = True

    def send(self, actions: Any, env_ids: Any) -> None:
        """Sends actions `[B, A, ...]` to the environments `env_ids` `[B]` and returns at once."""
        self._check_steppable()
        self._check_asynchronous("send")
        self.executor.send(actions, env_ids)

    def recv(self) -> _Results:
        """Waits for `batch_size` results; `infos["env_id"]` `[B]` says whose they are."""
        self._check_asynchronous("recv")
        return self._unpack(*self.executor.recv())

    def _check_asynchronous(self, call: str) -> None:
        if not hasattr(self.executor, call):
            raise WrongCallError(
                f"{call}() needs backend='process'; this vector runs on {self.backend!r}."
            )

    def _unpack(
        self,
        records: Record,
        _: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        infos: dict[str, Any],
    ) -> _Results:
        """Takes records apart: what ended under same-step autoreset is in their final ones."""
        over = np.flatnonzero(terminated | truncated)
        results = {
            key: np.array(records[key]) for key in ("reward", "return", "terminated", "truncated")
        }
        finals = infos.get("final_obs")
        if finals is not None and self.autoreset_mode == AutoresetMode.SAME_STEP:
            for row in over:
                for key, values in results.items():
                    values[row] = finals[row][key]
        for row in np.flatnonzero(infos.get("lost", ())):  # its record is that of the step before
            results["reward"][row] = 0.0
            results["terminated"][row], results["truncated"][row] = False, True
        if "episode" in infos:
            counts = infos["_episode"][:, None]
            infos["episode"]["r"] = np.where(counts, results["return"], 0.0)
        if finals is not None:
            masks = np.full(len(finals), None, object)
            for row in np.flatnonzero(infos["_final_obs"]):
                if finals[row].get("masks_given", False):
                    masks[row] = self._arranged_masks(finals[row]["action_mask"])
                finals[row] = finals[row]["observation"]
            if any(mask is not None for mask in masks):
                infos["final_action_mask"] = masks
        infos = self._infos(records, infos)
        return (
            records["observation"],
            results["reward"],
            results["terminated"],
            results["truncated"],
            infos,
        )

    def _infos(self, records: Record, infos: dict[str, Any]) -> dict[str, Any]:
        """Infos as users see them: with the masks of the records, per agent where they are so."""
        self._name_agent_infos(infos)
        if "final_info" in infos:
            self._name_agent_infos(infos["final_info"])
        alive, acting = np.array(records["alive"]), np.array(records["acting"])
        if self.autoreset_mode != AutoresetMode.SAME_STEP and "lost" in infos:
            alive[infos["lost"]] = acting[infos["lost"]] = False  # no other episode has begun yet
        everywhere = np.ones(len(acting), bool)
        masks = {"alive": alive, "acting": acting}
        if self.is_turn_based:
            masks["agent_selection"] = np.where(acting.any(axis=1), acting.argmax(axis=1), -1)
        infos |= with_masks(masks, everywhere)
        given = records.get("masks_given", np.zeros(len(acting), bool))
        if given.any():
            arranged = self._arranged_masks(records["action_mask"])
            infos |= with_masks({"action_mask": arranged}, np.array(given))
        return infos

    def _arranged_masks(self, blocks: dict[str, Any]) -> Any:
        return blocks if self._layout.in_blocks else next(iter(blocks.values()))

    def _name_agent_infos(self, infos: dict[str, Any]) -> None:
        """Puts infos of agents beside masks `[N, A]`, in place."""
        agents = infos.pop("agents", None)
        if agents is not None:
            named: dict[str, Any] = {}
            for key, given in agents["given"].items():
                if f"_{key}" in agents["given"]:  # else it is itself the executor's mask of a key
                    named[key], named[f"_{key}"] = agents["values"][key], given
            infos["agent_infos"], infos["_agent_infos"] = named, infos.pop("_agents")
        if "shared" in infos:
            infos["shared_infos"] = infos.pop("shared")
            infos["_shared_infos"] = infos.pop("_shared")

    def render(self, env_ids: Any = None) -> tuple[Any, ...]:
        """The frames of all environments, or of those in `env_ids` `[B]`, in that order."""
        self._check_open("render")
        return self.executor.render(env_ids)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method (or reads an attribute) of every environment."""
        return self.executor.call(name, *args, **kwargs)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Reads an attribute of every environment."""
        return self.executor.get_attr(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every environment, one value for all or a list."""
        self.executor.set_attr(name, values)

    def close_extras(self, **kwargs: Any) -> None:
        self.executor.close(**kwargs)


def _executor_class(
    backend: str, make_envs: Sequence[Callable[[], Any]], options: dict[str, Any]
) -> Callable[..., Any]:
    pool_only = [name for name in options if name not in _parameters(SyncExecutor)]
    if backend == "auto":
        backend = "process" if pool_only else host_backend(len(make_envs), make_envs)
    if backend not in _EXECUTORS:
        raise InvalidValueError(
            f"backend={backend!r} does not run PettingZoo environments; give 'auto', "
            f"{', '.join(map(repr, _EXECUTORS))}.{did_you_mean(backend, _EXECUTORS)}"
        )
    known = _parameters(_EXECUTORS[backend])
    for name in options:
        if name not in known:
            raise InvalidValueError(
                f"{name} is no option of backend={backend!r}, which has {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
    return _EXECUTORS[backend]


def _parameters(executor_class: type[VectorEnv]) -> list[str]:
    """The names of an executor's options."""
    return list(inspect.signature(executor_class).parameters)[2:]


def _common_layout(executor: Any) -> AgentLayout:
    first, *others = executor.get_attr(LAYOUT)
    for index, layout in enumerate(others, start=1):
        if layout != first:
            raise InvalidValueError(
                f"environment {index} has the agents {list(layout.agents)}, environment 0 has "
                f"{list(first.agents)}; all environments of a vector must have the same, with the same "
                "spaces, and be of one API."
            )
    return first
