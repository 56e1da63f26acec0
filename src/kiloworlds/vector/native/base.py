"""What native engines share: autoreset, episode statistics, and the asynchronous interface.

An engine steps or resets some of its environments in one call; all else is here.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.core.checks import require_flag
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.base import (
    VectorEnv,
    choose_batch_size,
    expand_seeds,
    parse_autoreset_mode,
)
from kiloworlds.vector.infos import EpisodeStatistics

_ENGINE = "engine/"


@dataclass
class Steps:
    """What one step of `B` environments gave.

    Attributes:
        observations: `[B, ...]`, memory of their own.
        rewards: float64 `[B]`.
        terminated, truncated: boolean `[B]`.
        info: a value `[B, ...]` for each key.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, np.ndarray] = field(default_factory=dict)


class EngineVectorEnv(VectorEnv):
    """Base of the native executors; a subclass has `_step_rows` and `_reset_rows`.

    `reset` and `step` drive all environments together. `async_reset`, `send` and `recv` drive them
    in groups of `batch_size`, in the order of sending: while one group steps on a thread of its own,
    the caller computes the actions of another.

    Attributes:
        engine: the engine's name, such as "mujoco".
        num_workers: the engine's threads.
        batch_size: how many results `recv` returns.
    """

    backend = "native"
    engine: str = "abstract"

    def _prepare(
        self,
        env_id: str,
        num_envs: int,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        *,
        num_workers: int,
        batch_size: int | None,
        seed: Any,
        autoreset_mode: str | AutoresetMode,
        episode_statistics: bool,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        mode = parse_autoreset_mode(autoreset_mode)
        self._describe(num_envs, observation_space, action_space, mode, metadata)
        self.env_id, self.num_workers = env_id, num_workers
        self.batch_size = choose_batch_size(batch_size, num_envs)
        self.render_mode = None
        self._first_seed = None if seed is None else expand_seeds(seed, num_envs)
        require_flag("episode_statistics", episode_statistics)
        self._reports_episodes = episode_statistics
        self._episodes = EpisodeStatistics(num_envs)
        self._finished = np.zeros(num_envs, bool)
        self._latest: np.ndarray | None = None  # observations [N, ...]
        # Of the asynchronous interface. A row is an environment's number.
        self._background: ThreadPoolExecutor | None = None
        self._groups: deque[tuple[np.ndarray, Future]] = deque()
        self._waiting: list[int] = []  # rows sent, but too few for a group
        self._pending = np.zeros(num_envs, bool)
        self._starting = np.zeros(num_envs, bool)  # rows sent to be reset
        self._actions: np.ndarray | None = None  # [N, ...]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.env_id}, num_envs={self.num_envs}, "
            f"num_workers={self.num_workers})"
        )

    @abstractmethod
    def _step_rows(self, rows: np.ndarray, actions: np.ndarray) -> Steps:
        """Steps the environments `rows` `[B]` with actions `[B, ...]`; ended ones stay ended."""

    @abstractmethod
    def _reset_rows(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Starts the environments `rows` `[B]` over: observations `[B, ...]` and infos."""

    @abstractmethod
    def _reseed(self, seeds: list[int]) -> None:
        """Gives each environment a new random stream; a reset of all follows."""

    def _engine_state(self) -> dict[str, np.ndarray]:
        """The simulator's part of `get_state`, copies."""
        raise self._no_state()

    def _set_engine_state(self, state: Mapping[str, np.ndarray]) -> None:
        """The opposite."""
        raise self._no_state()

    def _get_state(self) -> dict[str, np.ndarray]:
        assert self._latest is not None
        return {
            "observations": self._latest.copy(),
            "finished": self._finished.copy(),
            "returns": self._episodes.returns.copy(),
            "lengths": self._episodes.lengths.copy(),
            **{f"{_ENGINE}{name}": array for name, array in self._engine_state().items()},
        }

    def _set_state(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        shape = (self.num_envs, *(self.single_observation_space.shape or ()))
        if state["observations"].shape != shape:
            raise InvalidValueError(
                f"set_state() got observations of shape {state['observations'].shape}; those of {self} "
                f"have {shape}."
            )
        self._set_engine_state(
            {
                name.removeprefix(_ENGINE): array
                for name, array in state.items()
                if name.startswith(_ENGINE)
            }
        )
        self._was_reset = True
        rows = np.arange(self.num_envs)
        self._begin(rows)
        self._keep(rows, state["observations"])
        self._finished[:] = state["finished"]
        self._episodes.returns[:] = state["returns"]
        self._episodes.lengths[:] = state["lengths"]
        return state["observations"].copy()

    # The synchronous interface.

    def reset(
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts all environments over, or those in `options["reset_mask"]` (boolean `[N]`)."""
        self._check_nothing_pending("reset")
        mask, options = self._check_reset(seed, options)
        if options:
            raise InvalidValueError(
                f"{', '.join(map(repr, options))}: {self.env_id} on the engine {self.engine!r} takes "
                "no option of reset but 'reset_mask'."
            )
        if mask is None:
            mask = np.ones(self.num_envs, bool)
        rows = np.nonzero(mask)[0]
        self._take_seed(seed)
        observations, info = self._reset_rows(rows)
        self._was_reset = True
        self._begin(rows)
        self._keep(rows, observations)
        infos: dict[str, Any] = {}
        add_rows(infos, info, mask)
        assert self._latest is not None
        return self._latest.copy(), infos

    def _take_seed(self, seed: Any) -> None:
        if seed is None and not self._was_reset:
            seed = self._first_seed
        if seed is not None:
            self._reseed(expand_seeds(seed, self.num_envs))

    def _begin(self, rows: np.ndarray) -> None:
        self._episodes.begin(rows)
        self._finished[rows] = False

    def _keep(self, rows: np.ndarray, observations: np.ndarray) -> None:
        """Remembers observations: `reset` with a mask gives those of all environments."""
        if self._latest is None:
            shape = (self.num_envs, *observations.shape[1:])
            self._latest = np.zeros(shape, observations.dtype)
        self._latest[rows] = observations

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; see `gymnasium.vector.VectorEnv.step`."""
        self._check_steppable()
        self._check_nothing_pending("step")
        rows = np.arange(self.num_envs)
        self._check_not_ended(rows)
        fresh = self._finished & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        return self._advance(rows, np.asarray(self._check_actions(actions)), fresh)

    def _check_not_ended(self, rows: np.ndarray) -> None:
        ended = self._finished[rows]
        if self.autoreset_mode == AutoresetMode.DISABLED and ended.any():
            raise self._needs_reset(int(rows[np.argmax(ended)]))

    def _advance(
        self, rows: np.ndarray, actions: np.ndarray, fresh: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps `rows`, or resets those of them that are `fresh` (boolean `[B]`)."""
        steps, infos = self._steps(rows, actions, fresh)
        self._episodes.begin(rows[fresh])
        self._episodes.returns[rows] += steps.rewards
        self._episodes.lengths[rows] += ~fresh
        finished = steps.terminated | steps.truncated
        self._finished[rows] = finished
        if finished.any():
            if self._reports_episodes:
                self._episodes.add_to(infos, finished, rows)
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                self._start_over(rows, steps, finished, infos)
        self._keep(rows, steps.observations)
        return steps.observations, steps.rewards, steps.terminated, steps.truncated, infos

    def _steps(
        self, rows: np.ndarray, actions: np.ndarray, fresh: np.ndarray
    ) -> tuple[Steps, dict[str, Any]]:
        infos: dict[str, Any] = {}
        if not fresh.any():
            steps = self._step_rows(rows, actions)
            add_rows(infos, steps.info, ~fresh)
            return steps, infos
        started, info = self._reset_rows(rows[fresh])
        add_rows(infos, info, fresh)
        size = len(rows)
        observations = np.empty((size, *started.shape[1:]), started.dtype)
        observations[fresh] = started
        all_ = Steps(observations, np.zeros(size), np.zeros(size, bool), np.zeros(size, bool))
        going = ~fresh
        if going.any():
            steps = self._step_rows(rows[going], actions[going])
            for name in ("observations", "rewards", "terminated", "truncated"):
                getattr(all_, name)[going] = getattr(steps, name)
            all_.info = steps.info
            add_rows(infos, steps.info, going)
        return all_, infos

    def _start_over(
        self, rows: np.ndarray, steps: Steps, finished: np.ndarray, infos: dict[str, Any]
    ) -> None:
        """Same-step autoreset: what ended moves to "final_obs" and "final_info"."""
        observations, size = steps.observations, len(rows)
        finals = np.full(size, None, dtype=object)
        for position in np.nonzero(finished)[0].tolist():
            finals[position] = observations[position].copy()
        final_info: dict[str, Any] = {}
        for key in steps.info:
            here = finished & infos[f"_{key}"]
            add_rows(final_info, {key: infos[key][here]}, here)
            infos[key][here] = 0
            infos[f"_{key}"] &= ~finished
            if not infos[f"_{key}"].any():
                del infos[key], infos[f"_{key}"]
        observations[finished], info = self._reset_rows(rows[finished])
        add_rows(infos, info, finished)
        infos |= {"final_obs": finals, "_final_obs": finished.copy()}
        infos |= {"final_info": final_info, "_final_info": finished.copy()}
        self._episodes.begin(rows[finished])

    # The asynchronous interface.

    def async_reset(self, seed: int | list[int] | None = None) -> None:
        """Starts all environments over; `recv` then gives their first observations."""
        self._check_open("async_reset")
        self._check_nothing_pending("async_reset")
        self._take_seed(seed)
        self._was_reset = True
        self._starting[:] = True
        self._finished[:] = False
        self._enqueue(np.arange(self.num_envs))

    def send(self, actions: Any, env_ids: Any) -> None:
        """Sends actions `[B, ...]` to the environments `env_ids` `[B]` and returns at once.

        Raises:
            InvalidValueError: wrong shapes or numbers.
            WrongCallError: an environment still has a result pending, or has ended.
        """
        self._check_steppable()
        rows = self._check_env_ids(env_ids)
        actions = np.asarray(self._check_actions(actions, len(rows), rows))
        self._check_not_ended(rows)
        if self._actions is None or not np.can_cast(actions.dtype, self._actions.dtype):
            new = np.zeros((self.num_envs, *actions.shape[1:]), actions.dtype)
            if self._actions is not None:
                new[:] = self._actions
            self._actions = new
        self._actions[rows] = actions
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self._starting[rows] = self._finished[rows]
        self._enqueue(rows)

    def _enqueue(self, rows: np.ndarray) -> None:
        self._pending[rows] = True
        self._waiting.extend(rows.tolist())
        if self._background is None:
            self._background = ThreadPoolExecutor(1, f"kiloworlds {self.engine}")
        while len(self._waiting) >= self.batch_size:
            group = np.asarray(self._waiting[: self.batch_size])
            del self._waiting[: self.batch_size]
            self._groups.append((group, self._background.submit(self._advance_group, group)))

    def _advance_group(self, rows: np.ndarray) -> Any:
        fresh = self._starting[rows]
        actions = fresh if self._actions is None else self._actions[rows]  # unused if all are fresh
        results = self._advance(rows, actions, fresh)
        self._starting[rows] = False
        return results

    def recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Waits for `batch_size` results; `infos["env_id"]` `[B]` says whose they are.

        Raises:
            WrongCallError: fewer results are pending than `batch_size`, so it would wait for ever.
        """
        self._check_open("recv")
        if not self._groups:
            raise WrongCallError(
                f"recv() waits for batch_size={self.batch_size} results, but "
                f"{int(self._pending.sum())} are pending; call async_reset() or send() first."
            )
        rows, future = self._groups.popleft()
        results = future.result()
        self._pending[rows] = False
        results[4]["env_id"] = rows
        return results

    def _check_nothing_pending(self, call: str) -> None:
        self._check_open(call)
        if self._pending.any():
            raise WrongCallError(
                f"{call}() while {int(self._pending.sum())} results are pending; recv() them first."
            )

    def _check_env_ids(self, env_ids: Any) -> np.ndarray:
        rows = self._check_rows(env_ids)
        if self._pending[rows].any():
            row = int(rows[np.argmax(self._pending[rows])])
            raise WrongCallError(
                f"send() to environment {row}, which still works on its last action; recv() its "
                "result first."
            )
        return rows

    # Everything else.

    def _not_here(self, call: str) -> InvalidValueError:
        return InvalidValueError(
            f"{call}() needs environments that are Python objects; the engine {self.engine!r} has "
            "none. Make them with backend='process' or 'sync'."
        )

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Raises InvalidValueError: a native engine holds no Python environments."""
        raise self._not_here("call")

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Raises InvalidValueError: a native engine holds no Python environments."""
        raise self._not_here("get_attr")

    def set_attr(self, name: str, values: Any) -> None:
        """Raises InvalidValueError: a native engine holds no Python environments."""
        raise self._not_here("set_attr")

    def render(self, env_ids: Any = None) -> Any:
        """Raises InvalidValueError: a native engine draws no pictures."""
        raise self._not_here("render")

    def close_extras(self, **kwargs: Any) -> None:
        if self._background is not None:
            self._background.shutdown(wait=True)


def add_rows(infos: dict[str, Any], info: dict[str, np.ndarray], which: np.ndarray) -> None:
    """Adds values `[b, ...]` of the `b` environments `which` (boolean `[B]`) to batched infos."""
    for key, value in info.items():
        if key not in infos:
            infos[key] = np.zeros((len(which), *value.shape[1:]), value.dtype)
            infos[f"_{key}"] = np.zeros(len(which), bool)
        infos[key][which] = value
        infos[f"_{key}"] |= which
