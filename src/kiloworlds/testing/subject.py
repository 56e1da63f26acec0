"""From what the user names to a function that builds the environment."""

import copy
import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium

from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError, UnknownNameError, did_you_mean, unknown_name
from kiloworlds.core.registry import find_spec, list_envs
from kiloworlds.core.user_code import load_user_object


@dataclass(frozen=True)
class Subject:
    """An environment to check.

    Attributes:
        name: what it is called in the report.
        make: builds one; takes further keyword arguments, such as `render_mode`.
    """

    name: str
    make: Callable[..., Any]


def make_subject(env: Any, env_kwargs: dict[str, Any]) -> Subject:
    """Reads an id, "module:name", class, function or environment; see `check_environment`.

    Raises:
        UnknownNameError: no such id, module or name.
        InvalidValueError: something that builds no environment, or a parameter it does not take.
    """
    if isinstance(env, str):
        return _named(env, env_kwargs)
    if isinstance(env, Environment) or (hasattr(env, "reset") and not callable(env)):
        if env_kwargs:
            raise InvalidValueError(
                f"parameters {', '.join(env_kwargs)} for an environment that is already built; give "
                "its class."
            )
        return Subject(_name(type(env)), _Copies(env))
    if not callable(env):
        raise InvalidValueError(
            f"{env!r} is no environment; give an id, a class, a function that builds an "
            "environment, or an environment."
        )
    _check_parameters(env, env_kwargs)
    return Subject(_name(env), functools.partial(env, **env_kwargs) if env_kwargs else env)


def _named(name: str, env_kwargs: dict[str, Any]) -> Subject:
    if name.startswith("pettingzoo:"):
        from kiloworlds.vector.pettingzoo import pettingzoo_factory

        pettingzoo_factory(name, **env_kwargs)  # which says what is wrong with the id
        return Subject(name, functools.partial(_make_pettingzoo, name, **env_kwargs))
    if ":" in name:
        try:
            return Subject(name, make_subject(load_user_object(name), env_kwargs).make)
        except UnknownNameError:
            # It may be the id of an environment that the module registers when it is imported.
            if not _is_registered(name.rpartition(":")[2]):
                raise
            name = name.rpartition(":")[2]
    spec = find_spec(name)
    if spec is not None:
        spec.build(**env_kwargs)  # which says what is wrong with its parameters
        return Subject(name, functools.partial(spec.build, **env_kwargs))
    if name.startswith("ALE/") and importlib.util.find_spec("ale_py") is not None:
        importlib.import_module("ale_py")  # registers the games
    if name not in gymnasium.registry:
        error = unknown_name(
            "environment", name, [*list_envs(), *gymnasium.registry], "`kiloworlds list`"
        )
        if name.endswith(".py") or "." in name:
            raise UnknownNameError(f"{error} One in a file is named {name}:MyEnv.")
        raise error
    # The spec, not the id, which other processes need not know.
    make = functools.partial(gymnasium.make, gymnasium.registry[name], disable_env_checker=True)
    return Subject(name, functools.partial(make, **env_kwargs))


def _make_pettingzoo(name: str, **env_kwargs: Any) -> Any:
    from kiloworlds.vector.pettingzoo import pettingzoo_factory

    return pettingzoo_factory(name, **env_kwargs)()


def _is_registered(id: str) -> bool:
    return id in gymnasium.registry or find_spec(id) is not None


def _check_parameters(function: Callable[..., Any], env_kwargs: dict[str, Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of a built-in
        return
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in env_kwargs:
        if name not in parameters and not takes_any:
            raise InvalidValueError(
                f"{_name(function)} takes no parameter {name!r}.{did_you_mean(name, parameters)} It "
                f"takes: {', '.join(parameters) or 'none'}."
            )
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in env_kwargs
    ]
    if needed:
        raise InvalidValueError(
            f"{_name(function)} needs the parameter {needed[0]!r}: give it as --env.{needed[0]} on the "
            f"command line, or {needed[0]}=... in Python."
        )


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


class _Copies:
    """Stands for the constructor of an environment that is given built: copies of it."""

    def __init__(self, env: Any):
        self._env = env

    def __call__(self) -> Any:
        return copy.deepcopy(self._env)
