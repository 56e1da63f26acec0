"""The same environment in worker processes."""

import os
from collections.abc import Iterator
from typing import Any

import gymnasium

from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.checks.values import difference
from kiloworlds.testing.report import Finding

_COPIES = 2
_STEPS = 200
_NAMES = ("observations", "rewards", "terminated", "truncated")


def check_workers(context: Context) -> Iterator[Finding]:
    """Steps copies in worker processes and in this one, and compares all they return."""
    if not hasattr(os, "pidfd_open"):
        yield Finding("workers", "ok", "not tried: worker processes need Linux")
        return
    # Imported here: the executors bring JAX along, which the other checks do without.
    from kiloworlds.vector.faults import EnvironmentFailedError
    from kiloworlds.vector.process.pool import ProcessExecutor
    from kiloworlds.vector.sync import SyncExecutor

    here = SyncExecutor(context.make, _COPIES)
    expected = _run(context, here)
    try:
        pool = ProcessExecutor(
            context.make,
            _COPIES,
            num_workers=_COPIES,
            max_restarts=0,
        )
        try:
            seen = _run(context, pool)
        finally:
            pool.close()
    except EnvironmentFailedError as error:
        own = [line.strip() for line in error.worker_traceback.splitlines() if line.strip()]
        last = own[-1] if own else str(error)
        yield Finding(
            "workers",
            "failed",
            f"in a worker process its {error.phase} raised {last}",
            "the environment must find files, modules and settings in another process too",
        )
        return
    different = _first_difference(expected, seen)
    if different is None:
        yield Finding(
            "workers", "ok", f"{len(seen) - 1} steps in worker processes equal those in this one"
        )
        return
    if _first_difference(expected, _run(context, SyncExecutor(context.make, _COPIES))) is not None:
        yield Finding("workers", "warning", "cannot be told: equal seeds give different episodes")
        return
    yield Finding(
        "workers",
        "failed",
        f"in a worker process it goes another way: {different}",
        "something outside the environment (a global, the process id, the clock) changes what it does",
    )


def _run(context: Context, envs: gymnasium.vector.VectorEnv) -> list[tuple[Any, ...]]:
    time_is_up = context.clock(0.25)
    envs.action_space.seed(context.seed)
    seen: list[tuple[Any, ...]] = [(envs.reset(seed=context.seed)[0],)]
    for _ in range(min(_STEPS, context.steps)):
        seen.append(envs.step(envs.action_space.sample())[:4])
        if time_is_up():
            break
    return seen


def _first_difference(first: list[tuple], second: list[tuple]) -> str | None:
    for step, (one, two) in enumerate(zip(first, second, strict=False)):
        for name, ours, theirs in zip(_NAMES, one, two, strict=False):
            different = difference(ours, theirs, name)
            if different is not None:
                return f"step {step}: {different}"
    return None
