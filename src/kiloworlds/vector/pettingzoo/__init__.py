"""PettingZoo environments as vectors with an agent axis."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kiloworlds.vector.pettingzoo.ids import pettingzoo_factory
    from kiloworlds.vector.pettingzoo.recognise import builds_pettingzoo, is_pettingzoo
    from kiloworlds.vector.pettingzoo.vector import PettingZooVectorEnv

__all__ = ["PettingZooVectorEnv", "builds_pettingzoo", "is_pettingzoo", "pettingzoo_factory"]

# Imported on first use: workers need the adapters, not the vector and the JAX it brings.
_HOME = {
    "PettingZooVectorEnv": "vector",
    "builds_pettingzoo": "recognise",
    "is_pettingzoo": "recognise",
    "pettingzoo_factory": "ids",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
