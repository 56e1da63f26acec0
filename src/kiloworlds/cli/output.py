"""Results for programs: JSON on standard output, and nothing else there."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table


@contextlib.contextmanager
def results_only_on_stdout(as_json: bool) -> Iterator[None]:
    """With `--json` sends what anything else prints, such as an environment, to standard error."""
    global _results
    _results = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            yield
    finally:
        _results = None


_results: TextIO | None = None


def print_json(result: dict[str, Any] | list[Any]) -> None:
    """Writes one JSON document to standard output; what is not finite becomes null."""
    target = _results or sys.stdout
    json.dump(_plain(result), target, indent=2, allow_nan=False)
    target.write("\n")
    target.flush()


def say(console: Console, name: str, words: str) -> None:
    """Prints a line of words with a name before it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=12, style="dim")
    table.add_column(overflow="fold")
    table.add_row(name, words)
    console.print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and JAX
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
