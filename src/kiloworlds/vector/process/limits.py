"""What workers of a pool may take: time and memory."""

import functools
from dataclasses import dataclass

from kiloworlds.core.checks import require_choice, require_positive
from kiloworlds.vector.process.handle import WorkerHandle
from kiloworlds.vector.process.protocol import IDLE, RESETTING


@dataclass(frozen=True)
class Limits:
    """How long to wait for workers, and what to do about an exception in an environment.

    Attributes:
        step_timeout: seconds a step may take; None for no limit.
        start_timeout: the same for building and resetting environments.
        on_error: "raise" or "restart".
        worker_memory: bytes a worker may hold before another takes over from it; None for no limit.
    """

    step_timeout: float | None
    start_timeout: float | None
    on_error: str
    worker_memory: float | None = None

    def __post_init__(self) -> None:
        for name in ("step_timeout", "start_timeout"):
            limit = getattr(self, name)
            if limit is not None:
                require_positive(name, limit, "seconds", "60")
        require_choice("on_error", self.on_error, ("raise", "restart"))
        if self.worker_memory is not None:
            require_positive("max_worker_memory", self.worker_memory, "bytes", "2e9")

    @functools.cached_property
    def patience(self) -> float:
        """Seconds after which to look whether one has passed."""
        limits = [limit for limit in (self.step_timeout, self.start_timeout) if limit]
        return min([1.0, *(limit / 4 for limit in limits)])

    def overdue(self, worker: WorkerHandle, *, is_asked: bool, is_stepping: bool) -> str | None:
        """What a worker has done for too long, in words; None if it is in time.

        Args:
            is_asked: an answer to a call is awaited.
            is_stepping: environments of its are in flight.
        """
        # Before the clock: the worker writes its mark first and its activity second, so that a long
        # reset that ends meanwhile is not taken for a long step.
        activity = worker.activity if worker.is_live else IDLE
        silent = worker.seconds_without_progress()
        if not worker.is_live:
            name, doing = "start_timeout", "starting"
        elif is_asked:
            name, doing = "start_timeout", "a call"
        elif is_stepping and activity == RESETTING:
            name, doing = "start_timeout", "a reset"
        elif is_stepping:  # idle means that it has not begun what it was given
            name, doing = "step_timeout", "a step"
        else:
            return None
        limit = getattr(self, name)
        if limit is None or silent <= limit:
            return None
        where = f" of environment {worker.current_row}" if worker.is_live else ""
        return f"gave no answer for {limit:g} s in {doing}{where} (see {name})"
