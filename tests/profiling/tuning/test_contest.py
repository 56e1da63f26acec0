"""Successive halving, with an arena whose speeds are known."""

import pytest

from kiloworlds.profiling.tuning.candidates import Candidate
from kiloworlds.profiling.tuning.contest import Entrant, choose, halve
from kiloworlds.profiling.tuning.process import TrialError

BASE = Candidate()


def place(number: int) -> Candidate:
    return BASE.with_(threads_per_device=number)


def layout(number: int) -> Candidate:
    return BASE.with_(num_envs=number, num_steps=number)


class KnownSpeeds:
    """Its own clock advances by what measuring takes."""

    def __init__(self, speeds: dict[Candidate, float]):
        self.speeds, self.now = speeds, 0.0
        self.closed: list[Candidate] = []
        self.measured: list[Candidate] = []

    def measure(self, candidate, seconds):
        assert candidate not in self.closed
        self.now += seconds
        self.measured.append(candidate)
        if self.speeds[candidate] < 0:
            raise TrialError("it is broken.")
        return self.speeds[candidate]

    def close(self, candidate):
        self.closed.append(candidate)

    def clock(self):
        return self.now


def contest(speeds, until=100.0, **options):
    arena = KnownSpeeds(speeds)
    entrants = [Entrant(candidate) for candidate in speeds]
    left = halve(entrants, arena, until, clock=arena.clock, **options)
    return arena, entrants, left


def test_the_fastest_is_left_and_the_slow_leave_early():
    speeds = {BASE: 5.0} | {place(number): float(number) for number in range(10, 18)}
    arena, entrants, left = contest(speeds)
    assert left[0].candidate == place(17)
    assert BASE not in arena.closed  # compared to the end
    assert place(10) in arena.closed
    assert arena.measured.count(place(17)) > arena.measured.count(place(10))
    assert choose(entrants).candidate == place(17)


def test_measures_in_turn_there_and_back():
    arena, _, _ = contest({BASE: 1.0, place(2): 2.0})
    assert arena.measured[:4] == [BASE, place(2), place(2), BASE]


def test_ends_in_time_but_measures_something_of_all():
    speeds = {BASE: 5.0} | {place(number): float(number) for number in range(10, 18)}
    arena, entrants, _ = contest(speeds, until=0.0)
    assert arena.now == pytest.approx(0.25 * 9)
    assert all(entrant.rate for entrant in entrants)


def test_what_fails_is_left_out():
    _, entrants, left = contest({BASE: 1.0, place(2): -1.0, place(3): 3.0})
    assert [one.candidate for one in left] == [place(3), BASE]
    assert entrants[1].failure == "it is broken."


@pytest.mark.parametrize(
    ("speeds", "wanted"),
    [
        ({BASE: 1.0, place(2): 1.02}, BASE),  # not worth a change
        ({BASE: 1.0, place(2): 1.05}, place(2)),
        ({BASE: 1.0, layout(8): 1.04}, BASE),  # not worth a change of what is learnt
        ({BASE: 1.0, layout(8): 1.2}, layout(8)),
        ({BASE: 1.0, place(2): 1.18, layout(8): 1.2}, place(2)),
    ],
)
def test_changes_only_for_what_is_worth_it(speeds, wanted):
    _, entrants, _ = contest(speeds)
    assert choose(entrants).candidate == wanted


def test_nothing_measured():
    assert choose([Entrant(BASE)]) is None
