"""What every fault test checks when it is over: nothing is left behind."""

import gc
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


@pytest.fixture
def pool():
    """Makes pools, closes them, and sees to it that no process and no descriptor is left."""
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))
    made = []

    def make(*args, **kwargs):
        made.append(ProcessExecutor(*args, **kwargs))
        return made[-1]

    yield make
    while made:
        made.pop().close()
    gc.collect()  # a map of memory holds a descriptor for as long as arrays on it live
    deadline = time.monotonic() + 5
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children() - before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.fixture
def once(tmp_path):
    """The file that says that a fault has happened."""
    return tmp_path / "fault"
