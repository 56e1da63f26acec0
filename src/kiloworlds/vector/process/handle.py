"""The pool's side of one worker process."""

import contextlib
import itertools
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.signals import Signal

_MODULE = "kiloworlds.vector.process.worker"


class WorkerHandle:
    """Starts a worker process, speaks to it, and tells how it ended.

    Args:
        number: which worker of the pool.
        setup: what it runs, pickled by `pickle_setup`.
        rows: the environments it runs.

    Attributes:
        rows: the range of its environments' numbers.
        is_live: whether it has built its environments and shares the memory.
    """

    def __init__(self, number: int, setup: bytes, rows: range):
        self.number, self.rows = number, rows
        self.is_live = False
        self.slots: dict[int, tuple[str, str]] = {}
        """Key and kind of the scalar info in each slot of the shared memory."""
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self.inbox, self.outbox = Signal.create(), Signal.create()
        passed = [
            theirs.fileno(),
            lifeline,
            self.inbox.read_fd,
            self.inbox.write_fd,
            self.outbox.read_fd,
            self.outbox.write_fd,
        ]
        root = str(Path(__file__).parents[3])  # of the package, wherever it is installed
        known = os.environ.get("PYTHONPATH")
        # One thread per worker in numerical libraries: the workers are what fills the cores.
        environment = {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            **os.environ,
            "PYTHONPATH": os.pathsep.join([root, known] if known else [root]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(number), *map(str, passed)],
            pass_fds=sorted(set(passed)),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C on the terminal is for this process, not for workers
            env=environment,
        )
        theirs.close()
        os.close(lifeline)
        self.control = Connection(ours.detach())
        self.ended_fd = os.pidfd_open(self.process.pid)  # readable when the process ends
        self._read = self._sent = 0
        self._seen_progress = -1
        self._progress_at = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended already, which its end tells better
            self.control.send(sys.path)
            self.control.send_bytes(setup)

    def attach(self, layout: protocol.Layout, memory: SharedArrays) -> None:
        """Shares the memory with a worker that is ready; it then serves."""
        self._inbox, self._outbox = memory["inbox"][self.number], memory["outbox"][self.number]
        self._progress = memory["progress"][self.number]
        self._progress[:] = 0
        memory["info_mask"][:, self.rows.start : self.rows.stop] = False
        with contextlib.suppress(OSError):
            self.control.send(protocol.Attach(layout))
            with socket.socket(fileno=os.dup(self.control.fileno())) as channel:
                socket.send_fds(channel, [b"m"], [memory.descriptor])
        self.is_live = True
        self.mark_progress()

    def push(self, entry: int) -> None:
        """Puts one entry into the inbox and wakes the worker."""
        self._inbox[self._sent % len(self._inbox)] = entry
        self._sent += 1
        self.inbox.post()

    def push_rows(self, rows: list[int]) -> None:
        """Asks for a step of some environments."""
        for row in rows:
            self._inbox[self._sent % len(self._inbox)] = row - self.rows.start
            self._sent += 1
        self.inbox.post(len(rows))

    def send(self, message: Any) -> None:
        """Sends a message; one to a worker that has ended goes nowhere."""
        self.push(protocol.MESSAGE)
        with contextlib.suppress(OSError):
            self.control.send(message)

    def take(self) -> list[int]:
        """The entries that wait in the outbox; sleeps until there is one."""
        size = len(self._outbox)
        count = self.outbox.take()
        entries = [int(self._outbox[(self._read + i) % size]) for i in range(count)]
        self._read += count
        return entries

    def has_entries(self) -> bool:
        """Whether `take` would return at once."""
        return bool(select.select([self.outbox.read_fd], [], [], 0)[0])

    @property
    def activity(self) -> int:
        """What it is at: `IDLE`, `STEPPING` or `RESETTING`."""
        return int(self._progress[1])

    @property
    def current_row(self) -> int:
        """The environment it is busy with, or was last."""
        return int(self._progress[2])

    def mark_progress(self) -> None:
        """The clock of the deadline starts now: work was just handed out."""
        self._progress_at = time.monotonic()
        if self.is_live:
            self._seen_progress = int(self._progress[0])

    def seconds_without_progress(self) -> float:
        """How long nothing was begun or ended."""
        if self.is_live and int(self._progress[0]) != self._seen_progress:
            self.mark_progress()
        return time.monotonic() - self._progress_at

    def kill(self) -> None:
        """Ends the process at once and waits until it is gone, so that nothing it does can come
        later."""
        self.process.kill()
        self.process.wait()

    def how_it_ended(self) -> str:
        """Exit code or signal, in words."""
        code = self.process.wait()
        if code >= 0:
            return f"ended with exit code {code} without being closed"
        name = signal.Signals(-code).name
        hint = " (likely out of memory)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"

    def free(self) -> None:
        """Gives all descriptors back."""
        self.control.close()
        self.inbox.close()
        self.outbox.close()
        os.close(self._lifeline)
        os.close(self.ended_fd)

    def stop(self, patience: float) -> None:
        """Waits `patience` seconds for a worker told to close, then kills it; frees everything."""
        if self.process.poll() is None:
            if self.is_live:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience)
            if self.process.poll() is None:
                self.kill()
        self.free()


def pickle_setup(setup: protocol.Setup) -> bytes:
    """Pickles a setup, lambdas and local classes included.

    Raises:
        InvalidValueError: something in it cannot be pickled, named.
    """
    try:
        return cloudpickle.dumps(setup)
    except (TypeError, pickle.PicklingError, AttributeError) as error:
        raise InvalidValueError(
            f"the function that makes the environment cannot be sent to a worker process: {error}. "
            f"{_culprits(setup.make_envs[0])}Create such things inside the function."
        ) from error


def _culprits(function: Any) -> str:
    """The variables a function captured that cannot be pickled, as a sentence."""
    closure = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    captured = dict(zip(names, (cell.cell_contents for cell in closure), strict=True))
    captured |= {
        name: function.__globals__[name]
        for name in getattr(getattr(function, "__code__", None), "co_names", ())
        if name in getattr(function, "__globals__", {})
    }
    found = []
    for name, value in captured.items():
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            found.append(f"{name!r} ({type(value).__name__}: {error})")
    return f"It uses {', '.join(found)}. " if found else ""


def share(num_envs: int, num_workers: int) -> list[range]:
    """Splits environment numbers into contiguous, nearly equal ranges."""
    ends = np.linspace(0, num_envs, num_workers + 1).round().astype(int).tolist()
    return [range(first, last) for first, last in itertools.pairwise(ends)]
