"""The loop around a training: rows of metrics, checkpoints, and when to stop."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.fused_loop import CHUNK, UpdateMetrics
from kiloworlds.training.report import Report, Row
from kiloworlds.training.storage.arrays import Arrays, part
from kiloworlds.training.storage.checkpoint import Checkpoint, NoCheckpointError
from kiloworlds.training.storage.checkpoint_writer import Snapshot, SnapshotWriter
from kiloworlds.training.storage.run_files import RunFiles
from kiloworlds.training.survival.divergence import Divergence
from kiloworlds.training.survival.interrupts import run_or_leave
from kiloworlds.training.survival.lifeline import Lifeline

_ROWS = 100
"""Rows of metrics of a training, at least."""

_CALL_SECONDS = 1.0
"""About how long a call of the compiled program lasts, after which a signal is heard."""

_PROGRESS_SECONDS = 10.0
"""Between two signs of life."""

_FIRST_SAVE = 5.0
"""Seconds to the first checkpoint, at most: nothing that is killed early has nothing to go on from."""

_COPY_SHARE = 0.005
"""At most so much of the time is spent on copying the state for checkpoints, unless settings ask."""

_MEMORY_SECONDS = 0.5
"""Between two snapshots in memory."""

STATE, _REPORT, _DIVERGENCE = "state/", "report/", "divergence/"
"""What the names of arrays in a checkpoint begin with."""


class Training(Protocol):
    """What all loops offer."""

    backend: Any

    def init(self) -> Any:
        """The state before the first update."""
        ...

    def run(
        self, state: Any, count: int, stop: Callable[[], bool] = ...
    ) -> tuple[Any, UpdateMetrics]:
        """Runs at most `count` updates; metrics are `[S, U]`."""
        ...

    def save(self, state: Any) -> Arrays:
        """Copies of all that determines how it goes on."""
        ...

    def restore(self, arrays: Arrays, say: Callable[[str], None]) -> tuple[Any, int]:
        """The state that `save` gave and how many updates it had; `say` hears what is not as it was."""
        ...

    def roll_back(self, state: Any, arrays: Arrays | None, seeds: list[int], number: int) -> Any:
        """The state with some seeds as `save` gave them (None: as they began) and other random numbers
        from here on."""
        ...

    def host_metrics(self) -> dict[str, float]:
        """What else goes into a row."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


class Trainer:
    """Trains from the first update, or from a checkpoint, to the last.

    Rows end after fixed numbers of updates, so that the same training gives the same rows, whenever it
    was interrupted and however fast the machine is. Checkpoints may be taken in between.

    Args:
        config: the settings.
        training: the loop.
        files: of the run.
        on_row: called with every row as it is written.
        on_progress: called with what the row would be now, where rows are far apart and where training
            is interrupted.
        lifeline: where signs of life and snapshots go, if there is a supervisor.
        until: how many updates; all that the settings ask for if None.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: Training,
        files: RunFiles,
        on_row: Callable[[Row], None],
        on_progress: Callable[[Row], None],
        lifeline: Lifeline | None = None,
        until: int | None = None,
    ):
        self.config, self.training, self.files = config, training, files
        self._on_row, self._on_progress = on_row, on_progress
        self._lifeline = lifeline
        self._until = config.num_updates if until is None else until
        self._copier = None if lifeline is None else SnapshotWriter(lifeline.keep, _raise_error)
        self._next_copy = 0.0
        self._per_row = int(np.clip(config.num_updates // _ROWS, 1, CHUNK))
        self._report = Report(config)
        self._divergence = Divergence(config, self._tell)
        self._state: Any = None
        self.done = 0
        """Updates so far."""
        self._began_at = 0
        self._score: float | None = None
        self._next_save = time.perf_counter()
        self._shown = time.perf_counter()
        self._per_second: float | None = None  # updates, in the last call; None before one

    def start(self, stop: Callable[[], bool]) -> None:
        """Begins with the first update.

        Raises:
            InterruptedEarlyError: `stop()` says so while programs compile.
        """
        self._state = run_or_leave(self.training.init, stop)

    def go_on(self, checkpoint: Checkpoint, stop: Callable[[], bool], is_saved: bool) -> None:
        """Goes on from a checkpoint; metrics written after it are cut off.

        Args:
            is_saved: whether it is on the disk.

        Raises:
            InvalidValueError: it does not fit the settings.
            InterruptedEarlyError: `stop()` says so while programs compile.
        """
        arrays, facts = part(checkpoint.arrays, STATE), checkpoint.facts
        restored = run_or_leave(lambda: self.training.restore(arrays, self.files.say), stop)
        self._state, self.done = restored
        self._report = Report(self.config, facts["seconds"])
        self._report.restore(part(checkpoint.arrays, _REPORT), facts["report"])
        self._divergence.restore(part(checkpoint.arrays, _DIVERGENCE))
        lost = self.files.metrics.cut_back(facts["metrics"])
        if lost:
            self.files.say(f"the system lost {lost} bytes of metrics before the checkpoint.")
        self._began_at = self.done if is_saved else -1

    def run(self, stop: Callable[[], bool]) -> None:
        """Trains until the end, or until `stop()` says so.

        Raises:
            DivergedError: numbers are not finite, and settings say to stop, or no seed can go on.
        """
        first = min(self.config.checkpoint_seconds or 0.0, _FIRST_SAVE)
        self._next_save = time.perf_counter() + first
        while self.done < self._until and not stop():
            began, compiles = time.perf_counter(), self._per_second is None
            self._state, metrics = self.training.run(self._state, self._count(), stop)
            updates = metrics.episodes.ended.shape[1]
            self.done += updates
            self._per_second = updates / (time.perf_counter() - began) if not compiles else 0.0
            self._report.add(metrics, compiles)
            self._mend(self._divergence.watch(metrics.fault, self.done - updates))
            self._write(self.done in (self._row_end(self.done - 1), self._until))
            if self._is_checkpoint_due():
                self._offer()
            self._live()
        if not self._report.is_empty:  # interrupted within a row
            self._on_progress(self._report.preview(self.done))

    def _count(self) -> int:
        """How many updates to run in one call: to the end of the row, a checkpoint, or a while."""
        until = [self._row_end(self.done), self._until]
        every = self.config.checkpoint_updates
        if every is not None:
            until.append((self.done // every + 1) * every)
        fit = max(1, int(_CALL_SECONDS * (self._per_second or 0.0)))
        return min(min(until) - self.done, fit)

    def _row_end(self, done: int) -> int:
        return (done // self._per_row + 1) * self._per_row

    def _write(self, row_ends: bool) -> None:
        now = time.perf_counter()
        if row_ends:
            row: Row = self._report.row(self.done) | self.training.host_metrics()
            self._score = _mean(row["rollout/ep_rew_mean"])
            self.files.write_row(row)
            self._on_row(row)
        elif now - self._shown > _PROGRESS_SECONDS:
            self._on_progress(self._report.preview(self.done))
        else:
            return
        self._shown = now

    def _tell(self, words: str, event: str, **facts: Any) -> None:
        self.files.say(words)
        self.files.event(event, **facts)

    def _mend(self, seeds: list[int]) -> None:
        """Has seeds go on from the newest checkpoint, or from the start if there is none."""
        if not seeds:
            return
        number = self._divergence.number
        arrays, step = None, 0
        with contextlib.suppress(NoCheckpointError):
            checkpoint = self.files.newest()
            arrays, step = part(checkpoint.arrays, STATE), checkpoint.step
        self._state = self.training.roll_back(self._state, arrays, seeds, number)
        several = self.config.population  # whose members have the same seeds
        named = [seed if several else self.config.member(seed)[1] for seed in seeds]
        who = "; ".join(self.config.member_names[seed] for seed in seeds)
        verb = "goes" if len(seeds) == 1 else "go"
        self._tell(
            f"{who} {verb} on from step {step} with other random numbers.",
            "rolled back",
            seeds=named,
            from_step=step,
            at_step=self.done * self.config.steps_per_update,
            update=self.done,
        )

    def _is_checkpoint_due(self) -> bool:
        if self.done == self._until:  # which the last one is
            return False
        if self.config.checkpoint_updates is not None:
            return self.done % self.config.checkpoint_updates == 0
        return self.config.checkpoint_seconds is not None and time.perf_counter() >= self._next_save

    def _offer(self) -> None:
        began = time.perf_counter()
        self.files.offer(self.snapshot())
        self._next_save = _next_time(began, self.config.checkpoint_seconds or 0.0)

    def _live(self) -> None:
        """Gives a sign of life, and has the supervisor keep the state."""
        if self._lifeline is None or self._copier is None:
            return
        self._lifeline.beat(self.done)
        if time.perf_counter() >= self._next_copy:
            began = time.perf_counter()
            self._copier.offer(self.snapshot())
            self._next_copy = _next_time(began, _MEMORY_SECONDS)

    @property
    def is_interrupted(self) -> bool:
        """Whether updates are left that were wanted."""
        return self.done < self._until

    def close(self) -> None:
        """Ends what copies the state for the supervisor."""
        if self._copier is not None:
            self._copier.close()

    def snapshot(self) -> Snapshot:
        """All that determines how training goes on."""
        report, names = self._report.save()
        arrays = {
            f"{STATE}{name}": array for name, array in self.training.save(self._state).items()
        }
        arrays |= {f"{_REPORT}{name}": array for name, array in report.items()}
        arrays |= {f"{_DIVERGENCE}{name}": array for name, array in self._divergence.save().items()}
        facts = {
            "score": self._score,
            "seconds": self._report.seconds,
            "report": names,
            "metrics": self.files.metrics.position(),
        }
        return Snapshot(self.done * self.config.steps_per_update, arrays, facts)

    def last_snapshot(self) -> Snapshot | None:
        """The same at the end; None where nothing was learnt since training began or went on."""
        return None if self.done == self._began_at else self.snapshot()


def _next_time(began: float, seconds: float) -> float:
    """When to copy the state again: after so long, or longer where copying takes its time."""
    now = time.perf_counter()
    return now + max(seconds, (now - began) / _COPY_SHARE)


def _raise_error(error: Exception | None) -> None:
    """Memory that cannot be written ends training: a supervisor that is deceived is worse than none."""
    if error is not None:
        raise error


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
