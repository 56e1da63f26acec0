"""Where the time of the fused loop goes.

Environments, policy and learning are one program, and XLA mixes them. So the parts are compiled as
programs of their own, and what one has beyond another is taken for the rest: an estimate.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp

from kiloworlds.profiling import compiling, costs, hlo, timing, trace
from kiloworlds.profiling.costs import Cost
from kiloworlds.profiling.profile import (
    COPIES,
    ENVIRONMENT,
    LEARNING,
    POLICY,
    WAITING,
    Operation,
    Part,
    Profile,
    compilation_facts,
    speed_settings,
)
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.fused_loop import CHUNK, FusedLoop

_PROGRAM = "jit__updates"
"""What XLA calls the program that runs updates."""

_TRACED_EVENTS = 50_000
"""About so many operations are traced: enough to tell shares, few enough to be read at once."""

_CALL_SECONDS = 0.25
"""How long a call of the training takes here, at most; it takes a second or so where nobody measures."""


def profile_fused(config: TrainConfig, training: FusedLoop, seconds: float) -> Profile:
    """Measures a training on a compiled environment.

    Args:
        seconds: to measure, about; compiling comes on top.
    """
    began = time.perf_counter()
    with compiling.watch() as watched:
        state = training.init()
        state = jax.block_until_ready(training.program(state, jnp.int32(1))[0])
    compilation = compilation_facts(time.perf_counter() - began, watched)
    actions = training.actions(state)
    collect = training.collecting(state)
    step = training.stepping(state, actions)

    def stepping(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, jnp.int32(count), actions))[0]

    def collecting(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(collect(state, jnp.int32(count)))[0]

    def updating(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(training.program(state, jnp.int32(count)))[0]

    programs = {"step": stepping, "collect": collecting, "update": updating}
    medians, taken = timing.in_turn(programs, 0.8 * seconds)
    update = medians["update"]
    per_call = min(CHUNK, max(1, round(min(_CALL_SECONDS, seconds / 50) / update.seconds)))

    def running(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _ = training.run(state, per_call)

    whole = {"program": lambda count: updating(per_call * count), "call": running}
    _, calls = timing.in_turn(whole, 0.2 * seconds)
    copies = timing.differences(calls["call"], calls["program"])

    module = hlo.parse(training.program.as_text() or "")
    cost = {
        "step": costs.total(hlo.parse(step.as_text() or "")),
        "collect": costs.total(hlo.parse(collect.as_text() or "")),
        "update": costs.total(module),
    }
    found = costs.operations(module)
    count = max(1, round(_TRACED_EVENTS / sum(each.times for each in found)))
    traced = trace.seconds_by_operation(lambda: updating(count), _PROGRAM)
    operations = _operations(
        found, {name: spent / count for name, spent in traced.items()}, module.partitions
    )
    policy = timing.differences(taken["collect"], taken["step"])
    learning = timing.differences(taken["update"], taken["collect"])
    parts = [
        _part(ENVIRONMENT, medians["step"], "a program that only steps them", cost["step"]),
        _part(
            POLICY,
            policy,
            "a program that also acts, less the one that only steps",
            cost["collect"].minus(cost["step"]),
        ),
        _part(
            LEARNING,
            learning,
            "whole updates, less the program that only steps and acts",
            cost["update"].minus(cost["collect"]),
        ),
        Part(
            COPIES,
            copies.seconds / per_call,
            copies.spread / per_call,
            f"calls and copies of metrics, of {per_call} updates a call",
        ),
    ]
    waiting = sum(each.share or 0.0 for each in operations if each.opcode in costs.COLLECTIVES)
    if waiting:
        what = "devices wait for each other, within the parts above; seen by the profiler"
        parts.append(Part(WAITING, waiting * update.seconds, 0.0, what))
    return Profile(
        config.algorithm,
        config.env_id,
        training.backend,
        "fused",
        speed_settings(config),
        config.steps_per_update * config.num_members,
        update.seconds + copies.seconds / per_call,
        len(taken["update"]),
        parts,
        compilation,
        operations,
    )


def _part(name: str, measured: timing.Timing, what: str, cost: Cost) -> Part:
    return Part(name, measured.seconds, measured.spread, what, cost.flops, cost.bytes)


def _operations(
    found: list[costs.OperationCost],
    traced: dict[str, float],
    devices: int,
) -> list[Operation]:
    """Operations with what the profiler saw of them in an update, those first that took longest."""
    seen = {each.instruction.name: traced.get(each.instruction.name, 0.0) for each in found}
    whole = sum(seen.values())

    def operation(each: costs.OperationCost) -> Operation:
        instruction, times = each.instruction, each.times * devices
        seconds = seen[instruction.name] if whole else None
        return Operation(
            instruction.name,
            instruction.opcode,
            instruction.source,
            seconds,
            None if seconds is None else seconds / whole,
            times,
            times * each.each.flops,
            times * each.each.bytes,
        )

    def rank(entry: Operation) -> Any:
        return -(entry.share or 0.0), -entry.flops, -entry.bytes

    return sorted(map(operation, found), key=rank)
