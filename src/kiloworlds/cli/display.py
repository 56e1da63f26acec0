"""What `kiloworlds train` shows: a live panel in a terminal, plain lines elsewhere."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kiloworlds.core.words import digits, duration, number

_BARS = "▁▂▃▄▅▆▇█"
_LOSSES = {
    "policy": "train/policy_gradient_loss",
    "value": "train/value_loss",
    "entropy": "train/entropy_loss",
    "kl": "train/approx_kl",
    "clipped": "train/clip_fraction",
    "explained": "train/explained_variance",
}
_REFRESHES_PER_SECOND = 5  # more would take time from training on few cores

_LINE_SECONDS = 5.0
"""Between two lines on how far something is, where they cannot be redrawn."""

Row = dict[str, Any]


class Display(Protocol):
    """What shows a training as it runs; use as a context manager."""

    def __enter__(self) -> "Display": ...
    def __exit__(self, *exception: object) -> None: ...

    def update(self, row: Row) -> None:
        """Takes one row of metrics; see `kiloworlds.training.train`."""


def make_display(
    console: Console, title: str, total_steps: int, threshold: float | None = None
) -> Display:
    """The live panel if `console` is a terminal that can redraw, else plain lines."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console, title, total_steps, threshold)
    return LineDisplay(console, title, total_steps)


@contextlib.contextmanager
def progress_line(
    console: Console, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str], None]]:
    """What shows in a few words how far something is: in place in a terminal that can redraw, elsewhere
    as a line every 5 s.

    Args:
        console: where the line goes.
        clock: seconds since some moment; replaced in tests.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        with console.status("") as status:
            yield lambda words: status.update(Text(words, "dim"))
        return
    printed_at = -math.inf

    def say(words: str) -> None:
        nonlocal printed_at
        if clock() - printed_at >= _LINE_SECONDS:
            printed_at = clock()
            console.print(Text(words, "dim"), soft_wrap=True)

    yield say


def mean_and_spread(values: Any) -> tuple[float, float] | None:
    """Mean and standard deviation over seeds of what is there, or None if nothing is."""
    known = [value for value in _as_list(values) if value is not None and math.isfinite(value)]
    return (float(np.mean(known)), float(np.std(known))) if known else None


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve as `width` characters or fewer, each the mean of its share of `values`."""
    if not values:
        return ""
    parts = np.array_split(np.asarray(values, float), min(width, len(values)))
    means = np.array([part.mean() for part in parts])
    low, high = means.min(), means.max()
    heights = (means - low) / (high - low) if high > low else np.full(means.shape, 0.0)
    return "".join(_BARS[round(height * (len(_BARS) - 1))] for height in heights)


def spread_text(statistics: tuple[float, float] | None, seeds: int) -> str:
    """Such as "475.3 ± 12.1", without the spread where there is one seed."""
    if statistics is None:
        return "-"
    mean, spread = statistics
    return number(mean) if seeds == 1 else f"{number(mean)} ± {spread:,.{digits(mean)}f}"


def _rate(row: Row) -> str:
    """Steps per second; the first row has none, as its time is spent compiling."""
    return "" if row["fps"] is None else f"{row['fps']:,.0f} steps/s"


def outcome(row: Row) -> list[tuple[str, str]]:
    """What else is known of the episodes of several agents, as names and numbers: the share won, and
    the return of each kind of agents."""
    told = []
    won = mean_and_spread(row.get("rollout/win_rate"))
    if won is not None:
        told.append(("won", f"{won[0]:.1%}"))
    for name, values in row.items():
        kind = name.removeprefix("rollout/ep_rew_mean/")
        statistics = mean_and_spread(values) if kind != name else None
        if statistics is not None:
            told.append((kind, number(statistics[0])))
    return told


def _as_list(values: Any) -> list[Any]:
    if values is None:
        return []
    return list(values) if isinstance(values, list | tuple | np.ndarray) else [values]


class LiveDisplay:
    """A panel of four lines, redrawn in place: progress, return with its curve, speed, losses.

    Args:
        console: a terminal.
        title: what is trained, shown above the panel.
        total_steps: steps per seed that training takes.
        threshold: the return at which the task counts as solved, if any.
    """

    def __init__(
        self, console: Console, title: str, total_steps: int, threshold: float | None = None
    ):
        self._console = console
        self._title = title
        self._total_steps = total_steps
        self._threshold = threshold
        self._row: Row | None = None
        self._returns: list[float] = []
        self._started = time.monotonic()
        self._finished = False
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
        )

    def __enter__(self) -> "LiveDisplay":
        self._console.print(Text(self._title, style="bold"))
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._finished = True
        self._live.__exit__(None, None, None)

    def update(self, row: Row) -> None:
        self._row = row
        returns = mean_and_spread(row.get("rollout/ep_rew_mean"))
        if returns is not None:
            self._returns.append(returns[0])

    def _render(self) -> RenderableType:
        if self._row is None:
            if self._finished:
                return Text("  no metrics yet", style="dim")
            elapsed = duration(time.monotonic() - self._started)
            self._spinner.update(text=Text(f" compiling  {elapsed}", style="dim"))
            return Padding(self._spinner, (0, 0, 0, 2), expand=False)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True, min_width=len("progress"))
        table.add_column(no_wrap=True)
        table.add_row("progress", self._progress(self._row))
        table.add_row("return", self._return(self._row))
        table.add_row("speed", self._speed(self._row))
        losses = self._losses(self._row)
        if losses:
            table.add_row("losses", losses)
        return Group(Padding(table, (0, 0, 0, 2), expand=False))

    def _progress(self, row: Row) -> RenderableType:
        step, seconds = row["step"], row["seconds"]
        seeds = max(1, len(_as_list(row.get("rollout/ep_rew_mean"))))
        share = min(1.0, step / self._total_steps)
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(
            total=1.0,
            completed=share,
            width=min(30, max(10, self._console.width - 62)),
            complete_style="cyan",
            finished_style="green",
        )
        text = Text(f"{share:4.0%}", style="bold")
        text.append(f"  {step:,} of {self._total_steps:,} steps", style="default")
        if share < 1 and not self._finished and row["fps"]:
            left = (self._total_steps - step) * seeds / row["fps"]
            text.append(f"  {duration(left)} left", "dim")
        elif self._finished:
            text.append(f"  {duration(seconds)}", "dim")
        elif share >= 1:
            text.append("  saving", "dim")
        line.add_row(bar, text)
        return line

    def _return(self, row: Row) -> Text:
        statistics = mean_and_spread(row.get("rollout/ep_rew_mean"))
        if statistics is None:
            return Text("no episode has ended yet", style="dim")
        values = _as_list(row["rollout/ep_rew_mean"])
        solved = self._threshold is not None and statistics[0] >= self._threshold
        text = Text(spread_text(statistics, len(values)), style="bold green" if solved else "bold")
        for name, value in outcome(row):
            text.append(f"  {name} ", "dim").append(value, "default")
        text.append(f"  {sparkline(self._returns, 30)}", "cyan")
        if self._threshold is not None:
            goal = f"{self._threshold:g}"
            text.append(
                f"  ✓ solved ({goal})" if solved else f"  goal {goal}", "green" if solved else "dim"
            )
        return text

    def _speed(self, row: Row) -> Text:
        text = Text(_rate(row))
        seeds = len(_as_list(row.get("rollout/ep_rew_mean")))
        if seeds > 1:
            text.append(f" over {seeds} trainings", "dim")
        length = mean_and_spread(row.get("rollout/ep_len_mean"))
        if length is not None:
            text.append("  episode length ", "dim").append(f"{length[0]:,.0f}")
        return text

    def _losses(self, row: Row) -> Text:
        text = Text()
        for name, key in _LOSSES.items():
            statistics = mean_and_spread(row.get(key))
            if statistics is not None:
                text.append(f"{'  ' if text else ''}{name} ", "dim").append(number(statistics[0]))
        return text


class LineDisplay:
    """Plain lines for logs: the first row, then one every 5 s, after a minute every 30 s.

    Args:
        console: where lines go.
        title: printed once, first.
        total_steps: steps per seed that training takes.
        clock: seconds since some moment; replaced in tests.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        total_steps: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console = console
        self._title = title
        self._total_steps = total_steps
        self._clock = clock
        self._started = clock()
        self._printed_at: float | None = None
        self._unprinted: Row | None = None

    def __enter__(self) -> "LineDisplay":
        self._console.print(Text(self._title), soft_wrap=True)
        self._console.print(Text("compiling ...", "dim"), soft_wrap=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._unprinted is not None:
            self._print(self._unprinted)

    def update(self, row: Row) -> None:
        now = self._clock()
        interval = 5.0 if now - self._started < 60 else 30.0
        if self._printed_at is None or now - self._printed_at >= interval:
            self._print(row)
            self._printed_at = now
        else:
            self._unprinted = row

    def _print(self, row: Row) -> None:
        self._unprinted = None
        returns = _as_list(row.get("rollout/ep_rew_mean"))
        fields = [
            f"step {row['step']:>11,} of {self._total_steps:,}",
            f"{row['step'] / self._total_steps:4.0%}",
            f"{duration(row['seconds'])}",
            f"return {spread_text(mean_and_spread(returns), len(returns))}",
            *(f"{name} {value}" for name, value in outcome(row)),
            _rate(row),
        ]
        self._console.print(Text("  ".join(fields)), soft_wrap=True)
