"""From settings to the loop that fits them."""

import inspect
from typing import Any

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.registry import find_spec
from kiloworlds.training.algorithms import fused_training, host_training
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.fused_loop import FusedLoop
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.training.loops.host_agents import HostAgentsTraining
from kiloworlds.vector.choice import host_backend
from kiloworlds.vector.make import gymnasium_factory, make, native_engine
from kiloworlds.vector.pettingzoo.adapters import Adapting
from kiloworlds.vector.pettingzoo.ids import PREFIX as PETTINGZOO_PREFIX
from kiloworlds.vector.pettingzoo.ids import pettingzoo_factory
from kiloworlds.vector.pixels import pixel_options, preprocess


def make_training(config: TrainConfig) -> FusedLoop | HostTraining | HostAgentsTraining:
    """The loop that fits the environment: fused for compiled ones, else on the host."""
    _check_env_kwargs(config.env_kwargs)
    spec = find_spec(config.env_id)
    if spec is not None and config.backend in ("auto", "compiled"):
        for name in ("batch_size", "max_staleness", "preprocessing"):
            if getattr(config, name):
                raise InvalidValueError(
                    f"{name}={getattr(config, name)!r} is for environments outside XLA, and "
                    f"{config.env_id} is compiled: leave it out, or choose backend='process'."
                )
        reference = spec.build_reference(**config.env_kwargs)
        return fused_training(config, spec.build(**config.env_kwargs), reference)
    if config.population:
        raise InvalidValueError(
            f"population: many settings are trained in one program for compiled environments, and "
            f"{config.env_id} runs outside XLA: train one after the other, or see `kiloworlds sweep`."
        )
    backend = choose_host_backend(config) if config.backend == "auto" else config.backend
    options: dict[str, Any] = {}
    if backend in ("process", "thread"):  # a fault costs an episode, not the training
        options = {
            "num_workers": config.num_workers,
            "batch_size": config.batch_size,
            "step_timeout": config.step_timeout,
            "max_restarts": config.max_restarts,
            "max_worker_memory": config.max_worker_memory,
            "on_error": "restart",
            "on_nonfinite": config.on_nonfinite,
        }
    elif backend == "native":
        options = {"num_workers": config.num_workers}
    envs = make(
        config.env_id,
        config.num_envs,
        backend=backend,  # type: ignore[arg-type]
        preprocessing=config.preprocessing,  # type: ignore[arg-type]
        **options,
        **config.env_kwargs,
    )
    try:
        return host_training(config, envs)
    except BaseException:
        envs.close()
        raise


def choose_host_backend(config: TrainConfig) -> str:
    """The fastest executor for an environment that is not compiled."""
    asks_for_pool = config.batch_size is not None  # each environment at its own pace
    if not asks_for_pool and native_engine(config.env_id, config.preprocessing, config.env_kwargs):
        return "native"
    if asks_for_pool or config.num_workers is not None:
        return "process"
    if config.env_id.startswith(PETTINGZOO_PREFIX):
        build = Adapting(pettingzoo_factory(config.env_id, **config.env_kwargs), None)
        return host_backend(config.num_envs, build)
    make_env = gymnasium_factory(config.env_id, config.env_kwargs)
    if config.preprocessing is not None:
        make_env = preprocess(make_env, pixel_options(config.preprocessing))
    return host_backend(config.num_envs, make_env)


def _check_env_kwargs(env_kwargs: dict[str, Any]) -> None:
    for name in inspect.signature(make).parameters:
        if name in env_kwargs and name != "env_kwargs":
            raise InvalidValueError(
                f"{name!r} is no parameter of the environment: it is a setting of the training, or "
                "chosen by it."
            )
