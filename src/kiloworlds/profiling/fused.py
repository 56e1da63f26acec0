"""Where the time of the fused loop goes.

Environments, policy and learning are one program, and XLA mixes them. So the parts are compiled as
programs of their own, and what one has beyond another is taken for the rest: an estimate.
"""

import time
from collections.abc import Callable
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
        state = jax.block_until_ready(training.program(state, jnp.int32(1)))[0]
    compilation = compilation_facts(time.perf_counter() - began, watched)
    programs = _Programs(training, state)
    medians, taken = timing.in_turn(programs.by_name, 0.8 * seconds)
    update = medians["update"]
    per_call = min(CHUNK, max(1, round(min(_CALL_SECONDS, seconds / 50) / update.seconds)))
    whole = {
        "program": lambda count: programs.update(per_call * count),
        "call": lambda count: programs.call(count, per_call),
    }
    _, calls = timing.in_turn(whole, 0.2 * seconds)
    copies = timing.differences(calls["call"], calls["program"])
    module = hlo.parse(training.program.as_text() or "")
    operations = _operations(module, programs.update)
    parts = [
        *_compiled_parts(programs, module, medians, taken),
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


class _Programs:
    """A training's compiled programs, each of which goes on from the state where the last one left it.

    Attributes:
        stepping: steps environments with actions that were drawn before.
        collecting: acts and steps, and learns nothing.
    """

    def __init__(self, training: FusedLoop, state: Any):
        self._training, self._state = training, state
        self._actions = training.actions(state)
        self.stepping = training.stepping(state, self._actions)
        self.collecting = training.collecting(state)

    @property
    def by_name(self) -> dict[str, Callable[[int], None]]:
        """Those that are timed against each other."""
        return {"step": self.step, "collect": self.collect, "update": self.update}

    def step(self, count: int) -> None:
        self._go_on(self.stepping(self._state, jnp.int32(count), self._actions))

    def collect(self, count: int) -> None:
        self._go_on(self.collecting(self._state, jnp.int32(count)))

    def update(self, count: int) -> None:
        """Whole updates."""
        self._go_on(self._training.program(self._state, jnp.int32(count)))

    def call(self, count: int, updates: int) -> None:
        """The same as training does it: so many updates a call, whose metrics are fetched."""
        for _ in range(count):
            self._state, _ = self._training.run(self._state, updates)

    def _go_on(self, returned: Any) -> None:
        self._state = jax.block_until_ready(returned)[0]


def _compiled_parts(
    programs: _Programs,
    module: hlo.Module,
    medians: dict[str, timing.Timing],
    taken: dict[str, list[float]],
) -> list[Part]:
    """Environments, policy and learning: what one program takes beyond another."""
    step = costs.total(hlo.parse(programs.stepping.as_text() or ""))
    collect = costs.total(hlo.parse(programs.collecting.as_text() or ""))
    update = costs.total(module)
    return [
        _part(ENVIRONMENT, medians["step"], "a program that only steps them", step),
        _part(
            POLICY,
            timing.differences(taken["collect"], taken["step"]),
            "a program that also acts, less the one that only steps",
            collect.minus(step),
        ),
        _part(
            LEARNING,
            timing.differences(taken["update"], taken["collect"]),
            "whole updates, less the program that only steps and acts",
            update.minus(collect),
        ),
    ]


def _part(name: str, measured: timing.Timing, what: str, cost: Cost) -> Part:
    return Part(name, measured.seconds, measured.spread, what, cost.flops, cost.bytes)


def _operations(module: hlo.Module, update: Callable[[int], None]) -> list[Operation]:
    """Operations with what the profiler sees of them in an update, those first that take longest."""
    found, devices = costs.operations(module), module.partitions
    count = max(1, round(_TRACED_EVENTS / sum(each.times for each in found)))
    traced = trace.seconds_by_operation(lambda: update(count), _PROGRAM)
    seen = {each.instruction.name: traced.get(each.instruction.name, 0.0) / count for each in found}
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
