"""`kiloworlds bench`: how many steps per second an environment runs at, with random actions."""

import dataclasses
import math
import time
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

import kiloworlds
from kiloworlds.cli import options
from kiloworlds.core import devices
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.registry import find_spec
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.random_rollout import random_rollout

DESCRIPTION = """\
Measures steps per second with random actions: kiloworlds bench ENV [flags].

A step is one environment advanced once, starting over included. Compiled environments run as one
program (actions drawn inside it); others are stepped through their vector. Compilation and warm-up
are not counted; the best of the repeats is told."""

_COMPILED_SIZES = (256, 1024, 4096, 16384)
_SYNC_SIZES = (1, 8)
_STEPS_PER_CALL = 2_000_000  # so many that calling costs nothing, few enough to take under a second


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `bench`."""

    env: Annotated[str, tyro.conf.Positional]
    """Id of the environment."""
    num_envs: tuple[int, ...] = ()
    """Batch sizes to try; a few usual ones if not given."""
    backend: str = "auto"
    """Executor of the environments: auto, compiled, process or sync."""
    devices: int | None = None
    """JAX devices to spread compiled environments over; all cores of a CPU if not given."""
    seconds: float = 1.0
    """How long to measure each batch size, about."""
    repeats: int = 3
    """Measurements per batch size."""
    env_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Parameters of the environment."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    arguments, env_flags = options.split_env_flags(arguments)
    chosen = options.parse(Options, arguments, "bench", DESCRIPTION)
    if not 0 < chosen.seconds <= 3600:
        raise InvalidValueError(f"--seconds {chosen.seconds} must lie between 0 and 3600.")
    if chosen.repeats < 1:
        raise InvalidValueError(f"--repeats {chosen.repeats} must be 1 or more.")
    console = options.console(chosen.json)
    available = _available_devices(chosen.devices)
    compiled = chosen.backend in ("auto", "compiled") and find_spec(chosen.env) is not None
    sizes = chosen.num_envs or (_COMPILED_SIZES if compiled else _SYNC_SIZES)
    measurements = []
    for num_envs in sizes:
        # Without a wish, as many devices as share the environments evenly.
        count = chosen.devices or (math.gcd(num_envs, available) if compiled else 1)
        envs = kiloworlds.make(
            chosen.env,
            num_envs,
            backend=chosen.backend,  # type: ignore[arg-type]
            devices=count,
            **chosen.env_kwargs | env_flags,
        )
        rates = measure(envs, chosen.seconds, chosen.repeats)
        measurements.append(
            {
                "num_envs": num_envs,
                "backend": envs.backend,
                "devices": count,
                "steps_per_second": max(rates),
                "repeats": rates,
            }
        )
        _say(console, measurements[-1])
        envs.close()
    best = max(measurements, key=lambda entry: entry["steps_per_second"])
    if len(measurements) > 1:
        rate = f"{best['steps_per_second']:,.0f} steps/s"
        console.print(f"\nbest: {rate} with --num-envs {best['num_envs']}", style="bold")
    if chosen.json:
        options.print_json({"env_id": chosen.env, **best, "measurements": measurements})
    return 0


def measure(envs: VectorEnv, seconds: float, repeats: int) -> list[float]:
    """Steps per second of `repeats` measurements of about `seconds` in all."""
    if isinstance(envs, CompiledVectorEnv):
        steps = max(16, _STEPS_PER_CALL // envs.num_envs)
        rollout = random_rollout(envs, steps)
        call, steps_per_call = lambda seed: jax.block_until_ready(rollout(seed)), steps
    else:
        envs.reset(seed=0)
        envs.action_space.seed(0)
        call, steps_per_call = lambda _: envs.step(envs.action_space.sample()), 1
    call(0)  # compiles, fills caches
    rates = []
    for repeat in range(repeats):
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds / repeats or calls == 0:
            calls += 1
            call(repeat * 1000 + calls)
        rates.append(calls * steps_per_call * envs.num_envs / elapsed)
    return rates


def _available_devices(wanted: int | None) -> int:
    # Environments need little of each other: one thread for each device is fastest.
    devices.configure(cpu_devices=wanted or devices.available_cores(), threads_per_device=1)
    return len(jax.devices())


def _say(console: Console, measurement: dict[str, Any]) -> None:
    console.print(
        f"{measurement['backend']:<9} num_envs {measurement['num_envs']:>7,}"
        f"  devices {measurement['devices']}"
        f"  {measurement['steps_per_second']:>14,.0f} steps/s"
    )
