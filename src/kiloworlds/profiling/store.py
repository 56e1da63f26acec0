"""What was measured on this machine, kept beside the compilation cache."""

import json
from pathlib import Path
from typing import Any

from kiloworlds.core import machine
from kiloworlds.core.devices import cache_directory
from kiloworlds.training.storage.run_directory import write_whole


def read(name: str, key: str) -> dict[str, Any] | None:
    """What was stored under `key`; None where nothing is, or it cannot be read.

    Args:
        name: of the file, without its ending.
    """
    path = file(name)
    return None if path is None else _entries(path).get(key)


def write(name: str, key: str, entry: dict[str, Any]) -> Path | None:
    """Stores `entry` in place of what was there; returns the file, None where there is no cache, or it
    cannot be written: then it is measured again next time."""
    path = file(name)
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(_entries(path) | {key: entry}, indent=1) + "\n")
    except OSError:
        return None
    return path


def machine_key(*more: Any) -> str:
    """Names this machine, as this process may use it, and whatever else a measurement depends on."""
    return " | ".join(map(str, (machine.processor(), f"{machine.usable_cores()} cores", *more)))


def file(name: str) -> Path | None:
    """The file of that name; None where there is no cache."""
    directory = cache_directory()
    return None if directory is None else Path(directory) / "measured" / f"{name}.json"


def _entries(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # somebody else's text: what was measured can be measured again
        return {}
    return found if isinstance(found, dict) else {}
