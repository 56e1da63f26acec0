"""EnvPool's interface on kiloworlds' executors: `make`, `make_gymnasium`, `make_dm`, `make_spec`.

Where `batch_size` equals `num_envs` an id runs compiled if it can, else in worker processes; with a
smaller `batch_size`, always in workers.
"""

from abc import abstractmethod
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.compat.refusals import refuse, refuse_several_agents
from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import (
    InvalidValueError,
    MissingDependencyError,
    WrongCallError,
    did_you_mean,
)
from kiloworlds.core.registry import find_spec
from kiloworlds.core.registry import list_envs as list_compiled
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.make import make as make_vector

_DEFAULTS: dict[str, Any] = {
    "num_envs": 1,
    "batch_size": None,
    "num_threads": 0,
    "max_num_players": 1,
    "thread_affinity_offset": -1,
    "seed": 42,
    "env_seed": (),
    "gym_reset_return_info": True,
    "max_episode_steps": None,
}
"""EnvPool's settings, with its defaults."""

_REFUSED = {
    "base_path": "there are no asset files; leave it out",
    "from_pixels": "make the environment with a wrapper that renders, by kiloworlds.make",
    "render_env_id": "give env_ids to render()",
    "render_width": "the size of pictures is the environment's",
    "render_height": "the size of pictures is the environment's",
    "render_camera_id": "the camera is the environment's",
}


@dataclass(frozen=True)
class EnvSpec:
    """What `make` makes: settings and spaces.

    Attributes:
        task_id: the environment's id.
        config: EnvPool's settings, a named tuple.
        observation_space, action_space: of one environment.
        reward_threshold: the mean return at which the task counts as solved; None if undefined.
    """

    task_id: str
    config: Any
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    reward_threshold: float | None

    @property
    def gymnasium_observation_space(self) -> gymnasium.Space:
        """The same as `observation_space`."""
        return self.observation_space

    @property
    def gymnasium_action_space(self) -> gymnasium.Space:
        """The same as `action_space`."""
        return self.action_space

    def observation_spec(self) -> Any:
        """dm_env's description of an observation: a named tuple "State"."""
        env_id = _array_spec(gymnasium.spaces.Box(-(2**31), 2**31 - 1, (), np.int32), "env_id")
        return _state(env_id, _array_spec(self.observation_space, "obs"))

    def action_spec(self) -> Any:
        """dm_env's description of an action."""
        return _array_spec(self.action_space, "action")


class EnvPool:
    """What the two faces share: sending, receiving and counting.

    Args:
        vector: runs the environments, with next-step autoreset.
        spec: see `make_spec`.
    """

    def __init__(self, vector: VectorEnv, spec: EnvSpec):
        self._vector = vector
        self.spec = spec
        config = self.config
        self._num_envs, self._batch_size = config["num_envs"], config["batch_size"]
        self._first_seed: Any = list(config["env_seed"]) or config["seed"]
        self._elapsed = np.zeros(self._num_envs, np.int32)
        self._was_over = np.zeros(self._num_envs, bool)
        self._waiting: tuple[Any, np.ndarray] | tuple[None, None] | None = None

    def __len__(self) -> int:
        return self._num_envs

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"{type(self).__name__}({self.spec.task_id}, {settings})"

    __str__ = __repr__  # that of gymnasium.Env expects its own kind of spec

    @property
    def config(self) -> dict[str, Any]:
        """The settings, by name."""
        return self.spec.config._asdict()

    @property
    def all_env_ids(self) -> np.ndarray:
        """The numbers of all environments, int32 `[N]`."""
        return np.arange(self._num_envs, dtype=np.int32)

    @property
    def is_async(self) -> bool:
        """Whether `recv` returns fewer environments than there are."""
        return self._batch_size < self._num_envs

    def async_reset(self) -> None:
        """Starts all environments over; `recv` then gives their first observations."""
        if not self.is_async:
            self._check_nothing_waits("async_reset")
            self._waiting = (None, None)  # done by recv
            return
        self._pool.async_reset(seed=self._take_seed())
        self._begin(self.all_env_ids)

    def send(self, action: Any, env_id: Any = None) -> None:
        """Sends an action to each of the environments `env_id`, all if None.

        Args:
            action: `[B, ...]`, or a dict with "action" and "env_id".
            env_id: int `[B]`.

        Raises:
            InvalidValueError: not all environments, where `batch_size` equals `num_envs`.
            WrongCallError: results of the last `send` wait for `recv`.
        """
        action, env_id = _unpack(action, env_id)
        rows = self.all_env_ids if env_id is None else np.asarray(env_id)
        if self.is_async:
            self._pool.send(action, rows)
            return
        self._check_nothing_waits("send")
        if sorted(rows.tolist()) != list(range(self._num_envs)):
            raise InvalidValueError(
                f"env_id names {len(rows)} environments; with batch_size equal to num_envs each step "
                f"must be of all {self._num_envs}, each once. Make it with a smaller batch_size to "
                "step some."
            )
        self._waiting = (action, rows)

    def recv(self, reset: bool = False, return_info: bool = True) -> Any:
        """Waits for `batch_size` results and returns them as `step` does.

        Args:
            reset: whether to return them as `reset` does.
            return_info: only True.
        """
        if not return_info:
            raise refuse("recv", "return_info", return_info, "infos are always returned; give True")
        if self.is_async:
            observations, rewards, terminated, truncated, infos = self._pool.recv()
            rows = np.asarray(infos.pop("env_id"))
            return self._give(rows, observations, rewards, terminated, truncated, infos, reset)
        if self._waiting is None:
            raise WrongCallError("recv() with nothing sent; call async_reset() or send() first.")
        (actions, rows), self._waiting = self._waiting, None
        if rows is None:
            return self._reset_all(None, None, reset)
        every = self.all_env_ids
        if not np.array_equal(rows, every):
            actions = np.asarray(actions)[np.argsort(rows)]
        observations, rewards, terminated, truncated, infos = self._vector.step(actions)
        return self._give(every, observations, rewards, terminated, truncated, infos, reset)

    def step(self, action: Any, env_id: Any = None) -> Any:
        """`send`, then `recv`."""
        self.send(action, env_id)
        return self.recv()

    def _restart(self, env_id: Any, seed: Any, options: Any) -> Any:
        """What `reset` does, in the form of this face."""
        if self.is_async:
            if env_id is not None or options:
                reason = "with batch_size below num_envs all environments start over together"
                raise refuse("reset", "env_id", env_id, reason)
            if seed is not None:
                self._first_seed = seed
            self.async_reset()
            return self.recv(reset=True)
        self._check_nothing_waits("reset")
        if env_id is None:
            return self._reset_all(seed, options, True)
        rows = np.asarray(env_id)
        mask = np.zeros(self._num_envs, bool)
        mask[rows] = True
        observations, infos = self._vector.reset(
            seed=seed, options={**(options or {}), "reset_mask": mask}
        )
        self._begin(rows)
        nothing = np.zeros(len(rows)), np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        infos = {key: _rows_of(value, rows) for key, value in infos.items()}
        return self._give(rows, _rows_of(observations, rows), *nothing, infos, True)

    def _reset_all(self, seed: Any, options: Any, reset: bool) -> Any:
        seed = self._take_seed() if seed is None else seed
        observations, infos = self._vector.reset(seed=seed, options=options)
        every = self.all_env_ids
        self._begin(every)
        nothing = np.zeros(len(every)), np.zeros(len(every), bool), np.zeros(len(every), bool)
        return self._give(every, observations, *nothing, infos, reset)

    def _take_seed(self) -> Any:
        seed, self._first_seed = self._first_seed, None
        return seed

    def _begin(self, rows: np.ndarray) -> None:
        self._elapsed[rows] = 0
        self._was_over[rows] = True  # what comes next is a first observation

    def _give(
        self,
        rows: np.ndarray,
        observations: Any,
        rewards: Any,
        terminated: np.ndarray,
        truncated: np.ndarray,
        infos: dict[str, Any],
        reset: bool,
    ) -> Any:
        first = self._was_over[rows]
        self._elapsed[rows] = np.where(first, 0, self._elapsed[rows] + 1)
        self._was_over[rows] = terminated | truncated
        rows = rows.astype(np.int32)
        info = {key: value for key, value in infos.items() if not key.startswith("_")}
        info |= {"env_id": rows, "players": {"env_id": rows.copy()}}
        info["elapsed_step"] = self._elapsed[rows]
        rewards = np.asarray(rewards, np.float32)
        return self._form(observations, rewards, terminated, truncated, info, first, reset)

    @abstractmethod
    def _form(
        self,
        observations: Any,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        info: dict[str, Any],
        first: np.ndarray,
        reset: bool,
    ) -> Any:
        """The results in the form of this face."""

    def _check_nothing_waits(self, call: str) -> None:
        if self._waiting is not None:
            raise WrongCallError(f"{call}() while results wait; recv() them first.")

    @property
    def _pool(self) -> Any:
        """The vector, known to be a worker pool."""
        return self._vector

    def render(self, env_ids: Any = None) -> np.ndarray:
        """Pictures `[B, height, width, 3]` of the environments `env_ids`, the first if None."""
        frames = self._vector.render([0] if env_ids is None else np.atleast_1d(env_ids))
        if frames is None or any(frame is None for frame in frames):
            raise InvalidValueError(
                f"{self.spec.task_id} has no picture; make it with render_mode='rgb_array'."
            )
        return np.stack(frames)

    def close(self, **kwargs: Any) -> None:
        """Closes all environments."""
        self._vector.close(**kwargs)


class GymnasiumEnvPool(EnvPool, gymnasium.vector.VectorEnv, gymnasium.Env):  # type: ignore[misc]
    """EnvPool's Gymnasium face.

    As EnvPool has it: `observation_space` is that of one environment, and it is a `gymnasium.Env`
    too, for wrappers that ask for one.
    """

    def __init__(self, vector: VectorEnv, spec: EnvSpec):
        super().__init__(vector, spec)
        self.num_envs = self._num_envs
        self.observation_space = self.single_observation_space = spec.observation_space
        self.action_space = self.single_action_space = spec.action_space
        self.metadata = vector.metadata
        self.render_mode = vector.render_mode

    def reset(
        self,
        env_id: Any = None,
        *,
        seed: Any = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts the environments `env_id` `[B]` over, all if None.

        Args:
            env_id: which; not with `batch_size` below `num_envs`.
            seed: an int s seeds environment i with s + i.
            options: "reset_mask" (boolean `[N]`), in place of `env_id`.

        Returns:
            Their observations and infos.
        """
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is not None:
            if env_id is not None:
                raise InvalidValueError("reset() got env_id and options['reset_mask']; give one.")
            env_id = np.flatnonzero(mask)
        return self._restart(env_id, seed, options)

    def _form(self, observations, rewards, terminated, truncated, info, first, reset):
        if reset:
            return observations, info
        return observations, rewards, terminated, truncated, info


class DMEnvPool(EnvPool):
    """EnvPool's dm_env face: batched `dm_env.TimeStep`s."""

    def reset(self, env_id: Any = None) -> Any:
        """Starts the environments `env_id` `[B]` over, all if None; returns their first time step."""
        return self._restart(env_id, None, None)

    def observation_spec(self) -> Any:
        """See `EnvSpec.observation_spec`."""
        return self.spec.observation_spec()

    def action_spec(self) -> Any:
        """See `EnvSpec.action_spec`."""
        return self.spec.action_spec()

    def _form(self, observations, rewards, terminated, truncated, info, first, reset):
        over = terminated | truncated
        return _dm_env().TimeStep(
            step_type=np.where(first, 0, np.where(over, 2, 1)).astype(np.int32),
            reward=rewards,
            discount=(~over).astype(np.float32),
            observation=_state(info["env_id"], observations),
        )


def make(task_id: str, env_type: str = "gymnasium", **kwargs: Any) -> Any:
    """Makes environments with EnvPool's interface.

    Args:
        task_id: any id `list_all_envs` lists, or a Gymnasium id of a package.
        env_type: "gymnasium" ("gym" is the same) or "dm".
        **kwargs: EnvPool's settings: `num_envs`, `batch_size`, `num_threads` (worker processes; not
            for compiled environments), `seed` (42 unless given, as EnvPool has it), `env_seed`,
            `max_episode_steps`; `backend` of `kiloworlds.make`; and parameters of the environment.

    Returns:
        A `GymnasiumEnvPool` or `DMEnvPool`.

    Raises:
        InvalidValueError: an argument without a meaning here, named.
        UnknownNameError: no environment of that id.
        MissingDependencyError: env_type="dm" without dm_env.

    Example:
        >>> from kiloworlds.compat import envpool
        >>> envs = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=3)
        >>> observations, info = envs.reset()
        >>> info["elapsed_step"]
        array([0, 0, 0], dtype=int32)
    """
    faces = {"gymnasium": GymnasiumEnvPool, "gym": GymnasiumEnvPool, "dm": DMEnvPool}
    if env_type not in faces:
        raise InvalidValueError(
            f"env_type={env_type!r} is not one of {', '.join(map(repr, faces))}."
            f"{did_you_mean(str(env_type), faces)}"
        )
    if env_type == "dm":
        _dm_env()
    vector, spec = _build(task_id, kwargs)
    return faces[env_type](vector, spec)


def make_gymnasium(task_id: str, **kwargs: Any) -> GymnasiumEnvPool:
    """`make` with env_type="gymnasium"."""
    return make(task_id, "gymnasium", **kwargs)


make_gym = make_gymnasium


def make_dm(task_id: str, **kwargs: Any) -> DMEnvPool:
    """`make` with env_type="dm"."""
    return make(task_id, "dm", **kwargs)


def make_spec(task_id: str, **kwargs: Any) -> EnvSpec:
    """The settings and spaces `make` would give; see there."""
    vector, spec = _build(task_id, kwargs)
    vector.close()
    return spec


def list_all_envs() -> list[str]:
    """The ids of all environments, sorted: the compiled ones and Gymnasium's."""
    return sorted({*list_compiled(), *gymnasium.registry})


def _build(task_id: str, kwargs: dict[str, Any]) -> tuple[VectorEnv, EnvSpec]:
    settings = _DEFAULTS | {name: kwargs[name] for name in _DEFAULTS if name in kwargs}
    others = {name: value for name, value in kwargs.items() if name not in _DEFAULTS}
    for name, reason in _REFUSED.items():
        if name in others:
            raise refuse("make", name, others[name], reason)
    num_envs = settings["num_envs"] = require_count("num_envs", settings["num_envs"])
    _check_settings(settings)
    backend = others.pop("backend", "auto")
    compiled = find_spec(task_id)
    known = compiled or gymnasium.registry.get(task_id)
    if backend == "auto" and (compiled is None or settings["batch_size"] < num_envs):
        backend = "process"
    has_workers = backend not in ("auto", "compiled", "sync")
    if settings["batch_size"] < num_envs and not has_workers:
        reason = "only workers take a batch_size below num_envs; give 'process'"
        raise refuse("make", "backend", backend, reason)
    if has_workers:
        others["num_workers"] = min(settings["num_threads"], num_envs) or None
        others["batch_size"] = settings["batch_size"]
    elif settings["num_threads"]:
        reason = f"{task_id} runs without workers here; give 0, or backend='process'"
        raise refuse("make", "num_threads", settings["num_threads"], reason)
    if settings["max_episode_steps"] is not None:
        others["max_episode_steps"] = settings["max_episode_steps"]
    else:
        settings["max_episode_steps"] = getattr(known, "max_episode_steps", None)
    vector = make_vector(
        task_id,
        num_envs,
        backend=backend,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        episode_statistics=False,
        **others,
    )
    refuse_several_agents("envpool.make", vector)
    config = namedtuple("Config", settings)(**settings)
    spec = EnvSpec(
        task_id,
        config,
        vector.single_observation_space,
        vector.single_action_space,
        getattr(known, "reward_threshold", None),
    )
    return vector, spec


def _check_settings(settings: dict[str, Any]) -> None:
    fixed = {
        "max_num_players": "environments have one player; give 1",
        "thread_affinity_offset": "which cores workers keep to cannot be chosen; give -1",
        "gym_reset_return_info": "infos are always returned; give True",
    }
    for name, reason in fixed.items():
        if settings[name] != _DEFAULTS[name]:
            raise refuse("make", name, settings[name], reason)
    num_envs, batch_size = settings["num_envs"], settings["batch_size"]
    settings["batch_size"] = batch_size = batch_size or num_envs  # 0 means all, as for EnvPool
    if not isinstance(batch_size, int) or not 1 <= batch_size <= num_envs:
        raise InvalidValueError(
            f"batch_size={batch_size!r} must be a whole number from 0 (all) to num_envs={num_envs}."
        )
    if settings["num_threads"] < 0:
        raise InvalidValueError(
            f"num_threads={settings['num_threads']} must be 0 (one per core) or more."
        )
    if np.ndim(settings["seed"]):  # EnvPool takes a list here as well
        settings["env_seed"], settings["seed"] = settings["seed"], 0
    settings["env_seed"] = [int(seed) for seed in settings["env_seed"]]


def _unpack(action: Any, env_id: Any) -> tuple[Any, Any]:
    if not isinstance(action, dict):
        return action, env_id
    unknown = set(action) - {"action", "env_id"}
    if unknown or "action" not in action:
        raise InvalidValueError(
            f"send() got a dict with {sorted(action)}; it takes 'action' and 'env_id'."
        )
    return action["action"], action.get("env_id", env_id)


def _rows_of(batch: Any, rows: np.ndarray) -> Any:
    if isinstance(batch, dict):
        return {key: _rows_of(part, rows) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_rows_of(part, rows) for part in batch)
    return batch[rows]


_Players = namedtuple("players", ["env_id"])
_State = namedtuple("State", ["env_id", "players", "obs"])


def _state(env_id: Any, observation: Any) -> Any:
    """A dm_env observation as EnvPool arranges it."""
    return _State(env_id, _Players(env_id), observation)


def _array_spec(space: gymnasium.Space, name: str) -> Any:
    specs = _dm_env().specs
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return specs.DiscreteArray(int(space.n), dtype=np.int32, name=name)
    if isinstance(space, gymnasium.spaces.Box):
        return specs.BoundedArray(space.shape, space.dtype, space.low, space.high, name)
    if isinstance(space, gymnasium.spaces.Dict):
        return {key: _array_spec(part, key) for key, part in space.spaces.items()}
    raise InvalidValueError(
        f"{name} has the space {space}; dm_env has a description for Box, Discrete and Dict only."
    )


def _dm_env() -> Any:
    try:
        import dm_env
    except ImportError as error:
        raise MissingDependencyError(
            "env_type='dm' needs a package that is missing: pip install dm-env"
        ) from error
    return dm_env
