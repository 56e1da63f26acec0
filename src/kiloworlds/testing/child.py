"""The process in which an environment is checked: it may crash or hang without harm.

It reads one job from standard input and writes one JSON object per line to a pipe: which check begins,
what it finds, and that it is over.
"""

import contextlib
import faulthandler
import json
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import cloudpickle

from kiloworlds.core.errors import InvalidValueError, did_you_mean
from kiloworlds.testing.failures import described
from kiloworlds.testing.report import Finding

IDENTIFYING = "constructor"  # the first check, in which the environment is built


@dataclass(frozen=True)
class Job:
    """What a checking process is told.

    Attributes:
        path: of modules, as the sender has it.
        make: the function that builds the environment, pickled by cloudpickle.
        steps, seconds, seed: see `kiloworlds.testing.checks.context.Context`.
        timeout: seconds a check may take; the process ends itself after them.
        only: names of the checks to run; all if empty.
        done: names of checks to leave out.
        traces: the file descriptor for stack traces of crashes.
    """

    path: list[str]
    make: bytes
    steps: int
    seconds: float
    seed: int
    timeout: float
    only: tuple[str, ...]
    done: tuple[str, ...]
    traces: int | None


def run_checks(make: Callable[..., Any], job: Job, tell: Callable[[dict[str, Any]], None]) -> None:
    """Runs the checks that are not done yet, and tells of each as it goes.

    Args:
        tell: takes {"kind": ...}, {"begin": check}, {"finding": ...} and {"end": check}.

    Raises:
        InvalidValueError: an unknown name in `job.only`.
    """
    from kiloworlds.testing.checks import checks_for
    from kiloworlds.testing.checks.context import Context
    from kiloworlds.testing.kinds import kind_of

    with _telling(IDENTIFYING, tell) as failed:
        env = make()
        kind = kind_of(env)
        with contextlib.suppress(Exception):  # what close raises is told by its own check
            env.close()
    if failed:
        return
    tell({"kind": kind})
    context = Context(make, kind, job.steps, job.seconds, job.seed)
    checks = checks_for(kind)
    _check_names(job.only, [check.name for check in checks])
    steppable = True
    for check in checks:
        wanted = not job.only or check.name in job.only
        if not wanted or check.name in job.done or (check.needs_steps and not steppable):
            continue
        tell({"begin": check.name})
        broken = _run_check(check, context, tell)
        tell({"end": check.name})
        if check.name == "interface" and broken:
            steppable = False
            told = "what steps the environment was not checked: its interface comes first"
            tell({"finding": asdict(Finding("further checks", "warning", told))})


def _check_names(only: tuple[str, ...], known: list[str]) -> None:
    for name in only:
        if name not in known:
            raise InvalidValueError(
                f"there is no check {name!r} of this kind of environment."
                f"{did_you_mean(name, known)} There are: {', '.join(known)}."
            )


def _run_check(check: Any, context: Any, tell: Callable[[dict[str, Any]], None]) -> bool:
    """Runs one check; returns whether it failed."""
    broken = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for finding in check.run(context):
                broken |= finding.result == "failed"
                tell({"finding": asdict(finding)})
    except Exception as error:
        tell({"finding": asdict(Finding(check.name, "failed", _stopped(error)))})
        broken = True
    return broken


def _stopped(error: Exception) -> str:
    return f"stopped by {described(error)}"


@contextlib.contextmanager
def _telling(name: str, tell: Callable[[dict[str, Any]], None]) -> Iterator[list[Exception]]:
    """Tells of an exception as a finding, and collects it."""
    failed: list[Exception] = []
    tell({"begin": name})
    try:
        yield failed
    except Exception as error:
        failed.append(error)
        tell({"finding": asdict(Finding(name, "failed", f"raised {described(error)}"))})
        tell({"end": name})


def main(pipe: int) -> None:
    """Runs one job.

    Args:
        pipe: the file descriptor results go to.
    """
    job: Job = pickle.load(sys.stdin.buffer)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures need no window
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    assert job.traces is not None
    traces = job.traces
    faulthandler.enable(traces)
    sys.path[:] = job.path
    with os.fdopen(pipe, "w", buffering=1) as results:

        def tell(event: dict[str, Any]) -> None:
            if "begin" in event:  # a check that hangs ends the process, its stack told
                faulthandler.dump_traceback_later(job.timeout, exit=True, file=traces)
            results.write(json.dumps(event) + "\n")

        try:
            make = cloudpickle.loads(job.make)
        except Exception as error:  # of the user's modules, which are imported here
            seen = f"cannot be loaded in another process: {described(error)}"
            tell({"finding": asdict(Finding(IDENTIFYING, "failed", seen))})
        else:
            try:
                run_checks(make, job, tell)
            except InvalidValueError as error:  # of the caller
                tell({"error": str(error)})
        faulthandler.cancel_dump_traceback_later()
        tell({"finished": True})
    # Threads and objects of the environment may hang or crash when Python ends in good order.
    os._exit(0)
