"""What a tracker is told, and what each must offer."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class LoggedRun:
    """The run that is logged.

    Attributes:
        path: its directory.
        identity: a word that is the run's alone and stays its own when it is resumed.
        config: its settings.
        step: where training begins or goes on. What a tracker holds of later steps was cut back.
        num_members: trainings side by side.
        member_settings: of a population, each member's own settings, and its seed; () without.
    """

    path: Path
    identity: str
    config: dict[str, Any]
    step: int = 0
    num_members: int = 1
    member_settings: Sequence[dict[str, Any]] = ()

    @functools.cached_property
    def member_names(self) -> list[str]:
        """Of the trainings side by side, for names of metrics and files: such as "seed_0", or of a
        population "learning_rate_0.001_seed_3"."""
        if not self.member_settings:
            return [f"seed_{index}" for index in range(self.num_members)]
        names = [_as_word(entry) for entry in self.member_settings]
        return [
            name if names.count(name) == 1 else f"{name}_{index}"
            for index, name in enumerate(names)
        ]

    @property
    def name(self) -> str:
        """For people; several runs may share it."""
        return self.path.resolve().name

    @property
    def unique_name(self) -> str:
        """For trackers that know runs by their names."""
        return f"{self.name}-{self.identity}"


def _as_word(settings: dict[str, Any]) -> str:
    words = "_".join(f"{name}_{value}" for name, value in settings.items())
    return re.sub("[^A-Za-z0-9_.-]+", "-", words)


@dataclass(frozen=True)
class Point:
    """A row of metrics as trackers take it: finite numbers by name.

    Attributes:
        step: environment steps so far, of one seed.
        time: when, in seconds since 1970.
        values: means over the seeds.
        by_seed: those of each seed, where there are several.
    """

    step: int
    time: float
    values: dict[str, float]
    by_seed: tuple[dict[str, float], ...] = ()

    def flat(self, run: LoggedRun) -> dict[str, float]:
        """All values, each seed's under `NAME/seed_I`; see `LoggedRun.member_names`."""
        seeds = {
            f"{name}/{member}": value
            for member, values in zip(run.member_names, self.by_seed, strict=False)
            for name, value in values.items()
        }
        return self.values | seeds


@dataclass(frozen=True)
class Started:
    """What a tracker answers at the start.

    Attributes:
        where: how people get to see the run: an address or a command.
        newest: the step of the newest row it holds of the run, -1 without any; None if it cannot tell.
    """

    where: str
    newest: int | None


class Logger(Protocol):
    """Hands a run to a tracker. Lives in a process of its own (see `kiloworlds.training.loggers.child`):
    it may raise, hang or crash."""

    def start(self, run: LoggedRun) -> Started:
        """Opens the run, or goes on with it."""
        ...

    def log(self, points: Sequence[Point]) -> None:
        """Takes rows, all that wait. Steps only ever grow."""
        ...

    def close(self, ok: bool) -> None:
        """Ends the run.

        Args:
            ok: whether training ended in good order.
        """
        ...
