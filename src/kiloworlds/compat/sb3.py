"""kiloworlds' vectors for Stable-Baselines3: `make_vec_env` and the adapter `SB3VecEnv`.

Needs the package stable-baselines3, and with it PyTorch; nothing else in kiloworlds does.
"""

import inspect
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.compat.refusals import as_factory, refuse, refuse_several_agents
from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, did_you_mean
from kiloworlds.core.registry import find_spec
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.infos import EpisodeStatistics
from kiloworlds.vector.make import gymnasium_factory, make
from kiloworlds.vector.sync import SyncExecutor

try:
    from stable_baselines3.common import vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import (  # pyright: ignore[reportMissingImports]
        is_wrapped,
    )
    from stable_baselines3.common.monitor import (  # pyright: ignore[reportMissingImports]
        Monitor,
        ResultsWriter,
    )
except ImportError as error:
    raise MissingDependencyError(
        "kiloworlds.compat.sb3 needs a package that is missing: pip install stable-baselines3"
    ) from error

Indices = int | Iterable[int] | None

_MADE_HERE = {"env", "num_envs", "seed", "autoreset_mode", "episode_statistics", "env_kwargs"}
_MAKE_OPTIONS = [name for name in inspect.signature(make).parameters if name not in _MADE_HERE]


class SB3VecEnv(vec_env.VecEnv):
    """A vector of kiloworlds as a Stable-Baselines3 `VecEnv`.

    Infos of an ended episode hold "terminal_observation", "TimeLimit.truncated" and "episode" as
    those of SB3's own vectors do; the others hold only what the environment reports. Where it reports
    nothing they are the same empty dicts in each step.

    Args:
        vector: any vector with same-step autoreset, kiloworlds' default.
        episode_statistics: whether to count returns and lengths here. False leaves "episode" to the
            environments.
        monitor_file: where to write each episode's statistics, in the format of SB3's `Monitor`; its
            name gets ".monitor.csv" appended. None writes none.

    Raises:
        InvalidValueError: a vector in another autoreset mode, or of several agents.

    Example:
        from stable_baselines3 import PPO

        envs = SB3VecEnv(kw.make("CartPole-v1", num_envs=64))
        PPO("MlpPolicy", envs, n_steps=32).learn(100_000)
    """

    def __init__(
        self,
        vector: VectorEnv,
        episode_statistics: bool = True,
        monitor_file: str | None = None,
    ):
        mode = vector.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise InvalidValueError(
                f"SB3VecEnv got a vector with autoreset_mode={getattr(mode, 'name', mode)}; SB3 needs "
                "'same_step'."
            )
        refuse_several_agents("SB3VecEnv", vector)
        self.vector = vector
        self._rows = np.arange(vector.num_envs)
        self._counts = episode_statistics
        self._episodes = EpisodeStatistics(vector.num_envs)
        self._empty: list[dict[str, Any]] = [{} for _ in self._rows]
        self._actions: Any = None
        super().__init__(
            vector.num_envs, vector.single_observation_space, vector.single_action_space
        )
        self._start = time.time()
        self._writer: ResultsWriter | None = None
        if monitor_file is not None:
            header = {"t_start": self._start, "env_id": str(getattr(vector.spec, "id", None))}
            self._writer = ResultsWriter(monitor_file, header=header)

    def reset(self) -> Any:
        """Starts all environments over; returns the observations `[N, ...]`."""
        first, *others = self._options
        if any(options != first for options in others):
            raise InvalidValueError(
                "set_options got different options per environment; a vector of kiloworlds takes one "
                "dict for all."
            )
        seeds = [None if seed is None else seed % 2**32 for seed in self._seeds]
        seed: Any = None if None in seeds else seeds
        observations, infos = self.vector.reset(seed=seed, options=first or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _per_environment(infos, self._rows)
        self._episodes.begin(np.ones(self.num_envs, bool))
        return _as_numpy(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the actions `[N, ...]` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Steps all environments.

        Returns:
            Observations, rewards (float32 `[N]`), whether episodes ended (bool `[N]`), and a dict
            per environment.
        """
        observations, rewards, terminated, truncated, batched = self.vector.step(self._actions)
        rewards = np.array(rewards, np.float32)
        terminated, truncated = np.asarray(terminated), np.asarray(truncated)
        dones = terminated | truncated
        self._episodes.returns += rewards
        self._episodes.lengths += 1
        final = {
            key: batched.pop(key)
            for key in ("final_obs", "_final_obs", "final_info", "_final_info")
            if key in batched
        }
        if self._counts:  # those of the vector, which would be the same
            for key in ("episode", "_episode"):
                batched.pop(key, None)
        infos = _per_environment(batched, self._rows) if batched else self._no_infos()
        ended = np.nonzero(dones)[0].tolist()
        if ended:
            final_infos = _per_environment(final.get("final_info", {}), ended)
            for index, info in zip(ended, final_infos, strict=True):
                self.reset_infos[index] = infos[index] if batched else {}
                infos[index] = info
                info["terminal_observation"] = final["final_obs"][index]
                info["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
            self._report(ended, batched, infos)
            self._episodes.begin(dones)
        return _as_numpy(observations), rewards, dones, infos

    def _no_infos(self) -> list[dict[str, Any]]:
        """An empty dict per environment, the same in each step: new ones by the thousand take longer
        than a step. Those that a caller wrote to are replaced."""
        if any(self._empty):
            self._empty = [info and {} for info in self._empty]
        return self._empty.copy()

    def _report(
        self, ended: list[int], batched: dict[str, Any], infos: list[dict[str, Any]]
    ) -> None:
        """Adds "episode" to the infos of ended episodes, and to the file; lost ones do not count."""
        lost = batched.get("lost", np.zeros(self.num_envs, bool))
        seconds = round(time.time() - self._start, 6)  # as SB3 has it, since the beginning
        for index in ended:
            if lost[index]:
                infos[index]["lost"] = True
                continue
            if self._counts:
                infos[index]["episode"] = {
                    "r": round(float(self._episodes.returns[index]), 6),
                    "l": int(self._episodes.lengths[index]),
                    "t": seconds,
                }
            if self._writer and "episode" in infos[index]:
                self._writer.write_row({key: infos[index]["episode"][key] for key in "rlt"})

    def close(self) -> None:
        """Closes the vector, and the monitor file."""
        if self._writer:
            self._writer.close()
        self.vector.close()

    def get_images(self) -> Sequence[Any]:
        """One picture per environment, uint8 RGB; None for those that have none."""
        frames = self.vector.render()
        return [None] * self.num_envs if frames is None else frames

    # One environment's attributes and methods.

    def has_attr(self, attr_name: str) -> bool:
        """Whether every environment has the attribute."""
        if isinstance(self.vector, CompiledVectorEnv):
            return super().has_attr(attr_name)
        return all(self._host.call("has_wrapper_attr", attr_name))

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of the environments `indices`, all if None.

        Raises:
            AttributeError: an environment has none of that name.
        """
        if attr_name in ("render_mode", "spec"):
            return [getattr(self.vector, attr_name) for _ in self._get_indices(indices)]
        if isinstance(self.vector, CompiledVectorEnv):
            return [_attribute(self.vector, i, attr_name) for i in self._get_indices(indices)]
        if not self.has_attr(attr_name):
            raise AttributeError(f"the environments have no attribute {attr_name!r}.")
        values = self._host.get_attr(attr_name)
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Sets an attribute of the environments `indices`, all if None.

        Raises:
            InvalidValueError: compiled environments, which are immutable.
        """
        if isinstance(self.vector, CompiledVectorEnv):
            reason = "compiled environments are immutable; give their parameters to make_vec_env"
            raise refuse("set_attr", "attr_name", attr_name, reason)
        values: list[Any] = [value] * self.num_envs
        if indices is not None:
            values = self.get_attr(attr_name)
            for index in self._get_indices(indices):
                values[index] = value
        self._host.set_attr(attr_name, values)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the environments `indices`, all if None; returns what each returned."""
        if isinstance(self.vector, CompiledVectorEnv):
            if method_name == "render":
                images = self.get_images()
                return [images[index] for index in self._get_indices(indices)]
            return [
                method(*method_args, **method_kwargs)
                for method in self.get_attr(method_name, indices)
            ]
        chosen = list(self._get_indices(indices))
        return list(self._host.call_some(chosen, method_name, *method_args, **method_kwargs))

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: Indices = None
    ) -> list[bool]:
        """Whether the environments `indices` are wrapped in `wrapper_class`.

        Asked for SB3's `Monitor` it says whether infos hold the statistics that one would give.
        """
        chosen = list(self._get_indices(indices))
        if wrapper_class is Monitor:  # Gymnasium's RecordEpisodeStatistics has this attribute too
            return [self._counts or self.has_attr("episode_returns")] * len(chosen)
        if isinstance(self.vector, CompiledVectorEnv):
            return [False] * len(chosen)
        if not isinstance(self.vector, SyncExecutor):
            reason = "wrappers in worker processes cannot be seen; use backend='sync'"
            raise refuse("env_is_wrapped", "wrapper_class", wrapper_class, reason)
        return [is_wrapped(self.vector.envs[index], wrapper_class) for index in chosen]

    @property
    def _host(self) -> Any:
        """The vector, known to run Gymnasium environments, which answer calls."""
        return self.vector


def _attribute(vector: CompiledVectorEnv, index: int, name: str) -> Any:
    if name in ("observation_space", "action_space"):
        return getattr(vector, f"single_{name}")
    env = vector.environment(index)
    return getattr(env if hasattr(env, name) else env.unwrapped, name)


def _per_environment(batched: dict[str, Any], rows: Any) -> list[dict[str, Any]]:
    """Infos of gymnasium.vector as a dict for each of `rows`, with only the keys that count there.

    The dicts are new: a caller may write to them.
    """
    infos: list[dict[str, Any]] = [{} for _ in rows]
    for key, values in batched.items():
        mask = batched.get(f"_{key}")
        if mask is None:  # a mask itself
            continue
        if isinstance(values, dict):
            parts: Any = _per_environment(values, rows)
        else:
            chosen = values[rows]
            parts = chosen.tolist() if chosen.ndim == 1 else chosen
        for info, counts, value in zip(infos, mask[rows].tolist(), parts, strict=True):
            if counts:
                info[key] = value
    return infos


def _as_numpy(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: _as_numpy(part) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(map(_as_numpy, observations))
    return np.asarray(observations)


def make_vec_env(
    env_id: str | Environment | Callable[..., gymnasium.Env],
    n_envs: int = 1,
    seed: int | None = None,
    start_index: int = 0,
    monitor_dir: str | None = None,
    wrapper_class: Callable[..., gymnasium.Env] | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vec_env_cls: type | None = None,
    vec_env_kwargs: dict[str, Any] | None = None,
    monitor_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
) -> SB3VecEnv:
    """`stable_baselines3.common.env_util.make_vec_env` on kiloworlds' executors.

    Args:
        env_id: an id, a class or function that makes an environment, or a compiled `Environment`.
        n_envs: how many.
        seed: environment i is seeded with seed + i at the first reset.
        start_index: added to the seed of the action space and to the name of the monitor file.
        monitor_dir: folder for one monitor file of all environments; SB3's `load_results` reads it.
        wrapper_class: wraps each environment; such environments run in workers or in this process,
            never compiled, and statistics are those of the environment beneath the wrapper.
        env_kwargs: parameters of the environment.
        vec_env_cls: SB3's `DummyVecEnv` or `SubprocVecEnv`, which choose backend "sync" or
            "process". None leaves the choice to `kiloworlds.make`.
        vec_env_kwargs: arguments of `kiloworlds.make`, such as `backend` or `num_workers`.
        monitor_kwargs: none are supported.
        wrapper_kwargs: arguments of `wrapper_class`.

    Returns:
        The environments, ready for SB3's algorithms.

    Raises:
        InvalidValueError: an argument without a meaning here, named.
        UnknownNameError: no environment of that id.

    Example:
        from stable_baselines3 import PPO

        PPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=64), n_steps=32).learn(100_000)
    """
    env_kwargs, wrapper_kwargs = dict(env_kwargs or {}), dict(wrapper_kwargs or {})
    if monitor_kwargs:
        reason = "episodes are counted by the vector, not by SB3's Monitor"
        raise refuse("make_vec_env", "monitor_kwargs", monitor_kwargs, reason)
    options = _vector_options(vec_env_cls, dict(vec_env_kwargs or {}))
    backend = options.get("backend", "auto")
    is_compiled = isinstance(env_id, Environment) or (
        isinstance(env_id, str) and find_spec(env_id) is not None
    )
    runs_by_id = backend in ("compiled", "native") or (backend == "auto" and is_compiled)
    if wrapper_class is None and runs_by_id:
        env: Any = env_id
        options |= env_kwargs
    else:
        if isinstance(env_id, Environment):
            reason = "Gymnasium's wrappers and backends do not fit compiled environments"
            raise refuse("make_vec_env", "env_id", env_id, reason)
        env = _factory(env_id, env_kwargs, wrapper_class, wrapper_kwargs)
    vector = make(env, n_envs, episode_statistics=False, **options)
    monitor_file = None
    if monitor_dir is not None:
        os.makedirs(monitor_dir, exist_ok=True)
        monitor_file = os.path.join(monitor_dir, str(start_index))
    adapter = SB3VecEnv(vector, wrapper_class is None, monitor_file)
    if seed is not None:
        adapter.action_space.seed(seed + start_index)
    adapter.seed(seed)
    return adapter


def _vector_options(vec_env_cls: type | None, options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _MAKE_OPTIONS:
            raise InvalidValueError(
                f"make_vec_env: vec_env_kwargs has no {name!r}.{did_you_mean(name, _MAKE_OPTIONS)} "
                f"It takes: {', '.join(_MAKE_OPTIONS)}."
            )
    if vec_env_cls is None:
        return options
    backends = {vec_env.DummyVecEnv: "sync", vec_env.SubprocVecEnv: "process"}
    if vec_env_cls not in backends:
        reason = "give DummyVecEnv, SubprocVecEnv or None"
        raise refuse("make_vec_env", "vec_env_cls", vec_env_cls.__name__, reason)
    return {"backend": backends[vec_env_cls]} | options


def _factory(
    env_id: str | Callable[..., gymnasium.Env],
    env_kwargs: dict[str, Any],
    wrapper_class: Callable[..., gymnasium.Env] | None,
    wrapper_kwargs: dict[str, Any],
) -> Callable[[], gymnasium.Env]:
    if isinstance(env_id, str):
        # As SB3 does: able to draw, where the environment is.
        make_drawing = gymnasium_factory(env_id, {"render_mode": "rgb_array"} | env_kwargs)
        make_plain = gymnasium_factory(env_id, env_kwargs)
    else:
        make_drawing = make_plain = as_factory(env_id, env_kwargs)

    def build() -> gymnasium.Env:
        try:
            env = make_drawing()
        except InvalidValueError:
            env = make_plain()
        if wrapper_class is None:
            return env
        env = gymnasium.wrappers.RecordEpisodeStatistics(env)
        return wrapper_class(env, **wrapper_kwargs)

    return build
