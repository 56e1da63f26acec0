"""Everything that can be checked about an environment, in one call."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.testing.checks.construction import why_not_picklable
from kiloworlds.testing.child import Job, run_checks
from kiloworlds.testing.report import Finding, Report
from kiloworlds.testing.subject import make_subject
from kiloworlds.testing.supervisor import supervise

_SHARE = 1 / 6  # of a check's deadline that a rollout may take


def check_environment(
    env: Any,
    env_kwargs: dict[str, Any] | None = None,
    *,
    steps: int = 2000,
    timeout: float = 60.0,
    seed: int = 0,
    only: Sequence[str] = (),
    on_check: Callable[[str], None] | None = None,
    show_output: bool = False,
) -> Report:
    """Runs every check there is on an environment and reports what it finds.

    Checks run in a process of their own: a crash or a hang becomes a finding, and the checks after it
    still run. Only a function that cannot be pickled is checked in this process, without that shield.

    Args:
        env: an id of Gymnasium or kiloworlds, "file_or_module:name", a class, a function that builds
            an environment, or an environment (of which copies are checked). It may be a Gymnasium
            environment, a PettingZoo one (parallel or AEC) or a compiled `Environment`.
        env_kwargs: parameters of the environment.
        steps: of the longest rollout; a slow environment is tried for fewer.
        timeout: seconds each check may take before it counts as hung.
        seed: the first of the seeds used.
        only: names of checks, such as "seeding"; all if empty.
        on_check: called with the name of each check as it begins.
        show_output: pass on what the environment prints, to standard error.

    Returns:
        The report; `report.ok` is whether no check failed, `print(report)` shows it.

    Raises:
        UnknownNameError: no such id, module, file or name.
        InvalidValueError: something that builds no environment, or a value out of range.

    Example:
        >>> report = check_environment("CliffWalking-v1", steps=100)
        >>> report.ok
        True
    """
    steps = require_count("steps", steps)
    if not isinstance(timeout, int | float) or not 0 < timeout <= 86_400:
        raise InvalidValueError(f"timeout={timeout!r} must be seconds above 0, 86400 at most.")
    started = time.perf_counter()
    subject = make_subject(env, env_kwargs or {})
    job = _job(subject.make, steps, timeout, seed, tuple(only))
    if job.make:
        kind, findings = supervise(job, on_check or (lambda _: None), show_output)
    else:
        kind, findings = _in_this_process(subject.make, job)
    seconds = time.perf_counter() - started
    return Report(subject.name, kind, tuple(findings), seconds)


def _job(
    make: Callable[..., Any], steps: int, timeout: float, seed: int, only: tuple[str, ...]
) -> Job:
    pickled = b"" if why_not_picklable(make) else cloudpickle.dumps(make)
    return Job(list(sys.path), pickled, steps, timeout * _SHARE, seed, timeout, only, (), None)


def _in_this_process(make: Callable[..., Any], job: Job) -> tuple[str, list[Finding]]:
    kind, findings = "unknown", []

    def tell(event: dict[str, Any]) -> None:
        nonlocal kind
        kind = event.get("kind", kind)
        if "finding" in event:
            findings.append(Finding(**event["finding"]))

    run_checks(make, job, tell)
    return kind, findings
