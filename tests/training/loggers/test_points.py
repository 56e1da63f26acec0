import math
from pathlib import Path

from kiloworlds.training.loggers.base import LoggedRun
from kiloworlds.training.loggers.points import to_point

TWO = LoggedRun(Path("run"), "identity", {}, num_members=2)


def test_means_and_seeds_by_the_names_of_stable_baselines():
    row = {"step": 640, "seconds": 2.5, "fps": None, "train/loss": [1.0, 3.0], "train/x": 7}
    point = to_point(row, 99.5)
    assert (point.step, point.time) == (640, 99.5)
    assert point.values == {
        "time/total_timesteps": 640.0,
        "time/time_elapsed": 2.5,
        "train/loss": 2.0,
        "train/x": 7.0,
    }
    assert point.by_seed == ({"train/loss": 1.0}, {"train/loss": 3.0})
    assert point.flat(TWO) == point.values | {"train/loss/seed_0": 1.0, "train/loss/seed_1": 3.0}


def test_a_single_seed_is_its_mean():
    point = to_point({"step": 1, "seconds": 0.0, "fps": 10.0, "train/loss": [4.0]}, 0.0)
    assert point.flat(TWO)["train/loss"] == 4.0
    assert point.flat(TWO)["time/fps"] == 10.0
    assert point.by_seed == ()


def test_what_is_not_there_or_not_finite_is_left_out():
    row = {"step": 1, "seconds": 0.0, "a": [None, 2.0], "b": [None, None], "c": math.nan}
    point = to_point(row, 0.0)
    assert point.values["a"] == 2.0
    assert not {"b", "c"} & point.flat(TWO).keys()
    assert point.by_seed == ({}, {"a": 2.0})


def test_members_of_a_population_go_by_their_settings():
    entries = [{"gamma": 0.9, "seed": 3}, {"gamma": 1e-05, "seed": 3}]
    run = LoggedRun(Path("run"), "identity", {}, num_members=2, member_settings=entries)
    point = to_point({"step": 1, "seconds": 0.0, "a": [1.0, 2.0]}, 0.0)
    assert point.flat(run)["a/gamma_0.9_seed_3"] == 1.0
    assert point.flat(run)["a/gamma_1e-05_seed_3"] == 2.0
    equal = LoggedRun(Path("run"), "identity", {}, num_members=2, member_settings=entries[:1] * 2)
    assert equal.member_names == ["gamma_0.9_seed_3_0", "gamma_0.9_seed_3_1"]
    odd = LoggedRun(Path("run"), "i", {}, member_settings=[{"activation": "../a b,c"}])
    assert odd.member_names == ["activation_..-a-b-c"]
