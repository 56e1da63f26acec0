"""Pictures of a comparison, for print and for all eyes: curves, aggregates, profiles."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from kiloworlds.evaluation.axes import (
    INK,
    draw_goal,
    dress,
    figure_of,
    headline,
    limits_without_the_start,
    look,
    name_goal,
)
from kiloworlds.evaluation.comparison import RETURN, Comparison, Entry
from kiloworlds.evaluation.statistics import (
    Aggregates,
    Scores,
    estimate,
    performance_profile,
)

_POINTS = 60
"""Points of a curve that have a band; more would not be seen."""

_RESAMPLES = 2_000
_PANEL = 2.9
"""Height of a panel, in inches."""


def plot_curves(comparison: Comparison) -> Figure:
    """The interquartile mean over seeds, with its 95% bootstrap interval as a band, task by task:
    against steps on the left and seconds on the right."""
    count = len(comparison.env_ids)
    figure = figure_of(9, 0.9 + _PANEL * count)
    panels = figure.subplots(count, 2, sharey="row", squeeze=False, width_ratios=(3, 2))
    for (by_steps, by_seconds), env_id in zip(panels, comparison.env_ids, strict=True):
        threshold = comparison.threshold(env_id)
        entries = comparison.of(env_id)
        for entry in entries:
            curve, number = _curve(entry), comparison.labels.index(entry.label)
            _draw_curve(by_steps, entry.steps, curve, number)
            _draw_curve(by_seconds, entry.seconds, curve, number)
        for axes in (by_steps, by_seconds):
            if threshold is not None:
                draw_goal(axes, threshold)
            axes.set_xlim(left=0)
            dress(axes)
        if threshold is not None:
            name_goal(by_seconds, threshold)
        _cut_the_start(by_steps, entries, threshold)
        by_steps.set_title(env_id, loc="left", color=INK, fontsize=10)
        by_steps.set_ylabel(
            "mean episode return" if comparison.metric == RETURN else comparison.metric
        )
        by_steps.xaxis.set_major_formatter(EngFormatter(sep=""))
    panels[0][1].set_title(
        "interquartile mean over seeds\nand its 95% bootstrap interval",
        loc="right",
        color=INK,
        fontsize=8,
    )
    below = panels[-1]
    below[0].set_xlabel("environment steps per seed")
    below[1].set_xlabel("seconds, without compilation")
    _legend(figure, comparison)
    return figure


class _Curve(NamedTuple):
    """What is drawn of an entry: at which rows, `[points]`."""

    rows: Int[np.ndarray, " points"]
    middle: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


def _curve(entry: Entry) -> _Curve:
    """The interquartile mean over seeds and its interval, NaN where one seed has a value."""
    rows = np.flatnonzero(np.isfinite(entry.values).any(axis=1))
    if len(rows) > _POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, _POINTS).round().astype(int)]
    drawn = [entry.values[row][np.isfinite(entry.values[row])] for row in rows]
    estimates = [estimate(values, resamples=_RESAMPLES) for values in drawn]
    numbers = np.array(estimates, float).reshape(len(rows), 3)  # no interval: NaN
    return _Curve(rows, *numbers.T)


def _draw_curve(axes: Axes, x: Float[np.ndarray, " rows"], curve: _Curve, number: int) -> None:
    color, dashes, marker = look(number)
    every = max(1, len(curve.rows) // 6)
    axes.plot(
        x[curve.rows],
        curve.middle,
        color=color,
        linestyle=dashes,  # type: ignore[arg-type]
        linewidth=1.8,
        marker=marker,
        markevery=(number % every, every),
        markersize=4,
    )
    axes.fill_between(x[curve.rows], curve.low, curve.high, color=color, alpha=0.18, linewidth=0)


def _cut_the_start(axes: Axes, entries: list[Entry], threshold: float | None) -> None:
    """Leaves out first returns that are so bad that they would squeeze all others."""
    ends = []
    for entry in entries:
        seen = np.isfinite(entry.values).any(axis=1)
        if seen.sum() > 1:
            limits = limits_without_the_start(entry.steps[seen], entry.values[seen], threshold)
            if limits is None:
                return
            ends.append(limits)
    if ends:
        axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
        axes.annotate(
            "axis cut: the first returns lie below",
            (0.985, 0.03),
            xycoords="axes fraction",
            ha="right",
            color=INK,
            fontsize=8,
        )


def _legend(figure: Figure, comparison: Comparison) -> None:
    """Every label with its number of seeds, above the panels."""
    axes = figure.axes[0]
    handles = []
    for number, label in enumerate(comparison.labels):
        counts = {
            len(entry.seeds) for (name, _), entry in comparison.entries.items() if name == label
        }
        seeds = "-".join(str(count) for count in sorted({min(counts), max(counts)}))
        color, dashes, marker = look(number)
        words = f"{label}  ({seeds} seed{'' if seeds == '1' else 's'})"
        (handle,) = axes.plot(
            [], [], color=color, linestyle=dashes, marker=marker, markersize=4, label=words
        )  # type: ignore[arg-type]
        handles.append(handle)
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=1 if max(map(len, comparison.labels)) > 40 else min(3, len(handles)),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


_NAMES = {
    "iqm": "interquartile mean",
    "median": "median of tasks",
    "mean": "mean",
    "optimality_gap": "optimality gap\n(less is better)",
}


def plot_aggregates(told: Mapping[str, Aggregates], tasks: int) -> Figure:
    """Each aggregate of each label as a point with its 95% bootstrap interval."""
    labels = list(told)
    figure = figure_of(9, 1.7 + 0.35 * len(labels))
    panels = figure.subplots(1, len(_NAMES), sharey=True)
    for axes, (name, title) in zip(panels, _NAMES.items(), strict=True):
        for number, label in enumerate(labels):
            estimate = getattr(told[label], name)
            color, _, marker = look(number)
            if estimate.low is not None:
                axes.plot(
                    [estimate.low, estimate.high],
                    [number] * 2,
                    color=color,
                    linewidth=6,
                    alpha=0.3,
                    solid_capstyle="butt",  # others stick out beyond the interval
                )
            axes.plot(estimate.value, number, marker, color=color, markersize=6)
        dress(axes)
        axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
        axes.set_title(title, fontsize=8, color=INK)
        axes.margins(x=0.15)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    has_bars = any(each.iqm.low is not None for each in told.values())
    bars = "; bars are 95% intervals" if has_bars else ""
    headline(figure, f"Normalized scores over {tasks} task{'' if tasks == 1 else 's'}{bars}")
    return figure


def plot_profiles(scores: Mapping[str, Scores]) -> Figure:
    """The share of runs above each normalized score."""
    values = np.concatenate([task for tasks in scores.values() for task in tasks])
    margin = 0.05 * max(np.ptp(values), 1e-6)
    points = np.linspace(min(0.0, values.min()) - margin, max(1.0, values.max()) + margin, 200)
    figure = figure_of(6, 3.6)
    axes = figure.subplots()
    for number, (label, tasks) in enumerate(scores.items()):
        color, dashes, _ = look(number)
        profile = performance_profile(tasks, points)
        axes.plot(points, profile.share, color=color, linestyle=dashes, linewidth=1.8, label=label)  # type: ignore[arg-type]
        if profile.low is not None and profile.high is not None:
            axes.fill_between(
                points, profile.low, profile.high, color=color, alpha=0.18, linewidth=0
            )
    axes.set_xlabel("normalized score")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(points[0], points[-1])
    dress(axes)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    headline(
        figure, "Performance profiles" + ("; bands are 95% intervals" if axes.collections else "")
    )
    return figure
