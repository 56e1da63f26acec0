"""Workers that are processes of their own."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle

from kiloworlds.core import machine
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.handle import WorkerHandle

_MODULE = "kiloworlds.vector.process.worker"


class ProcessWorker(WorkerHandle):
    """A worker in a process of its own.

    Args:
        number: which worker of the pool.
        setup: what it runs.
        rows: the environments it runs.
        core: the only core it may use; None for any.

    Raises:
        InvalidValueError: a function in the setup cannot be pickled.
    """

    def __init__(self, number: int, setup: protocol.Setup, rows: range, core: int | None = None):
        pickled = _pickle_setup(setup)
        super().__init__(number, rows)
        lifeline, self._lifeline = os.pipe()
        passed = [
            self._theirs.fileno(),
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
            [sys.executable, "-P", "-m", _MODULE, *map(str, passed)],
            pass_fds=sorted(set(passed)),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C on the terminal is for this process, not for workers
            env=environment,
        )
        self._theirs.close()
        os.close(lifeline)
        self.ended_fd = os.pidfd_open(self.process.pid)
        self._resident = 0
        self._memory_kills = machine.out_of_memory_kills()
        with contextlib.suppress(OSError):  # it has ended already, which its end tells better
            if core is not None:
                os.sched_setaffinity(self.process.pid, {core})
            # A batch process does not interrupt who wakes it. Else the first worker that is given
            # work takes the pool's core, and the others get theirs when it has finished.
            os.sched_setscheduler(self.process.pid, os.SCHED_BATCH, os.sched_param(0))
            self.control.send(sys.path)
            self.control.send_bytes(pickled)

    def resident_memory(self) -> int:
        """Bytes of memory that only the process itself holds; when it has ended, what it held when
        last asked."""
        with contextlib.suppress(OSError, IndexError):
            statm = Path(f"/proc/{self.process.pid}/statm").read_text()
            _, resident, shared, *_ = map(int, statm.split())
            self._resident = (resident - shared) * os.sysconf("SC_PAGE_SIZE") or self._resident
        return self._resident

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def how_it_ended(self) -> str:
        code = self.process.wait()
        if code >= 0:
            return f"ended with exit code {code} without being closed"
        name = _signal_name(-code)
        if name != "SIGKILL":
            return f"was killed by {name}"
        held = f"it held {self._resident / 1e6:,.0f} MB when last seen"
        kills = machine.out_of_memory_kills()
        if kills is not None and kills == self._memory_kills:
            return f"was killed by SIGKILL, not for want of memory ({held})"
        return (
            f"was killed by SIGKILL (likely out of memory: {held}; fewer environments per worker "
            "need less)"
        )

    def free(self) -> None:
        super().free()
        os.close(self._lifeline)

    def stop(self, patience: float) -> None:
        if self.process.poll() is None:
            if self.is_live:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience)
            if self.process.poll() is None:
                self.kill()
        self.free()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has none
        return f"signal {number}"


def _pickle_setup(setup: protocol.Setup) -> bytes:
    """Pickles a setup, lambdas and local classes included."""
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
