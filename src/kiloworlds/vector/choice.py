"""Which executor steps an environment written for one process faster: a loop, or workers."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np

from kiloworlds.core.devices import available_cores

_HAND_OVER = 250e-6
"""Seconds that a step of the pool takes beside its environments' own (measured with two workers)."""
_PER_STEP = 1.2e-6
"""Seconds that a worker adds to a step of one environment (measured)."""
_PER_STEP_HERE = 1.7e-6
"""Seconds that the loop in this process adds (measured)."""
_TRIAL = 0.03
"""Seconds of trying an environment out."""


def host_backend(
    num_envs: int, make_env: Callable[[], Any] | Sequence[Callable[[], Any]]
) -> Literal["process", "sync"]:
    """The faster executor for environments that are neither compiled nor in a native engine.

    Builds one environment and times some of its steps with random actions: workers pay for slow
    environments and for many. What cannot be tried out goes to workers, where a failure does no harm.

    Args:
        num_envs: how many environments there will be.
        make_env: builds one; of several functions the first stands for all.
    """
    cores = min(available_cores(), num_envs)
    if cores < 2 or sys.platform != "linux":
        return "sync"
    seconds = seconds_per_step(make_env if callable(make_env) else make_env[0])
    if seconds is None:
        return "process"
    workers = _HAND_OVER + -(-num_envs // cores) * (seconds + _PER_STEP)
    return "process" if workers < num_envs * (seconds + _PER_STEP_HERE) else "sync"


def seconds_per_step(make_env: Callable[[], Any]) -> float | None:
    """The mean time of a step with random actions, resets included; None if it cannot be tried."""
    try:
        env = make_env()
    except Exception:
        return None  # whoever builds the environments reports it
    try:
        return _mean_step(env)
    except Exception:
        return None
    finally:
        with contextlib.suppress(Exception):
            env.close()


def _mean_step(env: gymnasium.Env) -> float:
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    # Some worlds of several agents warn of illegal actions, and end.
    sample: Callable[[Any], Any] = getattr(env, "sample_legal", lambda _: env.action_space.sample())
    taken: list[float] = []
    until = time.perf_counter() + _TRIAL
    while len(taken) < 1000:
        action = sample(observation)
        began = time.perf_counter()
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
        now = time.perf_counter()
        taken.append(now - began)
        if now > until:
            break
    # The first step may have to set things up, and another process may take the core meanwhile.
    rest = taken[1:] or taken
    return float(np.mean(np.sort(rest)[: max(1, len(rest) * 9 // 10)]))
