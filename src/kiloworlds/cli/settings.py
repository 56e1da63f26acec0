"""The settings of a training as flags: one for each field of its dataclasses."""

import ast
import dataclasses
import functools
import inspect
import json
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from kiloworlds.training.config import TrainConfig, algorithm_config, setting_names
from kiloworlds.vector.make import BACKENDS

_SHORT = {"total_steps": ["-n"]}
_KINDS: dict[str, Any] = {"backend": Literal[BACKENDS], "preprocessing": str | None}
"""Of flags whose setting has another type."""
_MORE = {"total_steps": " Rounded up to whole rollouts of num_envs * num_steps."}
"""What the help of a flag says beside the meaning of its setting."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: its type and what its docstring says."""

    kind: Any
    meaning: str


def settings_of(algorithm: str) -> dict[str, Setting]:
    """All settings of a training with `algorithm`, by name.

    Raises:
        UnknownNameError: no such algorithm.
    """
    own, learner = settings_by_class(algorithm)
    return own | learner


def settings_by_class(algorithm: str) -> tuple[dict[str, Setting], dict[str, Setting]]:
    """The settings of the training itself, and those of its algorithm."""
    learner = _fields(algorithm_config(algorithm))
    wanted = set(setting_names(algorithm)) - set(learner)
    own = {name: setting for name, setting in _fields(TrainConfig).items() if name in wanted}
    return own, learner


def flags_class(name: str, settings: Mapping[str, Setting], values: Mapping[str, Any]) -> type:
    """A dataclass whose fields tyro turns into flags, with `values` as defaults."""
    fields = []
    for key, setting in settings.items():
        kind = _KINDS.get(key, setting.kind)
        argument = tyro.conf.arg(help=setting.meaning + _MORE.get(key, ""), aliases=_SHORT.get(key))
        value = values[key]
        if key in _KINDS and isinstance(value, dict):
            value = json.dumps(value)
        default = dataclasses.field(default_factory=functools.partial(_default, value))
        fields.append((key, Annotated[kind, argument], default))
    return dataclasses.make_dataclass(name, fields, frozen=True)


def _default(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _fields(cls: type) -> dict[str, Setting]:
    meanings = _meanings(cls)
    kinds = get_type_hints(cls)
    return {
        field.name: Setting(kinds[field.name], meanings.get(field.name, ""))
        for field in dataclasses.fields(cls)
    }


def _meanings(cls: type) -> dict[str, str]:
    """The string under each field, its own or inherited."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            meanings |= _own_meanings(base)
    return meanings


@functools.cache
def _own_meanings(cls: type) -> dict[str, str]:
    """The string under each field of a class, which Python itself does not keep."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    meanings = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                meanings[name] = inspect.cleandoc(text)
    return meanings
