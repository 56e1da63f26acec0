"""Watches a trainer: one that crashes or hangs is started again, and goes on from its newest state."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kiloworlds.training.storage.run_files import Say, append_event
from kiloworlds.training.survival.lifeline import Lifeline

_LOOK_SECONDS = 0.1
_LONGEST_WAIT = 30.0  # s, between a crash and the next start
_KILL_AFTER = 10.0  # s, that a trainer has to end by itself after a signal
_FINAL = (0, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes after which nothing is to be done: done, wrong use, interrupted."""

_PR_SET_PDEATHSIG = 1  # of Linux


class Limits(NamedTuple):
    """When a trainer counts as hung (seconds without a sign of life, or to the first), and how many
    crashes in a row without progress, or how many in an hour, end it all."""

    hang_seconds: float = 300.0
    start_seconds: float = 900.0
    crashes_without_progress: int = 3
    crashes_per_hour: int = 20


class Supervisor:
    """Keeps a trainer going.

    Args:
        first: the command that begins the training.
        again: gives the command that goes on with the run at a path.
        limits: when to step in, and when to stop.
        say: is told what happens.
    """

    def __init__(
        self,
        first: Sequence[str],
        again: Callable[[Path], Sequence[str]],
        limits: Limits,
        say: Say,
    ):
        self._first, self._again = first, again
        self._limits, self._say = limits, say
        self._lifeline = Lifeline.create()
        self._crashes: list[float] = []
        self._without_progress = 0
        self._reached = 0  # updates, before the crash before
        self._signal: int | None = None

    def run(self) -> int:
        """Watches until training has ended; returns the exit code."""
        previous = {
            number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            while True:
                code, why = self._watch(self._start())
                if code in _FINAL or self._signal is not None:
                    return code if code >= 0 else 128 - code
                if not self._may_start_again(why):
                    return 1
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._lifeline.close()

    def _hear(self, number, frame) -> None:
        self._signal = number

    def _start(self) -> subprocess.Popen:
        path = self._lifeline.path
        self._lifeline.forget_beat()
        return subprocess.Popen(
            self._first if path is None else self._again(path),
            env=os.environ | self._lifeline.environment,
            pass_fds=self._lifeline.descriptors,
            process_group=0,  # so that Ctrl-C is heard here and handed on
        )

    def _watch(self, trainer: subprocess.Popen) -> tuple[int, str]:
        """Waits for the end of a trainer, and ends one that hangs; returns its exit code and why."""
        began, told = time.monotonic(), None
        hung, patience = False, 0.0
        while (code := trainer.poll()) is None:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if self._signal is not None and told is None:
                trainer.send_signal(self._signal)
                told = now
            beat = self._lifeline.last_beat()
            silent = now - (began if beat is None else beat.time)
            limits = self._limits
            patience = limits.start_seconds if beat is None else limits.hang_seconds
            if told is not None and now - told > _KILL_AFTER:
                trainer.kill()
            elif silent > patience:
                hung = True
                trainer.kill()
        if hung:
            return code, f"gave no sign of life for {patience:g} s and was killed"
        if code < 0:
            return code, f"was killed by {signal.Signals(-code).name}"
        return code, f"failed with exit code {code}"

    def _may_start_again(self, why: str) -> bool:
        now = time.monotonic()
        beat = self._lifeline.last_beat()
        reached = 0 if beat is None else beat.updates
        progressed = reached > self._reached
        self._reached = max(self._reached, reached)
        self._without_progress = 1 if progressed else self._without_progress + 1
        self._crashes = [crash for crash in self._crashes if now - crash < 3600] + [now]
        limits, count = self._limits, len(self._crashes)
        stops = (
            self._without_progress > limits.crashes_without_progress
            or count > limits.crashes_per_hour
        )
        self._note("trainer crashed", why=why, update=reached, crashes=count)
        if stops:
            times = (
                f"{self._without_progress} times without getting further"
                if self._without_progress > limits.crashes_without_progress
                else f"{count} times within an hour"
            )
            self._say(f"the trainer {why}; that happened {times}: giving up.")
            return False
        wait = 0.0 if progressed else min(2.0 ** (self._without_progress - 1), _LONGEST_WAIT)
        when = "before its first update" if beat is None else f"after update {reached}"
        self._say(f"the trainer {why} {when}; it starts again{f' in {wait:g} s' if wait else ''}.")
        until = now + wait
        while time.monotonic() < until and self._signal is None:
            time.sleep(_LOOK_SECONDS)
        return self._signal is None

    def _note(self, event: str, **facts) -> None:
        path = self._lifeline.path
        if path is not None and path.is_dir():
            try:
                append_event(path, event, **facts)
            except OSError as error:  # the disk may be what made it crash
                self._say(
                    f"this cannot be noted in events.jsonl ({error.strerror}): {event} {facts}"
                )


def die_with(supervisor: int) -> None:
    """Has the system kill this process when its parent is gone, so that no trainer is left alone.

    Args:
        supervisor: the number of the parent's process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it was gone before
            os.kill(os.getpid(), signal.SIGKILL)
