import math

from kiloworlds.training.loggers.points import to_point


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
    assert point.flat == point.values | {"train/loss/seed_0": 1.0, "train/loss/seed_1": 3.0}


def test_a_single_seed_is_its_mean():
    point = to_point({"step": 1, "seconds": 0.0, "fps": 10.0, "train/loss": [4.0]}, 0.0)
    assert point.flat["train/loss"] == 4.0
    assert point.flat["time/fps"] == 10.0
    assert point.by_seed == ()


def test_what_is_not_there_or_not_finite_is_left_out():
    row = {"step": 1, "seconds": 0.0, "a": [None, 2.0], "b": [None, None], "c": math.nan}
    point = to_point(row, 0.0)
    assert point.values["a"] == 2.0
    assert not {"b", "c"} & point.flat.keys()
    assert point.by_seed == ({}, {"a": 2.0})
