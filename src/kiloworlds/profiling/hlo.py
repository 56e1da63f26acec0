"""Reads the text of a program that XLA has compiled, to count what it does.

XLA's own `cost_analysis` counts the body of a loop once, however often it runs; the text says how often.
"""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]+[0-9a-z]*)\[([0-9,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"^((?:\((?:[^()]|\([^()]*\))*\)|\S+)) ([a-z][a-z0-9\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_COMMENT = re.compile(r"/\*.*?\*/")
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_FILE = re.compile(r'source_file="([^"]*)"(?: source_line=(\d+))?')
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s"?[:=][{\[]([\d,"]*)[}\]]')


class Array(NamedTuple):
    """An array's type, such as `f32`, and its shape."""

    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its bytes."""
        bits = _BITS.get(self.kind)
        if bits is None:
            digits = re.search(r"\d+", self.kind)
            bits = int(digits[0]) if digits else 0
        return -(-self.size * bits // 8)

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.kind[0] in "fc" or self.kind == "bf16"


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: such as `add_tanh_fusion.1`; traces call it the same.
        opcode: such as `fusion`.
        result: the arrays it gives.
        operands: the names of the instructions it takes.
        called: the computations it runs, of a loop the condition and the body.
        trips: how often a loop runs; None where the program does not say.
        is_root: whether it is the computation's result.
        source: where in Python it comes from, such as `envs/classic/cartpole.py:120`.
        rest: the line after the opcode.
    """

    name: str
    opcode: str
    result: tuple[Array, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    trips: int | None
    is_root: bool
    source: str
    rest: str

    @property
    def contracted(self) -> tuple[int, ...]:
        """The axes of the first operand that a matrix product sums over."""
        found = _CONTRACTED.search(self.rest)
        numbers = found[1].replace('"', "") if found else ""
        return tuple(int(axis) for axis in numbers.split(",") if axis)

    @property
    def branches(self) -> tuple[str, ...]:
        """Of a conditional, the computations of which one runs."""
        return tuple(
            name.strip().lstrip("%")
            for listed, one in _BRANCHES.findall(self.rest)
            for name in (listed.split(",") if listed else [one])
        )


@dataclass
class Module:
    """A compiled program: its computations by name, in each the instructions by name.

    Attributes:
        partitions: on how many devices it runs; what it says is what one of them does.
    """

    entry: str = ""
    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)
    partitions: int = 1


def parse(text: str) -> Module:
    """Reads `compiled.as_text()`."""
    lines = _COMMENT.sub("", text).splitlines()
    head = re.search(r"num_partitions=(\d+)", lines[0]) if lines else None
    module = Module(partitions=int(head[1]) if head else 1)
    places = _Places(lines)
    current: dict[str, Instruction] = {}
    for line in lines:
        if begins := _COMPUTATION.match(line):
            current = module.computations.setdefault(begins[2], {})
            module.entry = begins[2] if begins[1] else module.entry
        elif (found := _INSTRUCTION.match(line)) and (kind := _OPCODE.match(found[3])):
            rest = found[3][kind.end() :]
            current[found[2]] = _instruction(found, kind, rest, places)
    return module


def _instruction(
    found: re.Match[str], kind: re.Match[str], rest: str, places: "_Places"
) -> Instruction:
    arguments, attributes = _split_arguments(rest)
    trips = _TRIPS.search(attributes)
    return Instruction(
        name=found[2],
        opcode=kind[2],
        result=tuple(_arrays(kind[1])),
        operands=tuple(_NAME.findall(arguments)),
        called=tuple(_CALLED.findall(attributes)),
        trips=int(trips[1]) if trips else None,
        is_root=bool(found[1]),
        source=places.of(attributes),
        rest=rest,
    )


def _arrays(text: str) -> Iterator[Array]:
    for kind, shape in _ARRAY.findall(text):
        yield Array(kind, tuple(int(size) for size in shape.split(",") if size))


def _split_arguments(rest: str) -> tuple[str, str]:
    """What stands in the parentheses of an instruction, and what follows."""
    depth = 1
    for index, letter in enumerate(rest):
        depth += (letter in "([{") - (letter in ")]}")
        if not depth:
            return rest[:index], rest[index + 1 :]
    return rest, ""


class _Places:
    """The tables at a program's head, from a stack frame to a line of Python.

    Args:
        lines: of the whole text.
    """

    def __init__(self, lines: Sequence[str]):
        self._files = _table(lines, "FileNames", r'^(\d+) "(.*)"$')
        self._locations = _table(
            lines, "FileLocations", r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)"
        )
        self._frames = _table(
            lines, "StackFrames", r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?"
        )

    def of(self, attributes: str) -> str:
        """Where an instruction with these attributes comes from; "" where it does not say."""
        if found := _FRAME.search(attributes):
            return self._of_frame(found[1])
        found = _FILE.search(attributes)
        return _short(found[1], found[2]) if found else ""

    @functools.cache  # noqa: B019
    def _of_frame(self, frame: str) -> str:
        """The innermost line of this package, or of any other where it has none."""
        innermost = ""
        while frame in self._frames:
            location, parent = self._frames[frame]
            file, line = self._locations.get(location, ("", ""))
            (path,) = self._files.get(file, ("",))
            innermost = innermost or _short(path, line)
            if "kiloworlds/" in path:
                return _short(path, line)
            above = str(int(parent or 0) - 1)  # counted from one, 1 for none
            frame = "" if above == frame else above
        return innermost


def _table(lines: Sequence[str], name: str, pattern: str) -> dict[str, tuple[str, ...]]:
    """The entries of a table, by the number that the first group of `pattern` finds."""
    entries: dict[str, tuple[str, ...]] = {}
    for line in lines[lines.index(name) + 1 :] if name in lines else ():
        found = re.match(pattern, line)
        if not found:
            break
        key, *values = found.groups(default="")
        entries[key] = tuple(values)
    return entries


def _short(path: str, line: str | None) -> str:
    """A path inside the package it belongs to."""
    for start in ("kiloworlds/", "site-packages/"):
        if start in path:
            path = path.rsplit(start, 1)[1]
            break
    return f"{path}:{line}" if line else path
