"""The order in which environments that go at their own pace are sent off and come back.

It depends on the clock, and with it what is learnt. Recorded, it can be repeated.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.training.loops.policy_board import StoppedError
from kiloworlds.training.loops.rollout_buffer import Collected
from kiloworlds.training.storage.arrivals_file import ArrivalsFile, Block

RECEIVED = -1
"""In place of a policy's version: results came back."""

_NONE = np.zeros(0, np.int32)


class OrderDiffersError(KiloworldsError):
    """A run that is repeated is not as it was recorded."""


class Event(NamedTuple):
    """Environments were sent off with a policy, or came back.

    Attributes:
        version: of the policy; `RECEIVED` if they came back.
        rows: which environments.
    """

    version: int
    rows: np.ndarray


class Recording:
    """Keeps what happens, and writes it when a rollout is complete.

    Args:
        file: where to; None keeps nothing.
        say: hears that it cannot be written.
    """

    def __init__(
        self, file: ArrivalsFile | None = None, say: Callable[[str], None] = lambda words: None
    ):
        self._file, self._say = file, say
        self._events: list[np.ndarray] = []
        self._starts = True

    def note(self, version: int, rows: np.ndarray) -> None:
        """Notes an event."""
        if self._file is not None:
            self._events.append(np.array([version, len(rows), *rows], np.int32))

    def finish(self, update: int, collected: Collected) -> None:
        """A rollout is complete."""
        if self._file is None:
            return
        block = Block(
            update, self._starts, digest(collected), np.concatenate([*self._events, _NONE])
        )
        self._events, self._starts = [], False
        try:
            self._file.append(block)
        except OSError as error:  # a gap would be worse than an end
            self._say(
                f"the order of arrivals cannot be written ({error.strerror or error}): the run can be "
                f"repeated exactly up to update {update} only. Training goes on."
            )
            self.close()

    def close(self) -> None:
        """Ends recording."""
        if self._file is not None:
            self._file.close()
        self._file = None


class Playback:
    """What happened in a run, to be repeated.

    Args:
        blocks: of the run.

    Attributes:
        num_updates: how many can be repeated: until the run was interrupted and began its episodes
            anew, or ended.
    """

    def __init__(self, blocks: list[Block]):
        self._blocks = blocks
        self.num_updates = 0
        for block in blocks:
            if block.update != self.num_updates or block.starts != (block.update == 0):
                break
            self.num_updates += 1

    def events(self, update: int) -> Iterator[Event]:
        """What happened until rollout `update` was complete, after what did until the one before was.

        Raises:
            StoppedError: this was not recorded.
        """
        if update >= self.num_updates:
            raise StoppedError
        events, at = self._blocks[update].events, 0
        while at < len(events):
            version, count = int(events[at]), int(events[at + 1])
            yield Event(version, events[at + 2 : at + 2 + count])
            at += 2 + count

    def close(self) -> None:
        """Nothing to give back."""

    def check(self, update: int, collected: Collected) -> None:
        """Compares a complete rollout.

        Raises:
            OrderDiffersError: it is another than that recorded.
        """
        if digest(collected) != self._blocks[update].digest:
            raise OrderDiffersError(
                f"rollout {update} is not as it was recorded: its actions or rewards are others. An "
                "episode was lost then or now, the environments draw random numbers that their seed "
                "does not determine, or versions differ."
            )


def digest(collected: Collected) -> int:
    """A checksum of the actions and rewards of a rollout."""
    told = 0
    for array in (collected.rollout.raw_action, collected.rollout.reward):
        told = zlib.crc32(np.asarray(array).tobytes(), told)
    return told
