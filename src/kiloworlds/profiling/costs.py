"""Counts the arithmetic and the memory traffic of a compiled program, loops included."""

from dataclasses import dataclass
from typing import NamedTuple

from kiloworlds.profiling.hlo import Array, Instruction, Module

_FREE = {
    "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "partition-id",
    "replica-id", "opt-barrier", "add-dependency",
}  # fmt: skip
"""Instructions that move nothing."""

_CONTAINERS = {"while", "conditional", "call"}
"""Instructions whose work is that of the computations they run."""

_MOVES = _FREE | {
    "copy", "broadcast", "reshape", "transpose", "slice", "dynamic-slice", "dynamic-update-slice",
    "gather", "scatter", "pad", "concatenate", "iota", "reverse", "convert", "bitcast-convert", "sort",
    "copy-start", "copy-done", "rng-bit-generator", "all-gather", "collective-permute", "select",
    "compare", "and", "or", "not", "xor", "is-finite",
}  # fmt: skip
"""Instructions that compute no floating-point numbers."""

COLLECTIVES = {
    "all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all",
    "all-reduce-start", "all-reduce-done",
}  # fmt: skip
"""Instructions in which devices wait for each other."""


class Cost(NamedTuple):
    """Work: floating-point operations (a tanh counts as one), and bytes read and written by operations
    if nothing stayed in the processor's caches between two of them."""

    flops: float = 0.0
    bytes: float = 0.0

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """This work, and `times` the other."""
        return Cost(self.flops + times * other.flops, self.bytes + times * other.bytes)

    def minus(self, other: "Cost") -> "Cost":
        """The work beyond another's; XLA may fuse otherwise, so that little may seem less than none."""
        return Cost(max(0.0, self.flops - other.flops), max(0.0, self.bytes - other.bytes))


@dataclass(frozen=True)
class OperationCost:
    """What one instruction of a program does in one run of it, on one device.

    Attributes:
        times: how often it runs; a loop of unknown length counts as one run.
        each: its work in each.
    """

    instruction: Instruction
    times: float
    each: Cost


def operations(module: Module) -> list[OperationCost]:
    """All instructions that do something, with how often they run."""
    found: list[OperationCost] = []

    def walk(computation: str, times: float) -> None:
        for instruction in module.computations.get(computation, {}).values():
            if instruction.opcode == "conditional":
                branches = instruction.branches
                for branch in branches:  # which of them, only the run can tell
                    walk(branch, times / len(branches))
            elif instruction.opcode in _CONTAINERS:
                for called in instruction.called:
                    walk(called, times * (instruction.trips or 1))
            elif instruction.opcode not in _FREE:
                cost = _cost(module, computation, instruction)
                found.append(OperationCost(instruction, times, cost))

    walk(module.entry, 1.0)
    return found


def total(module: Module) -> Cost:
    """The work of one run, on all devices together."""
    cost = Cost()
    for operation in operations(module):
        cost = cost.plus(operation.each, operation.times * module.partitions)
    return cost


def _cost(module: Module, computation: str, instruction: Instruction) -> Cost:
    known = module.computations[computation]
    flops = _flops(module, known, instruction)
    if instruction.opcode == "fusion" and instruction.called:
        return Cost(flops, _fusion_bytes(module.computations.get(instruction.called[0], {})))
    return Cost(flops, _bytes(known, instruction))


def _flops(module: Module, known: dict[str, Instruction], instruction: Instruction) -> float:
    size = sum(array.size for array in instruction.result)
    match instruction.opcode:
        case "fusion":
            inside = (
                module.computations.get(instruction.called[0], {}) if instruction.called else {}
            )
            return sum(_flops(module, inside, each) for each in inside.values())
        case "dot" | "ragged-dot":
            return _product_flops(known, instruction)
        case "convolution":
            return _convolution_flops(known, instruction)
        case "custom-call":
            is_product = any(word in instruction.rest for word in ("gemm", "matmul"))
            return _product_flops(known, instruction) if is_product else 0.0
        case "reduce" | "reduce-window" | "all-reduce" | "reduce-scatter":
            taken = _operand_arrays(known, instruction)
            is_float = any(array.is_float for array in instruction.result)
            return float(max((array.size for array in taken), default=0)) if is_float else 0.0
        case opcode if opcode in _MOVES:
            return 0.0
    return float(size) if any(array.is_float for array in instruction.result) else 0.0


def _product_flops(known: dict[str, Instruction], instruction: Instruction) -> float:
    """Two for each number of the result and each that is summed over."""
    operands = _operand_arrays(known, instruction)
    if not operands or not instruction.result:
        return 0.0
    shape = operands[0].shape
    summed = 1
    for axis in instruction.contracted:
        summed *= shape[axis] if axis < len(shape) else 1
    return 2.0 * instruction.result[0].size * summed


def _convolution_flops(known: dict[str, Instruction], instruction: Instruction) -> float:
    operands = _operand_arrays(known, instruction)
    if len(operands) < 2:
        return 0.0
    # One number of the result takes all of the kernel but its output features, the last letter "o".
    letters = instruction.rest.partition("dim_labels=")[2].partition("_")[2].partition("->")[0]
    kernel = operands[1]
    features = kernel.shape[letters.index("o")] if "o" in letters else 1
    return 2.0 * instruction.result[0].size * kernel.size / max(features, 1)


def _operand_arrays(known: dict[str, Instruction], instruction: Instruction) -> list[Array]:
    return [array for name in instruction.operands if name in known for array in known[name].result]


def _bytes(known: dict[str, Instruction], instruction: Instruction) -> float:
    written = sum(array.bytes for array in instruction.result)
    match instruction.opcode:
        case "dynamic-update-slice":  # in place: what is put in is read and written
            return 2.0 * sum(array.bytes for array in _update_of(known, instruction))
        case "slice" | "dynamic-slice" | "gather":
            return 2.0 * written
        case "broadcast" | "iota":
            return float(written)
    return float(written + sum(array.bytes for array in _operand_arrays(known, instruction)))


def _update_of(known: dict[str, Instruction], instruction: Instruction) -> tuple[Array, ...]:
    return known[instruction.operands[1]].result if instruction.operands[1] in known else ()


def _fusion_bytes(inside: dict[str, Instruction]) -> float:
    """What a fusion reads and writes: of what it slices or updates in place only the part."""
    users: dict[str, list[Instruction]] = {}
    for instruction in inside.values():
        for operand in instruction.operands:
            users.setdefault(operand, []).append(instruction)
    read = sum(
        _read_bytes(inside, users, instruction)
        for instruction in inside.values()
        if instruction.opcode == "parameter"
    )
    written = sum(_written_bytes(inside, each) for each in inside.values() if each.is_root)
    return float(read + written)


def _read_bytes(
    inside: dict[str, Instruction], users: dict[str, list[Instruction]], taken: Instruction
) -> int:
    whole = sum(array.bytes for array in taken.result)
    read = 0
    for user in users.get(taken.name, []):
        if user.opcode in ("bitcast", "reshape"):
            read += _read_bytes(inside, users, user)
        elif user.opcode in ("slice", "dynamic-slice", "gather"):
            is_index = user.operands[0] != taken.name
            read += whole if is_index else sum(array.bytes for array in user.result)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == taken.name:
            continue
        else:
            return whole
    return min(read, whole)


def _written_bytes(inside: dict[str, Instruction], root: Instruction) -> int:
    match root.opcode:
        case "tuple":
            return sum(_written_bytes(inside, inside[name]) for name in root.operands)
        case "bitcast" | "reshape" if root.operands and root.operands[0] in inside:
            return _written_bytes(inside, inside[root.operands[0]])
        case "dynamic-update-slice":
            return sum(array.bytes for array in _update_of(inside, root))
    return sum(array.bytes for array in root.result)
