"""Checkpoints on disk: written whole or not at all, and checked before they are read.

    checkpoints/<step>/state.safetensors   arrays by name
                       manifest.json       what they are: step, settings, versions
                       SHA256SUMS          of both, as `sha256sum -c` reads them

A checkpoint is written into a directory of another name, forced to the disk and then renamed: readers
see all of it or nothing. Arrays are kept by safetensors and the rest is JSON: nothing that is read runs
code. (Orbax took 40 ms of processor time to save the state of PPO on CartPole, 112 kB, and stopped
training for 12 to 65 ms; this takes 1 ms, beside training.)
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.numpy

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.arrays import Arrays

FORMAT_VERSION = 1

_STATE, _MANIFEST, _SUMS = "state.safetensors", "manifest.json", "SHA256SUMS"
_FILES = {_STATE, _MANIFEST, _SUMS}
_FORMAT = "kiloworlds checkpoint"
_UNFINISHED = "tmp-"
_BLOCK = 1 << 20


class DamagedCheckpointError(RunDirectoryError):
    """A checkpoint that is not what was written."""


class NoCheckpointError(RunDirectoryError):
    """A run without any checkpoint that can be read."""


class Retention(NamedTuple):
    """Which checkpoints stay: the newest `last` ones, the best one, and those at or first after every
    multiple of `every` steps. The newest always stays."""

    last: int = 2
    best: bool = True
    every: int | None = None


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        step: environment steps per seed until then.
        arrays: by name.
        facts: what was written beside them.
    """

    step: int
    arrays: Arrays
    facts: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they are; need not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in order, whether they can be read or not."""
        return sorted(
            int(entry.name)
            for entry in self.folder.glob("*")
            if re.fullmatch("0|[1-9][0-9]*", entry.name) and entry.is_dir() and any(entry.iterdir())
        )

    def path(self, step: int) -> Path:
        """The directory of a checkpoint."""
        return self.folder / str(step)

    def save(self, step: int, arrays: Arrays, facts: dict[str, Any]) -> None:
        """Writes a checkpoint, in place of one of the same step.

        Args:
            facts: what JSON can hold; an entry "score" tells which is the best.

        Raises:
            OSError: it cannot be written; those before are as they were.
        """
        unfinished = self.folder / f"{_UNFINISHED}{step}-{os.getpid()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            manifest = {"format": _FORMAT, "version": FORMAT_VERSION, "step": step}
            _save_arrays(arrays, unfinished / _STATE)
            (unfinished / _MANIFEST).write_text(json.dumps(manifest | facts) + "\n")
            (unfinished / _SUMS).write_text(_sums(unfinished))
            for name in _FILES:
                _force_to_disk(unfinished / name)
            _force_to_disk(unfinished)
            self._rename(unfinished, self.path(step))
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _rename(self, unfinished: Path, final: Path) -> None:
        if final.exists():  # a directory cannot be renamed onto another
            replaced = unfinished.with_name(f"{unfinished.name}-replaced")
            final.rename(replaced)
            unfinished.rename(final)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            unfinished.rename(final)
        _force_to_disk(self.folder)

    def load(self, step: int, only: str = "") -> Checkpoint:
        """Reads a checkpoint after checking that it is what was written.

        Args:
            only: read but arrays whose names begin so.

        Raises:
            DamagedCheckpointError: it is not; the message names the file.
            NoCheckpointError: there is none of that step; those there are are named.
        """
        path = self.path(step)
        if not path.is_dir():
            known = ", ".join(map(str, self.steps())) or "none"
            raise NoCheckpointError(
                f"{str(self.folder)!r} has no checkpoint of step {step}; those it has: {known}."
            )
        with _reading(path):
            _verify(path)
            facts = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            if facts["version"] > FORMAT_VERSION:
                raise RunDirectoryError(
                    f"the checkpoint {str(path)!r} has format {facts['version']}, and this version of "
                    f"kiloworlds reads up to {FORMAT_VERSION}: it was written by a newer one, see its "
                    f"{_MANIFEST}."
                )
            told = facts["format"], facts["step"]
            if told != (_FORMAT, step):
                raise InvalidValueError(
                    f"its {_MANIFEST} tells of {told[0]!r} of step {told[1]}, not of {_FORMAT!r} of "
                    f"step {step}."
                )
            with safetensors.safe_open(path / _STATE, framework="numpy") as file:
                names = [name for name in file.keys() if name.startswith(only)]  # noqa: SIM118
                arrays = {name: file.get_tensor(name) for name in names}
        return Checkpoint(step, arrays, facts)

    def load_newest(
        self, say: Callable[[str], None], only: str = "", before: int | None = None
    ) -> Checkpoint:
        """The newest checkpoint that is what was written.

        Args:
            say: is told of every newer one that is not.
            only: see `load`.
            before: only those of fewer steps.

        Raises:
            NoCheckpointError: there is none.
        """
        steps = [step for step in reversed(self.steps()) if before is None or step < before]
        for step in steps:
            try:
                return self.load(step, only)
            except DamagedCheckpointError as error:
                say(str(error) if step == steps[-1] else f"{error} Trying the one before it.")
        damaged = f" that can be read; all of {steps} are damaged" if steps else ""
        raise NoCheckpointError(f"{str(self.folder)!r} holds no checkpoint{damaged}.")

    def best_step(self) -> int | None:
        """The step of the checkpoint of the highest score; None where none has any."""
        scores = {step: self._score(step) for step in self.steps()}
        known = {step: score for step, score in scores.items() if score is not None}
        return max(known, key=lambda step: (known[step], step)) if known else None

    def _score(self, step: int) -> float | None:
        file = self.path(step) / _MANIFEST
        try:
            score = json.loads(file.read_text())["score"] if file.is_file() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # damaged: it has none
            return None
        if not isinstance(score, int | float) or isinstance(score, bool):
            return None
        return score if math.isfinite(score) else None

    def prune(self, keep: Retention) -> None:
        """Deletes checkpoints that need not stay; the newest always does."""
        steps = self.steps()
        stay = set(steps[-max(1, keep.last) :])
        if keep.best:
            stay |= {self.best_step()} - {None}
        if keep.every is not None:
            first: dict[int, int] = {}
            for step in steps:
                first.setdefault(step // keep.every, step)
            stay |= {step for multiple, step in first.items() if multiple}
        for step in set(steps) - stay:
            doomed = self.path(step).with_name(f"{_UNFINISHED}{step}-{os.getpid()}-old")
            self.path(step).rename(doomed)  # so that no half of it is ever listed
            shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self) -> None:
        """Deletes what processes that are gone left unfinished."""
        for entry in self.folder.glob(f"{_UNFINISHED}*"):
            process = re.match(rf"{_UNFINISHED}\d+-(\d+)", entry.name)
            if process is None or not _lives(int(process[1])):
                shutil.rmtree(entry, ignore_errors=True)


def _lives(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _verify(path: Path) -> None:
    """Raises InvalidValueError unless a checkpoint's files are those that were written."""
    found = {entry.name for entry in path.iterdir()}
    if found != _FILES:
        lacking, more = sorted(_FILES - found), sorted(found - _FILES)
        told = [f"it lacks {', '.join(lacking)}"] if lacking else []
        told += [f"it has {', '.join(more)} besides"] if more else []
        raise InvalidValueError(f"{' and '.join(told)}.")
    for name in _FILES:
        if (path / name).is_symlink() or not (path / name).is_file():
            raise InvalidValueError(f"{name} is a link, or no file.")
    written = (path / _SUMS).read_bytes()
    if written == _sums(path).encode():
        return
    for line in _sums(path).splitlines():
        digest, name = line.split("  ")
        known = re.search(rb"^([0-9a-f]{64})  %b$" % name.encode(), written, re.MULTILINE)
        if known is None:
            raise InvalidValueError(f"{_SUMS} is not what was written: it does not tell of {name}.")
        if known[1].decode() != digest:
            raise InvalidValueError(
                f"{name} is not what was written: its sha256 is {digest}, and {_SUMS} has "
                f"{known[1].decode()}."
            )
    raise InvalidValueError(f"{_SUMS} is not what was written.")


def _sums(path: Path) -> str:
    """The content of SHA256SUMS."""
    return "".join(f"{_digest(path / name)}  {name}\n" for name in (_MANIFEST, _STATE))


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _save_arrays(arrays: Arrays, file: Path) -> None:
    try:
        safetensors.numpy.save_file(arrays, file)
    except safetensors.SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except RunDirectoryError:
        raise
    except Exception as error:  # safetensors and JSON raise several kinds for what is damaged
        reason = str(error) if isinstance(error, InvalidValueError) else repr(error)
        raise DamagedCheckpointError(
            f"the checkpoint {str(path)!r} is damaged, or not of kiloworlds: {reason[:400]}"
        ) from error
