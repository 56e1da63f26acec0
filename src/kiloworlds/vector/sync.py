"""The executor for any Gymnasium environment: in this process, one after the other.

The correct baseline against which parallel executors are held.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from kiloworlds.core.checks import require_count, require_flag
from kiloworlds.vector.base import (
    VectorEnv,
    expand_seeds,
    make_env_list,
    parse_autoreset_mode,
)
from kiloworlds.vector.infos import EpisodeStatistics, own_episodes, set_apart


class _KeepsEndings(gymnasium.Wrapper):
    """Gives what ends an episode in arrays of its own.

    SyncVectorEnv keeps the environment's arrays as they are, and the reset that follows at once
    overwrites those of an environment that uses them again.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            observation = copy.deepcopy(observation)
            info = {
                key: value.copy() if isinstance(value, np.ndarray) else value
                for key, value in info.items()
            }
        return observation, reward, terminated, truncated, info


class SyncExecutor(VectorEnv):
    """Steps `num_envs` Gymnasium environments in a loop.

    Gymnasium's own `SyncVectorEnv` does the stepping and the autoreset; this adds kiloworlds'
    checks, seeding and episode statistics.

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
        if mode == AutoresetMode.SAME_STEP:
            self._vector.envs = [_KeepsEndings(env) for env in self._vector.envs]
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
        if mask is None:
            mask = np.ones(self.num_envs, bool)
        else:
            env_options["reset_mask"] = mask
        observations, infos = self._vector.reset(
            seed=seeds,  # type: ignore[arg-type]
            options=env_options or None,
        )
        set_apart(infos)
        self._was_reset = True
        self._episodes.begin(mask)
        self._finished[mask] = False
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
        observations, rewards, terminated, truncated, infos = self._vector.step(actions)
        set_apart(infos)
        self._episodes.begin(only_reset)
        self._episodes.returns += rewards
        self._episodes.lengths += ~only_reset
        self._finished = terminated | truncated
        if self._reports_episodes == "environment":
            infos |= own_episodes(infos)
        elif self._finished.any() and self._reports_episodes:
            self._episodes.add_to(infos, self._finished)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._episodes.begin(self._finished)
        return observations, rewards, terminated, truncated, infos

    def render(self) -> tuple[Any, ...]:
        """The frames of all environments."""
        self._check_open("render")
        return self._vector.render()

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
