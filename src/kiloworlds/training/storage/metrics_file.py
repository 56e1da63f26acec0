"""`metrics.jsonl`: one JSON object per line, appended and handed to the system as training goes."""

import fcntl
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kiloworlds.training.run_errors import RunDirectoryError, reading
from kiloworlds.training.storage.metrics import Metrics

NAME = "metrics.jsonl"
NOTHING = {"bytes": 0, "unwritten": ""}
"""The position at which there are no rows."""


class MetricsFile:
    """Appends rows. One that cannot be written is kept, and written with the next that can.

    Args:
        folder: the run directory.

    Raises:
        RunDirectoryError: another process has it open.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path):
        self._path = folder / NAME
        self._file = self._open()
        self._size = os.fstat(self._file).st_size
        self._unwritten = b""

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of with the process
        except BlockingIOError:
            os.close(file)
            raise RunDirectoryError(
                f"the run in {str(self._path.parent)!r} is being trained by another process."
            ) from None
        return file

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row, after those that could not be written before.

        Raises:
            OSError: it cannot be written now.
        """
        self._unwritten += json.dumps(row).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes what could not be written before.

        Raises:
            OSError: it still cannot.
        """
        if os.fstat(self._file).st_nlink == 0 or not self._path.exists():
            self._make_again()
        remaining = self._unwritten
        try:
            while remaining:  # a disk that gets full takes a part first
                remaining = remaining[os.write(self._file, remaining) :]
        except OSError:
            os.ftruncate(self._file, self._size)  # a line is there as a whole or not at all
            raise
        self._size += len(self._unwritten)
        self._unwritten = b""

    def _make_again(self) -> None:
        """Another file with the same lines, where somebody deleted it."""
        lines = self.read()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._open()
        os.close(self._file)
        self._file, self._size = file, os.fstat(file).st_size
        self._unwritten = lines + self._unwritten

    def read(self) -> bytes:
        """The lines that were written, even where somebody deleted the file."""
        return os.pread(self._file, self._size, 0)

    def force_to_disk(self) -> None:
        """Returns when what was written is safe from a loss of power."""
        os.fsync(self._file)

    def position(self) -> dict[str, Any]:
        """Where it stands, for `cut_back`."""
        return {"bytes": self._size, "unwritten": self._unwritten.decode()}

    def cut_back(self, position: dict[str, Any]) -> int:
        """Makes it end where it did.

        Returns:
            How many bytes of it are lost: 0, unless the system lost what it was given.
        """
        lost = max(0, position["bytes"] - self._size)
        kept = os.pread(self._file, min(position["bytes"], self._size), 0)
        kept = kept[: kept.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(kept))
        self._size, self._unwritten = len(kept), position["unwritten"].encode()
        self.flush()
        return lost

    def close(self) -> None:
        os.close(self._file)


def _ignore(words: str) -> None:
    """Where nobody listens."""


def read_metrics(path: Path, say: Callable[[str], None] = _ignore) -> Metrics:
    """Reads `metrics.jsonl` into arrays `[rows]` or `[rows, seeds]`, NaN where nothing was.

    Reading ends before the first line that is no row.

    Args:
        path: the run directory.
        say: hears which line that is and how much is left out, unless it is but the last one, torn by a
            kill.

    Raises:
        RunDirectoryError: there is no such file, or it cannot be read.
    """
    rows, damage = read_rows(path)
    if damage is not None:
        say(damage)
    columns = {name: _column([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return Metrics(columns)


def read_rows(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of `metrics.jsonl` until a line that is none, and in a sentence what is wrong with it;
    None if that is nothing, or just the end of a last line that is not there.

    Raises:
        RunDirectoryError: there is no such file, or it cannot be read.
    """
    file = path / NAME
    rows: list[dict[str, Any]] = []
    with reading(file):
        *lines, end = file.read_text(encoding="utf-8", errors="replace").split("\n")
    if end:
        lines.append(end)
    first = None
    for index, line in enumerate(lines):
        row = _parse(line)
        layout = _layout(row)
        first = first or layout
        if layout is None or layout != first or (rows and row["step"] <= rows[-1]["step"]):
            left_out = len(lines) - index
            is_torn = bool(end) and left_out == 1 and line.startswith("{")
            return rows, None if is_torn else _damage(file, index + 1, left_out)
        rows.append(row)
    return rows, None


def _parse(line: str) -> Any:
    """What a line of JSON holds; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _damage(file: Path, number: int, left_out: int) -> str:
    count = "1 line is" if left_out == 1 else f"{left_out:,} lines are"
    where = f"{str(file)!r} is damaged in line {number:,}"
    return f"{where}: metrics end before it, and {count} left out."


_MOST = {int: 2**63, float: float(np.finfo(np.float32).max)}
"""No count is larger, and no array holds more; no metric is computed with more than float32."""
_NEEDED = ("step", "seconds")
"""What every row has, as one finite number."""


def _layout(row: Any) -> dict[str, int | None] | None:
    """How many numbers a row holds for each metric (None: just one); None if it is no row."""
    if not isinstance(row, dict) or not all(_is_known(row.get(name)) for name in _NEEDED):
        return None
    for value in row.values():
        if not all(map(_is_entry, value if isinstance(value, list) else [value])):
            return None
    return {name: len(value) if isinstance(value, list) else None for name, value in row.items()}


def _is_known(value: Any) -> bool:
    return isinstance(value, int | float) and _is_entry(value) and math.isfinite(value)


def _is_entry(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, int | float):
        return False
    is_finite = isinstance(value, int) or math.isfinite(value)
    return not is_finite or abs(value) <= _MOST[float if isinstance(value, float) else int]


def _column(values: list[Any]) -> np.ndarray:
    column = np.asarray(values)
    return column.astype(float) if column.dtype == object else column  # None becomes NaN
