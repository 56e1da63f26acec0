"""`kiloworlds.make`: from an id to many running environments."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.core.devices import available_cores
from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import (
    InvalidValueError,
    MissingDependencyError,
    did_you_mean,
    unknown_name,
)
from kiloworlds.core.registry import find_spec, list_envs
from kiloworlds.vector.base import VectorEnv, check_num_envs
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.sync import SyncExecutor

BACKENDS = ("auto", "compiled", "process", "sync")

_POOL_PARAMETERS = inspect.signature(ProcessExecutor).parameters


def make(
    env: str | Environment | Callable[[], gymnasium.Env] | Sequence[Callable[[], gymnasium.Env]],
    num_envs: int = 1,
    *,
    backend: Literal["auto", "compiled", "process", "sync"] = "auto",
    seed: int | None = None,
    autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
    devices: int = 1,
    output: Literal["numpy", "jax"] = "numpy",
    episode_statistics: bool = True,
    num_workers: int | None = None,
    batch_size: int | None = None,
    ordered: bool = False,
    copy: bool = True,
    step_timeout: float | None = 60.0,
    start_timeout: float | None = 120.0,
    max_restarts: int = 10,
    on_error: Literal["raise", "restart"] = "raise",
    **env_kwargs: Any,
) -> VectorEnv:
    """Makes `num_envs` environments behind one `gymnasium.vector.VectorEnv`.

    Args:
        env: an id (Gymnasium's where the rules are Gymnasium's), a compiled `Environment`, a
            function that builds a Gymnasium environment, or one such function per environment.
        num_envs: how many, 1 or more.
        backend: "compiled" (XLA), "process" (any Gymnasium environment, in worker processes), "sync"
            (the same, in this process), or "auto": compiled where there is a compiled environment of
            that id, else process where there are two environments and two cores to share, else sync.
        seed: seeds the first `reset`: environment i gets seed + i.
        autoreset_mode: "same_step" (default; the final observation is in `infos["final_obs"]`),
            "next_step" or "disabled".
        devices: JAX devices to spread compiled environments over.
        output: for compiled environments, "numpy" or "jax" arrays.
        episode_statistics: whether infos report "episode" at each end.
        num_workers, batch_size, ordered, copy, step_timeout, start_timeout, max_restarts, on_error:
            of the process backend; see `kiloworlds.vector.process.pool.ProcessExecutor`.
        **env_kwargs: parameters of the environment. For compiled environments a numeric parameter
            may be an array `[num_envs]`: each environment then has its own value.

    Returns:
        The vector environment; its `backend` says which executor was chosen.

    Raises:
        UnknownNameError: no environment of that id; near ones are suggested.
        InvalidValueError: a value that is not allowed, with the nearest that is.
        MissingDependencyError: the simulator's package is not installed.

    Example:
        >>> import numpy as np, kiloworlds as kw
        >>> envs = kw.make("CartPole-v1", num_envs=3, length=np.array([0.4, 0.5, 0.6]))
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape
        (3, 4)
    """
    num_envs = check_num_envs(num_envs)
    if backend not in BACKENDS:
        raise InvalidValueError(
            f"backend={backend!r} is not one of {', '.join(map(repr, BACKENDS))}."
            f"{did_you_mean(str(backend), BACKENDS)}"
        )
    pool_options = {
        "num_workers": num_workers,
        "batch_size": batch_size,
        "ordered": ordered,
        "copy": copy,
        "step_timeout": step_timeout,
        "start_timeout": start_timeout,
        "max_restarts": max_restarts,
        "on_error": on_error,
    }
    chosen = [
        name for name, value in pool_options.items() if value != _POOL_PARAMETERS[name].default
    ]
    if env is None or isinstance(env, type):
        given = "None" if env is None else f"the class {env.__name__}"
        raise InvalidValueError(
            f"make() got {given}; give an id, an environment, or a function such as "
            "lambda: MyEnv()."
        )
    compiled_options = {
        "seed": seed,
        "autoreset_mode": autoreset_mode,
        "devices": devices,
        "output": output,
        "episode_statistics": episode_statistics,
    }
    if isinstance(env, Environment):
        if backend not in ("auto", "compiled"):
            raise InvalidValueError(
                f"backend={backend!r} runs Gymnasium environments, not compiled ones."
            )
        _refuse_pool_options(chosen, "compiled")
        return _make_compiled_instance(env, num_envs, env_kwargs, compiled_options)
    spec = find_spec(env) if isinstance(env, str) else None
    if backend == "compiled" and spec is None:
        if not isinstance(env, str):
            raise InvalidValueError("backend='compiled' needs an id or a compiled Environment.")
        raise unknown_name("compiled environment", env, list_envs(), "kiloworlds.list_envs()")
    if spec is not None and backend in ("auto", "compiled"):
        _refuse_pool_options(chosen, "compiled")
        render_mode = env_kwargs.pop("render_mode", None)
        envs = CompiledVectorEnv(
            spec.build(**env_kwargs),
            num_envs,
            reference=spec.build_reference(**env_kwargs),
            spec_id=spec.id,
            **compiled_options,
        )
        if render_mode not in (None, envs.render_mode):
            raise InvalidValueError(
                f"render_mode={render_mode!r}: {spec.id} renders as {envs.render_mode!r}."
            )
        return envs
    if devices != 1 or output != "numpy":
        raise InvalidValueError(
            "devices and output are settings of compiled environments; "
            f"{env!r} runs as a Gymnasium environment on the host."
        )
    make_env = _gymnasium_factory(env, env_kwargs)
    shared: dict[str, Any] = {
        "seed": seed,
        "autoreset_mode": autoreset_mode,
        "episode_statistics": episode_statistics,
    }
    if backend == "auto":
        backend = "process" if chosen else host_backend(num_envs)
    if backend == "process":
        return ProcessExecutor(make_env, num_envs, **shared, **pool_options)
    _refuse_pool_options(chosen, "sync")
    return SyncExecutor(make_env, num_envs, **shared)


def host_backend(num_envs: int) -> Literal["process", "sync"]:
    """The faster executor for environments that are not compiled."""
    pays = num_envs > 1 and available_cores() > 1 and sys.platform == "linux"
    return "process" if pays else "sync"


def _refuse_pool_options(chosen: list[str], backend: str) -> None:
    if chosen:
        raise InvalidValueError(
            f"{', '.join(chosen)}: settings of backend='process'; this one is {backend!r}."
        )


def _make_compiled_instance(
    env: Environment, num_envs: int, parameters: dict[str, Any], options: dict[str, Any]
) -> CompiledVectorEnv:
    if parameters:
        names = ", ".join(parameters)
        raise InvalidValueError(
            f"make() got the parameters {names} for an environment that is already built; build it "
            "with them, or use dataclasses.replace."
        )
    reference = _unbatched(env)
    return CompiledVectorEnv(env, num_envs, reference=reference, **options)


def _unbatched(env: Environment) -> Environment:
    """The default-built environment of the same type, whose fields have no batch axis."""
    from kiloworlds.core.time_limit import TimeLimit

    if isinstance(env, TimeLimit):
        return TimeLimit(_unbatched(env.env), 0)
    try:
        return type(env)()
    except TypeError:
        # It cannot be built without arguments: its fields are taken as they are, none batched.
        return env


def _gymnasium_factory(env: Any, env_kwargs: dict[str, Any]) -> Any:
    """The function that builds one environment, or the given functions, one per environment."""
    if not isinstance(env, str):
        functions = [env] if callable(env) else env
        if not isinstance(functions, Sequence) or not all(map(callable, functions)):
            raise InvalidValueError(
                f"make() got {type(env).__name__}; give an id, an environment, a function such as "
                "lambda: MyEnv(), or a list of such functions, one per environment."
            )
        if env_kwargs:
            raise InvalidValueError(
                f"make() got the parameters {', '.join(env_kwargs)} beside a function; pass them "
                "inside it: lambda: MyEnv(...)."
            )
        return env
    for name, value in env_kwargs.items():
        if isinstance(value, np.ndarray):
            raise InvalidValueError(
                f"{name} is an array, one value per environment; that works for compiled "
                "environments. For others give make() a list of functions, one per environment."
            )
    if env not in gymnasium.registry and ":" not in env:
        raise unknown_name(
            "environment", env, [*list_envs(), *gymnasium.registry], "`kiloworlds list`"
        )

    # The spec, not the id: an id that this process registered is unknown in a worker.
    spec = gymnasium.registry.get(env, env)

    def build() -> gymnasium.Env:
        try:
            return gymnasium.make(spec, **env_kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            raise _missing_simulator(env, error) from error
        except (TypeError, gymnasium.error.Error, ImportError) as error:
            raise InvalidValueError(f"{env}: {error}") from error

    return build


def _missing_simulator(env: str, error: Exception) -> MissingDependencyError:
    """Names the extra that brings the simulator, where kiloworlds has one."""
    extras = {"box2d": "box2d", "mujoco": "mujoco", "ale": "atari"}
    for word, extra in extras.items():
        if word in str(error).lower():
            return MissingDependencyError(
                f'{env} needs a simulator that is missing: pip install "kiloworlds[{extra}]"'
            )
    return MissingDependencyError(f"{env} needs a package that is missing: {error}")
