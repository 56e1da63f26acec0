"""The order in which results of environments arrived while a run trained, rollout after rollout.

A block for each rollout: a header, then what happened until its last result was in. So a file that ends
in the middle of a block holds all rollouts before it.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kiloworlds.training.run_errors import RunDirectoryError, reading

NAME = "arrivals.bin"
_MAGIC = b"kiloworlds arrivals 1\n"
_HEADER = struct.Struct(
    "<6I"
)  # update, starts, digest, bytes of the events, their checksum, its own


class Block(NamedTuple):
    """What happened until a rollout was complete.

    Attributes:
        update: the number of the rollout.
        starts: whether all environments were reset before it.
        digest: of the rollout itself, by which a repetition is checked.
        events: one after the other: a policy's version (-1: none, results were received), a number of
            environments, and which.
    """

    update: int
    starts: bool
    digest: int
    events: np.ndarray


class ArrivalsFile:
    """Appends blocks to the file of a run.

    Args:
        path: the run directory.
        first: the number of the first rollout that will come; blocks from there on are cut off.
    """

    def __init__(self, path: Path, first: int = 0):
        self._path = path / NAME
        end = 0
        if first and self._path.exists():
            end = _end_of(self._path, first)
        self._file = self._path.open("r+b" if end else "wb", buffering=0)
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._file.write(_MAGIC)

    def append(self, block: Block) -> None:
        """Writes a block, in one call: a kill leaves it whole or cut off.

        Raises:
            OSError: it cannot be written.
        """
        data = zlib.compress(block.events.astype("<i4").tobytes(), 1)
        numbers = block.update, block.starts, block.digest, len(data), zlib.crc32(data)
        own = zlib.crc32(struct.pack("<5I", *numbers))
        whole = _HEADER.pack(*numbers, own) + data
        if not os.fstat(self._file.fileno()).st_nlink:
            raise OSError(errno.ENOENT, "somebody deleted it")
        if self._file.write(whole) != len(whole):
            raise OSError("a part could not be written")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_arrivals(path: Path) -> list[Block]:
    """The blocks of a run; those from the first damaged one on are left out.

    Raises:
        RunDirectoryError: the run has no such file, or it is something else.
    """
    file = path / NAME
    if not file.exists():
        raise RunDirectoryError(
            f"{str(path)!r} holds no {NAME}: only runs with batch_size record the order of arrivals; "
            "training others again with their config.yaml repeats them."
        )
    with reading(file):
        return [block for block, _ in _blocks(file)]


def _blocks(file: Path) -> Iterator[tuple[Block, int]]:
    """The whole blocks and where each ends."""
    with file.open("rb") as content:
        if content.read(len(_MAGIC)) != _MAGIC:
            raise RunDirectoryError(
                f"{str(file)!r} holds no order of arrivals, or one of a newer format."
            )
        size = os.fstat(content.fileno()).st_size
        while len(header := content.read(_HEADER.size)) == _HEADER.size:
            update, starts, digest, length, checksum, own = _HEADER.unpack(header)
            if zlib.crc32(header[:-4]) != own or length > size:
                return
            data = content.read(length)
            if len(data) < length or zlib.crc32(data) != checksum:
                return
            events = np.frombuffer(zlib.decompress(data), "<i4")
            yield Block(update, bool(starts), digest, events), content.tell()


def _end_of(file: Path, first: int) -> int:
    """Where the blocks before rollout `first` end."""
    end = len(_MAGIC)
    for block, position in _blocks(file):
        if block.update >= first:
            break
        end = position
    return end
