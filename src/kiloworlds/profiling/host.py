"""Where the time of the loops on the host goes, by clocks in them that always run."""

import time
from typing import Any

import numpy as np

from kiloworlds.profiling import compiling, costs, hlo
from kiloworlds.profiling.profile import (
    COPIES,
    ENVIRONMENT,
    LEARNING,
    POLICY,
    WAITING,
    Part,
    Pool,
    Profile,
    compilation_facts,
    speed_settings,
)
from kiloworlds.profiling.timing import of
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.training.loops.host_agents import HostAgentsTraining
from kiloworlds.vector.process.pool import PoolExecutor

_SLOWEST = 3
"""So many of the slowest environments are named."""


def profile_host(
    config: TrainConfig, training: HostTraining | HostAgentsTraining, seconds: float
) -> Profile:
    """Measures a training whose environments live outside XLA.

    Args:
        seconds: to measure, at least one update; the first, which compiles, comes on top.
    """
    began = time.perf_counter()
    with compiling.watch() as watched:
        state: Any = training.init()
        state, _ = training.run(state, 1)
    compilation = compilation_facts(time.perf_counter() - began, watched)
    state, program = training.learning(state)
    learning_cost = costs.total(hlo.parse(program.as_text() or ""))
    training.host_metrics()  # sets the clocks to nothing
    before = _seconds_by_worker(training.pool)
    taken: dict[str, list[float]] = {}
    began = time.perf_counter()
    while not taken or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        state, _ = training.run(state, 1)
        whole = time.perf_counter() - started
        spent = training.seconds()
        training.host_metrics()
        for name, value in _activities(config, spent, whole).items():
            taken.setdefault(name, []).append(value)
    whole = of(taken.pop("whole"))
    pool = None
    if training.pool is not None:
        stepping = sum(taken[ENVIRONMENT])
        now = _seconds_by_worker(training.pool)
        pool = pool_facts([b - a for a, b in zip(before, now, strict=True)], stepping)
    return Profile(
        config.algorithm,
        config.env_id,
        training.backend,
        "host",
        speed_settings(config),
        config.steps_per_update,
        whole.seconds,
        len(taken[LEARNING]),
        [_part(name, values, learning_cost) for name, values in taken.items()],
        compilation,
        [],
        pool=pool,
    )


_MEANINGS = {
    ENVIRONMENT: "steps of the environments, as the loop waits for them",
    POLICY: "drawing actions, copies to and from JAX included",
    LEARNING: "the compiled update, copies to JAX included",
    COPIES: "putting rollouts together, publishing policies, and the loop itself",
    WAITING: "the learner waits for rollouts",
}


def _part(name: str, values: list[float], learning: costs.Cost) -> Part:
    flops, moved = learning if name == LEARNING else (None, None)
    return Part(name, *of(values), _MEANINGS[name], flops, moved)


def _activities(config: TrainConfig, spent: dict[str, float], whole: float) -> dict[str, float]:
    """Seconds of one update by activity, and `whole`.

    Where environments go on while the learner learns, theirs and the policy's overlap with learning.
    """
    steps, acts = spent.get("environments_step", 0.0), spent.get("network_acts", 0.0)
    learns = spent.get("network_learns", 0.0)
    parts = {ENVIRONMENT: steps, POLICY: acts, LEARNING: learns}
    if config.max_staleness:
        waits = spent.get("learner_waits", 0.0)
        return {**parts, WAITING: waits, COPIES: max(0.0, whole - learns - waits), "whole": whole}
    return {**parts, COPIES: max(0.0, whole - steps - acts - learns), "whole": whole}


def _seconds_by_worker(pool: PoolExecutor | None) -> list[np.ndarray]:
    return [] if pool is None else pool.seconds_by_worker()


def pool_facts(spent: list[np.ndarray], stepping: float) -> Pool:
    """What workers did.

    Args:
        spent: by worker, the seconds of each of its environments.
        stepping: seconds in which the loop waited for steps.
    """
    busy = [float(np.clip(each.sum() / stepping, 0.0, 1.0)) for each in spent]
    seconds = np.concatenate(spent)
    total = float(seconds.sum())
    order = np.argsort(-seconds)[:_SLOWEST].tolist()
    return Pool(
        idle=[1.0 - share for share in busy],
        slowest=[(row, float(seconds[row]) / total) for row in order] if total else [],
        num_envs=len(seconds),
        handing_over=1.0 - max(busy),
    )
