"""Code that the user names on the command line, such as "my_file:MyEnv" or "my_file.py:MyEnv"."""

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from kiloworlds.core.errors import (
    InvalidValueError,
    KiloworldsError,
    UnknownNameError,
    did_you_mean,
)

_SHOWN_NAMES = 8


class UserCodeError(KiloworldsError, ImportError):
    """A module of the user that fails while it is imported."""


def load_user_object(name: str) -> Any:
    """Imports a module or file and returns the environment class or function named in it.

    The current directory is searched first, as `python -m` does. A file is imported as the module
    that it is in its package, or by its own name, so that worker processes can import it too.

    Args:
        name: "module:attribute" or "path/to/file.py:attribute"; the attribute may have dots.

    Returns:
        A class with `reset` and `step`, a function, or an environment.

    Raises:
        UnknownNameError: no such module, file or attribute; near ones are suggested.
        InvalidValueError: no name after the colon, or something that is no environment.
        UserCodeError: the module fails while it is imported.

    Example:
        >>> load_user_object("kiloworlds.envs.classic.cartpole:CartPole").__name__
        'CartPole'
    """
    location, colon, attribute = name.rpartition(":")
    if not (colon and location and attribute):
        where = name.strip(":") or "my_file"
        raise InvalidValueError(
            f"{name!r} names no object in a file or module; write it as {where}:MyEnv."
        )
    module = import_user_module(location)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _no_attribute(module, location, attribute)
        found = getattr(found, part)
    _check_environment_like(name, found)
    return found


def import_user_module(location: str) -> ModuleType:
    """Imports a module by its name or file, the current directory first.

    Raises:
        UnknownNameError: no such module or file; near ones are suggested.
        InvalidValueError: a file whose name another module has already taken.
        UserCodeError: it fails while it is imported.
    """
    if _is_file(location):
        return _import_file(Path(location))
    _search_first("")
    return _import(location, location, [path.stem for path in Path().glob("*.py")])


def is_imported(location: str) -> bool:
    """Whether `import_user_module(location)` would run no code."""
    if _is_file(location):
        location, _ = _module_of(Path(location))
    return location in sys.modules


def _is_file(location: str) -> bool:
    return location.endswith(".py") or os.sep in location


def _module_of(path: Path) -> tuple[str, Path]:
    """The name of the module that a file is, and the directory from which it is imported."""
    file = path.resolve()
    parts, root = [file.stem], file.parent
    while (root / "__init__.py").exists():  # a file of a package may import relative to it
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts), root


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        siblings = path.parent.glob("*.py") if path.parent.is_dir() else ()
        near = did_you_mean(str(path), [str(sibling) for sibling in siblings])
        raise UnknownNameError(f"There is no file {str(path)!r}.{near}")
    file = path.resolve()
    name, root = _module_of(path)
    _search_first(str(root))
    module = _import(name, str(path), ())
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file:
        raise InvalidValueError(
            f"{str(path)!r} cannot be imported: its name {name!r} is that of another module, "
            f"{found or 'built into Python'}; rename the file."
        )
    return module


def _search_first(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)
        importlib.invalidate_caches()


def _import(name: str, shown: str, known: Iterable[str]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UnknownNameError(
                f"There is no module {name!r}, neither in this directory nor installed."
                f"{did_you_mean(name, known)}"
            ) from error
        raise _failed(shown, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(shown, error) from error


def _failed(shown: str, error: BaseException) -> UserCodeError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):  # which carries its own place
        where = ""
    return UserCodeError(f"importing {shown} failed: {type(error).__name__}: {error}{where}")


def _no_attribute(module: ModuleType, location: str, attribute: str) -> UnknownNameError:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    near = did_you_mean(attribute, own)
    listed = f" It defines {', '.join(own[:_SHOWN_NAMES])}." if own and not near else ""
    return UnknownNameError(f"{location} has no {attribute!r}.{near}{listed}")


def _check_environment_like(name: str, found: Any) -> None:
    steps = hasattr(found, "reset") and hasattr(found, "step")
    if steps or (callable(found) and not isinstance(found, type)):
        return
    what = (
        "a class without reset and step" if isinstance(found, type) else f"a {type(found).__name__}"
    )
    raise InvalidValueError(
        f"{name} is {what}; give an environment class, or a function that builds an environment."
    )
