"""What every fault test checks when it is over: nothing is left behind."""

import contextlib
import os
import time
from pathlib import Path

import pytest

from kiloworlds.vector.process.pool import ProcessExecutor


def children() -> set[int]:
    """Process ids of this process' living children."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set(map(int, (task / "children").read_text().split()))
    return found


def descriptors() -> int:
    """Open file descriptors, but for those of shared memory, which live as long as its arrays: a
    test's traceback may hold these for a while."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            count += "memfd:kiloworlds" not in os.readlink(entry)
    return count


@pytest.fixture
def pool():
    """Makes pools, closes them, and sees to it that no process and no descriptor is left."""
    before, opened = children(), descriptors()
    made = []

    def make(*args, **kwargs):
        made.append(ProcessExecutor(*args, **kwargs))
        return made[-1]

    yield make
    while made:
        made.pop().close()
    deadline = time.monotonic() + 5
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children() - before
    assert descriptors() <= opened


@pytest.fixture
def once(tmp_path):
    """The file that says that a fault has happened."""
    return tmp_path / "fault"
