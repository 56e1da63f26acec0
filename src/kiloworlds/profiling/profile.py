"""Where the time of a training goes, in numbers."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

import jax

from kiloworlds.core.devices import available_cores
from kiloworlds.profiling.ceilings import Ceilings, Roof
from kiloworlds.profiling.compiling import Compiling

ENVIRONMENT, POLICY, LEARNING, COPIES, WAITING = (
    "environment",
    "policy",
    "learning",
    "copies",
    "waiting",
)


@dataclass(frozen=True)
class Part:
    """One part of an update.

    Attributes:
        name: what is done.
        seconds: of one update, the median of several measurements.
        spread: half the distance between the quartiles of the measurements, in seconds.
        what: how it was measured, in words.
        flops, bytes: what it computes and moves, if XLA says; see `kiloworlds.profiling.costs.Cost`.
    """

    name: str
    seconds: float
    spread: float
    what: str
    flops: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Operation:
    """One operation of the compiled program, in one update.

    Attributes:
        name: in XLA's text.
        opcode: such as "fusion".
        source: the line of Python it comes from; "" where XLA does not say.
        seconds: in one update, as the profiler saw it, all devices together; None if it saw none.
        share: of the seconds of all operations.
        times: how often it runs.
        flops, bytes: of all times together, on all devices.
    """

    name: str
    opcode: str
    source: str
    seconds: float | None
    share: float | None
    times: float
    flops: float
    bytes: float


@dataclass(frozen=True)
class Pool:
    """What the workers of a pool did while environments stepped.

    Attributes:
        idle: by worker, the share of that time in which it stepped none of its environments.
        slowest: the slowest environments, with their share of the time of all (1 / N where all are
            alike).
        num_envs: N.
        handing_over: the share of that time in which not even the busiest worker stepped: waking up,
            resets, and collecting results.
    """

    idle: list[float]
    slowest: list[tuple[int, float]]
    num_envs: int
    handing_over: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a training goes.

    Attributes:
        algorithm, env_id, backend: what was trained, and what ran the environments.
        loop: "fused" (all in one program) or "host".
        settings: those that decide about speed.
        steps_per_update: environment steps of an update, all seeds together.
        seconds_per_update: of whole updates, as training has them.
        updates: how many were measured.
        devices, threads: of JAX; threads None: as many as cores.
        parts: of an update; their seconds are measured one by one and need not add up.
        compilation: seconds from the settings to the first update, and what JAX did in them.
        operations: the costliest, first those that took longest.
        ceilings: what the machine can do at most.
        pool: of pools.
        advice: sentences.
        picture: the file of the roofline picture, once it is drawn.
    """

    algorithm: str
    env_id: str
    backend: str
    loop: str
    settings: dict[str, Any]
    steps_per_update: int
    seconds_per_update: float
    updates: int
    parts: list[Part]
    compilation: dict[str, float]
    operations: list[Operation]
    ceilings: Ceilings | None = None
    pool: Pool | None = None
    advice: list[str] = field(default_factory=list)
    picture: str | None = None
    devices: int = field(default_factory=lambda: len(jax.devices()))
    threads: int | None = field(default_factory=lambda: _threads())
    cores: int = field(default_factory=available_cores)

    @property
    def steps_per_second(self) -> float:
        """Environment steps that training takes in a second, all seeds together."""
        return self.steps_per_update / self.seconds_per_update

    @property
    def placement(self) -> str:
        """Where it ran, in words."""
        many = f"{self.devices} device{'' if self.devices == 1 else 's'}"
        if self.threads is None:
            return many
        return f"{many} of {self.threads} thread{'' if self.threads == 1 else 's'}"

    @property
    def roof(self) -> Roof | None:
        """What the cores that it uses can do at most; None where that was not measured."""
        if self.ceilings is None:
            return None
        return self.ceilings.roof(self.devices * self.threads if self.threads else self.cores)

    def part(self, name: str) -> Part | None:
        """The part of that name; None where there is none."""
        return next((part for part in self.parts if part.name == name), None)

    def share(self, part: Part) -> float:
        """A part's share of an update."""
        return part.seconds / self.seconds_per_update

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for programs."""
        values = dataclasses.asdict(self)
        for part, entry in zip(self.parts, values["parts"], strict=True):
            entry["share"] = self.share(part)
        return {"steps_per_second": self.steps_per_second, **values}


def speed_settings(config: Any) -> dict[str, Any]:
    """The settings on which speed depends most."""
    names = ("num_envs", "num_seeds", "num_workers", "batch_size", "max_staleness", "devices")
    learner = ("num_steps", "num_epochs", "num_minibatches", "hidden_sizes", "network")
    own = {name: getattr(config, name) for name in names}
    return own | {
        name: getattr(config.settings, name) for name in learner if hasattr(config.settings, name)
    }


def compilation_facts(seconds: float, watched: Compiling) -> dict[str, float]:
    """What `Profile.compilation` holds."""
    return {"seconds": seconds, **dataclasses.asdict(watched)}


def _threads() -> int | None:
    given = os.environ.get("PJRT_NPROC")
    return int(given) if given else None
