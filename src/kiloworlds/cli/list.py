"""`kiloworlds list`: the environments there are, and what runs them."""

import dataclasses
import importlib.util
from typing import Annotated, Any

import gymnasium
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kiloworlds.cli import options
from kiloworlds.core.environment import MultiAgentEnvironment
from kiloworlds.core.errors import unknown_name
from kiloworlds.core.registry import find_spec, list_envs
from kiloworlds.training.config import ALGORITHMS
from kiloworlds.training.presets import preset
from kiloworlds.vector.choice import host_backend
from kiloworlds.vector.make import gymnasium_factory
from kiloworlds.vector.native.engines import ENGINES, Engine, Wanted, find_engine
from kiloworlds.vector.pixels import PixelOptions

# What Gymnasium's environments import, and what brings it.
_SIMULATORS = {
    "gymnasium.envs.box2d": ("Box2D", 'pip install "kiloworlds[box2d]"'),
    "gymnasium.envs.mujoco": ("mujoco", 'pip install "kiloworlds[mujoco]"'),
    "ale_py": ("ale_py", 'pip install "kiloworlds[atari]"'),
}

_CHOSEN = "*"  # of the backend that `make` takes; a style alone is lost in a pipe
_ROOMY = 110
_NARROW = 80
_UNBROKEN = ("id", "runs as", "presets", "backend", "engine")

_BACKENDS = {
    "compiled": "kiloworlds' own environments, as one XLA program",
    "process": "any Gymnasium environment, in worker processes",
    "thread": "any Gymnasium environment, in threads",
    "sync": "any Gymnasium environment, one after the other",
}


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `list`."""

    filter: Annotated[str, tyro.conf.Positional] = ""
    """Show only ids that contain this, in upper or lower case. With --backends: one id."""

    backends: bool = False
    """List backends and engines instead, and with an id which of them would run it."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "list", "Lists the environments by id.")
    if chosen.backends:
        return _list_backends(chosen)
    every = environments()
    found = [entry for entry in every if chosen.filter.lower() in entry["id"].lower()]
    if not found:
        ids = [entry["id"] for entry in every]
        raise unknown_name("environment", chosen.filter, ids, "kiloworlds list")
    if chosen.json:
        options.print_json(found)
        return 0
    console = options.wide_console(as_json=False)
    table = _table(
        console, "id", "runs as", "agents", "time limit", "solved at", "presets", "missing"
    )
    for entry in found:
        _add_row(
            table,
            entry["id"],
            entry["kind"],
            str(entry["num_agents"]),
            _optional(entry["max_episode_steps"]),
            _optional(entry["reward_threshold"]),
            ", ".join(entry["presets"]),
            entry["missing"] or "",
            style="" if entry["kind"] == "compiled" else "dim",
        )
    console.print(table)
    kinds = [entry["kind"] for entry in found]
    able = [entry for entry in found if entry["missing"] is None]
    missing = len(found) - len(able)
    console.print(
        f"\n{kinds.count('compiled')} compiled, {kinds.count('gymnasium')} through Gymnasium"
        f"{f', {missing} cannot run here' if missing else ''}."
        f"{f' Try: kiloworlds train {_try(able[0])}' if able else ''}",
        style="dim",
        soft_wrap=True,
    )
    return 0


def _try(entry: dict[str, Any]) -> str:
    """An algorithm that learns there, best with a preset, and the id."""
    plain = "ppo" if entry["num_agents"] == 1 else "ippo"
    return f"{next(iter(entry['presets']), plain)} {entry['id']}"


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
        "num_agents": _num_agents(id) if kind == "compiled" else 1,
        "max_episode_steps": spec.max_episode_steps,
        "reward_threshold": spec.reward_threshold,
        "presets": [algorithm for algorithm in ALGORITHMS if preset(algorithm, id)],
        "missing": None if kind == "compiled" else _missing(id),
    }


def _num_agents(id: str) -> int:
    spec = find_spec(id)
    env = None if spec is None else spec.build()
    return len(env.possible_agents) if isinstance(env, MultiAgentEnvironment) else 1


def _missing(id: str) -> str | None:
    """What must be done before a Gymnasium environment can run here; None if nothing."""
    entry_point = gymnasium.registry[id].entry_point
    if not isinstance(entry_point, str):
        # Gymnasium registers functions that raise for what has moved to another package.
        moved = getattr(entry_point, "__module__", "") == "gymnasium.envs"
        return "moved to another package" if moved else None
    for prefix, (module, command) in _SIMULATORS.items():
        if entry_point.startswith(prefix) and importlib.util.find_spec(module) is None:
            return command
    return None


# Backends and engines.


def _list_backends(chosen: Options) -> int:
    found = backends(chosen.filter) if chosen.filter else {"backends": _all_backends()}
    if chosen.json:
        options.print_json(found)
        return 0
    console = options.wide_console(as_json=False)
    if chosen.filter:
        table = _table(console, "", "backend", "engine", "installed", f"for {chosen.filter}")
        for entry in found["backends"]:
            _add_row(
                table,
                _CHOSEN if entry["chosen"] else "",
                entry["backend"],
                entry["engine"] or "",
                _installed(entry),
                "yes" if entry["refusal"] is None else entry["refusal"],
                style="bold" if entry["chosen"] else "dim",
            )
    else:
        table = _table(console, "backend", "engine", "installed", "runs", "note")
        for entry in found["backends"]:
            _add_row(
                table,
                entry["backend"],
                entry["engine"] or "",
                _installed(entry),
                entry["runs"],
                entry["note"] or "",
            )
    console.print(table)
    if chosen.filter and found["backend"]:
        atari = ", preprocessing='atari'" if chosen.filter.startswith("ALE/") else ""
        words = f"\n{_CHOSEN} kiloworlds.make({chosen.filter!r}, 64{atari}) takes this one."
        console.print(Text(words, "dim"), soft_wrap=True)
    elif not chosen.filter:
        console.print("\nFor one environment: kiloworlds list --backends ID", style="dim")
    return 0


def _all_backends() -> list[dict[str, Any]]:
    """Every backend, and every engine of the native one."""
    entries = [_backend(name, runs) for name, runs in _BACKENDS.items()]
    return entries[:1] + [_engine(engine) for engine in ENGINES] + entries[1:]


def _backend(name: str, runs: str) -> dict[str, Any]:
    return {
        "backend": name,
        "engine": None,
        "installed": True,
        "version": None,
        "install": None,
        "load_error": None,
        "runs": runs,
        "note": None,
    }


def _engine(engine: Engine) -> dict[str, Any]:
    return {
        "backend": "native",
        "engine": engine.name,
        "installed": engine.is_installed,
        "version": engine.version,
        "install": None if engine.is_installed else engine.install,
        "load_error": engine.load_error if engine.is_installed else None,
        "runs": engine.runs,
        "note": engine.note,
    }


def backends(env_id: str) -> dict[str, Any]:
    """Which backends and engines run an id, and which of them `make` would choose: None if none.

    Atari games are taken to be preprocessed.

    Raises:
        UnknownNameError: no environment of that id.
    """
    wanted = Wanted(env_id, pixels=PixelOptions() if env_id.startswith("ALE/") else None)
    refusals = {engine.name: engine.refusal(wanted) for engine in ENGINES}  # registers ALE's games
    spec = find_spec(env_id)
    if spec is None and env_id not in gymnasium.registry:
        ids = [entry["id"] for entry in environments()]
        raise unknown_name("environment", env_id, ids, "kiloworlds list")
    engine = find_engine(wanted)
    if spec is not None:
        best = ("compiled", None)
    elif engine is not None:
        best = ("native", engine.name)
    else:
        best = (None if _missing(env_id) else host_backend(64, gymnasium_factory(env_id, {})), None)
    entries = _all_backends()
    for entry in entries:
        refusal = refusals[entry["engine"]] if entry["engine"] else None
        if entry["backend"] == "compiled" and spec is None:
            refusal = f"there is no compiled {env_id}"
        if entry["backend"] in ("process", "thread", "sync") and env_id in gymnasium.registry:
            refusal = _missing(env_id)
        elif entry["backend"] in ("process", "thread", "sync"):
            refusal = "Gymnasium has no environment of this id"
        entry["refusal"] = refusal
        entry["chosen"] = (entry["backend"], entry["engine"]) == best
    return {"id": env_id, "backend": best[0], "engine": best[1], "backends": entries}


def _installed(entry: dict[str, Any]) -> str:
    if entry["load_error"]:
        return f"{entry['version']}, but it cannot be loaded: {entry['load_error']}"
    return entry["install"] or entry["version"] or "yes"


def _table(console: Console, *columns: str) -> Table:
    """A table that cuts nothing: what does not fit goes on in the next line, ids last of all."""
    roomy = console.width >= _ROOMY
    table = Table(
        box=None, header_style="bold", pad_edge=False, padding=(0, 3 if roomy else 1, 0, 0)
    )
    for name in columns:
        numbers = name in ("agents", "time limit", "solved at")
        table.add_column(
            Text(name),
            no_wrap=name in _UNBROKEN and console.width >= _NARROW,
            justify="right" if numbers else "left",
            overflow="fold",
        )
    return table


def _add_row(table: Table, *cells: str, style: str = "") -> None:
    """Adds words as they are: "kiloworlds[atari]" is no markup."""
    table.add_row(*map(Text, cells), style=style)


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
