"""`kiloworlds.make`: from an id to many running environments."""

import copy
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode

from kiloworlds.core.checks import require_count
from kiloworlds.core.environment import Environment, MultiAgentEnvironment
from kiloworlds.core.errors import (
    InvalidValueError,
    MissingDependencyError,
    did_you_mean,
    unknown_name,
)
from kiloworlds.core.registry import EnvSpec, find_spec, list_envs
from kiloworlds.core.user_code import load_user_object
from kiloworlds.vector.base import VectorEnv, parse_autoreset_mode
from kiloworlds.vector.choice import host_backend
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.compiled_agents import CompiledAgentsVectorEnv
from kiloworlds.vector.native.engines import (
    Engine,
    Wanted,
    choose_engine,
    engine_by_name,
    find_engine,
)
from kiloworlds.vector.native.mujoco_warnings import log_warnings
from kiloworlds.vector.pettingzoo import PettingZooVectorEnv, builds_pettingzoo, pettingzoo_factory
from kiloworlds.vector.pettingzoo.ids import PREFIX as PETTINGZOO_PREFIX
from kiloworlds.vector.pixels import PixelOptions, pixel_options, preprocess
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.sync import SyncExecutor

BACKENDS = ("auto", "compiled", "native", "process", "thread", "sync")

_POOL_PARAMETERS = inspect.signature(ProcessExecutor).parameters


def make(
    env: str | Environment | Callable[[], Any] | Sequence[Callable[[], Any]],
    num_envs: int = 1,
    *,
    backend: Literal["auto", "compiled", "native", "process", "thread", "sync"] = "auto",
    engine: Literal["mujoco", "ale", "envpool"] | None = None,
    preprocessing: PixelOptions | dict[str, Any] | Literal["atari"] | None = None,
    seed: int | None = None,
    autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
    devices: int = 1,
    output: Literal["numpy", "jax"] = "numpy",
    check_legal: bool | None = None,
    episode_statistics: bool = True,
    num_workers: int | None = None,
    batch_size: int | None = None,
    ordered: bool = False,
    copy: bool = True,
    step_timeout: float | None = 60.0,
    start_timeout: float | None = 120.0,
    max_restarts: int = 10,
    max_worker_memory: float | None = None,
    on_error: Literal["raise", "restart"] = "raise",
    on_nonfinite: Literal["mask", "raise", "quarantine", "ignore"] = "mask",
    **env_kwargs: Any,
) -> VectorEnv:
    """Makes `num_envs` environments behind one `gymnasium.vector.VectorEnv`.

    Args:
        env: an id (Gymnasium's where the rules are Gymnasium's; "pettingzoo:..." for PettingZoo), a
            compiled `Environment`, a function that builds a Gymnasium or PettingZoo environment, or
            one such function per environment.
        num_envs: how many, 1 or more.
        backend: "compiled" (XLA), "native" (a simulator that steps many environments itself),
            "process" (any Gymnasium environment, in worker processes), "thread" (the same, in
            threads), "sync" (the same, one after the other), or "auto": compiled where there is a
            compiled environment of that id, else native where an installed engine runs that id as
            asked, else process or sync, whichever is faster: one environment is built and tried out
            for a moment.
        engine: the native engine; None for the first that runs the id as asked, in the order of
            `kiloworlds list --backends`.
        preprocessing: of image observations: "atari", `PixelOptions` or a dictionary of its options.
        seed: seeds the first `reset`: environment i gets seed + i.
        autoreset_mode: "same_step" (default; the final observation is in `infos["final_obs"]`),
            "next_step" or "disabled".
        devices: JAX devices to spread compiled environments over.
        output: for compiled environments, "numpy" or "jax" arrays.
        check_legal: for compiled environments of several agents, whether `step` refuses actions outside
            their masks; None checks where the output is "numpy".
        episode_statistics: whether infos report "episode" at each end.
        num_workers, batch_size: of the process, thread and native backends: workers or threads, and
            how many results `recv` returns.
        ordered, copy, step_timeout, start_timeout, max_restarts, max_worker_memory, on_error,
        on_nonfinite: of the process and thread backends; see
            `kiloworlds.vector.process.pool.ProcessExecutor`.
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
    pool_options = {
        "num_workers": num_workers,
        "batch_size": batch_size,
        "ordered": ordered,
        "copy": copy,
        "step_timeout": step_timeout,
        "start_timeout": start_timeout,
        "max_restarts": max_restarts,
        "max_worker_memory": max_worker_memory,
        "on_error": on_error,
        "on_nonfinite": on_nonfinite,
    }
    request = _Request(
        env=env,
        num_envs=require_count("num_envs", num_envs),
        backend=_check_backend(backend, engine),
        engine=engine,
        pixels=None if preprocessing is None else pixel_options(preprocessing),
        common={
            "seed": seed,
            "autoreset_mode": autoreset_mode,
            "episode_statistics": episode_statistics,
        },
        compiled={"devices": devices, "output": output},
        check_legal=check_legal,
        pool={
            name: value
            for name, value in pool_options.items()
            if not _is_default(value, _POOL_PARAMETERS[name].default)
        },
        env_kwargs=env_kwargs,
    )
    if env is None or isinstance(env, type):
        given = "None" if env is None else f"the class {env.__name__}"
        raise InvalidValueError(
            f"make() got {given}; give an id, an environment, or a function such as "
            "lambda: MyEnv()."
        )
    if isinstance(env, Environment):
        return _make_compiled_instance(request, env)
    spec = _compiled_spec(request)
    if spec is not None:
        return _make_compiled(request, spec)
    _refuse_compiled_options(request)
    if isinstance(env, str) and env.startswith(PETTINGZOO_PREFIX):
        return _make_pettingzoo(request, pettingzoo_factory(env, **env_kwargs))
    make_env = gymnasium_factory(env, env_kwargs)
    native = _choose_native(request)
    if native is not None:
        return _make_native(request, *native)
    if _is_pettingzoo_factory(make_env):
        return _make_pettingzoo(request, make_env)
    return _make_on_host(request, make_env)


@dataclass(frozen=True)
class _Request:
    """What `make` was asked for; `pool` has those settings that differ from their defaults."""

    env: Any
    num_envs: int
    backend: str
    engine: str | None
    pixels: PixelOptions | None
    common: dict[str, Any]
    compiled: dict[str, Any]
    check_legal: bool | None
    pool: dict[str, Any]
    env_kwargs: dict[str, Any]


def _is_default(value: Any, default: Any) -> bool:
    """Whether a setting was left as it is; an array, which compares entry by entry, was not."""
    return type(value) is type(default) and value == default


def native_engine(
    env_id: str, preprocessing: Any = None, env_kwargs: dict[str, Any] | None = None
) -> str | None:
    """The native engine that "auto" takes for environments with same-step autoreset; None for none."""
    pixels = None if preprocessing is None else pixel_options(preprocessing)
    engine = find_engine(Wanted(env_id, env_kwargs or {}, pixels))
    return None if engine is None else engine.name


def _check_backend(backend: str, engine: str | None) -> str:
    if backend not in BACKENDS:
        raise InvalidValueError(
            f"backend={backend!r} is not one of {', '.join(map(repr, BACKENDS))}."
            f"{did_you_mean(str(backend), BACKENDS)}"
        )
    if engine is None:
        return backend
    engine_by_name(engine)
    if backend not in ("auto", "native"):
        raise InvalidValueError(
            f"engine={engine!r} is a setting of backend='native'; this one is {backend!r}."
        )
    return "native"


# Compiled environments.


def _compiled_spec(request: _Request) -> EnvSpec | None:
    """The compiled environment to be made, or None if another kind is."""
    env, backend = request.env, request.backend
    by_id = isinstance(env, str) and not env.startswith(PETTINGZOO_PREFIX)
    spec = find_spec(env) if by_id else None
    if backend == "compiled" and spec is None:
        if not isinstance(env, str):
            raise InvalidValueError("backend='compiled' needs an id or a compiled Environment.")
        raise unknown_name("compiled environment", env, list_envs(), "kiloworlds.list_envs()")
    return spec if backend in ("auto", "compiled") else None


def _make_compiled(request: _Request, spec: EnvSpec) -> CompiledVectorEnv:
    _refuse_pool_options(request, "compiled")
    parameters = dict(request.env_kwargs)
    render_mode = parameters.pop("render_mode", None)
    envs = _compiled_vector(
        request,
        spec.build(**parameters),
        reference=spec.build_reference(**parameters),
        spec_id=spec.id,
    )
    if render_mode not in (None, envs.render_mode):
        raise InvalidValueError(
            f"render_mode={render_mode!r}: {spec.id} renders as {envs.render_mode!r}."
        )
    return envs


def _make_compiled_instance(request: _Request, env: Environment) -> CompiledVectorEnv:
    if request.backend not in ("auto", "compiled"):
        raise InvalidValueError(
            f"backend={request.backend!r} runs Gymnasium environments, not compiled ones."
        )
    _refuse_pool_options(request, "compiled")
    if request.env_kwargs:
        names = ", ".join(request.env_kwargs)
        raise InvalidValueError(
            f"make() got the parameters {names} for an environment that is already built; build it "
            "with them, or use dataclasses.replace."
        )
    return _compiled_vector(request, env, reference=_unbatched(env))


def _compiled_vector(request: _Request, env: Environment, **options: Any) -> CompiledVectorEnv:
    """The executor for an environment of one agent or of several."""
    options = options | request.common | request.compiled
    if isinstance(env, MultiAgentEnvironment):
        return CompiledAgentsVectorEnv(
            env, request.num_envs, check_legal=request.check_legal, **options
        )
    _refuse_check_legal(request)
    return CompiledVectorEnv(env, request.num_envs, **options)


def _refuse_pool_options(request: _Request, backend: str) -> None:
    if request.pool:
        raise InvalidValueError(
            f"{', '.join(request.pool)}: settings of backend='process'; this one is {backend!r}."
        )
    if request.pixels is not None and backend == "compiled":
        raise InvalidValueError(
            "preprocessing is for images of simulators; compiled environments take none."
        )


def _refuse_check_legal(request: _Request) -> None:
    if request.check_legal is not None:
        raise InvalidValueError(
            f"check_legal={request.check_legal!r} is a setting of compiled environments of several "
            "agents."
        )


def _refuse_compiled_options(request: _Request) -> None:
    _refuse_check_legal(request)
    if request.compiled != {"devices": 1, "output": "numpy"}:
        raise InvalidValueError(
            "devices and output are settings of compiled environments; "
            f"{request.env!r} runs as a Gymnasium environment on the host."
        )


def _unbatched(env: Environment) -> Environment:
    """The default-built environment of the same type, whose fields have no batch axis."""
    from kiloworlds.core.time_limit import TimeLimit, with_time_limit

    if isinstance(env, TimeLimit):
        return with_time_limit(_unbatched(env.env), 0)
    try:
        return type(env)()
    except TypeError:
        # It cannot be built without arguments: its fields are taken as they are, none batched.
        return env


# Native engines.


def _choose_native(request: _Request) -> tuple[Engine, Wanted] | None:
    """The engine that runs what is asked for, if the backend is native or may be."""
    env, backend = request.env, request.backend
    if backend not in ("auto", "native"):
        return None
    if not isinstance(env, str):
        if backend == "native":
            raise InvalidValueError(
                "backend='native' needs an id; functions run on backend='process'."
            )
        return None
    mode = parse_autoreset_mode(request.common["autoreset_mode"])
    wanted = Wanted(env, request.env_kwargs, request.pixels, mode, request.pool)
    engine = choose_engine(wanted, request.engine) if backend == "native" else find_engine(wanted)
    return None if engine is None else (engine, wanted)


def _make_native(request: _Request, engine: Engine, wanted: Wanted) -> VectorEnv:
    return engine.make(
        wanted,
        request.num_envs,
        seed=request.common["seed"],
        episode_statistics=request.common["episode_statistics"],
    )


# PettingZoo.


def _is_pettingzoo_factory(make_env: Any) -> bool:
    """Whether functions build PettingZoo environments; asks only where PettingZoo is in use."""
    if "pettingzoo" not in sys.modules:
        return False
    return builds_pettingzoo(make_env if callable(make_env) else make_env[0])


def _make_pettingzoo(request: _Request, make_env: Any) -> VectorEnv:
    if request.pixels is not None:
        raise InvalidValueError(
            "preprocessing is for Gymnasium environments, not for PettingZoo's."
        )
    return PettingZooVectorEnv(
        make_env, request.num_envs, backend=request.backend, **request.common, **request.pool
    )


# Everything else: Gymnasium environments in processes, in threads or in this process.


def _make_on_host(request: _Request, make_env: Any) -> VectorEnv:
    pixels = request.pixels
    common: dict[str, Any] = request.common
    if pixels is not None:
        several = isinstance(make_env, Sequence)
        functions = [
            preprocess(function, pixels) for function in (make_env if several else [make_env])
        ]
        make_env = functions if several else functions[0]
        if pixels.hides_episodes and common["episode_statistics"]:
            common = common | {"episode_statistics": "environment"}
    backend, num_envs = request.backend, request.num_envs
    if backend == "auto":
        backend = "process" if request.pool else host_backend(num_envs, make_env)
    if backend == "process":
        return ProcessExecutor(make_env, num_envs, **common, **request.pool)
    if backend == "thread":
        from kiloworlds.vector.thread import ThreadExecutor

        return ThreadExecutor(make_env, num_envs, **common, **request.pool)
    _refuse_pool_options(request, "sync")
    return SyncExecutor(make_env, num_envs, **common)


def gymnasium_factory(env: Any, env_kwargs: dict[str, Any]) -> Any:
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
    if env.startswith("ALE/") and importlib.util.find_spec("ale_py") is not None:
        importlib.import_module("ale_py")  # registers the games
    _, colon, name = env.rpartition(":")  # its module was imported when compiled ones were sought
    if name not in gymnasium.registry:
        if colon:
            return _user_factory(env, env_kwargs)
        raise unknown_name(
            "environment", env, [*list_envs(), *gymnasium.registry], "`kiloworlds list`"
        )

    # The spec, not the id: an id that this process registered is unknown in a worker.
    # Workers check order and what environments give themselves, so they need no wrappers for it.
    spec = copy.copy(gymnasium.registry[name])
    spec.order_enforce, spec.disable_env_checker = False, True
    if env_kwargs:
        _check_parameters(env, _creator(spec), env_kwargs)
    is_mujoco = str(spec.entry_point).startswith("gymnasium.envs.mujoco")

    def build() -> gymnasium.Env:
        try:
            if is_mujoco:
                log_warnings()
            return gymnasium.make(spec, **env_kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            raise _missing_simulator(env, error) from error
        except (TypeError, gymnasium.error.Error, ImportError) as error:
            raise InvalidValueError(f"{env}: {error}") from error

    return build


def _user_factory(name: str, env_kwargs: dict[str, Any]) -> Callable[[], Any]:
    """The class or function "my_file:MyEnv", with the parameters given."""
    found = load_user_object(name)
    if not callable(found):
        raise InvalidValueError(
            f"{name} is an environment that is already built; give its class, or a function that "
            "builds one."
        )
    _check_parameters(name, found, env_kwargs)
    return functools.partial(found, **env_kwargs)


def _creator(spec: Any) -> Callable[..., Any] | None:
    """The class or function behind an id; None where it cannot be loaded, which building reports."""
    if callable(spec.entry_point):
        return spec.entry_point
    try:
        return load_env_creator(spec.entry_point)
    except Exception:
        return None


def _check_parameters(env: str, creator: Any, env_kwargs: dict[str, Any]) -> None:
    """Refuses parameters that an environment does not have, before any worker is started."""
    try:
        parameters = inspect.signature(creator).parameters
    except (TypeError, ValueError):  # it does not say
        return
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    own = [name for name in inspect.signature(make).parameters if name != "env_kwargs"]
    known = [
        name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    for name in env_kwargs:
        if name in known or name in inspect.signature(gymnasium.make).parameters:
            continue
        if takes_any and not difflib.get_close_matches(name, own, 1, 0.85):
            continue
        raise InvalidValueError(
            f"{env} has no parameter {name!r}.{did_you_mean(name, [*known, *own])} Its parameters: "
            f"{', '.join(known) or 'none'}."
        )


def _missing_simulator(env: str, error: Exception) -> MissingDependencyError:
    """Names the extra that brings the simulator, where kiloworlds has one."""
    extras = {"box2d": "box2d", "mujoco": "mujoco", "ale": "atari"}
    for word, extra in extras.items():
        if word in str(error).lower():
            return MissingDependencyError(
                f'{env} needs a simulator that is missing: pip install "kiloworlds[{extra}]"'
            )
    return MissingDependencyError(f"{env} needs a package that is missing: {error}")
