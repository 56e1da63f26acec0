"""The errors users meet, and the sentences they read.

Every message says what was given, what is allowed and the nearest valid value.
"""

import difflib
from collections.abc import Iterable


class KiloworldsError(Exception):
    """Base of the errors raised for wrong use; the command line prints them without a traceback."""


class UnknownNameError(KiloworldsError, KeyError):
    """An id, algorithm or setting that does not exist."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


class InvalidValueError(KiloworldsError, ValueError):
    """A value outside what a setting, space or call allows."""


class WrongCallError(KiloworldsError, RuntimeError):
    """A call out of order, such as a step before a reset or after close."""


class StateUnavailableError(KiloworldsError, RuntimeError):
    """Environments that save their states cannot do so just now."""


class MissingDependencyError(KiloworldsError, ImportError):
    """An optional package is needed; the message carries the install command."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'a' or 'b'?", or "" where nothing known is near `name`."""
    lowered: dict[str, str] = {}
    for candidate in known:
        lowered.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.55)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(lowered[match]) for match in near)}?"


def unknown_name(kind: str, name: str, known: Iterable[str], see: str) -> UnknownNameError:
    """Builds the error for an unknown `kind` ("environment", "algorithm", ...) called `name`.

    `see` tells where all valid names are listed, for example "run `kiloworlds list`".
    """
    known = list(known)
    return UnknownNameError(
        f"Unknown {kind} {name!r}.{did_you_mean(name, known)} To see all: {see}."
    )
