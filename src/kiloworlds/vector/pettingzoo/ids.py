"""PettingZoo environments by id."""

import contextlib
import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, unknown_name

PREFIX = "pettingzoo:"

_PACKAGES = ("pettingzoo", "mpe2")
"""Packages of PettingZoo's own environments."""


def user_module(env_id: str) -> str | None:
    """The module of the user's own that holds an environment; None where kiloworlds, Gymnasium or
    PettingZoo do."""
    if not env_id.startswith(PREFIX):
        return env_id.rpartition(":")[0] or None
    name = env_id.removeprefix(PREFIX)
    return None if "/" in name or name.split(".")[0] in _PACKAGES else name


def pettingzoo_factory(env_id: str, **env_kwargs: Any) -> Callable[[], Any]:
    """The function that builds the environment of an id.

    Args:
        env_id: "pettingzoo:family/name_vN" for what PettingZoo registers, such as
            "pettingzoo:classic/connect_four_v3"; "pettingzoo:package.module" for a module that holds
            `parallel_env` or `env`, such as "pettingzoo:mpe2.simple_spread_v3". The parallel
            environment where there is one, else the AEC environment.
        **env_kwargs: parameters of the environment.

    Raises:
        UnknownNameError: no environment of that id; near ones are suggested.
        MissingDependencyError: PettingZoo or the module's package is not installed.
        InvalidValueError: the id has another form.

    Example:
        >>> str(pettingzoo_factory("pettingzoo:mpe2.simple_spread_v3", N=2)())
        'simple_spread_v3'
    """
    name = env_id.removeprefix(PREFIX)
    if not env_id.startswith(PREFIX) or not ("/" in name or "." in name):
        raise InvalidValueError(
            f"{env_id!r} is no id of a PettingZoo environment; give 'pettingzoo:family/name_vN' or "
            "'pettingzoo:package.module'."
        )
    if find_spec("pettingzoo") is None:
        raise MissingDependencyError(f"{env_id} needs PettingZoo: pip install pettingzoo")
    if "/" in name:
        family = name.split("/")[0]
        return _Build(env_id, _registered(env_id, name), f'"pettingzoo[{family}]"', env_kwargs)
    package = name.split(".")[0]
    if find_spec(package) is None:
        raise MissingDependencyError(f"{env_id} needs {package!r}: pip install {package}")
    if find_spec(name) is None:
        known = [f"{PREFIX}{package}.{module}" for module in _modules(package)]
        raise unknown_name("environment", env_id, known, f"the modules of {package!r}")
    return _Build(env_id, functools.partial(_make_from_module, name), package, env_kwargs)


@dataclass(frozen=True)
class _Build:
    """Builds an environment, and says what is missing where that fails."""

    env_id: str
    make: Callable[..., Any]
    package: str
    env_kwargs: dict[str, Any]

    def __call__(self) -> Any:
        try:
            return self.make(**self.env_kwargs)
        except ImportError as error:
            raise MissingDependencyError(
                f"{self.env_id} needs a package that is missing ({error}): pip install {self.package}"
            ) from error
        except TypeError as error:
            raise InvalidValueError(f"{self.env_id}: {error}") from error


def _registered(env_id: str, name: str) -> Callable[..., Any]:
    import pettingzoo
    from pettingzoo.env_registry.exceptions import PettingZooRegistryError

    for api in ("parallel", "aec"):
        with contextlib.suppress(PettingZooRegistryError):
            # The spec, not the id: an id that this process registered is unknown in a worker.
            return pettingzoo.spec(api, name).make
    known = sorted({*pettingzoo.parallel_registry, *pettingzoo.aec_registry})
    raise unknown_name(
        "environment",
        env_id,
        [f"{PREFIX}{known_id.replace('-v', '_v')}" for known_id in known],
        "pettingzoo.pprint_registry()",
    )


def _make_from_module(name: str, **env_kwargs: Any) -> Any:
    module = importlib.import_module(name)
    for function in ("parallel_env", "env"):
        if callable(getattr(module, function, None)):
            return getattr(module, function)(**env_kwargs)
    raise InvalidValueError(f"the module {name} has neither parallel_env() nor env().")


def _modules(package: str) -> list[str]:
    paths = importlib.import_module(package).__path__
    return [found.name for found in pkgutil.iter_modules(paths)]
