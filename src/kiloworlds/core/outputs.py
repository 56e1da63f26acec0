"""Files and directories that a command was told to write, checked before its work begins."""

import os
from pathlib import Path

from kiloworlds.core.errors import InvalidValueError


def check_output_file(path: Path, example: str) -> None:
    """Raises InvalidValueError where no file can be written at `path`.

    Args:
        example: how such a file could be called.
    """
    if path.is_dir():
        near = str(path / example)
        raise InvalidValueError(f"{str(path)!r} is a directory; name a file, such as {near!r}.")
    _check_folder(path.parent, path)


def check_output_directory(path: Path) -> None:
    """Raises InvalidValueError where `path` is no directory and cannot become one."""
    _check_folder(path, path)


def _check_folder(folder: Path, path: Path) -> None:
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        why = f"{str(existing)!r} is a file; name a directory"
    elif not os.access(existing, os.W_OK | os.X_OK):
        why = f"nothing may be written into {str(existing)!r}; name another place"
    else:
        return
    raise InvalidValueError(f"{str(path)!r} cannot be written: {why}.")
