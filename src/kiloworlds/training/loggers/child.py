"""The process in which a tracker lives.

A tracker may hang for minutes where there is no network, leave threads and exit handlers behind that
wait, or crash. So each lives in a process of its own, which reads rows from a pipe and can be killed.
When the pipe ends, because training has ended or was killed, it has so many seconds left.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kiloworlds.training.loggers.base import LoggedRun, Logger, Point
from kiloworlds.training.loggers.known import make_logger
from kiloworlds.training.loggers.points import to_point
from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.metrics_file import read_rows

FOLDER = "loggers"
"""In the run directory: what trackers print, and how far they got."""

_LOOK_SECONDS = 0.25
_PIPE_BYTES = 1 << 16


@dataclass(frozen=True)
class Patience:
    """How long a tracker may take.

    Attributes:
        call: seconds for a call until it is said that it hangs.
        end: seconds to its end, once training has ended.
    """

    call: float = 60.0
    end: float = 8.0


class Reports:
    """Tells the process that trains, one JSON object a line."""

    def __init__(self, descriptor: int):
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")

    def tell(self, **what: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, and nobody is left to hear it
            self._file.write(json.dumps(what) + "\n")
            self._file.flush()


class Watch:
    """A thread that sees when a call hangs and when the pipe has ended, and ends the process if it is
    still there some time later."""

    def __init__(self, pipe: int, patience: Patience, reports: Reports):
        self._pipe, self._patience, self._reports = pipe, patience, reports
        self._call_began: float | None = None
        self._ends_at: float | None = None
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around each call of a tracker."""
        self._call_began = time.monotonic()
        yield
        self._call_began = None

    def end(self) -> None:
        """From now on it has the seconds to its end."""
        if self._ends_at is None:
            self._ends_at = time.monotonic() + self._patience.end

    def _look(self) -> None:
        pipe = select.poll()
        pipe.register(self._pipe, 0)  # tells of nothing but its end
        has_told = False
        while True:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if pipe.poll(0):
                self.end()
            began = self._call_began
            if not has_told and began is not None and now - began > self._patience.call:
                has_told = True
                self._reports.tell(hangs=self._patience.call)
            if self._ends_at is not None and now > self._ends_at:
                self._reports.tell(late=self._patience.end)
                os._exit(1)  # whatever else waits: threads, exit handlers


def main(name: str, descriptor: int) -> None:
    """Logs what comes through standard input with the logger of this name."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for training, whose end ends the pipe
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(descriptor, False)  # else what a tracker starts keeps both pipes open
    reports = Reports(descriptor)
    pipe = os.fdopen(os.dup(0), "rb", buffering=0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    first = json.loads(pipe.readline() or "null")
    if first is None:
        return
    run = LoggedRun(**first["run"] | {"path": Path(first["run"]["path"])})
    watch = Watch(pipe.fileno(), Patience(**first["patience"]), reports)
    try:
        logger = make_logger(name)
        with _alone(run.path / FOLDER / f"{name}.log"):
            _serve(logger, run, pipe, watch, reports, run.path / FOLDER / f"{name}.step")
    except Exception as error:  # any of a tracker's
        watch.end()
        traceback.print_exc()  # into its log, to which the report points
        reports.tell(failed=f"{type(error).__name__}: {' '.join(str(error).split())}")
        sys.exit(1)
    reports.tell(closed=True)


def _serve(
    logger: Logger, run: LoggedRun, pipe: BinaryIO, watch: Watch, reports: Reports, mark: Path
) -> None:
    with watch.call():
        started = logger.start(run)
    reports.tell(where=started.where)
    newest = _read(mark) if started.newest is None else started.newest
    is_ok = False

    def log(points: list[Point]) -> None:
        points = [point for point in points if point.step > newest]  # else it has them already
        if not points:
            return
        with watch.call():
            logger.log(points)
        if started.newest is None:
            with contextlib.suppress(OSError):  # only a resumed run would need it
                mark.write_text(str(points[-1].step))

    log(_missing(run, newest))
    for messages in _waiting(pipe):
        is_ok = any(message.get("ok", False) for message in messages)
        log([to_point(message["row"], message["time"]) for message in messages if "row" in message])
    with watch.call():
        logger.close(is_ok)


def _waiting(pipe: BinaryIO) -> Iterator[list[dict[str, Any]]]:
    """The messages that have come, all at once, whenever some have."""
    torn = b""
    while data := os.read(pipe.fileno(), _PIPE_BYTES):
        *lines, torn = (torn + data).split(b"\n")
        yield [json.loads(line) for line in lines]


def _missing(run: LoggedRun, newest: int) -> list[Point]:
    """Rows until now that the tracker does not have: it was chosen later, or was down."""
    if newest >= run.step:
        return []
    try:
        rows, _ = read_rows(run.path)
    except RunDirectoryError:  # training goes on without, and says so where it matters
        return []
    rows = [row for row in rows if row["step"] <= run.step]
    began = time.time() - (rows[-1]["seconds"] if rows else 0.0)
    # The times are as if training had never paused.
    return [to_point(row, began + row["seconds"]) for row in rows]


def _read(mark: Path) -> int:
    try:
        return int(mark.read_text())
    except (OSError, ValueError):  # none, or a torn one
        return -1


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Waits for the process that did the same before training was killed and resumed, if it has not
    ended yet."""
    try:
        lock = file.open("a")
    except OSError:  # a directory that cannot be written: the tracker may be elsewhere
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def describe(run: LoggedRun, patience: Patience) -> dict[str, Any]:
    """The first line of the pipe."""
    return {
        "run": dataclasses.asdict(run) | {"path": str(run.path.absolute())},
        "patience": dataclasses.asdict(patience),
    }
