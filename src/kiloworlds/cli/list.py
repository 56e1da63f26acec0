"""`kiloworlds list`: the environments there are."""

import dataclasses
from typing import Annotated, Any

import gymnasium
import tyro
from rich.table import Table

from kiloworlds.cli import options
from kiloworlds.core.errors import unknown_name
from kiloworlds.core.registry import find_spec, list_envs
from kiloworlds.training.config import ALGORITHMS
from kiloworlds.training.presets import preset


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `list`."""

    filter: Annotated[str, tyro.conf.Positional] = ""
    """Show only ids that contain this, in upper or lower case."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "list", "Lists the environments by id.")
    every = environments()
    found = [entry for entry in every if chosen.filter.lower() in entry["id"].lower()]
    if not found:
        ids = [entry["id"] for entry in every]
        raise unknown_name("environment", chosen.filter, ids, "kiloworlds list")
    if chosen.json:
        options.print_json(found)
        return 0
    console = options.console(chosen.json)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("id", "runs as", "time limit", "solved at", "presets"):
        table.add_column(
            name, no_wrap=True, justify="right" if " at" in name or "limit" in name else "left"
        )
    for entry in found:
        compiled = entry["kind"] == "compiled"
        table.add_row(
            entry["id"],
            entry["kind"],
            _optional(entry["max_episode_steps"]),
            _optional(entry["reward_threshold"]),
            ", ".join(entry["presets"]),
            style="" if compiled else "dim",
        )
    console.print(table)
    kinds = [entry["kind"] for entry in found]
    console.print(
        f"\n{kinds.count('compiled')} compiled, {kinds.count('gymnasium')} through Gymnasium. "
        f"Try: kiloworlds train ppo {found[0]['id']}",
        style="dim",
        soft_wrap=True,
    )
    return 0


def environments() -> list[dict[str, Any]]:
    """Every id with what is known about it, compiled environments first."""
    compiled = list_envs()
    others = sorted(set(gymnasium.registry) - set(compiled))
    return [_describe(id, "compiled") for id in compiled] + [
        _describe(id, "gymnasium") for id in others
    ]


def _describe(id: str, kind: str) -> dict[str, Any]:
    spec = find_spec(id) or gymnasium.registry[id]
    return {
        "id": id,
        "kind": kind,
        "max_episode_steps": spec.max_episode_steps,
        "reward_threshold": spec.reward_threshold,
        "presets": [algorithm for algorithm in ALGORITHMS if preset(algorithm, id)],
    }


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
