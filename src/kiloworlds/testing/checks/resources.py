"""Memory, open files and speed."""

import ctypes
import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kiloworlds.core import machine
from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.checks.players import Player
from kiloworlds.testing.report import Finding

_WINDOWS = 4  # of the memory measurement; the first warms up
_LEAST_GROWTH = 2 * 2**20  # bytes: allocators round, so less proves nothing
_LEAK_PER_STEP, _GRAVE_LEAK_PER_STEP = 256, 4096  # bytes
_CYCLES = 10  # environments built and closed in turn
_POOL_WORKERS, _POOL_ENVS = 2, 8
_LIGHT_STEP = 2e-4  # seconds: what lies above gains by workers wherever cores are free


def check_leaks(context: Context) -> Iterator[Finding]:
    """Memory over many steps; open files over many environments."""
    if not Path("/proc/self/statm").exists():
        yield Finding("leaks", "ok", "not tried: measuring needs Linux")
        return
    yield _memory_finding(context)
    yield from _file_findings(context)


def _memory_finding(context: Context) -> Finding:
    player = context.player()
    player.reset(context.seed)
    sizes, steps = [_resident_bytes()], 0
    per_window = max(1, 2 * context.steps // _WINDOWS)
    for window in range(_WINDOWS):
        taken = _play(player, per_window, context.clock(1 / _WINDOWS))
        steps += taken if window else 0
        sizes.append(_resident_bytes())
    growth = sizes[-1] - sizes[1]
    per_step = growth / max(1, steps)
    rising = all(later > earlier for earlier, later in itertools.pairwise(sizes[1:]))
    measured = {"memory_growth_bytes": float(growth), "memory_growth_steps": float(steps)}
    if rising and growth > _LEAST_GROWTH and per_step > _LEAK_PER_STEP:
        return Finding(
            "leaks",
            "failed" if per_step > _GRAVE_LEAK_PER_STEP else "warning",
            f"memory grows by {per_step / 1024:,.1f} KiB per step ({growth / 2**20:,.0f} MiB in "
            f"{steps:,} steps)",
            "look for a list that is appended to and never emptied, such as a history",
            measured,
        )
    return Finding("leaks", "ok", f"memory stays the same over {steps:,} steps", measured=measured)


def _file_findings(context: Context) -> Iterator[Finding]:
    before, built, time_is_up = 0, 0, context.clock(0.5)
    for cycle in range(_CYCLES + 1):
        env = context.make()
        context.player(env).reset(context.seed)
        env.close()
        del env
        gc.collect()
        if cycle == 0:  # the first opens what is opened once
            before = _open_files()
        built += cycle > 0
        if built >= 2 and time_is_up():
            break
    left = _open_files() - before
    if built and left >= built:
        yield Finding(
            "leaks",
            "failed",
            f"{left / built:.2g} open files remain of each closed environment",
            "close in close() what the constructor and reset open",
        )


def _play(player: Player, most: int, time_is_up: Callable[[], bool]) -> int:
    """Steps until `most` or time is up; returns how many."""
    taken, over = 0, False
    while taken < most and not time_is_up():
        if over:
            player.reset()
            over = False
        else:
            over = player.step().over
            taken += 1
    if over:
        player.reset()
    return taken


def _resident_bytes() -> int:
    gc.collect()
    # What was freed before is given back, or a leak would fill it unseen.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def check_speed(context: Context) -> Iterator[Finding]:
    """Steps and resets per second, alone and in worker processes."""
    steps, resets = _alone(context)
    measured = {"steps_per_second": steps, "resets_per_second": resets}
    alone = f"{steps:,.0f} steps/s and {resets:,.0f} resets/s alone"
    if context.kind != "gymnasium" or not hasattr(os, "pidfd_open"):
        yield Finding("speed", "ok", alone, measured=measured)
        return
    pooled = _pooled(context)
    measured["pool_steps_per_second"] = pooled
    cores = machine.usable_cores()
    seen = (
        f"{alone}; {pooled:,.0f} steps/s as {_POOL_ENVS} environments in {_POOL_WORKERS} workers "
        f"({pooled / steps:.1f} times; {cores} cores here)"
    )
    advice = ""
    if pooled < steps and 1 / steps > _LIGHT_STEP:
        advice = "workers did not help here: other programs may have kept the cores busy"
    elif pooled < steps:
        advice = (
            f"a step takes {1e6 / steps:,.0f} µs, about what handing it to a worker costs: take many "
            "environments per worker, or backend='sync'"
        )
    yield Finding("speed", "ok", seen, advice, measured)


def _alone(context: Context) -> tuple[float, float]:
    """Steps and resets per second, without what the player itself does."""
    env = context.make()
    player = context.player(env)
    spent = {"step": 0.0, "reset": 0.0}
    counts = {"step": 0, "reset": 0}
    for name in spent:
        _time_calls(env, name, spent, counts)
    player.reset(context.seed)
    _play(player, 10**9, _either(context.clock(0.1), 1.0))
    env.close()
    return tuple(counts[name] / max(spent[name], 1e-9) for name in ("step", "reset"))  # type: ignore[return-value]


def _time_calls(env: object, name: str, spent: dict[str, float], counts: dict[str, int]) -> None:
    """Replaces a method of one environment by one that measures itself."""
    method = getattr(env, name)

    def timed(*args, **kwargs):
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - started
            counts[name] += 1

    setattr(env, name, timed)


def _either(time_is_up: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time_is_up() or time.monotonic() >= end


def _pooled(context: Context) -> float:
    # Imported here: it brings JAX along, which would blur the measurement of memory.
    from kiloworlds.vector.process.pool import ProcessExecutor

    envs = ProcessExecutor(
        context.make,
        _POOL_ENVS,
        num_workers=_POOL_WORKERS,
        max_restarts=0,
    )
    try:
        envs.reset(seed=context.seed)
        actions = [envs.action_space.sample() for _ in range(16)]
        envs.step(actions[0])
        time_is_up = _either(context.clock(0.1), 1.0)
        count, started = 0, time.perf_counter()
        while not time_is_up() or count == 0:
            envs.step(actions[count % len(actions)])
            count += 1
        return count * _POOL_ENVS / (time.perf_counter() - started)
    finally:
        envs.close()
