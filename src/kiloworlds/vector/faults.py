"""What happens when an environment or its worker fails: errors, a budget of restarts, a record."""

import logging
import time
from collections import deque

from kiloworlds.core.checks import require_number
from kiloworlds.core.errors import KiloworldsError

logger = logging.getLogger("kiloworlds.vector")


_LONGEST_WAIT = 30.0
"""Seconds before a restart, at most."""

_CALM = 30.0
"""Seconds after a restart; the next failure after that is waited for as for a first one."""


class EnvironmentFailedError(KiloworldsError, RuntimeError):
    """An exception inside an environment, with the traceback from where it ran.

    Attributes:
        env_index: which environment.
        phase: "constructor", "reset", "step", "call" or "render".
        action: the action of the step, as text; "" otherwise.
        worker_traceback: the original traceback.
    """

    def __init__(self, env_index: int, phase: str, action: str, error: str, traceback: str):
        self.env_index, self.phase, self.action = env_index, phase, action
        self.worker_traceback = traceback
        doing = f"step with action {action}" if action else phase
        super().__init__(
            f"environment {env_index} failed in {doing}: {error}"
            + (f"\n\nIts own traceback:\n{traceback}" if traceback else "")
        )


class RestartBudgetError(KiloworldsError, RuntimeError):
    """Environments or workers fail faster than they may be restarted."""


class Sparingly:
    """Says when to report what may happen often: ten times, then whenever the number has doubled."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bool:
        """Counts one more; whether it is to be reported."""
        self.count += 1
        return self.count <= 10 or self.count & (self.count - 1) == 0


class RestartBudget:
    """Allows `limit` restarts in any `window` seconds, each later than the one before while they
    follow each other closely.

    Args:
        limit: restarts allowed within the window; 0 allows none.
        window: seconds.
    """

    def __init__(self, limit: int, window: float = 600.0):
        require_number("max_restarts", limit, 0, whole=True)
        self.limit, self.window = limit, window
        self.spent = 0
        """Restarts since the beginning."""
        self._times: deque[float] = deque()
        self._first: str | None = None
        self._in_a_row = 0
        self._calm_from = 0.0  # when the last one is forgotten, for the wait

    def spend(self, reason: str) -> float:
        """Takes one restart.

        Returns:
            Seconds to wait before it: 0 for the first, then 1, 2, 4, ... up to 30 while failures
            follow each other within half a minute of the restart before.

        Raises:
            RestartBudgetError: none is left; the message holds the first failure.
        """
        now = time.monotonic()
        while self._times and now - self._times[0] > self.window:
            self._times.popleft()
        if not self._times:
            self._first = reason
        if len(self._times) >= self.limit:
            allowed = f"more than max_restarts={self.limit} failures in {self.window:.0f} s"
            raise RestartBudgetError(
                f"{allowed if self.limit else 'max_restarts=0'}; giving up. The first was: "
                f"{self._first}"
            )
        self._times.append(now)
        self.spent += 1
        self._in_a_row = self._in_a_row + 1 if now < self._calm_from else 0
        wait = 0.0 if self._in_a_row == 0 else min(2.0 ** (self._in_a_row - 1), _LONGEST_WAIT)
        self._calm_from = now + wait + _CALM
        return wait
