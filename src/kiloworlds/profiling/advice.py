"""What the numbers of a profile say to do, in sentences."""

from kiloworlds.profiling.ceilings import Roof
from kiloworlds.profiling.profile import (
    COPIES,
    ENVIRONMENT,
    LEARNING,
    POLICY,
    WAITING,
    Part,
    Profile,
)

_MUCH, _HALF, _LITTLE = 0.7, 0.45, 0.1
"""Shares of the time."""

_SMALL = 0.25
"""Below this share of both ceilings a program mostly starts operations."""

_LONG_COMPILATION = 3.0
"""Seconds of compiling that are worth a sentence."""

_WAITS = 0.15
"""From this share of waiting for each other on, several devices may not pay."""

_NOISY = 0.2
"""From this scatter on, half the distance between quartiles over the median, numbers are doubtful."""

_ABOVE = 1.05
"""From so many times the ceiling on, it is the ceiling that is wrong."""

_UNEVEN = 4.0
"""From so many times the mean on, an environment is called slow."""


def advise(profile: Profile) -> list[str]:
    """Sentences about what costs most, what costs nothing, and what to try; first what changes nothing
    of what is learnt."""
    said = [
        *_about_noise(profile),
        *_about_ceilings(profile),
        *_about_devices(profile),
        *_about_learning(profile),
        *_about_environments(profile),
        *_about_acting(profile),
        *_about_pool(profile),
        *_about_copies(profile),
        *_about_compilation(profile),
    ]
    return said or ["No part stands out: there is no single thing that would make it much faster."]


def near_ceiling(part: Part, roof: Roof | None) -> tuple[float, float] | None:
    """The shares of the floating-point operations and bytes per second of a roof that a part reaches;
    None where there is none, or XLA did not say what it does."""
    if roof is None or part.flops is None or part.bytes is None or part.seconds <= 0:
        return None
    return part.flops / part.seconds / roof.flops, part.bytes / part.seconds / roof.bytes


def _about_noise(profile: Profile) -> list[str]:
    longest = max(profile.parts, key=lambda part: part.seconds)
    scatter = longest.spread / longest.seconds if longest.seconds else 0.0
    if scatter < _NOISY:
        return []
    return [
        f"Measurements of {longest.name} scatter by ± {scatter:.0%}: other programs use this machine. "
        "Measure again when it is quiet before you act on the rest."
    ]


def _about_ceilings(profile: Profile) -> list[str]:
    roof = profile.roof
    rates = [part.flops / part.seconds for part in profile.parts if part.flops and part.seconds > 0]
    if roof is None or max(rates, default=0.0) <= _ABOVE * roof.flops:
        return []
    return [
        f"Parts compute faster than {roof.whose} did when the ceilings were measured: other programs "
        "used the machine then. --remeasure measures them again."
    ]


def _share(profile: Profile, name: str) -> float:
    part = profile.part(name)
    return 0.0 if part is None else profile.share(part)


def _minibatch(profile: Profile) -> int | None:
    parts = profile.settings.get("num_minibatches")
    seeds = profile.settings["num_seeds"]
    return None if parts is None else profile.steps_per_update // seeds // parts


def _about_learning(profile: Profile) -> list[str]:
    part, share = profile.part(LEARNING), _share(profile, LEARNING)
    if part is None or share < _HALF:
        return []
    ways = []
    if (profile.settings.get("num_epochs") or 1) > 1:
        ways.append(f"fewer epochs (num_epochs={profile.settings['num_epochs']})")
    reached = near_ceiling(part, profile.roof)
    is_small = reached is not None and max(reached) < _SMALL
    size = _minibatch(profile)
    if size is not None and profile.settings["num_minibatches"] > 1:
        ways.append(f"larger minibatches (now {size:,} transitions)")
    if profile.loop == "host" and not profile.settings["max_staleness"]:
        ways.append("stepping meanwhile (max_staleness=1)")
    said = [
        f"Learning takes {share:.0%} of the time: {', or '.join(ways) or 'smaller networks'} would "
        "save most. Both change what is learnt, so compare returns."
        if len(ways) != 1
        else f"Learning takes {share:.0%} of the time: {ways[0]} would save most; it changes what is "
        "learnt, so compare returns."
    ]
    if is_small and reached is not None:
        said.append(
            f"Learning reaches {reached[0]:.0%} of what {_whose(profile)} at most: its matrices "
            "are small, and starting an operation costs as much as doing it. Larger minibatches and "
            "several seeds at once (num_seeds) come nearly free."
        )
    elif reached is not None and reached[0] >= _HALF:
        said.append(
            f"Learning reaches {reached[0]:.0%} of what {_whose(profile)} at most: only less work, "
            "more cores or another machine make it faster."
        )
    return said


def _whose(profile: Profile) -> str:
    one = profile.roof is not None and profile.roof.whose == "one core"
    return "one core computes" if one else "this machine computes"


def _about_environments(profile: Profile) -> list[str]:
    share = _share(profile, ENVIRONMENT)
    if share > _HALF:
        if profile.loop == "fused":
            way = "a cheaper step or reset of the environment saves most"
        elif profile.settings["max_staleness"]:
            way = "more workers (num_workers), if there are cores for them, save most"
        else:
            way = "letting them go on while the learner learns (max_staleness=1) hides part of it"
        return [f"Environments take {share:.0%} of the time: {way}."]
    if share < _LITTLE:
        return [f"Environments take {share:.1%} of the time: making them faster gains nothing."]
    return []


def _about_acting(profile: Profile) -> list[str]:
    share, num_envs = _share(profile, POLICY), profile.settings["num_envs"]
    if share < _HALF:
        return []
    return [
        f"Drawing actions takes {share:.0%} of the time, a call for {num_envs} environments at once: "
        "more environments with fewer steps each (num_envs up, num_steps down) share the call."
    ]


def _about_devices(profile: Profile) -> list[str]:
    waiting = _share(profile, WAITING)
    if profile.loop == "host" or waiting < _WAITS or profile.devices < 2:
        return []
    return [
        f"The devices wait for each other {waiting:.0%} of the time, as far as the profiler can tell, "
        "which slows them down itself: try devices=1, which changes nothing of what is learnt, or "
        "larger minibatches."
    ]


def _about_pool(profile: Profile) -> list[str]:
    pool = profile.pool
    if pool is None:
        return []
    said = []
    if pool.handing_over > _HALF:
        said.append(
            f"While environments step, even the busiest worker does so only {1 - pool.handing_over:.0%} "
            "of the time; the rest is waking up, resets and collecting results: more environments per "
            "worker, or backend='sync', cost less."
        )
    elif max(pool.idle) - min(pool.idle) > 0.2:
        said.append(
            f"Workers have uneven work: idle {min(pool.idle):.0%} to {max(pool.idle):.0%} of the time "
            "that environments step. batch_size below num_envs lets nobody wait for the slowest."
        )
    for row, share in pool.slowest[:1]:
        if share * pool.num_envs > _UNEVEN:
            said.append(
                f"Environment {row} is {share * pool.num_envs:.1f} times as slow as the mean: "
                "batch_size below num_envs lets the others go on."
            )
    return said


def _about_copies(profile: Profile) -> list[str]:
    share = _share(profile, COPIES)
    if share < 2 * _LITTLE:
        return []
    return [
        f"Copies and calls take {share:.0%} of the time: more environments with fewer steps each "
        "(num_envs up, num_steps down) make fewer of them."
    ]


def _about_compilation(profile: Profile) -> list[str]:
    seconds = profile.compilation["seconds"]
    if seconds < _LONG_COMPILATION:
        return []
    steps = seconds * profile.steps_per_second
    return [
        f"The first update was there after {seconds:.1f} s, in which {steps:,.0f} steps could be "
        "trained; the compilation cache saves most of it next time."
    ]
