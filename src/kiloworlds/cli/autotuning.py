"""`--autotune`, of `train` and `profile`."""

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kiloworlds.cli import options, training_flags
from kiloworlds.cli.output import say
from kiloworlds.core.checks import require_number
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.profiling.tuning.autotune import DEFAULT_SECONDS, SECONDS, Tuned, tune
from kiloworlds.training.config import build_config
from kiloworlds.vector.pettingzoo.ids import user_module

_SHOWN = 8
"""So many of the candidates are listed; --json has all."""


@dataclasses.dataclass(frozen=True)
class Options(training_flags.Options):
    """Flags about choosing settings by measuring."""

    autotune: options.Flag = False
    """Measure first which devices, threads, workers and numbers of environments are fastest on this
    machine, and use them. Settings that are given stay. The answer is kept for next time."""
    autotune_seconds: float | None = None
    """With --autotune: seconds that measuring may take; 45 if not given."""
    autotune_again: options.Flag = False
    """With --autotune: measure again, whatever is kept."""


def autotuned(
    asked: training_flags.Asked[Any], console: Console
) -> tuple[dict[str, Any], Tuned | None]:
    """The settings of a command line, with those that measuring chose where it asks for that.

    Raises:
        TrialError: what was asked for cannot be measured.
        InvalidValueError: flags that do not fit together.
    """
    chosen = asked.options
    seconds = chosen.autotune_seconds
    if not (chosen.autotune or chosen.autotune_again):
        if seconds is not None:
            raise InvalidValueError("--autotune-seconds is for --autotune: give both, or neither.")
        return asked.settings, None
    if seconds is not None:
        require_number("--autotune-seconds", seconds, *SECONDS)
    config = build_config(asked.algorithm, asked.env_id, asked.settings)
    module = user_module(asked.env_id)
    imports = [*chosen.imports, *([module] if module else [])]
    with console.status("autotune: starts") as status:
        tuned = tune(
            config,
            asked.given,
            seconds=DEFAULT_SECONDS if seconds is None else seconds,
            again=chosen.autotune_again,
            imports=imports,
            say=lambda words: status.update(f"autotune: {words}"),
        )
    show(tuned, console)
    return asked.settings | tuned.settings, tuned


def show(tuned: Tuned, console: Console) -> None:
    """Prints what was tried and chosen."""
    if tuned.is_stored:
        told = ", ".join(f"{name}={value}" for name, value in tuned.settings.items())
        say(
            console,
            "autotune",
            f"{told or 'settings as they are'}, as measured on {tuned.measured} ({tuned.speedup:.2f} "
            f"times as fast) and kept in {tuned.file}; --autotune-again measures anew.",
        )
        return
    if tuned.tried:
        console.print(_table(tuned))
    for index, sentence in enumerate(tuned.why):
        say(console, "" if index else "autotune", sentence)
    kept = f" Kept in {tuned.file}." if tuned.file else " Not kept: there is no cache to write to."
    measured = sum(one.steps_per_second is not None for one in tuned.tried)
    many = f"{measured} of {len(tuned.tried)}" if measured < len(tuned.tried) else f"{measured}"
    if measured:
        say(console, "", f"{many} ways measured in {tuned.seconds:.0f} s.{kept}")
    console.print()


def _table(tuned: Tuned) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("", width=1)
    table.add_column("tried")
    table.add_column("steps/s", justify="right")
    table.add_column("")
    shown = tuned.tried[:_SHOWN]
    shown += [one for one in tuned.tried[_SHOWN:] if one.is_chosen or not one.settings]
    for one in shown:
        told = ", ".join(f"{name}={value}" for name, value in one.settings.items()) or "as asked"
        rate = "" if one.steps_per_second is None else f"{one.steps_per_second:,.0f}"
        mark = Text("*" if one.is_chosen else "", "green")
        table.add_row(mark, Text(told, "bold" if one.is_chosen else ""), rate, one.note)
    return table
