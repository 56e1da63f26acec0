import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from kiloworlds.training.loggers.base import LoggedRun, Point
from kiloworlds.training.loggers.tensorboard_logger import TensorBoardLogger, cut_back


def read(folder, tag="loss"):
    """Steps and values, as TensorBoard has them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    if tag not in events.Tags()["scalars"]:
        return [], []
    scalars = events.Scalars(tag)
    return [event.step for event in scalars], [event.value for event in scalars]


def point(step, value=None):
    value = step / 10 if value is None else value
    return Point(step, 1e9 + step, {"loss": value}, ({"loss": value - 1}, {"loss": value + 1}))


def read_mean(path, tag="loss"):
    return read(path / "tensorboard" / "mean", tag)


@pytest.fixture
def log(tmp_path):
    """Logs points in one session; returns the newest step that was there before."""

    def session(*points, step=0, num_members=2):
        logger = TensorBoardLogger()
        started = logger.start(LoggedRun(tmp_path, "identity", {"seed": 3}, step, num_members))
        logger.log(points)
        logger.close(True)
        return started.newest

    return session


def test_means_and_seeds_are_runs_of_their_own(tmp_path, log):
    assert log(point(10), point(20)) == -1
    assert read_mean(tmp_path) == ([10, 20], [1.0, 2.0])
    assert read(tmp_path / "tensorboard" / "seed_0") == ([10, 20], [0.0, 1.0])
    assert read(tmp_path / "tensorboard" / "seed_1") == ([10, 20], [2.0, 3.0])


def test_one_seed_is_one_run(tmp_path, log):
    log(Point(10, 1e9, {"loss": 1.0}), num_members=1)
    assert read(tmp_path / "tensorboard") == ([10], [1.0])
    assert [path.is_file() for path in (tmp_path / "tensorboard").iterdir()] == [True]


def test_a_run_whose_means_had_no_folder_goes_on_without(tmp_path, log):
    log(point(10), point(20))
    folder = tmp_path / "tensorboard"
    for file in (folder / "mean").iterdir():
        file.rename(folder / file.name)
    (folder / "mean").rmdir()
    assert log(point(20, 77.0), step=10) == 10
    assert read(folder) == ([10, 20], [1.0, 77.0])
    assert read(folder / "seed_1") == ([10, 20], [2.0, 78.0])
    assert not (folder / "mean").exists()
    assert log(point(10), step=0) == -1  # nothing of it is left
    assert read_mean(tmp_path) == ([10], [1.0])


def test_the_time_is_that_of_the_row(tmp_path, log):
    log(point(10))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "mean"))
    events.Reload()
    assert events.Scalars("loss")[0].wall_time == 1e9 + 10


def test_rows_that_were_cut_back_are_gone(tmp_path, log):
    log(point(10), point(20), point(30))
    assert log(point(30, 77.0), point(40), step=20) == 20
    assert read_mean(tmp_path) == ([10, 20, 30, 40], [1.0, 2.0, 77.0, 4.0])
    assert log(point(20, 88.0), step=10) == 10  # the second session as a whole
    assert read_mean(tmp_path) == ([10, 20], [1.0, 88.0])
    assert log(point(10), step=0) == -1
    assert read_mean(tmp_path) == ([10], [1.0])


def test_a_tensorboard_that_looks_on_forgets_them_too(tmp_path, log):
    log(point(10), point(20), point(30))
    watching = EventAccumulator(str(tmp_path / "tensorboard" / "mean"))
    watching.Reload()
    log(point(30, 77.0), step=20)
    watching.Reload()
    assert [(e.step, e.value) for e in watching.Scalars("loss")] == [(10, 1), (20, 2), (30, 77)]


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_torn_or_damaged_end_is_cut_off_everywhere(tmp_path, log, cut):
    log(point(10), point(20))
    (file,) = (tmp_path / "tensorboard" / "seed_1").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-cut])
    assert log(point(20), step=20) == 10  # the row is not whole: seed 1 lacks it
    for folder in ("mean", "seed_0", "seed_1"):
        assert read(tmp_path / "tensorboard" / folder)[0] == [10, 20]


def test_damage_in_the_middle_ends_what_is_kept(tmp_path, log):
    log(*map(point, range(10, 60, 10)))
    (file,) = (tmp_path / "tensorboard" / "seed_0").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)
    newest = cut_back(tmp_path / "tensorboard", 50)
    assert newest in (10, 20, 30)
    assert log(*map(point, range(newest + 10, 60, 10)), step=newest) == newest
    assert read(tmp_path / "tensorboard" / "seed_0")[0] == [10, 20, 30, 40, 50]


def test_a_folder_that_was_deleted_is_an_error(tmp_path):
    logger = TensorBoardLogger()
    logger.start(LoggedRun(tmp_path, "identity", {}, num_members=2))
    logger.log([point(10)])
    shutil.rmtree(tmp_path / "tensorboard")
    with pytest.raises(FileNotFoundError, match="was deleted"):
        logger.log([point(20)])
    logger.close(False)


def test_settings_can_be_read_there(tmp_path, log):
    log(point(10))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "mean"))
    events.Reload()
    (entry,) = events.Tensors("config/text_summary")
    assert b"seed: 3" in entry.tensor_proto.string_val[0]


def test_single_precision_is_what_there_is(tmp_path, log):
    log(point(10, 1 / 3))
    assert read_mean(tmp_path)[1] == [float(np.float32(1 / 3))]


def hparams_of(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    told = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(told).session_start_info.hparams
    return {name: value.number_value for name, value in values.items()}


def test_settings_stand_in_the_table_of_hparams(tmp_path, log):
    log(point(10))
    assert hparams_of(tmp_path / "tensorboard" / "mean") == {"seed": 3.0}


def test_each_member_of_a_population_has_a_line_there(tmp_path):
    entries = [{"gamma": 0.5, "seed": 3}, {"gamma": 0.25, "seed": 4}]
    config = {"seed": 3, "gamma": 0.9, "population": {"gamma": [0.5, 0.25]}, "note": None}
    logger = TensorBoardLogger()
    logger.start(LoggedRun(tmp_path, "identity", config, num_members=2, member_settings=entries))
    logger.log([point(10)])
    logger.close(True)
    for entry in entries:
        folder = tmp_path / "tensorboard" / f"gamma_{entry['gamma']}_seed_{entry['seed']}"
        assert hparams_of(folder) == entry
        assert read(folder)[0] == [10]
