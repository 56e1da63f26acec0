"""Which loggers a run has: `loggers.json` in its directory.

They are no settings of the training, which is the same with and without them, so `config.yaml` does not
name them: a configuration that is handed on starts no uploads to anybody's tracker.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.loggers.known import check_loggers
from kiloworlds.training.run_errors import reading

NAME = "loggers.json"


@dataclass(frozen=True)
class Choice:
    """Attributes:
    names: of the loggers.
    identity: by which trackers know the run, also after it was resumed.
    """

    names: tuple[str, ...]
    identity: str

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self)) + "\n"


def choose(log: str | Sequence[str] | None, old: Path | None) -> Choice | None:
    """The loggers of a training; None where there are none and never were.

    Args:
        log: those that were asked for; None: those that the run had, if there is one to go on with.
        old: the directory of that run.

    Raises:
        UnknownNameError, MissingDependencyError, InvalidValueError: see `check_loggers`.
        RunDirectoryError: `loggers.json` is damaged.
    """
    earlier = None if old is None else _read(old / NAME)
    if log is None:
        return None if earlier is None else Choice(check_loggers(earlier.names), earlier.identity)
    names = check_loggers(log)
    if earlier is not None:
        return Choice(names, earlier.identity)
    return Choice(names, uuid.uuid4().hex[:12]) if names else None


def _read(file: Path) -> Choice | None:
    if not file.exists():
        return None
    with reading(file):
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not isinstance(values.get("identity"), str):
            raise InvalidValueError("it does not tell the identity of the run.")
        return Choice(tuple(values.get("names", ())), values["identity"])
