"""What may be tried to make a training faster, and what it would change of what is learnt."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kiloworlds.algorithms.ppo_config import PPOConfig
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.placement import cpu_split

PLACEMENT = ("devices", "threads_per_device")
POOL = ("backend", "num_workers", "batch_size")
LAYOUT = ("num_envs", "num_steps")
TUNED = (*PLACEMENT, *POOL, *LAYOUT)
"""The settings that may be chosen."""

_HORIZONS = 2
"""Rollouts stay at least so many horizons of the advantage estimate long: what lies behind their end
then weighs little in most of their estimates."""

_FACTORS = (2.0, 4.0, 0.5)
"""By which the number of environments is tried, in this order."""


@dataclass(frozen=True)
class Kind:
    """What runs an environment.

    Attributes:
        compiled: whether it trains in the fused loop.
        native: whether a native engine runs it.
        streams: whether environments may each go at their own pace.
        auto: the executor that is chosen unless told; "" where there is no choice.
        cores: that may be used.
        on_cpu: whether JAX computes on the CPU.
        devices: accelerators, where it does not.
    """

    compiled: bool
    native: bool
    streams: bool
    auto: str
    cores: int
    on_cpu: bool
    devices: int = 1


@dataclass(frozen=True)
class Candidate:
    """Settings to be tried.

    Attributes:
        changes: by name, what differs from the settings that were asked for.
    """

    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The changes by name."""
        return dict(self.changes)

    def with_(self, **changes: Any) -> "Candidate":
        """The same and more."""
        return Candidate(tuple(sorted((self.settings | changes).items())))

    @property
    def changes_learning(self) -> bool:
        """Whether other numbers are learnt from, or together, and not only faster: another layout of
        rollouts, minibatches drawn on each device, or results in the order in which they come."""
        changed = self.settings
        splits = (changed.get("devices") or 1) > 1
        return splits or bool({*LAYOUT, "batch_size"} & set(changed))

    def apply(self, config: TrainConfig) -> TrainConfig:
        """The settings with the changes.

        Raises:
            InvalidValueError: they do not go together.
        """
        values = config.as_dict() | self.settings
        algorithm, env_id = values.pop("algorithm"), values.pop("env_id")
        return build_config(algorithm, env_id, values)

    def words(self, config: TrainConfig) -> str:
        """What it is, in words."""
        told = [f"{name}={value}" for name, value in self.changes]
        return ", ".join(told) or "as asked"


def first(config: TrainConfig, kind: Kind, fixed: Iterable[str]) -> list[Candidate]:
    """Where and by what environments and learning may run; the settings as they are come first.

    Args:
        fixed: the names of settings that must stay.
    """
    fixed = set(fixed)
    base = Candidate()
    found = [base]
    if kind.compiled:
        found += [base.with_(**each) for each in _placements(config, kind, fixed)]
    else:
        found += [base.with_(**each) for each in _pools(config, kind, fixed)]
    return _valid(found, config)


def variations(
    config: TrainConfig, kind: Kind, fixed: Iterable[str], of: Sequence[Candidate]
) -> list[Candidate]:
    """More candidates like those that were fastest: other layouts of rollouts, and environments that
    each go at their own pace."""
    fixed = set(fixed)
    found = []
    for candidate in of:  # the fastest first, so that what is left out is worth least
        found += [candidate.with_(**layout) for layout in layouts(config, fixed)]
    for candidate in of if kind.streams and "batch_size" not in fixed else ():
        if candidate.settings.get("backend") in ("process", "thread") and config.num_envs > 1:
            found.append(candidate.with_(batch_size=math.ceil(config.num_envs / 2)))
    return _valid(found, config)


def layouts(config: TrainConfig, fixed: Iterable[str]) -> list[dict[str, int]]:
    """Other numbers of environments with as many steps per update: num_envs * num_steps stays, and so do
    minibatches.

    Only for PPO without memory, whose transitions are learnt from one by one; and rollouts stay long
    enough for their advantages (see `least_steps`).
    """
    settings = config.settings
    is_plain = isinstance(settings, PPOConfig) and settings.network != "gru"
    if not is_plain or {*LAYOUT, "batch_size"} & set(fixed) or config.batch_size is not None:
        return []
    found = []
    for factor in _FACTORS:
        num_envs = round(config.num_envs * factor)
        whole = num_envs >= 1 and config.steps_per_update % num_envs == 0
        num_steps = config.steps_per_update // num_envs if whole else 0
        if whole and num_steps >= least_steps(config) and num_envs != config.num_envs:
            found.append({"num_envs": num_envs, "num_steps": num_steps})
    return found


def least_steps(config: TrainConfig) -> int:
    """The shortest rollout that is tried: two horizons 1 / (1 - gamma * lambda) of the advantage
    estimate, or what was asked for if that is less."""
    forgets = 1.0 - config.settings.gamma * config.settings.gae_lambda
    horizon = math.inf if forgets <= 0 else _HORIZONS / forgets
    return int(min(config.settings.num_steps, math.ceil(min(horizon, 2**31))))


def _placements(config: TrainConfig, kind: Kind, fixed: set[str]) -> list[dict[str, Any]]:
    """Devices and threads, those most often fastest first."""
    if "devices" in fixed:
        return []
    if not kind.on_cpu:
        counts = range(2, kind.devices + 1)
        return [{"devices": count} for count in counts if config.num_members % count == 0]
    cores = kind.cores
    found: list[dict[str, Any]] = [{"devices": 1, "threads_per_device": 1}]
    if cores > 1:
        found.append({"devices": 1, "threads_per_device": cores})
    shared = [count for count in range(2, cores + 1) if config.num_members % count == 0]
    for count in shared[-2:]:
        found.append({"devices": count, "threads_per_device": max(1, cores // count)})
    if cores > 1 and not shared and config.num_envs % cores == 0:
        found.append({"devices": cores, "threads_per_device": 1})
    if "threads_per_device" in fixed:
        return [{"devices": each["devices"]} for each in found]
    # What is chosen by itself is there already, unless it gives networks a device each.
    split = cpu_split(config)
    same = {"devices": split.devices, "threads_per_device": split.threads}
    shares = split.devices == 1 or config.num_members % split.devices == 0
    return [each for each in found if not (shares and each == same)]


def _pools(config: TrainConfig, kind: Kind, fixed: set[str]) -> list[dict[str, Any]]:
    """Executors and their workers."""
    backends = ["native"] if kind.native else []
    backends += ["sync", "process", "thread"]
    if "backend" in fixed:
        backends = [config.backend]
    if config.batch_size is not None:  # which only workers have
        backends = [name for name in backends if name in ("process", "thread")]
    found = []
    for backend in backends:
        own = {} if "backend" in fixed else {"backend": backend}
        if backend in ("process", "thread") and "num_workers" not in fixed:
            counts = [kind.cores, 2 * kind.cores] if backend == "process" else [kind.cores]
            counts = dict.fromkeys(min(count, config.num_envs) for count in counts)
            found += [{**own, "num_workers": count} for count in counts]
        else:
            found.append(own)
    # What is chosen by itself, with as many workers, is there already.
    same = ({"backend": kind.auto}, {"backend": kind.auto, "num_workers": kind.cores})
    return [each for each in found if each and each not in same]


def _valid(found: Iterable[Candidate], config: TrainConfig) -> list[Candidate]:
    """Those that go together with the settings, each once."""
    valid = []
    for candidate in dict.fromkeys(found):
        try:
            candidate.apply(config)
        except InvalidValueError:
            continue
        valid.append(candidate)
    return valid


def shortened(config: TrainConfig, num_steps: int) -> TrainConfig:
    """Settings for rollouts that nothing is learnt from: short ones."""
    settings = dataclasses.replace(
        config.settings, num_steps=min(num_steps, config.settings.num_steps), num_minibatches=1
    )
    return dataclasses.replace(config, settings=settings, max_staleness=0, total_steps=2**40)
