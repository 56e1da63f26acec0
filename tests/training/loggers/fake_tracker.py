"""A package `wandb` that writes what it is told into a file, and fails as it is told."""

import json
from pathlib import Path

_CODE = """
import json
import os
import signal
import time

FILE = {file!r}
FAILURE = {failure!r}


def note(**what):
    with open(FILE, "a") as file:
        file.write(json.dumps(what) + "\\n")


def fail_in(call):
    if FAILURE == f"raise in {{call}}":
        raise RuntimeError("no network")
    if FAILURE == f"hang in {{call}}":
        time.sleep(600)
    if FAILURE == f"die in {{call}}":
        os.kill(os.getpid(), signal.SIGKILL)


fail_in("import")


class Settings:
    def __init__(self, **_):
        print("what it prints")


class Run:
    offline = {offline!r}
    url = "https://somewhere"
    dir = "/somewhere/files"
    starting_step = {starting_step!r}

    def log(self, values, step):
        fail_in("log")
        note(step=step, values=values)

    def finish(self, exit_code):
        fail_in("finish")
        note(exit_code=exit_code)


def init(**settings):
    note(pid=os.getpid(), id=settings["id"])
    fail_in("init")
    return Run()
"""


def row(step: int, **more) -> dict:
    """A row of metrics."""
    return {"step": step, "seconds": step / 100, "fps": None, **more}


class FakeTracker:
    """See the module.

    Args:
        folder: where the package and its file go; must be on the path of Python.
    """

    def __init__(self, folder: Path):
        self._package, self._file = folder / "wandb.py", folder / "told.jsonl"
        self.install()

    def install(self, failure: str = "", offline: bool = False, starting_step: int = 0) -> None:
        """Has it fail so: "raise in log", "hang in init", "die in finish", ..."""
        settings = {"failure": failure, "offline": offline, "starting_step": starting_step}
        self._package.write_text(_CODE.format(file=str(self._file), **settings))

    @property
    def told(self) -> list[dict]:
        """What it was told so far."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def steps(self) -> list[int]:
        """Of the rows it was given."""
        return [entry["step"] for entry in self.told if "step" in entry]
