"""Hands rows of metrics to trackers, whatever becomes of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kiloworlds.training.loggers.base import LoggedRun
from kiloworlds.training.loggers.child import FOLDER, Patience, describe

_WAITING = 1000
"""Rows that wait for a tracker at most."""

_PATIENCE = Patience()
_GRACE = 1.0
"""Seconds that a process has beyond its patience."""

_LATE = "did not end in time after training and was killed"

# As multiprocessing does: what can be imported here can be there.
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from kiloworlds.training.loggers.child import main; main(sys.argv[2], int(sys.argv[3]))"
)

Say = Callable[[str], None]


class Loggers:
    """The trackers of a training; use as a context manager around it.

    Rows go through a queue and a pipe to a process for each tracker, so training waits for none. Of a
    tracker that fails, one sentence is said and no more is heard; one that hangs misses the oldest of
    the rows that wait, once they are too many. When training ends, trackers have ten seconds together.

    Args:
        names: of the loggers.
        say: hears where a run can be seen, and what goes wrong.
    """

    def __init__(self, names: tuple[str, ...], say: Say):
        self._names, self._say = names, say
        self._feeds: list[Feed] = []

    def __enter__(self) -> "Loggers":
        return self

    def start(self, run: LoggedRun) -> None:
        """Begins to log."""
        self._feeds = [Feed(name, run, self._say) for name in self._names]

    def log(self, row: dict[str, Any]) -> None:
        """Takes a row of metrics."""
        if self._feeds:
            line = json.dumps({"row": row, "time": time.time()}).encode() + b"\n"
            for feed in self._feeds:
                feed.offer(line)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for feed in self._feeds:
            feed.end(kind is None)
        until = time.monotonic() + _PATIENCE.end + _GRACE
        for feed in self._feeds:
            feed.close(until)


class Feed:
    """One tracker; see `Loggers`."""

    def __init__(self, name: str, run: LoggedRun, say: Say):
        self._name, self._say = name, say
        self._has_warned = self._is_over = self._ends = False
        self._dropped = 0
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque([json.dumps(describe(run, _PATIENCE)).encode() + b"\n"])
        self._log = run.path / FOLDER / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process, reports = self._start()
        except OSError as error:
            self._warn(f"cannot be started ({error.strerror or error})")
            return
        self._threads = [
            threading.Thread(target=self._write, name=f"to {name}", daemon=True),
            threading.Thread(
                target=self._listen, args=(reports,), name=f"from {name}", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    def _start(self) -> tuple[subprocess.Popen[bytes], int]:
        path = json.dumps([str(entry) for entry in sys.path])
        reports, theirs = os.pipe()
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, theirs)
            output: Any = subprocess.DEVNULL
            with contextlib.suppress(OSError):  # what it prints is lost, and nothing else
                self._log.parent.mkdir(exist_ok=True)
                output = opened.enter_context(self._log.open("ab"))
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", _CODE, path, self._name, str(theirs)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=(theirs,),
                    start_new_session=True,  # Ctrl-C is for training, which then ends it
                )
            except OSError:
                os.close(reports)
                raise
        return process, reports

    def offer(self, line: bytes) -> None:
        """Has a row logged soon."""
        with self._changed:
            if self._is_over:
                return
            if len(self._lines) >= _WAITING:
                del self._lines[1 if self._lines[0].startswith(b'{"run"') else 0]
                self._dropped += 1
            self._lines.append(line)
            self._changed.notify_all()

    def end(self, ok: bool) -> None:
        """Says that no more rows will come."""
        with self._changed:
            self._lines.append(json.dumps({"ok": ok}).encode() + b"\n")
            self._ends = True
            self._changed.notify_all()

    def close(self, until: float) -> None:
        """Returns when all is logged, or at a time (of the monotonic clock)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._warn(_LATE)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for thread in self._threads:
            thread.join(_GRACE)  # a process that the tracker left behind may hold its pipe
        if self._dropped:
            self._warn(f"was too slow: {self._dropped} rows are left out there")
        with contextlib.suppress(OSError):  # somebody removed it, or it holds more
            if not self._log.stat().st_size:
                self._log.unlink()
                self._log.parent.rmdir()

    def _write(self) -> None:
        """Hands lines to the process."""
        pipe: Any = self._process and self._process.stdin
        with contextlib.suppress(OSError):  # it has ended: who listens hears why
            while (line := self._next()) is not None:
                pipe.write(line)
                pipe.flush()
        with self._changed:
            self._is_over = True
            self._lines.clear()
        with contextlib.suppress(OSError):  # the same, for what is still in the buffer
            pipe.close()

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ends or self._is_over)
            return self._lines.popleft() if self._lines and not self._is_over else None

    def _listen(self, reports: int) -> None:
        """Hears of the process until it ends."""
        was_closed = False
        with os.fdopen(reports, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                report = json.loads(line)
                if "where" in report:
                    self._say(f"logs to {self._name}: {report['where']}")
                elif "hangs" in report:
                    self._warn(
                        f"has not answered for {report['hangs']:g} s; the newest {_WAITING} rows wait "
                        "for it"
                    )
                elif "late" in report and not was_closed:
                    self._warn(_LATE)
                elif "failed" in report:
                    self._warn(f"failed and gets no more rows ({report['failed']})")
                was_closed = was_closed or "closed" in report
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        if not was_closed:
            self._warn("ended by itself")

    def _warn(self, what: str) -> None:
        """Says what is wrong, but for the first thing nothing: the rest follows from it."""
        with self._changed:
            if self._has_warned:
                return
            self._has_warned = True
        see = f" What it printed is in {str(self._log)!r}." if _has_content(self._log) else ""
        self._say(
            f"the logger {self._name} {what}. Training is as without it, and metrics.jsonl has all rows."
            f"{see}"
        )


def _has_content(file: Any) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
