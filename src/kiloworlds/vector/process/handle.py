"""The pool's side of one worker: the channel to it, and its clock."""

import contextlib
import itertools
import os
import pickle
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.signals import Signal

_MESSAGE_TIMEOUT = 20
"""Seconds without a byte after which a worker that was sending a message counts as hung."""


class InfoColumn(NamedTuple):
    """An info of all environments of one worker, in shared memory.

    Attributes:
        key: its name.
        values: `[n, ...]`.
        mask: boolean `[n]`, the environments that have it.
    """

    key: str
    values: np.ndarray
    mask: np.ndarray


class WorkerHandle(ABC):
    """Speaks to one worker. How a worker runs, and ends, is for subclasses.

    Args:
        number: which worker of the pool.
        rows: the environments it runs.

    Attributes:
        rows: the range of its environments' numbers.
        slot: which part of what workers have for themselves in the shared memory is this one's.
        is_live: whether it has built its environments and shares the memory.
        control: messages to and from the worker.
        inbox, outbox: signals that work or results wait.
        ended_fd: a descriptor that becomes readable when the worker ends.
        infos: the infos that travel in shared memory.
    """

    ended_fd: int
    slot: int

    def __init__(self, number: int, rows: range):
        self.number, self.rows = number, rows
        self.is_live = False
        self.infos: list[InfoColumn] = []
        self.inbox, self.outbox = Signal.create(), Signal.create()
        ours, self._theirs = socket.socketpair()
        # A worker that is stopped in the middle of a message must not stop the pool.
        ours.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _MESSAGE_TIMEOUT, 0)
        )
        self.control = Connection(ours.detach())
        self._read = self._sent = 0
        self._unsent = bytearray()
        self._seen_mark = -1
        self._progress_at = time.monotonic()

    def attach(self, layout: protocol.Layout, slot: int, memory: SharedArrays) -> None:
        """Shares the memory with a worker that is ready; it then serves."""
        self.slot = slot
        self._inbox, self._outbox = memory["inbox"][slot], memory["outbox"][slot]
        self._progress = memory["progress"][slot]
        self._progress[:] = 0
        self._taken = memory["taken"][slot]
        self._taken[0] = 0
        self._info_memory = memory["infos"][slot]
        with contextlib.suppress(OSError):
            # With classes of the main script by value, among them spaces.
            self.control.send_bytes(cloudpickle.dumps(protocol.Attach(layout, slot)))
            with socket.socket(fileno=os.dup(self.control.fileno())) as channel:
                socket.send_fds(channel, [b"m"], [memory.descriptor])
        self.is_live = True
        self.mark_progress()

    def add_info(self, info: protocol.NewInfo) -> None:
        """Takes note of an info that the worker has announced."""
        values, mask = protocol.info_arrays(info, len(self.rows), self._info_memory)
        self.infos.append(InfoColumn(info.key, values, mask))

    def push(self, entry: int) -> None:
        """Puts one entry into the inbox and wakes the worker."""
        self._inbox[self._sent % len(self._inbox)] = entry
        self._sent += 1
        self.inbox.post()

    def push_rows(self, rows: list[int]) -> None:
        """Asks for a step of some environments."""
        for row in rows:
            self._inbox[self._sent % len(self._inbox)] = row - self.rows.start
            self._sent += 1
        self.inbox.post(len(rows))

    def send(self, message: Any) -> None:
        """Sends a message; one to a worker that has ended goes nowhere.

        Raises:
            InvalidValueError: it cannot be pickled. Nothing has been sent.
        """
        data = protocol.pickled_or_refused(message)
        self.push(protocol.MESSAGE)
        self._unsent += _frame(data)
        self.send_rest()

    def send_rest(self) -> None:
        """Sends what the socket takes at once of what it did not take before."""
        if not self._unsent:
            return
        with socket.socket(fileno=os.dup(self.control.fileno())) as channel:
            try:
                while self._unsent:
                    sent = channel.send(self._unsent, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                    del self._unsent[:sent]
            except BlockingIOError:
                return  # the rest goes later
            except OSError:
                self._unsent.clear()  # it has ended

    @property
    def has_unsent(self) -> bool:
        """Whether `send_rest` has something to send."""
        return bool(self._unsent)

    def receive(self) -> Any:
        """The next message, which the worker is sending now.

        Raises:
            EOFError, OSError: it has ended, or stopped in the middle of the message.
        """
        return pickle.loads(self.control.recv_bytes())

    def take(self) -> list[int]:
        """The entries that wait in the outbox; sleeps until there is one."""
        size = len(self._outbox)
        count = self.outbox.take()
        entries = [int(self._outbox[(self._read + i) % size]) for i in range(count)]
        self._read += count
        self._taken[0] = self._read
        return entries

    def has_entries(self) -> bool:
        """Whether `take` would return at once."""
        return _is_readable(self.outbox.read_fd)

    def has_ended(self) -> bool:
        """Whether the worker is no more."""
        return _is_readable(self.ended_fd)

    @property
    def activity(self) -> int:
        """What it is at: `IDLE`, `STEPPING` or `RESETTING`."""
        return int(self._progress[1])

    @property
    def current_row(self) -> int:
        """The environment it is busy with, or was last."""
        return protocol.row_of(int(self._progress[0]))

    def mark_progress(self) -> None:
        """The clock of the deadline starts now: work was just handed out."""
        self._progress_at = time.monotonic()

    def seconds_without_progress(self) -> float:
        """How long nothing was begun or handed out."""
        if self.is_live and int(self._progress[0]) != self._seen_mark:
            self._seen_mark = int(self._progress[0])
            self.mark_progress()
        return time.monotonic() - self._progress_at

    def resident_memory(self) -> int:
        """Bytes of memory that the worker holds by itself; 0 if it shares this process's."""
        return 0

    def free(self) -> None:
        """Gives all descriptors back."""
        self.control.close()
        self.inbox.close()
        self.outbox.close()
        os.close(self.ended_fd)

    @abstractmethod
    def kill(self) -> None:
        """Ends the worker at once and waits until it is gone, so that nothing it does comes later."""

    @abstractmethod
    def how_it_ended(self) -> str:
        """Why a worker that has ended did so, in words."""

    @abstractmethod
    def stop(self, patience: float) -> None:
        """Waits `patience` seconds for a worker told to close; frees everything."""


def _frame(data: bytes) -> bytes:
    """What `multiprocessing.connection.Connection.recv_bytes` reads as `data`."""
    if len(data) <= 0x7FFFFFFF:
        return struct.pack("!i", len(data)) + data
    return struct.pack("!iQ", -1, len(data)) + data


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()  # select() would take no descriptor above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def receive_descriptor(control: Connection) -> int:
    """Takes a file descriptor that the other side has sent.

    Raises:
        EOFError: the other side is gone.
    """
    with socket.socket(fileno=os.dup(control.fileno())) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise EOFError
    return descriptors[0]


def share(num_envs: int, num_workers: int) -> list[range]:
    """Splits environment numbers into contiguous, nearly equal ranges."""
    ends = np.linspace(0, num_envs, num_workers + 1).round().astype(int).tolist()
    return [range(first, last) for first, last in itertools.pairwise(ends)]
