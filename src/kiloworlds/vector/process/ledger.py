"""What each environment of a pool is at."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from kiloworlds.vector.process import protocol

_NOBODY = np.zeros(0, int)


class Ledger:
    """The state of N environments, as the caller is to see it: whatever becomes of workers.

    Attributes:
        in_flight: boolean `[N]`, the environments that were sent off and have not answered.
        num_in_flight: how many these are.
        arrived: the environments whose answers wait to be collected, first come first.
        resets: those in flight, by environment.
        lost: boolean `[N]`: the episode in flight, or just arrived, is gone; what comes back is the
            start of another.
        lost_episodes: how many so far.
        ended: boolean `[N]`, between two episodes: the end of one was delivered, and the next step or
            reset begins another.
        quarantined: boolean `[N]`, environments that are not stepped any more: each step of theirs
            is answered at once, as lost.
        disturbed: whether any environment is lost or quarantined, or has no running episode; else
            nobody needs to look.
        extras, finals: what an answer, or the end of an episode in it, carries beside the row, by
            environment.
    """

    def __init__(self, num_envs: int):
        self.in_flight = np.zeros(num_envs, bool)
        self.num_in_flight = 0
        self.arrived: deque[int] = deque()
        self.resets: dict[int, protocol.Reset] = {}
        self.lost = np.zeros(num_envs, bool)
        self.lost_episodes = 0
        self.ended = np.zeros(num_envs, bool)
        self.quarantined = np.zeros(num_envs, bool)
        self.disturbed = False
        self.extras: dict[int, protocol.Extras] = {}
        self.finals: dict[int, protocol.Extras] = {}
        # The worker holds no running episode: the next step must be a reset.
        self._stale = np.zeros(num_envs, bool)
        # Stale because a lost episode was reported as ended, and this mode resets one step later.
        self._owed = np.zeros(num_envs, bool)

    @property
    def pending(self) -> int:
        """Environments in flight or with an answer to collect."""
        return self.num_in_flight + len(self.arrived)

    @property
    def without_episode(self) -> np.ndarray:
        """Boolean `[N]`: no episode runs, or one was lost of which the caller does not know yet."""
        return self.lost | self._stale | self.quarantined

    def depart_all(self) -> None:
        """All environments are sent off to step, none of them disturbed."""
        self.in_flight[:] = True
        self.num_in_flight = len(self.in_flight)

    def depart(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The environments `rows` `[B]` are sent off.

        Returns:
            Which of them are to step, and which to begin an episode instead; quarantined ones have
            answered already.
        """
        self.in_flight[rows] = True
        self.num_in_flight += len(rows)
        if not self.disturbed:
            return rows, _NOBODY
        out = rows[self.quarantined[rows]]
        self.lost[out] = True
        self.arrive(out.tolist())
        rows = rows[~self.quarantined[rows]]
        anew = rows[self._stale[rows]]
        self._count_lost(anew[~self._owed[anew]])
        steps = rows[~self._stale[rows]]
        self._stale[rows] = self._owed[rows] = False
        return steps, anew

    def depart_to_reset(self, rows: np.ndarray) -> None:
        """The environments `rows` `[B]` are sent off to begin an episode, as was asked."""
        self.lost[rows] = self._stale[rows] = self._owed[rows] = self.ended[rows] = False
        self.in_flight[rows] = True
        self.num_in_flight += len(rows)
        for row in rows.tolist():  # what was not collected belongs to an episode that is over
            self.extras.pop(row, None)
            self.finals.pop(row, None)

    def arrive(self, rows: Sequence[int]) -> None:
        """Environments have answered."""
        if isinstance(rows, range):
            self.in_flight[rows.start : rows.stop] = False
        else:
            self.in_flight[rows] = False
        self.num_in_flight -= len(rows)
        if self.resets:
            for row in rows:
                self.resets.pop(row, None)
        self.arrived.extend(rows)

    def lose_running(self, row: int) -> None:
        """The worker of an environment, or the environment itself, failed: what it was at is gone."""
        if row in self.resets:  # it was starting anyway: nothing is lost
            return
        self.disturbed = True
        if not self.in_flight[row]:
            self._stale[row] = True
            self._owed[row] |= self.ended[row]
            return
        self.finals.pop(row, None)
        if not self.lost[row] and not self.ended[row]:
            self._count_lost([row])

    def lose(self, rows: np.ndarray) -> None:
        """Counts the episodes of `rows`, whose answers are in, as lost, each once."""
        self.disturbed = True
        self._count_lost(rows[~self.lost[rows]])

    def _count_lost(self, rows: Sequence[int] | np.ndarray) -> None:
        self.lost[rows] = True
        self.lost_episodes += len(rows)

    def quarantine(self, rows: np.ndarray) -> None:
        """Loses the episodes of `rows`, whose answers are in; they are stepped no more."""
        self.lose(rows)
        self.quarantined[rows] = True

    def owe(self, rows: np.ndarray) -> None:
        """The next step of `rows` is a reset: the ends of their episodes have been reported."""
        self.disturbed = True
        self._stale[rows] = self._owed[rows] = True

    def settle(self, rows: np.ndarray) -> None:
        """The caller knows what was lost of `rows`."""
        self.lost[rows] = False
        self.disturbed = bool(self.lost.any() or self._stale.any() or self.quarantined.any())
