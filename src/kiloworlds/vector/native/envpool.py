"""The native executor over EnvPool: its environments, in C++ threads, behind our interface.

Source: Weng et al. (2022), "EnvPool: A Highly Parallel Reinforcement Learning Environment Execution
Engine", https://github.com/sail-sg/envpool
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, did_you_mean
from kiloworlds.vector.base import choose_workers
from kiloworlds.vector.native.base import EngineVectorEnv, Steps


@dataclass(frozen=True)
class EnvPoolTask:
    """How a Gymnasium id is run by EnvPool.

    Attributes:
        task_id: EnvPool's id, whose rules are the same.
        observation_dtype, action_dtype: Gymnasium's, where EnvPool's differ.
    """

    task_id: str
    observation_dtype: str | None = None
    action_dtype: str | None = None


def _same(*ids: str, **dtypes: str) -> dict[str, EnvPoolTask]:
    return {id: EnvPoolTask(id, **dtypes) for id in ids}


# Gymnasium's ids whose rules EnvPool follows, version by version: an id is never mapped to another
# version. Blackjack-v1 is left out, for its observation is an array and no tuple, and so are those of
# which Gymnasium's registered version is another, such as Taxi-v4.
ENVPOOL_TASKS: dict[str, EnvPoolTask] = {
    **_same("Acrobot-v1", "CartPole-v0", "CartPole-v1", "MountainCar-v0", "Pendulum-v1"),
    **_same("MountainCarContinuous-v0", "LunarLander-v3", "LunarLanderContinuous-v3"),
    **_same("BipedalWalker-v3", "BipedalWalkerHardcore-v3", "CarRacing-v3"),
    **_same("FrozenLake-v1", "FrozenLake8x8-v1", observation_dtype="int64"),
    **_same("CliffWalking-v1", "CliffWalkingSlippery-v1", observation_dtype="int64"),
    **_same("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", action_dtype="float32"),
    **_same("HumanoidStandup-v5", "InvertedDoublePendulum-v5", action_dtype="float32"),
    **_same("InvertedPendulum-v5", "Pusher-v5", "Reacher-v5", action_dtype="float32"),
    **_same("Swimmer-v5", "Walker2d-v5", action_dtype="float32"),
}

# EnvPool's own bookkeeping among its infos.
_NO_INFO = ("env_id", "players", "elapsed_step", "reward")


class EnvPoolExecutor(EngineVectorEnv):
    """Steps `num_envs` of EnvPool's environments that have Gymnasium's ids and rules.

    Episodes are drawn from EnvPool's own random streams: the same seed begins other episodes than in
    Gymnasium. `reset(seed=...)` makes EnvPool's environments anew, for they take a seed only then.

    Args:
        env_id: one of `ENVPOOL_TASKS`.
        num_envs: how many.
        num_workers: threads; one per available core if None, never more than `num_envs`.
        batch_size: how many results `recv` returns; `num_envs` if None.
        seed: the seed of the first `reset` where that gives none.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        episode_statistics: see `CompiledVectorEnv`.
        env_kwargs: `max_episode_steps` (1 or more) only; EnvPool names other parameters its own way.

    Raises:
        InvalidValueError: another environment, or a parameter EnvPool does not share.
        MissingDependencyError: EnvPool is not installed.
    """

    engine = "envpool"

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        num_workers: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        episode_statistics: bool = True,
        env_kwargs: Mapping[str, Any] | None = None,
    ):
        num_envs = require_count("num_envs", num_envs)
        num_workers = choose_workers(num_workers, num_envs)
        if env_id not in ENVPOOL_TASKS:
            raise InvalidValueError(
                f"the engine 'envpool' does not run {env_id!r}.{did_you_mean(env_id, ENVPOOL_TASKS)} "
                f"It runs: {', '.join(ENVPOOL_TASKS)}."
            )
        self._task = ENVPOOL_TASKS[env_id]
        self._settings: dict[str, Any] = {"num_envs": num_envs, "num_threads": num_workers}
        self._settings |= _checked(env_id, dict(env_kwargs or {}))
        self._pool = self._make_pool(None)
        self._action_dtype = self._pool.action_space.dtype
        self._prepare(
            env_id,
            num_envs,
            _cast(self._pool.observation_space, self._task.observation_dtype),
            _cast(self._pool.action_space, self._task.action_dtype),
            num_workers=num_workers,
            batch_size=batch_size,
            seed=seed,
            autoreset_mode=autoreset_mode,
            episode_statistics=episode_statistics,
        )
        self.spec = gymnasium.registry.get(env_id)

    def _make_pool(self, seeds: list[int] | None) -> Any:
        try:
            import envpool
        except ImportError as error:
            raise MissingDependencyError(
                f"the engine 'envpool' needs EnvPool (pip install envpool): {error}"
            ) from error
        # Without seeds EnvPool would begin the same episodes every time. Its own have 31 bits.
        drawn = np.random.default_rng().integers(0, 2**31, self._settings["num_envs"])
        seed = [int(number) % 2**31 for number in (drawn if seeds is None else seeds)]
        with warnings.catch_warnings():  # of EnvPool's own making, when it builds its spaces
            warnings.filterwarnings("ignore", r".*precision lowered by casting", UserWarning)
            pool = envpool.make_gymnasium(self._task.task_id, seed=seed, **self._settings)
            _ = pool.observation_space, pool.action_space
        return pool

    def _reseed(self, seeds: list[int]) -> None:
        self._pool.close()
        self._pool = self._make_pool(seeds)

    def _reset_rows(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        observations, info = self._pool.reset(rows.astype(np.int32))
        order = _places(info, rows)
        return self._observations(observations, order), _infos(info, order)

    def _step_rows(self, rows: np.ndarray, actions: np.ndarray) -> Steps:
        actions = actions.astype(self._action_dtype, copy=False)
        observations, rewards, terminated, truncated, info = self._pool.step(
            actions, rows.astype(np.int32)
        )
        order = _places(info, rows)
        return Steps(
            self._observations(observations, order),
            rewards[order].astype(float),
            terminated[order],
            truncated[order],
            _infos(info, order),
        )

    def _observations(self, observations: np.ndarray, order: Any) -> np.ndarray:
        return observations[order].astype(self.single_observation_space.dtype, copy=False)

    def close_extras(self, **kwargs: Any) -> None:
        super().close_extras(**kwargs)
        self._pool.close()


def _checked(env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    limit = env_kwargs.pop("max_episode_steps", None)
    if env_kwargs:
        raise InvalidValueError(
            f"{', '.join(env_kwargs)}: the engine 'envpool' runs {env_id} with no parameter but "
            "max_episode_steps; use backend='process', which takes Gymnasium's."
        )
    if limit is None:
        return {}
    return {"max_episode_steps": require_count("max_episode_steps", limit)}


def _cast(space: Any, dtype: str | None) -> gymnasium.Space:
    """The same space in Gymnasium's dtype."""
    if dtype is None or space.dtype == dtype:
        return space
    if isinstance(space, gymnasium.spaces.Discrete):
        return gymnasium.spaces.Discrete(int(space.n), start=int(space.start))
    return gymnasium.spaces.Box(
        space.low.astype(dtype), space.high.astype(dtype), dtype=np.dtype(dtype)
    )  # type: ignore[arg-type]


def _places(info: dict[str, Any], rows: np.ndarray) -> Any:
    """Where the results of `rows` stand among EnvPool's, which come in the order they finished."""
    arrived = info["env_id"]
    if np.array_equal(arrived, rows):
        return slice(None)
    return np.argsort(arrived)[np.argsort(np.argsort(rows))]


def _infos(info: dict[str, Any], order: Any) -> dict[str, np.ndarray]:
    return {key: value[order] for key, value in info.items() if key not in _NO_INFO}
