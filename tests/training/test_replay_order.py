"""Asynchronous runs, repeated exactly."""

import shutil

import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.loops.arrival_order import OrderDiffersError
from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.arrivals_file import NAME, ArrivalsFile, Block, read_arrivals

SETTINGS = {
    "num_envs": 4,
    "num_steps": 8,
    "num_minibatches": 4,
    "total_steps": 12 * 32,
    "hidden_sizes": (8,),
    "backend": "process",
    "num_workers": 4,
    "batch_size": 1,
    "max_staleness": 2,
}
CLOCKED = ("seconds", "fps", "time/", "environments/")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return train(tmp_path_factory.mktemp("recorded") / "run")


def train(path, **settings):
    return kw.train("ppo", "LunarLander-v3", run_dir=path, **(SETTINGS | settings))


def assert_equal(run, other):
    mine, theirs = run.load_checkpoint(), other.load_checkpoint()
    assert mine.step == theirs.step
    for name, array in theirs.arrays.items():
        if name.startswith("state/"):
            np.testing.assert_array_equal(mine.arrays[name], array, err_msg=name)
    for name, column in other.metrics.items():
        if not name.startswith(CLOCKED):
            np.testing.assert_array_equal(run.metrics[name], column, err_msg=name)


def test_the_same_order_gives_the_same_run(recorded, tmp_path, capsys):
    blocks = read_arrivals(recorded.path)
    assert [block.update for block in blocks] == list(range(12))
    assert recorded.metrics["train/staleness_max"].max() > 0  # asynchronous it was
    again = kw.train(
        "ppo", "LunarLander-v3", run_dir=tmp_path / "again", replay_order=recorded.path
    )
    assert not again.interrupted
    assert f"all 12 rollouts were as in '{recorded.path}'" in capsys.readouterr().err
    assert_equal(again, recorded)
    assert not (again.path / NAME).exists()  # it is in the first


def test_another_order_gives_another_run(recorded, tmp_path):
    """Else the test above would show nothing."""
    other = train(tmp_path / "other")
    orders = [read_arrivals(run.path) for run in (recorded, other)]
    assert any(
        not np.array_equal(mine.events, theirs.events) for mine, theirs in zip(*orders, strict=True)
    )
    parameters = [
        run.load_checkpoint().arrays["state/learner/parameters"] for run in (recorded, other)
    ]
    assert (parameters[0] != parameters[1]).any()


@pytest.mark.slow
def test_a_run_that_was_resumed_is_repeated_until_then(recorded, tmp_path):
    path = tmp_path / "resumed"

    def stop(row):
        if row["step"] >= 5 * 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kw.train("ppo", "LunarLander-v3", run_dir=path, on_metrics=stop, **SETTINGS)
    first = shutil.copytree(path, tmp_path / "first")
    kw.train("ppo", "LunarLander-v3", run_dir=path, resume=True)
    blocks = read_arrivals(path)
    assert [block.update for block in blocks] == list(range(12))
    assert [block.update for block in blocks if block.starts] == [0, 5]
    again = kw.train("ppo", "LunarLander-v3", run_dir=tmp_path / "again", replay_order=path)
    assert again.steps == 5 * 32
    assert_equal(again, kw.load(first))


def test_what_is_not_as_it_was_is_found(recorded, tmp_path):
    path = shutil.copytree(recorded.path, tmp_path / "run")
    blocks = read_arrivals(path)
    file = ArrivalsFile(path)
    for block in blocks:
        file.append(block._replace(digest=1) if block.update == 3 else block)
    file.close()
    with pytest.raises(OrderDiffersError, match="rollout 3 is not as it was recorded: its actions"):
        kw.train("ppo", "LunarLander-v3", run_dir=tmp_path / "again", replay_order=path)
    assert kw.load(tmp_path / "again").steps == 3 * 32


def test_what_cannot_be_repeated_says_why(recorded, tmp_path):
    def repeat(path=recorded.path, **settings):
        kw.train("ppo", "LunarLander-v3", run_dir=tmp_path / "new", replay_order=path, **settings)

    with pytest.raises(
        InvalidValueError, match=r"learning_rate: 0.0005 in the run, 0.01 given\nLeave"
    ):
        repeat(learning_rate=0.01)
    with pytest.raises(InvalidValueError, match="resume=True is not for it"):
        kw.train(
            "ppo", "LunarLander-v3", run_dir=recorded.path, resume=True, replay_order=recorded.path
        )
    path = shutil.copytree(recorded.path, tmp_path / "run")
    (path / NAME).write_bytes(b"something else")
    with pytest.raises(RunDirectoryError, match="holds no order of arrivals"):
        repeat(path)
    (path / NAME).unlink()
    with pytest.raises(
        RunDirectoryError, match=r"holds no arrivals\.bin: only runs with batch_size"
    ):
        repeat(path)
    assert not (tmp_path / "new").exists()


def test_files_that_are_cut_off_or_damaged_end_earlier(tmp_path):
    blocks = [Block(update, update == 0, 7, np.arange(50 + update)) for update in range(5)]
    file = ArrivalsFile(tmp_path)
    for block in blocks:
        file.append(block)
    file.close()
    whole = (tmp_path / NAME).read_bytes()
    assert len(read_arrivals(tmp_path)) == 5
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        for content in (whole[:at], bytes(damaged)):
            (tmp_path / NAME).write_bytes(content)
            try:
                read = read_arrivals(tmp_path)
            except RunDirectoryError:
                assert at < 22  # in its first line
                continue
            assert len(read) < 5
            for block, wanted in zip(read, blocks, strict=False):
                np.testing.assert_array_equal(block.events, wanted.events)
                assert block[:3] == wanted[:3]
    (tmp_path / NAME).write_bytes(whole[:-3])
    file = ArrivalsFile(tmp_path, first=3)
    file.append(blocks[3])
    file.close()
    assert [block.update for block in read_arrivals(tmp_path)] == [0, 1, 2, 3]


def test_a_full_disk_ends_recording_and_not_training(tmp_path, monkeypatch, capsys):
    append = ArrivalsFile.append

    def full(self, block):
        if block.update == 4:
            raise OSError(28, "No space left on device")
        append(self, block)

    monkeypatch.setattr(ArrivalsFile, "append", full)
    run = train(tmp_path / "run")
    assert run.steps == 12 * 32
    said = capsys.readouterr().err
    assert said.count("the order of arrivals cannot be written (No space left on device)") == 1
    assert "repeated exactly up to update 4 only" in said
    assert len(read_arrivals(run.path)) == 4


@pytest.mark.parametrize("content", [b"", None])
def test_a_damaged_order_does_not_keep_a_run_from_going_on(recorded, tmp_path, content, capsys):
    path = shutil.copytree(recorded.path, tmp_path / "run")
    (path / NAME).unlink()
    if content is None:
        (path / NAME).mkdir()
    else:
        (path / NAME).write_bytes(content)
    run = kw.train("ppo", "LunarLander-v3", run_dir=path, resume=True, total_steps=14 * 32)
    assert run.steps == 14 * 32
    assert "The order of arrivals is not recorded" in capsys.readouterr().err
