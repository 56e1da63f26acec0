"""Thousands of environments at once, and agents trained in them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kiloworlds.compat.pettingzoo import to_pettingzoo
    from kiloworlds.core.environment import AgentKind, Environment, MultiAgentEnvironment, Step
    from kiloworlds.core.registry import list_envs, make_environment, register
    from kiloworlds.profiling.tuning.autotune import autotune
    from kiloworlds.training.run import Run, load
    from kiloworlds.training.train import train
    from kiloworlds.vector.make import make
    from kiloworlds.vector.pixels import PixelOptions

__version__ = "0.1.0"

__all__ = [
    "AgentKind",
    "Environment",
    "MultiAgentEnvironment",
    "PixelOptions",
    "Run",
    "Step",
    "autotune",
    "list_envs",
    "load",
    "make",
    "make_environment",
    "register",
    "to_pettingzoo",
    "train",
]

# Imported on first use, so that `import kiloworlds` costs less than `import jax`.
_HOME = {
    "AgentKind": "core.environment",
    "Environment": "core.environment",
    "MultiAgentEnvironment": "core.environment",
    "PixelOptions": "vector.pixels",
    "Run": "training.run",
    "Step": "core.environment",
    "autotune": "profiling.tuning.autotune",
    "list_envs": "core.registry",
    "load": "training.run",
    "make": "vector.make",
    "make_environment": "core.registry",
    "register": "core.registry",
    "to_pettingzoo": "compat.pettingzoo",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kiloworlds' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kiloworlds.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
