"""Which environments exist, by id.

A third-party package adds its compiled environments by naming, in its own `pyproject.toml`, a module
that calls `kiloworlds.register` when it is imported:

    [project.entry-points."kiloworlds.environments"]
    my_package = "my_package.registration"
"""

import importlib
import importlib.metadata
import reprlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kiloworlds.core.checks import require_number
from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError, unknown_name
from kiloworlds.core.parameters import check_names, check_numbers, is_batched
from kiloworlds.core.time_limit import with_time_limit
from kiloworlds.core.user_code import import_location

ENTRY_POINT_GROUP = "kiloworlds.environments"
_LIMIT = "max_episode_steps"


@dataclass(frozen=True)
class EnvSpec:
    """One registered compiled environment.

    Attributes:
        id: the name users type; Gymnasium's own where the rules are Gymnasium's.
        entry_point: the class, or "module:Class", imported when the environment is first built.
        kwargs: arguments the entry point always gets, unless the user overrides them.
        max_episode_steps: truncation after so many steps; None for no limit.
        reward_threshold: the mean return at which the task counts as solved; None if undefined.
        source: who registered it, for error messages and listings.
    """

    id: str
    entry_point: str | Callable[..., Environment]
    kwargs: dict[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    reward_threshold: float | None = None
    source: str = "user"

    def build(self, **kwargs: Any) -> Environment:
        """Builds one environment, with its time limit.

        `max_episode_steps` among `kwargs` overrides the registered limit (None for none).
        """
        constructor = self.entry_point
        if isinstance(constructor, str):
            module, _, name = constructor.partition(":")
            constructor = getattr(importlib.import_module(module), name)
        arguments = self.kwargs | {name: _plain(value) for name, value in kwargs.items()}
        limit = arguments.pop(_LIMIT, self.max_episode_steps)
        if limit is not None:
            require_number(f"{self.id}: {_LIMIT}", limit, 1, whole=True)
        check_names(self.id, constructor, arguments, also=_LIMIT)
        check_numbers(self.id, constructor, arguments)
        environment = constructor(**arguments)
        return environment if limit is None else with_time_limit(environment, limit)

    def build_reference(self, **kwargs: Any) -> Environment:
        """The environment with the defaults of all its parameters, against which batched ones are
        told; wrapped in a time limit exactly if `build(**kwargs)` is."""
        limit = {"max_episode_steps": kwargs[_LIMIT]} if _LIMIT in kwargs else {}
        return self.build(**limit)


def _plain(value: Any) -> Any:
    """A list with a number for each environment as an array, NumPy's numbers as Python's."""
    if is_batched(value):
        return np.asarray(value)
    return value.item() if isinstance(value, np.generic) else value


_specs: dict[str, EnvSpec] = {}
_entry_points_loaded = False


def register(
    id: str,
    entry_point: str | Callable[..., Environment],
    *,
    kwargs: dict[str, Any] | None = None,
    max_episode_steps: int | None = None,
    reward_threshold: float | None = None,
    source: str = "user",
) -> None:
    """Adds a compiled environment to the registry; an id registered again is replaced.

    See `EnvSpec` for the arguments.

    Example:
        >>> import kiloworlds as kw
        >>> from kiloworlds.envs.classic.cartpole import CartPole
        >>> kw.register("LongPole-v0", CartPole, kwargs={"length": 2.0}, max_episode_steps=500)
        >>> "LongPole-v0" in kw.list_envs()
        True
    """
    _specs[id] = EnvSpec(id, entry_point, kwargs or {}, max_episode_steps, reward_threshold, source)


def _load_entry_points() -> None:
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    importlib.import_module("kiloworlds.envs")
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()
        except Exception as error:
            # One broken plug-in must not take the others down; it is named, so nothing is hidden.
            distribution = entry_point.dist.name if entry_point.dist else "unknown package"
            warnings.warn(
                f"The environments of {distribution!r} (entry point {entry_point.value!r}) could not "
                f"be loaded and are missing: {type(error).__name__}: {error}",
                stacklevel=3,
            )


def list_envs() -> list[str]:
    """The ids of all compiled environments, sorted."""
    _load_entry_points()
    return sorted(_specs)


def find_spec(id: str) -> EnvSpec | None:
    """The spec of a compiled environment, or None if there is none of that id.

    "module:id" imports the module first, which then registers its environments. The id may also be
    the name of a compiled environment's class in it, and the module the path of a file.
    """
    if not isinstance(id, str):
        raise InvalidValueError(f"{reprlib.repr(id)} is no id of an environment; give a string.")
    _load_entry_points()
    location, colon, name = id.rpartition(":")
    if not colon:
        return _specs.get(id)
    found = getattr(import_location(location), name, None)
    if name not in _specs and isinstance(found, type) and issubclass(found, Environment):
        return EnvSpec(id, found)
    return _specs.get(name)


def make_environment(id: str, **kwargs: Any) -> Environment:
    """Builds one compiled environment (not a vector) by id, with its time limit.

    Raises:
        UnknownNameError: no such id; near ones are suggested.
        InvalidValueError: an argument the environment does not take.
    """
    spec = find_spec(id)
    if spec is None:
        raise unknown_name("environment", id, list_envs(), "kiloworlds.list_envs()")
    return spec.build(**kwargs)
