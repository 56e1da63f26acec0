"""Talking to a process that times candidates."""

import json
import os
import selectors
import subprocess
import sys
import time
from typing import Any

from kiloworlds.core.errors import KiloworldsError


class TrialError(KiloworldsError, RuntimeError):
    """A candidate cannot be timed; the message says why."""


class TooLateError(TrialError):
    """It did not answer in time."""


class TrialProcess:
    """One process with its own devices and threads of JAX.

    Args:
        devices: the CPU is split into; None for one.
        threads: of each; None for all cores.
        imports: modules that know the environment.
    """

    def __init__(self, devices: int | None, threads: int | None, imports: tuple[str, ...] = ()):
        path = [os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path]
        setup = {"path": path, "import": list(imports), "devices": devices, "threads": threads}
        environment = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
        environment["PYTHONPATH"] = os.pathsep.join(path)
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several share an accelerator
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kiloworlds.profiling.tuning.trial", json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # nothing is left over for a process that has ended
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._inbox, self._outbox = self._process.stdin, self._process.stdout
        self._unread = b""

    def ask(self, until: float, **request: Any) -> dict[str, Any]:
        """Asks and waits for the answer.

        Args:
            until: when to give up, by `time.monotonic`; the process is then ended.

        Raises:
            TrialError: it failed.
            TooLateError: there was no answer.
        """
        self.send(**request)
        return self.receive(until)

    def send(self, **request: Any) -> None:
        """Asks; `receive` gives the answer."""
        try:
            self._inbox.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError as error:
            raise TrialError("the process that measures has ended.") from error

    def receive(self, until: float) -> dict[str, Any]:
        """The next answer; see `ask`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._outbox, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, until - time.monotonic())):
                    self.kill()
                    raise TooLateError("it took longer than the time for measuring.")
                piece = os.read(self._outbox.fileno(), 65536)
                if not piece:
                    code = self._process.wait()
                    raise TrialError(f"the process that measures ended with code {code}.")
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise TrialError(answer["error"])
        return answer

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it at once; the workers of its pools end with it."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends it."""
        self.kill()
        self._inbox.close()
        self._outbox.close()
