"""Arrays in memory that several processes share."""

import itertools
import mmap
import os
import tempfile
from typing import NamedTuple

import numpy as np

_ALIGNMENT = 64  # a cache line: neighbours written by two processes then never share one


class ArraySpec(NamedTuple):
    """Type and shape of one shared array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes, rounded up to whole cache lines."""
        size = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
        return max(_ALIGNMENT, -(-size // _ALIGNMENT) * _ALIGNMENT)


class SharedArrays:
    """Numpy arrays laid out one after the other in anonymous shared memory.

    The memory has no name in the file system: the kernel frees it when the last process that maps
    it ends, however it ends, so that nothing can be left behind.

    Args:
        specs: the arrays, by name.
        descriptor: of the memory another process created; None creates it.
    """

    def __init__(self, specs: dict[str, ArraySpec], descriptor: int | None = None):
        self.specs = specs
        size = sum(spec.size for spec in specs.values()) or _ALIGNMENT
        if descriptor is None:
            descriptor = _anonymous_memory(size)
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, size)
        self._arrays: dict[str, np.ndarray] = {}
        offset = 0
        for name, spec in specs.items():
            self._arrays[name] = np.ndarray(spec.shape, spec.dtype, self._map, offset)
            offset += spec.size

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def numbered(self, name: str) -> list[np.ndarray]:
        """The arrays `name`0, `name`1, ... in order: the parts of a value of a nested space."""
        names = (f"{name}{position}" for position in itertools.count())
        return [self[key] for key in itertools.takewhile(self.specs.__contains__, names)]

    def close(self) -> None:
        """Gives the descriptor back. The memory itself lives as long as an array on it does."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _anonymous_memory(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("kiloworlds")
    else:
        with tempfile.TemporaryFile() as file:  # without a name from the start
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
