"""Whose a sweep's directory is: `sweep.yaml` in it says what is looked for there."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from kiloworlds.sweep.spec import Choices, SweepSpec
from kiloworlds.sweep.store import SweepStoreError
from kiloworlds.training.storage.run_directory import write_whole

_SPEC = "sweep.yaml"


def claim(folder: Path, spec: SweepSpec) -> None:
    """Writes the specification into the folder, or finds the same there."""
    file = folder / _SPEC
    ours = _plain(spec)
    if not file.exists():
        write_whole(file, yaml.safe_dump(ours, sort_keys=False))
        return
    try:
        theirs = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise SweepStoreError(f"{str(file)!r} is damaged: {why}") from error
    if not isinstance(theirs, dict):
        raise SweepStoreError(
            f"{str(file)!r} is damaged: it holds no names and values. Delete it if the sweep in "
            f"{str(folder)!r} is the one given: it is written again."
        )
    may_change = ("trials", "population", "early_stopping")
    different = [
        f"{name}: {theirs.get(name)!r} there, {value!r} given"
        for name, value in ours.items()
        if theirs.get(name) != value and name not in may_change
    ]
    if different:
        raise SweepStoreError(
            f"{str(folder)!r} holds another sweep ({'; '.join(different)}): give another --output."
        )
    write_whole(file, yaml.safe_dump(ours, sort_keys=False))


def _plain(spec: SweepSpec) -> dict[str, Any]:
    values = dataclasses.asdict(spec)
    values["search"] = {
        name: list(space.values)
        if isinstance(space, Choices)
        else {"min": space.low, "max": space.high, "log": space.log}
        for name, space in spec.search.items()
    }
    return values
