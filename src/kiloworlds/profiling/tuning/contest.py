"""Finding the fastest of several candidates in a given time: successive halving.

All candidates of a round are timed in turn, A B C, C B A, ..., so that what else the machine does meets
all alike; then the slower half is left out and the others are timed for longer.

Reference: Karnin, Koren and Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", 2013.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kiloworlds.profiling.tuning.candidates import Candidate
from kiloworlds.profiling.tuning.process import TrialError

_FIRST_SECONDS = 0.25
"""Of each measurement of the first round; they double from round to round."""
_LONGEST = 1.0
_TURNS = 3
"""Measurements of each candidate in a round."""

WORTH, WORTH_LEARNING = 1.03, 1.05
"""How much faster a candidate must be than what was asked for; and one that changes what is learnt,
than the fastest that does not."""


class Arena(Protocol):
    """Where candidates run."""

    def measure(self, candidate: Candidate, seconds: float) -> float:
        """Steps per second; TrialError if it cannot be timed."""
        ...

    def close(self, candidate: Candidate) -> None:
        """Gives back what it holds."""
        ...


@dataclass
class Entrant:
    """A candidate with what was measured.

    Attributes:
        rates: steps per second, of the last round.
        rounds: in how many it was timed.
        failure: why it cannot be timed; "" if it can.
    """

    candidate: Candidate
    rates: list[float] = field(default_factory=list)
    rounds: int = 0
    failure: str = ""

    @property
    def rate(self) -> float:
        """The median; 0 where nothing was measured."""
        return statistics.median(self.rates) if self.rates else 0.0


def halve(
    entrants: list[Entrant],
    arena: Arena,
    until: float,
    keep: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> list[Entrant]:
    """Times candidates until about `keep` are left, or the time is over; the fastest come first.

    The settings as they were asked for and the fastest that changes nothing of what is learnt stay to
    the end, so that the winner is compared with them.

    Args:
        entrants: that can be timed; their measurements are updated.
        until: when measuring ends, by `clock`, but for a turn that has begun.
    """
    left, seconds = list(entrants), _FIRST_SECONDS
    while True:
        left = _round(left, arena, seconds, until, clock)
        left.sort(key=lambda entrant: -entrant.rate)
        survivors = _survivors(left, keep)
        if clock() >= until or len(survivors) == len(left):
            return left
        for entrant in left:
            if entrant not in survivors:
                arena.close(entrant.candidate)
        left, seconds = survivors, min(2 * seconds, _LONGEST)


def _survivors(ordered: list[Entrant], keep: int) -> list[Entrant]:
    """The faster half, the first of those that change nothing of what is learnt, and what was asked
    for; of candidates that are ordered by their rates."""
    best = ordered[: max(keep, (len(ordered) + 1) // 2 if len(ordered) > 2 else keep)]
    same = next((one for one in ordered if not one.candidate.changes_learning), None)
    return [one for one in ordered if one in best or one is same or one.candidate == Candidate()]


def _round(
    entrants: list[Entrant],
    arena: Arena,
    seconds: float,
    until: float,
    clock: Callable[[], float],
) -> list[Entrant]:
    """Times each a few times; those that could be."""
    rates: dict[Candidate, list[float]] = {entrant.candidate: [] for entrant in entrants}
    for turn in range(_TURNS):
        # The first measures something at least; and all of a turn that has begun, so that all are alike.
        if turn and clock() >= until:
            break
        for entrant in entrants[:: 1 if turn % 2 == 0 else -1]:
            if entrant.failure:
                continue
            try:
                rate = arena.measure(entrant.candidate, seconds)
            except TrialError as error:
                entrant.failure = str(error)
            else:
                rates[entrant.candidate].append(rate)
    for entrant in entrants:
        if rates[entrant.candidate]:
            entrant.rates, entrant.rounds = rates[entrant.candidate], entrant.rounds + 1
    return [entrant for entrant in entrants if not entrant.failure]


def choose(entrants: list[Entrant]) -> Entrant | None:
    """The one to take: the fastest, unless it is hardly faster than what changes less.

    Only those that came furthest are compared: slower ones left before.

    Args:
        entrants: of one contest; None is returned where nothing was measured.
    """
    furthest = max((one.rounds for one in entrants), default=0)
    if not furthest:
        return None
    known = [one for one in entrants if one.rounds == furthest]
    chosen = next((one for one in known if one.candidate == Candidate()), None)
    for one in sorted(known, key=lambda one: -one.rate):
        if one.candidate.changes_learning:
            continue
        if chosen is None or one.rate > WORTH * chosen.rate:
            chosen = one
        break
    fastest = max(known, key=lambda one: one.rate)
    if chosen is None or fastest.rate > WORTH_LEARNING * chosen.rate:
        chosen = fastest
    return chosen
