import dataclasses

import pytest
from made_profiles import a_profile

from kiloworlds.profiling.advice import advise, near_ceiling
from kiloworlds.profiling.profile import WAITING, Part, Pool


def told(profile) -> str:
    return " ".join(advise(profile))


def test_learning_that_takes_long():
    said = told(a_profile(0.03, 0.17, 0.8))
    assert "Learning takes 80% of the time" in said
    assert "fewer epochs (num_epochs=4)" in said
    assert "larger minibatches (now 256 transitions)" in said
    assert "Environments take 3.0% of the time: making them faster gains nothing." in said


def test_learning_far_from_the_ceiling_and_near_it():
    assert "its matrices are small" in told(a_profile())
    near = dataclasses.replace(a_profile(0.0, 0.0, 0.05), seconds_per_update=0.06)
    assert "of what this machine computes at most: only less work, more cores" in told(near)


def test_a_program_on_one_core_is_held_against_one_core():
    profile = dataclasses.replace(a_profile(0.0, 0.0, 0.08), seconds_per_update=0.1)
    whole = near_ceiling(profile.part("learning"), profile.roof)
    one = dataclasses.replace(profile, devices=1, threads=1)
    assert one.roof == (60e9, 40e9, "one core")
    assert near_ceiling(one.part("learning"), one.roof)[0] == pytest.approx(whole[0] * 100 / 60)
    assert "of what one core computes at most" in told(one)


def test_what_is_faster_than_the_ceilings_says_that_they_are_wrong():
    assert "--remeasure" not in told(a_profile())
    fast = dataclasses.replace(a_profile(0.0, 0.0, 0.03), seconds_per_update=0.03)
    assert "faster than all cores did when the ceilings were measured" in told(fast)


def test_environments_that_take_long():
    assert "cheaper step or reset" in told(a_profile(0.8, 0.1, 0.1))
    assert "max_staleness=1" in told(a_profile(0.8, 0.1, 0.1, loop="host"))
    assert "num_workers" in told(a_profile(0.8, 0.1, 0.1, loop="host", max_staleness=1))


def test_acting_copies_and_compilation_that_take_long():
    assert "Drawing actions takes 60%" in told(a_profile(0.2, 0.6, 0.2, loop="host"))
    assert "Copies and calls take 30%" in told(a_profile(0.3, 0.2, 0.2, 0.3))
    assert "10,240 steps could be trained" in told(a_profile(compilation=10.0))


def test_measurements_that_scatter():
    profile = a_profile()
    parts = [dataclasses.replace(part, spread=0.3) for part in profile.parts]
    assert "scatter" not in told(profile)
    assert "learning scatter by ± 43%" in told(dataclasses.replace(profile, parts=parts))


def test_devices_that_wait_for_each_other():
    waiting = Part(WAITING, 0.4, 0.0, "seen")
    profile = a_profile()
    profile = dataclasses.replace(profile, parts=[*profile.parts, waiting], devices=2)
    assert "wait for each other 40% of the time" in told(profile)
    assert "wait for each other" not in told(dataclasses.replace(profile, devices=1))


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (Pool([0.9, 0.8], [(0, 0.1)], 16, 0.8), "even the busiest worker does so only 20%"),
        (Pool([0.1, 0.6], [(0, 0.1)], 16, 0.1), "idle 10% to 60%"),
        (Pool([0.1, 0.1], [(7, 0.5)], 16, 0.1), "Environment 7 is 8.0 times as slow"),
    ],
)
def test_workers(pool, words):
    assert words in told(a_profile(0.3, 0.4, 0.3, loop="host", pool=pool))


def test_something_is_always_said():
    assert told(a_profile(0.34, 0.33, 0.33)).startswith("No part stands out")


def test_shares_of_the_ceilings():
    profile = a_profile()
    assert near_ceiling(profile.parts[2], profile.ceilings) == pytest.approx(
        (0.0571, 0.0286), rel=0.01
    )
    assert near_ceiling(profile.parts[3], profile.ceilings) is None
