"""Memory that outlives a trainer: a supervisor holds it, the trainer writes into it.

It tells when the trainer was last alive and where its run is, and holds the newest two snapshots: a
trainer that dies while it writes one leaves the other. Nothing of it touches the disk.
"""

import contextlib
import hashlib
import json
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.numpy

from kiloworlds.training.storage.checkpoint import Checkpoint
from kiloworlds.training.storage.checkpoint_writer import Snapshot

VARIABLE = "KILOWORLDS_LIFELINE"
"""The environment variable that tells a trainer its lifeline's descriptors, and its supervisor."""

_BEAT = struct.Struct("<dq")
_HEADER = struct.Struct("<8sqqqq32s")  # magic, number, step, length of facts and of arrays, digest
_MAGIC = b"kwslot01"


class Beat(NamedTuple):
    """A sign of life: when (of the system's monotonic clock, s), and after how many updates."""

    time: float
    updates: int


class Lifeline:
    """See the module.

    Args:
        descriptors: of the status and of the two slots.
        supervisor: the number of the supervisor's process.
    """

    def __init__(self, descriptors: tuple[int, int, int], supervisor: int):
        self.descriptors, self.supervisor = descriptors, supervisor
        self._status, *self._slots = descriptors
        self._number = max((number for number, _ in map(self._header, self._slots)), default=0)

    @classmethod
    def create(cls) -> "Lifeline":
        """A new one, for a supervisor."""
        first, second, third = (_memory(name) for name in ("status", "slot-0", "slot-1"))
        return cls((first, second, third), os.getpid())

    @classmethod
    def given(cls) -> "Lifeline | None":
        """The one that a supervisor gave this process, if any."""
        words = os.environ.get(VARIABLE)
        if words is None:
            return None
        first, second, third, supervisor = map(int, words.split(","))
        return cls((first, second, third), supervisor)

    @property
    def environment(self) -> dict[str, str]:
        """What tells a trainer of it."""
        return {VARIABLE: ",".join(map(str, (*self.descriptors, self.supervisor)))}

    def beat(self, updates: int) -> None:
        """Gives a sign of life."""
        os.pwrite(self._status, _BEAT.pack(time.monotonic(), updates), 0)

    def beat_again(self) -> None:
        """Gives another sign of life after as many updates as the last; none before the first."""
        last = self.last_beat()
        if last is not None:
            self.beat(last.updates)

    def forget_beat(self) -> None:
        """Makes as if there had been none, before another trainer starts."""
        os.pwrite(self._status, bytes(_BEAT.size), 0)

    def last_beat(self) -> Beat | None:
        """The newest sign of life; None before the first."""
        content = os.pread(self._status, _BEAT.size, 0)
        if len(content) < _BEAT.size or not any(content):
            return None
        return Beat(*_BEAT.unpack(content))

    @property
    def path(self) -> Path | None:
        """Where the run is; None before it was said."""
        content = os.pread(self._status, 1 << 16, _BEAT.size)
        return Path(content.decode()) if content else None

    @path.setter
    def path(self, path: Path) -> None:
        os.ftruncate(self._status, _BEAT.size)
        os.pwrite(self._status, str(path.resolve()).encode(), _BEAT.size)

    def keep(self, snapshot: Snapshot) -> None:
        """Takes a snapshot in place of the older of the two."""
        facts = json.dumps(snapshot.facts).encode()
        arrays = safetensors.numpy.save(snapshot.arrays)
        digest = hashlib.sha256(facts)
        digest.update(arrays)
        slot = self._slots[self._number % 2]
        self._number += 1
        os.ftruncate(slot, 0)
        _write(slot, facts, _HEADER.size)
        _write(slot, arrays, _HEADER.size + len(facts))
        lengths = len(facts), len(arrays)
        header = _HEADER.pack(_MAGIC, self._number, snapshot.step, *lengths, digest.digest())
        os.pwrite(slot, header, 0)  # last: what has no header is not read

    def newest(self) -> Checkpoint | None:
        """The newest snapshot that is whole."""
        for _, slot in sorted(
            ((self._header(slot)[0], slot) for slot in self._slots), reverse=True
        ):
            number, header = self._header(slot)
            if not number:
                continue
            _, _, step, facts_length, arrays_length, digest = header
            content = _read(slot, facts_length + arrays_length, _HEADER.size)
            if hashlib.sha256(content).digest() == digest:
                arrays = safetensors.numpy.load(content[facts_length:])
                return Checkpoint(step, arrays, json.loads(content[:facts_length]))
        return None

    def _header(self, slot: int) -> tuple[int, Any]:
        """The number of what a slot holds, 0 if nothing, and all that is told of it."""
        content = os.pread(slot, _HEADER.size, 0)
        if len(content) < _HEADER.size or not content.startswith(_MAGIC):
            return 0, None
        header = _HEADER.unpack(content)
        return header[1], header

    def close(self) -> None:
        """Lets go of it."""
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _memory(name: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(f"kiloworlds-lifeline-{name}")
    with tempfile.TemporaryFile() as file:  # systems without memory that has a descriptor
        return os.dup(file.fileno())


def _read(descriptor: int, length: int, offset: int) -> bytes:
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):  # at most 2 GB at once
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return b"".join(parts)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:  # one call writes at most 2 GB
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
