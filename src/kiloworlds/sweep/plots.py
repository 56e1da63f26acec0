"""Pictures of a sweep: what each setting does, and what returns cost."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kiloworlds.evaluation.axes import INK, PALETTE, dress, figure_of, headline
from kiloworlds.sweep.outcome import Outcome, costs_differ, pareto_front
from kiloworlds.sweep.spec import Choices, Range, SweepSpec

_WIDTH, _HEIGHT = 3.0, 2.6
_LEAST_WIDTH = 6.5
"""Inches; the headline needs them."""


def plot_sweep(spec: SweepSpec, outcomes: Sequence[Outcome]) -> Figure:
    """Return against each setting that was looked for, and, where trials cost different times, against
    seconds, where the line joins the trials that no other beats in both."""
    with_cost = costs_differ(outcomes)
    count = len(spec.search) + with_cost
    columns = 2 if count in (2, 4) else min(3, count)
    rows = math.ceil(count / columns)
    figure = figure_of(max(_LEAST_WIDTH, _WIDTH * columns), _HEIGHT * rows + 0.5)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    values = np.array([outcome.value for outcome in outcomes])
    best = int(values.argmax())
    for axes, (name, space) in zip(panels, spec.search.items(), strict=False):
        _draw_setting(axes, name, outcomes, best, space)
        axes.set_xlabel(name)
    if with_cost:
        _draw_cost(panels[len(spec.search)], outcomes, best)
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[:count]:
        dress(axes)
    for axes in panels[::columns]:
        axes.set_ylabel("mean return at the end")
    headline(figure, f"{spec.algorithm.upper()} on {spec.env}")
    rings = any(outcome.stopped for outcome in outcomes)
    panels[0].set_title(
        f"{len(outcomes)} trials of {spec.seeds} seeds; the star is the best"
        + ("\nrings were stopped early" if rings else ""),
        loc="left",
        fontsize=8,
        color=INK,
    )
    return figure


def _draw_setting(
    axes: Axes, name: str, outcomes: Sequence[Outcome], best: int, space: Range | Choices
) -> None:
    given = [outcome.values[name] for outcome in outcomes]
    if isinstance(space, Choices):
        x = np.array([space.values.index(value) for value in given], float)
        axes.set_xlim(-0.5, len(space.values) - 0.5)
        axes.set_xticks(range(len(space.values)), [str(value) for value in space.values])
        if len(space.values) > 5:
            axes.tick_params(axis="x", labelrotation=60)
    else:
        x = np.array(given, float)
        if space.log:
            axes.set_xscale("log")
            few = space.high <= 100 * space.low
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _points(axes, x, outcomes, best)


def _draw_cost(axes: Axes, outcomes: Sequence[Outcome], best: int) -> None:
    seconds = np.array([outcome.seconds for outcome in outcomes])
    front = pareto_front(outcomes)
    x, y = ([getattr(outcome, name) for outcome in front] for name in ("seconds", "value"))
    axes.step(x, y, where="post", color=PALETTE[1], linewidth=1.5)
    _points(axes, seconds, outcomes, best)
    axes.set_xlabel("seconds, without compilation")
    axes.set_xlim(0, 1.08 * seconds.max())


def _points(axes: Axes, x: np.ndarray, outcomes: Sequence[Outcome], best: int) -> None:
    returns = np.array([outcome.value for outcome in outcomes])
    stopped = np.array([outcome.stopped for outcome in outcomes])
    style = {"color": PALETTE[0], "markersize": 4, "alpha": 0.7}
    axes.plot(x[~stopped], returns[~stopped], "o", **style)
    axes.plot(x[stopped], returns[stopped], "o", markerfacecolor="none", **style)
    axes.plot(x[best], returns[best], "*", color=PALETTE[1], markersize=11, label="the best")
    axes.yaxis.label.set_color(INK)
