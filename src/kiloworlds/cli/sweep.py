"""`kiloworlds sweep`: looks for good settings."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kiloworlds.cli import options
from kiloworlds.cli.config_file import load_mapping
from kiloworlds.core import devices
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.words import duration, number

DESCRIPTION = """\
Looks for good settings: kiloworlds sweep SPEC.yaml. The file names the algorithm, the environment, what
to look for and how often to try:

  algorithm: ppo
  env: CartPole-v1
  settings: {total_steps: 200000}
  trials: 32
  seeds: 4
  search:
    learning_rate: {min: 1.0e-4, max: 1.0e-2, log: true}
    num_steps: [32, 128]

Trials that differ in settings that one program can hold (learning rate, discount, entropy, ...) are
trained side by side. The same command goes on with a sweep that was interrupted; several of it at once
share the work."""

_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `sweep`."""

    spec: Annotated[Path, tyro.conf.Positional]
    """YAML file that says what to look for."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Directory of the sweep; sweeps/ and the name of the file if not given."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "sweep", DESCRIPTION)
    from kiloworlds.sweep.advice import caveats, recommended
    from kiloworlds.sweep.outcome import costs_differ, pareto_front
    from kiloworlds.sweep.plots import plot_sweep
    from kiloworlds.sweep.search import Progress, Sweep
    from kiloworlds.sweep.spec import read_spec

    console = options.wide_console(chosen.json)
    values = load_mapping(chosen.spec)
    try:
        spec = read_spec(values)
    except (InvalidValueError, UnknownNameError) as error:
        raise type(error)(f"{chosen.spec}: {error}") from error
    devices.configure()
    folder = chosen.output or Path("sweeps") / chosen.spec.stem
    sweep = Sweep(folder, spec)
    console.print(
        Text(f"{spec.wanted} trials of {spec.seeds} seeds", "bold").append(f"  {folder}", "dim"),
        soft_wrap=True,
    )

    def tell(progress: Progress) -> None:
        line = f"{progress.finished:>4} of {progress.wanted}"
        if progress.best is not None:
            line += f"  best {number(progress.best.value)}  {_words(progress.best.values)}"
        console.print(Text(line), soft_wrap=True)

    outcomes = sweep.run(lambda words: console.print(Text(words, "yellow"), soft_wrap=True), tell)
    running = sweep.trials.num_running
    if running:
        what = "1 trial is" if running == 1 else f"{running} trials are"
        tail = "what follows is not final" if outcomes else "nothing has ended yet"
        words = f"{what} still being trained by other processes: {tail}"
        console.print(Text(words, "yellow"), soft_wrap=True)
    if not outcomes:
        return 0
    picture = folder / "sweep.png"
    figure = plot_sweep(spec, outcomes)
    figure.savefig(picture, dpi=200)
    front = [outcome.number for outcome in pareto_front(outcomes)]
    remarks = caveats(spec, outcomes)
    flags = [
        word for setting in recommended(spec, outcomes).items() for word in _flag_words(*setting)
    ]
    again = shlex.join(["kiloworlds", "train", spec.algorithm, spec.env, *flags])
    if chosen.json:
        options.print_json(
            {
                "path": folder,
                "trials": [_as_json(outcome) for outcome in outcomes],
                "best": _as_json(outcomes[0]),
                "pareto": front,
                "running": running,
                "remarks": remarks,
                "next": again,
                "picture": picture,
            }
        )
    _print_table(console, outcomes, front if costs_differ(outcomes) else [])
    for remark in remarks:
        console.print(Text("! ", "yellow").append(remark, "default"), soft_wrap=True)
    console.print(Text("picture  ", "dim").append(str(picture), "not dim"), soft_wrap=True)
    console.print(Text("next     ", "dim").append(again, "not dim"), soft_wrap=True)
    console.print(
        Text("         on other seeds, since the best was picked on its own", "dim"), soft_wrap=True
    )
    return 0


def _flag_words(name: str, value: Any) -> list[str]:
    """A setting as `train` takes it."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}", f"{value:.4g}" if isinstance(value, float) else str(value)]


def _print_table(console: Console, outcomes: list[Any], starred: list[int]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    stopped = any(outcome.stopped for outcome in outcomes[:_SHOWN])
    last = ("stopped at step",) if stopped else ()
    for name in ("trial", *outcomes[0].values, "return", "interval", "seconds", *last):
        is_setting = name in outcomes[0].values  # whose name may be broken into lines
        words = name.replace("_", " ")
        table.add_column(words, justify="right", no_wrap=not is_setting, overflow="fold")
    for outcome in outcomes[:_SHOWN]:
        _, low, high = outcome.estimate
        table.add_row(
            f"{'* ' if outcome.number in starred else ''}{outcome.number}",
            *(_short(value) for value in outcome.values.values()),
            number(outcome.value),
            "none" if low is None else f"{number(low)} to {number(high)}",
            f"{outcome.seconds:.1f}",
            *((f"{outcome.steps:,}" if outcome.stopped else "",) if stopped else ()),
        )
    console.print(table)
    if len(outcomes) > _SHOWN:
        console.print(
            Text(f"and {len(outcomes) - _SHOWN} more, in sweep.png and with --json", "dim")
        )
    words = f"all took {duration(sum(outcome.seconds for outcome in outcomes))} without compilation"
    if starred:
        words += "; * no other has a higher return in less time, of the better half"
    console.print(Text(words, "dim"), soft_wrap=True)


def _words(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _as_json(outcome: Any) -> dict[str, Any]:
    _, low, high = outcome.estimate
    return {**outcome._asdict(), "interval": None if low is None else [low, high]}
