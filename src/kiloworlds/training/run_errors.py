"""What goes wrong with run directories."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kiloworlds.core.errors import InvalidValueError, KiloworldsError


class RunDirectoryError(KiloworldsError, OSError):
    """A run directory that cannot be written or read."""


class NoRunError(RunDirectoryError, InvalidValueError):
    """A path at which there is no run."""


@contextlib.contextmanager
def reading(part: Path) -> Iterator[None]:
    """Turns whatever goes wrong while `part` of a run is read into RunDirectoryError.

    YAML and JSON raise several kinds of errors for damaged files.
    """
    try:
        yield
    except RunDirectoryError:
        raise
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{str(part)!r} is missing.") from error
    except Exception as error:
        words = " ".join(str(error).split())
        reason = words if isinstance(error, KiloworldsError) else f"{type(error).__name__}: {words}"
        raise RunDirectoryError(
            f"{str(part)!r} is damaged, or not of this run: {reason[:300]}"
        ) from error
