"""Reading settings from a YAML or JSON file, with errors that name the file and the key."""

import json
import reprlib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml

from kiloworlds.core.errors import InvalidValueError, UnknownNameError, did_you_mean


def read_config_file(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the settings in `path`.

    Args:
        path: a `.json` file, or YAML under any other name; a flat mapping from name to value.
        kinds: the type of each setting there is, such as `float` or `int | None`.

    Returns:
        The values, as the types of their settings.

    Raises:
        InvalidValueError: the file cannot be read, is not a mapping, holds a key twice, or a value
            does not fit its setting.
        UnknownNameError: a key that is no setting; the nearest are suggested.
    """
    values = load_mapping(path)
    for key in values:
        if key not in kinds:
            raise UnknownNameError(
                f"{path}: unknown setting {key!r}.{did_you_mean(str(key), kinds)} To see all: "
                "kiloworlds train --help."
            )
    return {key: _value(path, key, value, kinds[key]) for key, value in values.items()}


def load_mapping(path: Path) -> dict[Any, Any]:
    """The names and values in `path`, JSON or YAML; see `read_config_file` for what is refused."""
    values = _load(path)
    if not isinstance(values, dict):
        raise InvalidValueError(
            f"{path} holds {type(values).__name__ if values is not None else 'nothing'}; it must "
            "be names and values, such as 'total_steps: 500000'."
        )
    return values


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InvalidValueError(f"The config file {path} cannot be read: {reason}.") from error
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_unique_mapping)
        return yaml.load(text, _UniqueKeyLoader)
    except _DuplicateKeyError as error:
        raise InvalidValueError(f"{path}: the key {error.args[0]!r} is there twice.") from error
    except json.JSONDecodeError as error:
        raise InvalidValueError(f"{path}, line {error.lineno}: {error.msg}.") from error
    except yaml.YAMLError as error:
        raise InvalidValueError(_yaml_complaint(path, text, error)) from error
    except RecursionError as error:
        raise InvalidValueError(f"{path} is nested too deeply.") from error
    except ValueError as error:  # JSON's only other complaint
        raise InvalidValueError(f"{path}: a number has too many digits.") from error


class _DuplicateKeyError(Exception):
    """A mapping names one key twice, which JSON and YAML readers otherwise let pass."""


def _unique_mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise _DuplicateKeyError(key)
        mapping[key] = value
    return mapping


_MERGE = "tag:yaml.org,2002:merge"


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, refusing duplicate keys and values that hold themselves."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.deep_construct = True  # what holds itself cannot be built at once, and is refused

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if getattr(key, "tag", None) != _MERGE]
        mapping = super().construct_mapping(node, deep)  # merges, refuses keys such as lists
        _unique_mapping([(self.construct_object(key, deep=True), None) for key in own])  # pyright: ignore[reportUnknownMemberType]
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merges as YAML 1.1 says: own keys win, then earlier mappings of a list over later ones.

        PyYAML 6.0.4 lets the later ones win, unlike every release before it.
        """
        sources = [value for key, value in node.value if key.tag == _MERGE]
        node.value = [pair for pair in node.value if pair[0].tag != _MERGE]
        merged: dict[int, tuple[yaml.Node, yaml.Node]] = {}  # by key node: aliases merge it often
        for source in sources:
            for mapping in source.value if isinstance(source, yaml.SequenceNode) else [source]:
                if not isinstance(mapping, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"<< takes mappings, not a {mapping.id}", mapping.start_mark
                    )
                self.flatten_mapping(mapping)
                for key, value in mapping.value:
                    merged.setdefault(id(key), (key, value))
        node.value = [*reversed(merged.values()), *node.value]
        super().flatten_mapping(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)  # pyright: ignore[reportUnknownMemberType]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{reprlib.repr(node.value)} is no valid {kind}", node.start_mark
            ) from error


def _yaml_complaint(path: Path, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{path}: {' '.join(str(error).split())}."
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line:
        return f"{path}, line {mark.line + 1}: YAML does not allow tabs; use spaces."
    return f"{path}, line {mark.line + 1}: {getattr(error, 'problem', error)}."


def _value(path: Path, key: str, value: Any, kind: Any) -> Any:
    try:
        return convert(value, kind)
    except ValueError as error:
        raise InvalidValueError(f"{path}: {key}: {error}") from error
    except OverflowError as error:
        raise InvalidValueError(f"{path}: {key}: the number is too large.") from error


def convert(value: Any, kind: Any) -> Any:
    """Returns `value` as the type `kind`; YAML 1.1 reads 1e-3 as a word, so words may be numbers.

    Raises:
        ValueError: it does not fit.
        OverflowError: a whole number beyond any float, where a float is needed.
    """
    if get_origin(kind) in (Union, types.UnionType):
        options = get_args(kind)
        if value is None and type(None) in options:
            return None
        (kind,) = (option for option in options if option is not type(None))
    if get_origin(kind) is tuple:
        entries = value if isinstance(value, list | tuple) else [value]
        return tuple(convert(entry, get_args(kind)[0]) for entry in entries)
    if kind in (int, float):
        number = _number(value)
        if number is not None and (kind is float or number == number // 1):
            return kind(number)
    elif isinstance(value, get_origin(kind) or kind):
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    wanted = names.get(kind, "a mapping of names to values")
    raise ValueError(f"{reprlib.repr(value)} is not {wanted}.")


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
