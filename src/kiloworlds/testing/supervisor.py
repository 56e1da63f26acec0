"""Runs checks in a process of their own, which is replaced when a check crashes or hangs it."""

import contextlib
import json
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.testing.child import IDENTIFYING, Job
from kiloworlds.testing.report import Finding

_PROGRAM = "from kiloworlds.testing.child import main; main({})"
_ROOT = str(Path(__file__).parents[2])  # of the package, wherever it is installed
_GRACE = 5.0  # seconds after its own deadline before a process is killed
_START_LIMIT = 120.0  # seconds to import everything
_MOST_DEATHS = 3  # an environment that hangs everywhere would take minutes


def supervise(
    job: Job, on_check: Callable[[str], None], show_output: bool
) -> tuple[str, list[Finding]]:
    """Runs all checks of a job, the remaining ones again after each crash.

    Args:
        on_check: told the name of each check that begins.
        show_output: whether what the environment prints goes to standard error.

    Returns:
        The kind of the environment ("unknown" if it could not be built) and the findings.

    Raises:
        InvalidValueError: an unknown name in `job.only`.
    """
    kind, findings, done = "unknown", [], []
    for death in range(1, _MOST_DEATHS + 1):
        current: str | None = None
        with _Child(replace(job, done=tuple(done)), show_output) as child:
            for event in child.events():
                if "error" in event:
                    raise InvalidValueError(event["error"])
                kind = event.get("kind", kind)
                if "finding" in event:
                    findings.append(Finding(**event["finding"]))
                if "begin" in event:
                    current = event["begin"]
                    on_check(event["begin"])
                if "end" in event:
                    done.append(event["end"])
                    current = None
                if "finished" in event:
                    return kind, findings
            reason = child.reason()
        what = current or "between checks"
        findings.append(Finding(what, "failed", reason, "the checks after it ran in a new process"))
        if current in (None, IDENTIFYING) and kind == "unknown":
            findings[-1] = replace(findings[-1], mend="")
            return kind, findings
        done.append(what)
        if death == _MOST_DEATHS:
            findings[-1] = replace(findings[-1], mend="")
            findings.append(
                Finding("further checks", "failed", f"not run: {death} checks crashed or hung")
            )
    return kind, findings


class _Child:
    """One checking process."""

    def __init__(self, job: Job, show_output: bool):
        self._timeout = job.timeout
        self._traces: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        results, theirs = os.pipe()
        self._results = os.fdopen(results, "rb", buffering=0)
        descriptor = self._traces.fileno()
        output = sys.stderr.fileno() if show_output else subprocess.DEVNULL
        self._process = subprocess.Popen(
            # -P: a file of the user's called random.py must not stand in for Python's.
            [sys.executable, "-P", "-c", _PROGRAM.format(theirs)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[theirs, descriptor],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([_ROOT, *_python_path()])},
            process_group=0,  # Ctrl-C is for this process, which then ends that one
        )
        os.close(theirs)
        assert self._process.stdin is not None
        # It may have ended already, which `events` tells.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            pickle.dump(replace(job, traces=descriptor), stdin)
        self._hung = False

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and what the environment started
        self._process.wait()
        self._results.close()
        self._traces.close()

    def events(self) -> Iterator[dict[str, Any]]:
        """What the process tells, until it ends or hangs."""
        rest, limit = b"", _START_LIMIT
        deadline = time.monotonic() + limit
        while True:
            ready, _, _ = select.select(
                [self._results], [], [], max(0, deadline - time.monotonic())
            )
            if not ready:
                self._hung = True
                return
            received = self._results.read(65536)
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                yield json.loads(line)
            deadline = time.monotonic() + self._timeout + _GRACE

    def reason(self) -> str:
        """How the process ended."""
        if self._hung:
            self._process.kill()
        code = self._process.wait()
        self._traces.seek(0)
        trace = self._traces.read().decode(errors="replace")
        where = _innermost(trace)
        if self._hung or trace.startswith("Timeout"):
            return f"no answer for {self._timeout:g} s{where}"
        if code < 0:
            return f"the process died of {signal.Signals(-code).name}{where}"
        return f"the process ended itself with exit code {code}{where}"


def _python_path() -> list[str]:
    known = os.environ.get("PYTHONPATH")
    return [known] if known else []


def _innermost(trace: str) -> str:
    """The first line of a stack trace that is not of this package or of Python's own library."""
    from kiloworlds.testing.failures import LIBRARIES

    for file, line, function in re.findall(r'File "(.+)", line (\d+) in (\S+)', trace):
        if not file.startswith((*LIBRARIES, "<")):
            return f", in {function} ({os.path.basename(file)}, line {line})"
    return ""
