"""Compiled environments: their contract, point by point, and their speed."""

import time
from collections.abc import Callable, Iterator

import jax

from kiloworlds.core import devices
from kiloworlds.core.random import fast_key
from kiloworlds.testing.checks.context import Check, Context
from kiloworlds.testing.contract import CHECKS
from kiloworlds.testing.failures import described
from kiloworlds.testing.report import Finding
from kiloworlds.vector.make import make
from kiloworlds.vector.random_rollout import random_rollout

_NUM_ENVS, _STEPS = 1024, 500


def check_kind(context: Context) -> Iterator[Finding]:
    """Builds it."""
    env = context.make()
    yield Finding("constructor", "ok", f"builds {type(env.unwrapped).__name__}")


def _contract_check(name: str, point: Callable) -> Check:
    def run(context: Context) -> Iterator[Finding]:
        devices.configure()
        try:
            point(context.make(), fast_key(context.seed))
        except AssertionError as error:
            yield Finding(name, "failed", str(error))
        except Exception as error:  # of the environment, or of JAX about it
            yield Finding(name, "failed", f"raised {described(error)}")
        else:
            yield Finding(name, "ok", "holds")

    return Check(name, run)


def check_speed(context: Context) -> Iterator[Finding]:
    """Steps per second of many copies in one program, and how long that takes to compile."""
    devices.configure()
    envs = make(context.make(), _NUM_ENVS)
    rollout = random_rollout(envs, _STEPS)  # type: ignore[arg-type]
    started = time.perf_counter()
    jax.block_until_ready(rollout(context.seed))
    first = time.perf_counter() - started
    started = time.perf_counter()
    jax.block_until_ready(rollout(context.seed + 1))
    seconds = time.perf_counter() - started
    rate = _NUM_ENVS * _STEPS / seconds
    yield Finding(
        "speed",
        "ok",
        f"{rate:,.0f} steps/s with {_NUM_ENVS:,} environments on {jax.default_backend()}; compiled "
        f"in {max(0.0, first - seconds):.1f} s",
        measured={"steps_per_second": rate, "compile_seconds": max(0.0, first - seconds)},
    )


CONTRACT_CHECKS = tuple(
    _contract_check(f"contract: {name}", point) for name, point in CHECKS.items()
)
