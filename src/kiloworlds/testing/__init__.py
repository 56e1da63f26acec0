"""What kiloworlds' own tests use, for tests of your environments and algorithms."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kiloworlds.testing.check import check_environment
    from kiloworlds.testing.report import Finding, Report

__all__ = ["Finding", "Report", "check_environment"]

# Imported on first use: the process in which an environment is checked needs none of JAX.
_HOME = {"Finding": "report", "Report": "report", "check_environment": "check"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kiloworlds.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kiloworlds.testing.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
