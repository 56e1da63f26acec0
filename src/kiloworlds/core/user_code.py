"""Code that the user names on the command line, such as "my_file:MyEnv" or "my_file.py:MyEnv"."""

import functools
import importlib
import os
import sys
import sysconfig
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
    module = import_location(location)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _no_attribute(module, location, attribute)
        found = getattr(found, part)
    _check_environment_like(name, found)
    return found


_trusted: set[str] = set()
"""The modules whose functions the user lets stored runs call."""


def import_user_module(location: str) -> ModuleType:
    """Imports a module that the user names, and lets stored runs call its functions.

    Raises: see `import_location`.
    """
    module = import_location(location)
    _trusted.add(module.__name__)
    return module


def check_may_be_called(name: str) -> None:
    """Refuses what a stored run must not call only because it is in memory, as `os:system` always is.

    Allowed are, of modules that are imported already: environment classes; and functions of the same
    package, if the module is the user's own code (not Python's or installed) or was imported by
    `import_user_module`.

    Args:
        name: "module:attribute" or "path/to/file.py:attribute".

    Raises:
        InvalidValueError: it is something else.
    """
    location, _, attribute = name.rpartition(":")
    module = imported_module(location)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and hasattr(found, "reset") and hasattr(found, "step"):
        return
    function = found.func if isinstance(found, functools.partial) else found
    package = str(getattr(function, "__module__", None)).partition(".")[0]
    if module is None or package != module.__name__.partition(".")[0]:
        raise InvalidValueError(
            f"{name!r} is neither an environment class nor a function of {location!r}; a stored run may "
            "name nothing else."
        )
    if module.__name__ not in _trusted and _is_installed(module):
        raise InvalidValueError(
            f"{name!r} is a function of installed code, and a stored run must not call those by itself. "
            f"If it builds the run's environment, say so: --import {location} on the command line, or "
            f"kiloworlds.core.user_code.import_user_module({location!r}) in Python."
        )


def _is_installed(module: ModuleType) -> bool:
    """Whether a module is Python's own or lies where packages are installed."""
    if module.__name__ == "__main__":
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return True
    places = (sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(Path(file).resolve().is_relative_to(Path(place).resolve()) for place in places)


def import_location(location: str) -> ModuleType:
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
    """Whether `import_location(location)` would run no code."""
    return imported_module(location) is not None


def imported_module(location: str) -> ModuleType | None:
    """The module of that name or file if it is imported already."""
    if not _is_file(location):
        return sys.modules.get(location)
    path = Path(location)
    module = sys.modules.get(_module_of(path)[0])
    return module if module is not None and _is_of(module, path) else None


def _is_of(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path.resolve()


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
    name, root = _module_of(path)
    taken = sys.modules.get(name)
    if taken is None:
        _search_first(str(root))
        taken = _import(name, str(path), ())
    if not _is_of(taken, path):
        raise InvalidValueError(
            f"{str(path)!r} cannot be imported: its name {name!r} is that of another module, "
            f"{getattr(taken, '__file__', None) or 'built into Python'}; rename the file."
        )
    return taken


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
