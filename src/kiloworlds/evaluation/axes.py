"""How pictures of curves and numbers look: told apart by all eyes, and on paper."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, GRID, GOAL = "#1e293b", "#e2e8f0", "#059669"

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe & Ito, "Color Universal Design" (2008), the darkest first."""

_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_MARKERS = "osD^vP*"


class Look(NamedTuple):
    """How one curve is told from the others, by colour, and by line or mark where there is none."""

    color: str
    dashes: object
    marker: str


def look(number: int) -> Look:
    """That of the curve with this number, counted from 0."""
    return Look(
        PALETTE[number % len(PALETTE)],
        _DASHES[number % len(_DASHES)],
        _MARKERS[number % len(_MARKERS)],
    )


def dress(axes: Axes) -> None:
    """A quiet grid behind, no frame, dark grey words."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)


def draw_goal(axes: Axes, threshold: float) -> Line2D:
    """A line at the return that solves the task."""
    return axes.axhline(threshold, color=GOAL, linewidth=1, linestyle=(0, (5, 3)))


def name_goal(axes: Axes, threshold: float) -> None:
    """Says what the line is, beside the panel, where no curve can run through it."""
    axes.annotate(
        f"solved at\n{threshold:g}",
        (1, threshold),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=GOAL,
        fontsize=8,
    )


def figure_of(width: float, height: float) -> Figure:
    """An empty one, in inches; nothing overlaps in it."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def headline(figure: Figure, title: str) -> None:
    """Writes a title above everything."""
    figure.suptitle(title, x=0.012, ha="left", color=INK, fontsize=12, fontweight="bold")


def limits_without_the_start(
    steps: Float[np.ndarray, " rows"],
    returns: Float[np.ndarray, "rows seeds"],
    threshold: float | None,
) -> tuple[float, float] | None:
    """The ends of an axis that leaves out the first returns, None if it should hold all.

    It is cut only below zero, and where the first quarter of the steps makes it more than twice as
    long as the rest needs.
    """
    lowest = np.nanmin(returns, axis=1)
    quarter = steps[0] + (steps[-1] - steps[0]) / 4
    late = np.append(lowest[steps >= quarter], np.interp(quarter, steps, lowest))
    top = max(np.nanmax(returns), -np.inf if threshold is None else threshold)
    margin = max(0.25 * (top - late.min()), 0.05 * (top - lowest.min()))
    bottom = min(0.0, late.min() - margin)
    if top - lowest.min() <= 2 * (top - bottom):
        return None
    return bottom, top + 0.05 * (top - bottom)
