"""What a pool and its workers say to each other.

Steps travel through shared memory: the pool writes actions, puts environment numbers into the worker's
inbox and posts its signal; the worker writes results, puts numbers into its outbox and posts. All
else (making environments, resets, calls, errors, odd infos) is a message on a socket, announced by
the entry `MESSAGE` so that order is kept.

Neither side can be stuck on the other. The pool puts what the socket does not take into a queue of its
own and goes on listening; its entries never fill the inbox, since an environment has few in flight. A
worker whose outbox is full waits until the pool has read, which the pool publishes in `taken`.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import numpy as np

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.process.codec import Codec, codec
from kiloworlds.vector.process.memory import ArraySpec

ALL = -1
"""Entry: all environments of the worker."""
MESSAGE = -2
"""Entry: one message follows on the socket."""

MAX_INFO_COLUMNS = 64
"""So many infos of fixed type and shape travel in shared memory; further ones as messages."""
INFO_MEMORY = 2**24
"""Bytes for them, per worker. What is never written takes no memory."""

IDLE, STEPPING, RESETTING = 0, 1, 2
"""What a worker is at, for the deadline that applies."""


@dataclass(frozen=True)
class Setup:
    """What a worker must know to build its environments."""

    make_envs: tuple[Callable[[], gymnasium.Env], ...]
    first: int
    """The number of its first environment in the vector."""
    autoreset_mode: str


@dataclass(frozen=True)
class Ready:
    """A worker has built its environments; all have these spaces."""

    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    metadata: dict[str, Any]
    render_mode: str | None
    spec: Any
    saves_state: bool


@dataclass(frozen=True)
class Attach:
    """The shared memory follows as a file descriptor."""

    layout: "Layout"
    slot: int
    """Which part of what workers have for themselves is this one's."""


@dataclass(frozen=True)
class Reset:
    """Resets environments (local numbers); each is answered like a step with no reward."""

    indices: list[int]
    seeds: list[int | None]
    options: dict[str, Any] | None


@dataclass(frozen=True)
class Rebuild:
    """Builds an environment that failed anew and resets it; answered like a step with no reward."""

    index: int
    seed: int | None


@dataclass(frozen=True)
class Actions:
    """The next actions of environments whose action space has no fixed size."""

    by_index: dict[int, Any]


@dataclass(frozen=True)
class Request:
    """Asks for something that is answered by an `Answer`, or a `Failure`, of the same number."""

    number: int
    what: "Call | SetAttribute | Render | GetState | SetState"


@dataclass(frozen=True)
class Call:
    """Calls a method of environments or reads an attribute."""

    indices: list[int]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class SetAttribute:
    """Sets an attribute, one value per environment."""

    indices: list[int]
    name: str
    values: list[Any]


@dataclass(frozen=True)
class Render:
    """Renders environments."""

    indices: list[int]


@dataclass(frozen=True)
class GetState:
    """Asks for the states of environments, as bytes."""

    indices: list[int]


@dataclass(frozen=True)
class SetState:
    """Puts environments back into states."""

    indices: list[int]
    states: list[bytes]


@dataclass(frozen=True)
class Answer:
    """Results in the order of the indices asked for."""

    request: int
    values: list[Any]


@dataclass(frozen=True)
class NewInfo:
    """From now on the info `key` of this worker's environments is in its memory for infos."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    """Of one value."""
    offset: int
    """Where in the memory it begins."""


@dataclass(frozen=True)
class Extras:
    """What a result carries beside its row: infos that are no numbers or arrays of them, the infos of
    the last step of an episode, values of spaces with no fixed size."""

    index: int
    infos: dict[str, Any] | None = None
    final_infos: dict[str, Any] | None = None
    observation: Any = None
    final_observation: Any = None


@dataclass(frozen=True)
class Failure:
    """An exception inside an environment or its constructor."""

    index: int
    phase: str
    """What failed: "constructor", "reset", "step", "call" or "render"."""
    action: str
    error: str
    """Type and text of the exception."""
    traceback: str
    request: int = -1
    """The number of the request that failed."""
    refusal: str = ""
    """The class of the error, where it is one of kiloworlds' that says what was asked for wrongly."""


class Close(NamedTuple):
    """The worker closes its environments and ends."""


def pickled(message: Any) -> bytes:
    """A message as bytes; classes and functions of the main script go along by value."""
    try:
        return pickle.dumps(message)
    except Exception:  # by reference it cannot be done, or there is no way at all
        return cloudpickle.dumps(message)


def pickled_or_refused(message: Any) -> bytes:
    """The same for what the caller gave.

    Raises:
        InvalidValueError: it cannot be pickled.
    """
    try:
        return pickled(message)
    except Exception as error:
        raise InvalidValueError(f"a value cannot be sent to a worker: {error}") from error


def info_specs(info: NewInfo, count: int) -> tuple[ArraySpec, ArraySpec]:
    """Types and shapes of an info of a worker's `count` environments: values, mask."""
    return ArraySpec(info.dtype, (count, *info.shape)), ArraySpec("?", (count,))


def info_arrays(info: NewInfo, count: int, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values `[count, ...]` and the mask `[count]` of an info in a worker's memory for infos."""
    values, mask = info_specs(info, count)
    return (
        np.ndarray(values.shape, values.dtype, memory.data, info.offset),
        np.ndarray(mask.shape, mask.dtype, memory.data, info.offset + values.size),
    )


_ROW_BITS = 24
NEXT_MARK = 1 << _ROW_BITS
"""Added to a progress mark, it counts one more."""


def progress_mark(count: int, row: int) -> int:
    """One number that says both that something new was begun (its `count`) and with which `row`:
    one write instead of two in the hot loop."""
    return (count << _ROW_BITS) + row


def row_of(mark: int) -> int:
    """The row in a progress mark."""
    return mark & ((1 << _ROW_BITS) - 1)


@dataclass(frozen=True)
class Layout:
    """How a pool's shared memory is laid out; N environments, W workers.

    Observations are kept twice: results go into the copy `parity[i]` names, so that what was
    delivered before stays whole while the next result is written.
    """

    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    num_envs: int
    num_workers: int
    largest_share: int

    @property
    def observations(self) -> Codec | None:
        """The codec of observations; None where they travel as messages."""
        return codec(self.observation_space, self.num_envs, "the observation")

    @property
    def actions(self) -> Codec | None:
        """The codec of actions; None where they travel as messages."""
        return codec(self.action_space, self.num_envs, "the action")

    def specs(self) -> dict[str, ArraySpec]:
        """The arrays by name."""
        count = self.num_envs
        slots = self.num_workers + 1  # one to spare, for a worker that takes over from another
        # An environment has a step, its action and a reset in flight at most, and few messages are
        # for the worker as a whole.
        ring = (slots, 4 * self.largest_share + 64)
        specs = {
            "rewards": ArraySpec("<f8", (count,)),
            "terminated": ArraySpec("?", (count,)),
            "truncated": ArraySpec("?", (count,)),
            "parity": ArraySpec("u1", (count,)),
            # Time spent in each environment, in a sample of its steps.
            "seconds": ArraySpec("<f8", (count,)),
            "inbox": ArraySpec("<i4", ring),
            "outbox": ArraySpec("<i4", ring),
            # A cache line per worker: how many entries of its outbox the pool has read.
            "taken": ArraySpec("<i8", (slots, 8)),
            # A cache line per worker: what it has begun (see `progress_mark`), what it is at.
            "progress": ArraySpec("<i8", (slots, 8)),
            "infos": ArraySpec("u1", (slots, INFO_MEMORY)),
        }
        for name, codec_ in (("action", self.actions), ("final", self.observations)):
            for position, spec in enumerate(codec_.specs if codec_ else ()):
                specs[f"{name}{position}"] = spec
        for copy in (0, 1):
            for position, spec in enumerate(self.observations.specs if self.observations else ()):
                specs[f"observation{copy}_{position}"] = spec
        return specs
