"""Saving checkpoints beside training."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.training.storage.arrays import Arrays

LEARNER = "state/learner/"
"""What the names of a learner's arrays begin with."""


class NotFiniteError(KiloworldsError, ArithmeticError):
    """A learner without any seed whose numbers are all finite."""


class Snapshot(NamedTuple):
    """What a checkpoint is made from; see `Checkpoint`."""

    step: int
    arrays: Arrays
    facts: dict[str, Any]


class SnapshotWriter:
    """Writes snapshots in a thread of its own.

    Training waits for none of them: one that comes while another is being written takes the place of
    any that waits already.

    Args:
        write: writes one.
        tell: called after each with the error, or None if it was written.
    """

    def __init__(
        self,
        write: Callable[[Snapshot], None],
        tell: Callable[[OSError | NotFiniteError | None], None],
    ):
        self._write, self._tell = write, tell
        self._changed = threading.Condition()
        self._waiting: Snapshot | None = None
        self._ends = self._is_writing = False
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
        self._thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Has a snapshot written soon."""
        with self._changed:
            self._raise_bug()
            self._waiting = snapshot
            self._changed.notify_all()

    def settle(self) -> None:
        """Returns when nothing that was offered waits or is being written."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._bug is not None or not (self._waiting or self._is_writing)
            )
            self._raise_bug()

    def close(self) -> None:
        """Returns when all that was offered is written."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()
        self._raise_bug()

    def _raise_bug(self) -> None:
        if self._bug is not None:
            raise self._bug

    def _work(self) -> None:
        while (snapshot := self._next()) is not None:
            try:
                self._write(snapshot)
                self._tell(None)
            except (OSError, NotFiniteError) as error:
                self._tell(error)
            except BaseException as error:  # a bug, for the thread that trains
                with self._changed:
                    self._bug = error
                    self._changed.notify_all()
                return

    def _next(self) -> Snapshot | None:
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting is not None or self._ends)
            snapshot, self._waiting = self._waiting, None
            self._is_writing = snapshot is not None
            return snapshot


def check_finite(snapshot: Snapshot) -> None:
    """Raises NotFiniteError where the numbers of no seed are all finite: such a checkpoint must not take
    the place of one that is."""
    finite: Any = True
    for name, array in snapshot.arrays.items():
        if name.startswith(LEARNER) and np.issubdtype(array.dtype, np.inexact):
            finite = finite & np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not np.any(finite):
        raise NotFiniteError(
            f"what was learnt until step {snapshot.step} is not finite; it is not saved."
        )
