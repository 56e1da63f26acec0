"""The executor for any Gymnasium environment: in this process, one after the other.

The correct baseline against which parallel executors are held.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from kiloworlds.core.checks import require_count, require_flag
from kiloworlds.vector.base import (
    VectorEnv,
    expand_seeds,
    make_env_list,
    parse_autoreset_mode,
)
from kiloworlds.vector.env_state import can_save, load_env, pack, save_env, unpack
from kiloworlds.vector.infos import (
    EpisodeStatistics,
    add_ending,
    merge_infos,
    own_episodes,
    set_apart,
)


class SyncExecutor(VectorEnv):
    """Steps `num_envs` Gymnasium environments in a loop.

    Gymnasium's own `SyncVectorEnv` holds them, and steps and resets them in the other modes than
    same-step autoreset; this adds kiloworlds' checks, seeding and episode statistics.

    Args:
        make_env: builds one environment; or one function per environment.
        num_envs: how many.
        seed: the seed of the first `reset` where that gives none.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        episode_statistics: whether infos report "episode" at each end; "environment" takes what the
            environments report themselves, such as whole games whose parts are episodes.
    """

    backend = "sync"

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env] | Sequence[Callable[[], gymnasium.Env]],
        num_envs: int,
        *,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        episode_statistics: bool | Literal["environment"] = True,
    ):
        num_envs = require_count("num_envs", num_envs)
        mode = parse_autoreset_mode(autoreset_mode)
        self._first_seed = None if seed is None else expand_seeds(seed, num_envs)
        make_envs = make_env_list(make_env, num_envs)
        self._vector = SyncVectorEnv(make_envs, autoreset_mode=mode)
        self._describe(
            num_envs,
            self._vector.single_observation_space,
            self._vector.single_action_space,
            mode,
            self._vector.metadata,
        )
        self.render_mode = self._vector.render_mode
        self.spec = self._vector.envs[0].spec
        require_flag("episode_statistics", episode_statistics, "environment")
        self._reports_episodes = episode_statistics
        self._episodes = EpisodeStatistics(num_envs)
        self._finished = np.zeros(num_envs, bool)
        self._latest: list[Any] = [None] * num_envs

    def __repr__(self) -> str:
        return f"SyncExecutor({self.spec.id if self.spec else '?'}, num_envs={self.num_envs})"

    @property
    def envs(self) -> list[gymnasium.Env]:
        """The environments themselves."""
        return self._vector.envs

    def reset(
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts all environments over, or those in `options["reset_mask"]` (boolean `[N]`)."""
        mask, env_options = self._check_reset(seed, options)
        if seed is None and not self._was_reset:
            seed = self._first_seed
        seeds = [None] * self.num_envs if seed is None else expand_seeds(seed, self.num_envs)
        rows = np.ones(self.num_envs, bool) if mask is None else mask
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            observations, infos = self._reset_rows(rows, seeds, env_options or None)
        else:
            if mask is not None:
                env_options["reset_mask"] = mask
            observations, infos = self._vector.reset(
                seed=seeds,  # type: ignore[arg-type]
                options=env_options or None,
            )
        set_apart(infos)
        self._was_reset = True
        self._episodes.begin(rows)
        self._finished[rows] = False
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; see `gymnasium.vector.VectorEnv.step`."""
        self._check_steppable()
        actions = self._check_actions(actions)
        if hasattr(actions, "dtype"):
            actions = np.asarray(actions)  # device arrays too
        if self.autoreset_mode == AutoresetMode.DISABLED and self._finished.any():
            raise self._needs_reset(int(np.argmax(self._finished)))
        only_reset = self._finished & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        same_step = self.autoreset_mode == AutoresetMode.SAME_STEP
        step = self._step_and_start_over if same_step else self._vector.step
        observations, rewards, terminated, truncated, infos = step(actions)
        if not same_step:
            set_apart(infos)
        self._episodes.begin(only_reset)
        self._episodes.returns += rewards
        self._episodes.lengths += ~only_reset
        self._finished = terminated | truncated
        if self._reports_episodes == "environment":
            infos |= own_episodes(infos)
        elif self._finished.any() and self._reports_episodes:
            self._episodes.add_to(infos, self._finished)
        if same_step:
            self._episodes.begin(self._finished)
        return observations, rewards, terminated, truncated, infos

    # Under same-step autoreset: as SyncVectorEnv does it, in less time.

    def _reset_rows(
        self, mask: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None
    ) -> tuple[Any, dict[str, Any]]:
        infos: dict[str, Any] = {}
        for index in np.flatnonzero(mask).tolist():
            reset = self.envs[index].reset
            self._latest[index], info = reset(seed=seeds[index], options=options)
            merge_infos(infos, info, index, self.num_envs)
        return self._batch(), infos

    def _batch(self) -> Any:
        """The latest observations of all, in arrays of their own."""
        space = self.single_observation_space
        return concatenate(space, self._latest, create_empty_array(space, self.num_envs))

    def _step_and_start_over(
        self, actions: Any
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        size, latest = self.num_envs, self._latest
        rewards = np.zeros(size)
        terminated, truncated = np.zeros(size, bool), np.zeros(size, bool)
        infos: dict[str, Any] = {}
        endings: dict[str, Any] = {}
        for index, action in enumerate(iterate(self.action_space, actions)):
            env = self.envs[index]
            observation, rewards[index], over, cut, info = env.step(action)
            terminated[index], truncated[index] = over, cut
            if over or cut:
                # In arrays of their own: the reset overwrites those an environment uses again.
                ending = copy.deepcopy(observation), _copied(info)
                add_ending(endings, *ending, index, size)
                observation, info = env.reset()
            latest[index] = observation
            if info:
                merge_infos(infos, info, index, size)
        set_apart(infos)
        return self._batch(), rewards, terminated, truncated, infos | endings

    @property
    def saves_state(self) -> bool:
        """Whether all layers of the environments save their states, and autoreset is same-step."""
        return self.autoreset_mode == AutoresetMode.SAME_STEP and can_save(self.envs[0])

    def _get_state(self) -> dict[str, np.ndarray]:
        return pack([save_env(env) for env in self.envs], self._batch(), self._episodes)

    def _set_state(self, state: Mapping[str, np.ndarray]) -> Any:
        if not self._was_reset:
            self.reset()  # for all that a state does not hold
        observations = self._batch()
        states = unpack(state, observations, self._episodes)
        for env, told in zip(self.envs, states, strict=True):
            load_env(env, told)
        self._latest = list(copy.deepcopy(tuple(iterate(self.observation_space, observations))))
        self._finished[:] = False
        return observations

    def render(self, env_ids: Any = None) -> tuple[Any, ...]:
        """The frames of all environments, or of those in `env_ids` `[B]`, in that order."""
        self._check_open("render")
        return self._vector.render() if env_ids is None else self.call_some(env_ids, "render")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method (or reads an attribute) of every environment."""
        return self._vector.call(name, *args, **kwargs)

    def call_some(self, env_ids: Any, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method (or reads an attribute) of the environments `env_ids` `[B]`, in that order."""
        values = [self.envs[row].get_wrapper_attr(name) for row in self._check_rows(env_ids)]
        return tuple(value(*args, **kwargs) if callable(value) else value for value in values)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Reads an attribute of every environment."""
        return self._vector.get_attr(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every environment, one value for all or a list."""
        self._vector.set_attr(name, values)

    def close_extras(self, **kwargs: Any) -> None:
        self._vector.close(**kwargs)


def _copied(info: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.copy() if isinstance(value, np.ndarray) else value for key, value in info.items()
    }
