"""Gymnasium's vector constructors on kiloworlds' executors.

The same names and arguments as `gymnasium.make_vec`, `gymnasium.vector.AsyncVectorEnv` and
`gymnasium.vector.SyncVectorEnv`, and like theirs with next-step autoreset unless told.
"""

import contextlib
import copy as copying
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, VectorizeMode
from gymnasium.vector import AutoresetMode

from kiloworlds.compat.refusals import as_factory, refuse
from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import InvalidValueError, WrongCallError, did_you_mean
from kiloworlds.core.registry import find_spec
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.choice import host_backend
from kiloworlds.vector.make import gymnasium_factory, make
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.sync import SyncExecutor

EnvFunctions = Sequence[Callable[[], gymnasium.Env]]


class AsyncVectorEnv(ProcessExecutor):
    """`gymnasium.vector.AsyncVectorEnv` on the worker pool.

    Several environments share a worker, and a worker that dies is replaced. Infos carry "episode"
    only where the environments report it themselves, as Gymnasium's do.

    Args:
        env_fns: one function per environment.
        shared_memory: both values are accepted; what can be shared is.
        copy: whether `step` and `reset` return observations of their own.
        context: None, "spawn" or "forkserver", which all mean what the pool does: new processes.
        daemon: both values are accepted; workers end with this process and may have children.
        worker: only None: the pool has its own.
        observation_mode: only "same".
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        max_concurrency: how many environments run at a time, hence the number of workers; one per
            available core if None.

    Raises:
        InvalidValueError: an argument without a meaning here, named.
        EnvironmentFailedError: a constructor failed.

    Example:
        >>> import gymnasium
        >>> from kiloworlds.compat.gymnasium import AsyncVectorEnv
        >>> envs = AsyncVectorEnv([lambda: gymnasium.make("Acrobot-v1")] * 4)
        >>> envs.reset(seed=0)[0].shape
        (4, 6)
        >>> envs.close()
    """

    def __init__(
        self,
        env_fns: EnvFunctions,
        shared_memory: bool = True,
        copy: bool = True,
        context: str | None = None,
        daemon: bool = True,
        worker: Any = None,
        observation_mode: str = "same",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_concurrency: int | None = None,
    ):
        name = type(self).__name__
        if context not in (None, "spawn", "forkserver"):
            raise refuse(
                name, "context", context, "workers are new processes; give 'spawn' or None"
            )
        if worker is not None:
            raise refuse(name, "worker", worker, "the pool has workers of its own; give None")
        _check_observation_mode(name, observation_mode)
        num_envs = _count(name, env_fns)
        if max_concurrency is not None:
            max_concurrency = min(max_concurrency, num_envs)
        super().__init__(
            env_fns,
            num_envs,
            num_workers=max_concurrency,
            ordered=True,
            autoreset_mode=autoreset_mode,
            episode_statistics=False,
            copy=copy,
        )
        self._pending: str | None = None
        self._do: Callable[[], Any] = self.recv

    def step_async(self, actions: Any) -> None:
        """Sends an action to every environment and returns at once; `step_wait` gives the results."""
        self._check_free("step_async")
        self.send(actions, np.arange(self.num_envs))
        self._pending, self._do = "step", self.recv

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Waits for the results of `step_async`, as `step` returns them.

        Args:
            timeout: only None; the pool has deadlines of its own (see `ProcessExecutor`).
        """
        observations, rewards, terminated, truncated, infos = self._finish("step", timeout)
        del infos["env_id"]  # all of them, in order
        return observations, rewards, terminated, truncated, infos

    def reset_async(self, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        """Takes the arguments of a reset, which `reset_wait` then does."""
        self._check_free("reset_async")
        self._pending, self._do = "reset", lambda: self.reset(seed=seed, options=options)

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Does the reset of `reset_async`; returns what `reset` does."""
        return self._finish("reset", timeout)

    def call_async(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Takes the arguments of a call, which `call_wait` then makes."""
        self._check_free("call_async")
        self._pending, self._do = "call", lambda: self.call(name, *args, **kwargs)

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        """Makes the call of `call_async`; returns one value per environment."""
        return self._finish("call", timeout)

    def close_extras(
        self, timeout: float | None = None, terminate: bool = False, **kwargs: Any
    ) -> None:
        """Ends the workers; both arguments are accepted, for it never takes more than seconds."""
        super().close_extras(**kwargs)

    def _check_free(self, call: str) -> None:
        self._check_open(call)
        if self._pending is not None:
            raise WrongCallError(
                f"{call}() while {self._pending}_async() is pending; call {self._pending}_wait() "
                "first."
            )

    def _finish(self, kind: str, timeout: float | None) -> Any:
        call = f"{kind}_wait"
        self._check_open(call)
        if timeout is not None:
            reason = "the pool replaces a worker that hangs; see step_timeout of kiloworlds.make"
            raise refuse(call, "timeout", timeout, reason)
        if self._pending != kind:
            raise WrongCallError(f"{call}() without {kind}_async() before it; call that first.")
        results = self._do()  # if this raises, another wait can still fetch what is there
        self._pending = None
        return results


class SyncVectorEnv(SyncExecutor):
    """`gymnasium.vector.SyncVectorEnv` with kiloworlds' checks of actions, seeds and calls.

    Args:
        env_fns: one function per environment.
        copy: both values are accepted; observations are always the caller's own.
        observation_mode: only "same".
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.

    Raises:
        InvalidValueError: an argument without a meaning here, named.

    Example:
        >>> import gymnasium
        >>> from kiloworlds.compat.gymnasium import SyncVectorEnv
        >>> envs = SyncVectorEnv([lambda: gymnasium.make("Acrobot-v1")] * 4)
        >>> envs.reset(seed=0)[0].shape
        (4, 6)
    """

    def __init__(
        self,
        env_fns: EnvFunctions,
        copy: bool = True,
        observation_mode: str = "same",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ):
        name = type(self).__name__
        _check_observation_mode(name, observation_mode)
        super().__init__(
            env_fns,
            _count(name, env_fns),
            autoreset_mode=autoreset_mode,
            episode_statistics=False,
        )


def _check_observation_mode(name: str, mode: Any) -> None:
    if mode != "same":
        reason = "all environments of a vector share one observation space; give 'same'"
        raise refuse(name, "observation_mode", mode, reason)


def _count(name: str, env_fns: Any) -> int:
    if not isinstance(env_fns, Sequence) or not env_fns or not all(map(callable, env_fns)):
        raise InvalidValueError(
            f"{name} got {type(env_fns).__name__}; give a list of functions such as "
            "lambda: gymnasium.make(id), one per environment."
        )
    return len(env_fns)


def make_vec(
    id: str | EnvSpec,
    num_envs: int = 1,
    vectorization_mode: VectorizeMode | str | None = None,
    vector_kwargs: dict[str, Any] | None = None,
    wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]] | None = None,
    **kwargs: Any,
) -> VectorEnv:
    """`gymnasium.make_vec` on kiloworlds' executors.

    Args:
        id: an environment's id, or a `gymnasium.EnvSpec`.
        num_envs: how many, 1 or more.
        vectorization_mode: "vector_entry_point" runs the compiled environment of that id, "async"
            the worker pool, "sync" this process. None takes the compiled one where there is one and
            neither wrappers nor a spec ask for Gymnasium's, else the pool or this process, whichever
            is faster.
        vector_kwargs: arguments of `AsyncVectorEnv` or `SyncVectorEnv`; for compiled environments
            those of `kiloworlds.make` that concern the vector, such as `output`.
        wrappers: applied to each environment in turn; not for compiled environments.
        **kwargs: parameters of the environment.

    Returns:
        The vector, by default with next-step autoreset; its `spec` makes another one like it.

    Raises:
        UnknownNameError: no environment of that id.
        InvalidValueError: a value that is not allowed, with the nearest that is.

    Example:
        >>> from kiloworlds.compat.gymnasium import make_vec
        >>> envs = make_vec("CartPole-v1", num_envs=3)
        >>> envs.metadata["autoreset_mode"]
        <AutoresetMode.NEXT_STEP: 'NextStep'>
    """
    if isinstance(id, EnvSpec):
        stored = dict(id.kwargs)
        num_envs = stored.pop("num_envs", num_envs)
        vectorization_mode = stored.pop("vectorization_mode", vectorization_mode)
        vector_kwargs = stored.pop("vector_kwargs", vector_kwargs)
        wrappers = stored.pop("wrappers", wrappers)
        kwargs = stored | kwargs
    elif not isinstance(id, str):
        raise InvalidValueError(
            f"make_vec() got {type(id).__name__}; give an id or a gymnasium.EnvSpec."
        )
    num_envs = require_count("num_envs", num_envs)
    vector_kwargs, wrappers = dict(vector_kwargs or {}), list(wrappers or [])
    mode = _choose_mode(id, num_envs, vectorization_mode, wrappers, kwargs)
    if mode is VectorizeMode.VECTOR_ENTRY_POINT:
        if wrappers:
            reason = "compiled environments take none; use vectorization_mode='async'"
            raise refuse("make_vec", "wrappers", wrappers, reason)
        options = {"autoreset_mode": AutoresetMode.NEXT_STEP, "episode_statistics": False}
        envs = make(_name(id), num_envs, backend="compiled", **(options | vector_kwargs), **kwargs)
    else:
        vector_class = AsyncVectorEnv if mode is VectorizeMode.ASYNC else SyncVectorEnv
        _check_names(vector_class, vector_kwargs)
        envs = vector_class([_factory(id, kwargs, wrappers)] * num_envs, **vector_kwargs)
    envs.spec = _spec(id, num_envs, mode, vector_kwargs, wrappers, kwargs)
    return envs


def _name(id: str | EnvSpec) -> str:
    return id if isinstance(id, str) else id.id


def _choose_mode(
    id: str | EnvSpec,
    num_envs: int,
    mode: Any,
    wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]],
    kwargs: dict[str, Any],
) -> VectorizeMode:
    is_compiled = isinstance(id, str) and find_spec(id) is not None
    if mode is not None:
        try:
            return VectorizeMode(mode)
        except ValueError as error:
            modes = [known.value for known in VectorizeMode]
            raise InvalidValueError(
                f"vectorization_mode={mode!r} is not one of {', '.join(map(repr, modes))}."
                f"{did_you_mean(str(mode), modes)}"
            ) from error
    if is_compiled and not wrappers:
        return VectorizeMode.VECTOR_ENTRY_POINT
    backend = host_backend(num_envs, _factory(id, kwargs, wrappers))
    return VectorizeMode.ASYNC if backend == "process" else VectorizeMode.SYNC


def _check_names(vector_class: type, vector_kwargs: dict[str, Any]) -> None:
    known = [name for name in inspect.signature(vector_class).parameters if name != "env_fns"]
    for name in vector_kwargs:
        if name not in known:
            raise InvalidValueError(
                f"vector_kwargs: {vector_class.__name__} takes no argument {name!r}."
                f"{did_you_mean(name, known)} It takes: {', '.join(known)}."
            )


def _factory(
    id: str | EnvSpec, kwargs: dict[str, Any], wrappers: Sequence[Callable]
) -> Callable[[], gymnasium.Env]:
    if isinstance(id, str):
        make_env = gymnasium_factory(id, kwargs)
    else:
        bare = copying.deepcopy(id)
        bare.kwargs = {}  # they are in `kwargs`, freed of the vector's own
        make_env = as_factory(gymnasium.make, {"id": bare, **kwargs})

    def build() -> gymnasium.Env:
        env = make_env()
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return build


def _spec(
    id: str | EnvSpec,
    num_envs: int,
    mode: VectorizeMode,
    vector_kwargs: dict[str, Any],
    wrappers: Sequence[Callable],
    kwargs: dict[str, Any],
) -> EnvSpec | None:
    """What `make_vec` needs to make the same vector again; None for an id Gymnasium lacks."""
    known = gymnasium.registry.get(id.rpartition(":")[2]) if isinstance(id, str) else id
    if known is None:
        return None
    spec = copying.deepcopy(known)
    spec.kwargs = {**kwargs, "num_envs": num_envs, "vectorization_mode": mode.value}
    if vector_kwargs:
        spec.kwargs["vector_kwargs"] = vector_kwargs
    if wrappers:
        spec.kwargs["wrappers"] = wrappers
    return spec


@contextlib.contextmanager
def replacing_gymnasium(parallel: bool = False) -> Iterator[None]:
    """Within it, `gymnasium.make_vec` and Gymnasium's vector classes are those of this module.

    For scripts that are to run as they are: run them within it, by import or `runpy.run_path`.

    Args:
        parallel: whether `gymnasium.vector.SyncVectorEnv` is replaced by the worker pool too, not by
            our `SyncVectorEnv`.

    Example:
        >>> import gymnasium
        >>> from kiloworlds.compat.gymnasium import replacing_gymnasium
        >>> with replacing_gymnasium():
        ...     envs = gymnasium.make_vec("CartPole-v1", num_envs=2)
        >>> envs.backend
        'compiled'
    """
    replacements = [
        (gymnasium, "make_vec", make_vec),
        (gymnasium.vector, "AsyncVectorEnv", AsyncVectorEnv),
        (gymnasium.vector, "SyncVectorEnv", AsyncVectorEnv if parallel else SyncVectorEnv),
    ]
    originals = [getattr(module, name) for module, name, _ in replacements]
    try:
        for module, name, ours in replacements:
            setattr(module, name, ours)
        yield
    finally:
        for (module, name, _), original in zip(replacements, originals, strict=True):
            setattr(module, name, original)
