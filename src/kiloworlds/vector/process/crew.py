"""Which worker of a pool runs which environment."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.handle import WorkerHandle
from kiloworlds.vector.process.memory import SharedArrays

_LEAVE_TIMEOUT = 10.0
"""Seconds that a worker which has nothing left to run gets to close its environments."""


class Crew:
    """The workers of a pool, one for each range of environments; N environments, W workers.

    One worker at a time may have a successor: a worker that has built the same environments and takes
    over each when its episode ends. When it has all, the other leaves.

    Args:
        ranges: of environments, one per worker.
        hire: starts a worker: `hire(number)`.

    Attributes:
        workers: `[W]`, who runs each range; None for one that is to be started again.
        successor: who takes over from the worker of its number; None most of the time.
        num_successions: how often one has taken over.
    """

    def __init__(self, ranges: list[range], hire: Callable[[int], WorkerHandle]):
        self.ranges, self._hire = ranges, hire
        self.workers: list[WorkerHandle | None] = [None] * len(ranges)
        self.successor: WorkerHandle | None = None
        self.num_successions = 0
        self._moved = np.zeros(ranges[-1].stop, bool)  # to the successor
        self._leaving: list[tuple[WorkerHandle, float]] = []
        self._free_slots = list(range(len(ranges) + 1))

    def start(self, number: int) -> WorkerHandle:
        """Starts the worker of a range."""
        worker = self.workers[number] = self._hire(number)
        return worker

    def start_successor(self, number: int) -> WorkerHandle:
        """Starts one that takes over from the worker `number` by and by."""
        self.successor = self._hire(number)
        return self.successor

    def attach(self, worker: WorkerHandle, layout: protocol.Layout, memory: SharedArrays) -> None:
        """Shares the memory with a worker that has built its environments."""
        worker.attach(layout, self._free_slots.pop(), memory)

    def present(self) -> list[WorkerHandle]:
        """All that run environments, or are about to."""
        return [worker for worker in (*self.workers, self.successor) if worker is not None]

    def all_live(self) -> bool:
        """Whether there is a worker with its environments for every range."""
        return all(worker is not None and worker.is_live for worker in self.workers)

    @property
    def may_recycle(self) -> bool:
        """Whether a successor may be started: one succession at a time, when nobody is missing."""
        return self.successor is None and not self._leaving and self.all_live()

    @property
    def hands_over(self) -> bool:
        """Whether environments pass from one worker to another now."""
        return self.successor is not None and self.successor.is_live

    def by_worker(self, rows: np.ndarray) -> Iterator[tuple[WorkerHandle | None, np.ndarray]]:
        """Splits environments by who runs them; None stands for a worker that is missing."""
        for number, range_ in enumerate(self.ranges):
            mine = rows[(rows >= range_.start) & (rows < range_.stop)]
            if self.successor is not None and self.successor.number == number:
                moved = self._moved[mine]
                yield self.successor, mine[moved]
                mine = mine[~moved]
            yield self.workers[number], mine

    def rows_of(self, worker: WorkerHandle) -> np.ndarray:
        """The environments a worker runs now."""
        rows = np.arange(worker.rows.start, worker.rows.stop)
        if self.successor is None or self.successor.number != worker.number:
            return rows
        moved = self._moved[rows]
        return rows[moved if worker is self.successor else ~moved]

    def hand_over(self, rows: np.ndarray) -> np.ndarray:
        """The successor takes those of `rows`, between two episodes, that are in its range.

        Returns:
            Which it took.
        """
        assert self.successor is not None
        range_ = self.successor.rows
        taken = rows[(rows >= range_.start) & (rows < range_.stop) & ~self._moved[rows]]
        self._moved[taken] = True
        return taken

    def let_go(self, idle: np.ndarray) -> WorkerHandle | None:
        """Lets the successor have the place of a worker that has nothing left to run.

        Args:
            idle: boolean `[N]`, environments that nobody steps any more.

        Returns:
            The worker that leaves; None if it still has environments.
        """
        successor = self.successor
        assert successor is not None
        range_ = slice(successor.rows.start, successor.rows.stop)
        if not (self._moved | idle)[range_].all():
            return None
        worker = self.workers[successor.number]
        assert worker is not None
        self.workers[successor.number], self.successor = successor, None
        self._moved[range_] = False
        self.num_successions += 1
        worker.send(protocol.Close())
        self._leaving.append((worker, time.monotonic() + _LEAVE_TIMEOUT))
        return worker

    def remove(self, worker: WorkerHandle) -> tuple[np.ndarray, WorkerHandle | None]:
        """Strikes a worker that has ended from the list.

        Returns:
            The environments it ran, and who runs them from now on; None if nobody does.
        """
        rows, heir = self.rows_of(worker), None
        if self.successor is not None and self.successor.number == worker.number:
            heir = self.workers[worker.number] if worker is self.successor else self.successor
            self.successor = None
            self._moved[worker.rows.start : worker.rows.stop] = False
        self.workers[worker.number] = heir
        self._free(worker)
        return rows, heir

    def _free(self, worker: WorkerHandle) -> None:
        if worker.is_live:
            self._free_slots.append(worker.slot)
        worker.free()

    def see_off(self, now: float) -> None:
        """Frees the workers that have left; those that take too long are ended."""
        for leaving in list(self._leaving):
            worker, deadline = leaving
            if worker.has_ended() or now > deadline:
                self._leaving.remove(leaving)
                worker.stop(0.0)
                self._free_slots.append(worker.slot)

    def dismiss(self) -> list[WorkerHandle]:
        """All that are there; the crew then has none."""
        found = [*self.present(), *(worker for worker, _ in self._leaving)]
        self.workers[:] = [None] * len(self.workers)
        self.successor = None
        self._leaving.clear()
        return found
