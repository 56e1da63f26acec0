"""The native executor for Gymnasium's MuJoCo environments: all their physics in threads of C."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, did_you_mean
from kiloworlds.vector.base import choose_workers
from kiloworlds.vector.native.base import EngineVectorEnv, Steps
from kiloworlds.vector.native.mujoco_physics import make_physics
from kiloworlds.vector.native.mujoco_tasks import TASKS, Task
from kiloworlds.vector.native.mujoco_warnings import log_warnings
from kiloworlds.vector.streams import streams_from_array, streams_to_array

MUJOCO_IDS = (
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
)


class MuJoCoExecutor(EngineVectorEnv):
    """Steps `num_envs` of Gymnasium's MuJoCo environments, all in one call.

    Observations, rewards, ends, infos and the random stream of each seed equal those of
    `gymnasium.make(env_id)`.

    Args:
        env_id: one of `MUJOCO_IDS`.
        num_envs: how many.
        num_workers: threads; one per available core if None, never more than `num_envs`.
        batch_size: how many results `recv` returns; `num_envs` if None.
        seed: the seed of the first `reset` where that gives none.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        episode_statistics: see `CompiledVectorEnv`.
        env_kwargs: parameters of `gymnasium.make(env_id)`; all but `render_mode`.

    Raises:
        InvalidValueError: another environment, or a parameter it does not have.
        MissingDependencyError: MuJoCo is not installed.

    Example:
        >>> from kiloworlds.vector.native.mujoco import MuJoCoExecutor
        >>> envs = MuJoCoExecutor("HalfCheetah-v5", num_envs=64)  # doctest: +SKIP
        >>> envs.reset(seed=0)[0].shape  # doctest: +SKIP
        (64, 17)
    """

    engine = "mujoco"

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
        wrapped = _one_environment(env_id, dict(env_kwargs or {}))
        env: Any = wrapped.unwrapped
        self._prepare(
            env_id,
            num_envs,
            env.observation_space,
            env.action_space,
            num_workers=num_workers,
            batch_size=batch_size,
            seed=seed,
            autoreset_mode=autoreset_mode,
            episode_statistics=episode_statistics,
            metadata=env.metadata,
        )
        self.spec = wrapped.spec
        self._task = _task_for(env_id, env)
        self._max_steps = _time_limit(wrapped.spec)
        self._substeps = env.frame_skip
        self._lengths = np.zeros(num_envs, int)
        self._streams: list[Any] = [None] * num_envs
        self._physics = make_physics(
            env.model, num_envs, num_workers, self._task.fields, self._task.contact_forces
        )

    def _reseed(self, seeds: list[int]) -> None:
        self._streams = [seeding.np_random(seed)[0] for seed in seeds]

    def _reset_rows(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        states = []
        for row in rows.tolist():
            stream = self._streams[row]
            if stream is None:
                stream = self._streams[row] = seeding.np_random()[0]
            states.append(self._task.first_state(stream))
        qpos, qvel = zip(*states, strict=True)
        self._physics.reset(rows, np.stack(qpos), np.stack(qvel))
        self._lengths[rows] = 0
        fields = self._physics.read(rows)
        return self._task.observe(fields), self._task.reset_info(fields)

    def _step_rows(self, rows: np.ndarray, actions: np.ndarray) -> Steps:
        task, physics = self._task, self._physics
        before = task.before(physics.read(rows))
        physics.step(rows, actions, self._substeps)
        fields = physics.read(rows)
        rewards, terminated, info = task.outcome(fields, before, actions)
        self._lengths[rows] += 1
        truncated = self._lengths[rows] >= self._max_steps
        return Steps(task.observe(fields), rewards.astype(float), terminated, truncated, info)

    @property
    def saves_state(self) -> bool:
        return True

    def _engine_state(self) -> dict[str, np.ndarray]:
        return {
            "steps": self._lengths.copy(),
            "streams": streams_to_array(self._streams),
            **self._physics.get_state(),
        }

    def _set_engine_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._physics.set_state(state)
        self._lengths[:] = state["steps"]
        self._streams = streams_from_array(state["streams"])

    def close_extras(self, **kwargs: Any) -> None:
        super().close_extras(**kwargs)
        self._physics.close()


def _one_environment(env_id: str, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    """The Gymnasium environment that has the model, the spaces and the checked parameters."""
    if env_kwargs.pop("render_mode", None) is not None:
        raise InvalidValueError(
            f"render_mode: the engine 'mujoco' does not render {env_id}; use backend='process' or "
            "'sync'."
        )
    if env_id not in MUJOCO_IDS:
        raise InvalidValueError(
            f"the engine 'mujoco' does not run {env_id!r}.{did_you_mean(env_id, MUJOCO_IDS)} It "
            f"runs: {', '.join(MUJOCO_IDS)}."
        )
    try:
        log_warnings()
        return gymnasium.make(env_id, **env_kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        raise MissingDependencyError(
            f'{env_id} needs MuJoCo, which is missing: pip install "kiloworlds[mujoco]"'
        ) from error
    except (TypeError, OSError, AssertionError, gymnasium.error.Error) as error:
        raise InvalidValueError(f"{env_id}: {error}") from error


def _task_for(env_id: str, env: Any) -> Task:
    kind = f"{type(env).__module__.rpartition('.')[2]}:{type(env).__name__}"
    if kind not in TASKS:
        raise InvalidValueError(
            f"{env_id} is registered as {type(env).__name__}, which the engine 'mujoco' does not "
            "run; use backend='process'."
        )
    return TASKS[kind](env)


def _time_limit(spec: EnvSpec | None) -> float:
    limit = spec.max_episode_steps if spec else None
    return float("inf") if limit is None else limit
