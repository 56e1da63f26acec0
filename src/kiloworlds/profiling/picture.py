"""The picture of a profile: where the time goes, and the roofline.

Colours are told apart by all eyes (Okabe & Ito) and, with marks and hatches, in grey print.

Reference: Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures", 2009.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kiloworlds.profiling.profile import (
    COPIES,
    ENVIRONMENT,
    LEARNING,
    POLICY,
    WAITING,
    Profile,
)

_INK, _FAINT, _GRID = "#1e293b", "#64748b", "#e2e8f0"


class _Look(NamedTuple):
    color: str
    mark: str
    hatch: str


_LOOKS = {
    ENVIRONMENT: _Look("#009e73", "o", ""),
    POLICY: _Look("#56b4e9", "s", "//"),
    LEARNING: _Look("#d55e00", "D", ""),
    COPIES: _Look("#cc79a7", "v", ".."),
    WAITING: _Look("#e69f00", "^", "xx"),
}
_OPERATIONS = 14
"""So many of the costliest operations are drawn."""
_GIGA = 1e9


class _Point(NamedTuple):
    """Something on the roofline: operations per byte, operations per second, share of the time."""

    intensity: float
    speed: float
    share: float


def draw(profile: Profile) -> Figure:
    """Draws the shares of an update, and below how near its parts come to the machine's ceilings."""
    figure = Figure(figsize=(8.6, 6.6), dpi=150, layout="constrained", facecolor="white")
    bar, roof = figure.subplots(2, 1, height_ratios=(1, 5.2))
    _draw_shares(bar, profile)
    _draw_roofline(roof, profile)
    seeds = profile.settings["num_seeds"]
    title = f"{profile.algorithm} on {profile.env_id}"
    facts = (
        f"{profile.steps_per_second:,.0f} steps/s{f' of {seeds} seeds' if seeds > 1 else ''}, "
        f"{_duration(profile.seconds_per_update)} an update, {profile.placement}"
    )
    figure.suptitle(f"{title}: {facts}", x=0.012, ha="left", color=_INK, fontsize=12, weight="bold")
    return figure


def save(profile: Profile, file: Path) -> None:
    """Draws and writes a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draw(profile).savefig(file)


def _draw_shares(axes: Axes, profile: Profile) -> None:
    """One bar of all parts that follow each other."""
    overlaps = bool(profile.settings["max_staleness"])
    left = 0.0
    for part in profile.parts:
        if part.name == WAITING and not overlaps:  # within the others
            continue
        share, look = profile.share(part), _LOOKS[part.name]
        percent = f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"
        axes.barh(
            0, share, left=left, color=look.color, hatch=look.hatch, edgecolor="white", height=0.8,
            label=f"{part.name} {percent}",
        )  # fmt: skip
        left += share
    axes.set_xlim(0, max(1.0, left))
    axes.set_ylim(-0.45, 0.45)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.tick_params(colors=_FAINT, labelsize=8.5)
    how = (
        "estimated from programs of their own"
        if profile.loop == "fused"
        else "by clocks in the loop"
    )
    how += "; environments and policy run beside learning" if overlaps else ""
    axes.set_title(f"Where the time of an update goes ({how})", loc="left", fontsize=10, color=_INK)
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.008, -0.3), ncol=len(_LOOKS), frameon=False, fontsize=9.5,
        labelcolor=_INK, handlelength=1.2, handleheight=1.1, columnspacing=1.8, handletextpad=0.5,
    )  # fmt: skip
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_roofline(axes: Axes, profile: Profile) -> None:
    ceilings, its = profile.ceilings, profile.roof
    assert ceilings is not None
    assert its is not None
    points = {
        part.name: _Point(part.flops / part.bytes, part.flops / part.seconds, profile.share(part))
        for part in profile.parts
        if part.flops and part.bytes and part.seconds > 0
    }
    speeds = [point.speed for point in points.values()]
    bottom = 10 ** np.floor(np.log10(min([*speeds, ceilings.flops / 100]) / 1.5))
    operations = [
        _Point(each.flops / each.bytes, each.flops / each.seconds, each.share or 0.0)
        for each in profile.operations
        if each.flops and each.bytes and each.seconds and each.flops / each.seconds > bottom
    ][:_OPERATIONS]
    intensities = [point.intensity for point in (*points.values(), *operations)]
    left, right = _span([*intensities, ceilings.flops / ceilings.bytes])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom / _GIGA, 3.2 * ceilings.flops / _GIGA)
    axes.grid(which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    whole = f"all {profile.cores} cores" if ceilings.flops_of_one else ceilings.device
    _draw_roof(axes, ceilings.flops, ceilings.bytes, "-", whole, above=True)
    if ceilings.flops_of_one and ceilings.bytes_of_one and profile.cores > 1:
        _draw_roof(
            axes, ceilings.flops_of_one, ceilings.bytes_of_one, "--", "one core", above=False
        )
    if operations:
        axes.scatter(
            [point.intensity for point in operations], [point.speed / _GIGA for point in operations],
            s=[14 + 600 * point.share for point in operations], facecolor="none", edgecolor=_FAINT,
            linewidth=0.9, zorder=3,
        )  # fmt: skip
        axes.scatter(
            [], [], s=40, facecolor="none", edgecolor=_FAINT, linewidth=0.9,
            label="single operations, larger where they take longer",
        )  # fmt: skip
    for name, point in points.items():
        look = _LOOKS[name]
        roof = min(its.flops, point.intensity * its.bytes)
        axes.scatter(
            point.intensity, point.speed / _GIGA, s=130, color=look.color, marker=look.mark,
            edgecolor=_INK, linewidth=0.8, zorder=5,
            label=f"{name}: {point.speed / _GIGA:,.3g} GFLOP/s, {point.speed / roof:.0%} of {its.whose}",
        )  # fmt: skip
    if not points and not operations:
        axes.plot([], [], " ", label="XLA does not say what is computed")
    axes.legend(
        loc="lower right", fontsize=9, labelcolor=_INK, frameon=True, edgecolor=_GRID, framealpha=0.95,
        handletextpad=0.4, borderpad=0.7, reverse=True,
    )  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(which="both", colors=_FAINT, labelsize=8.5)
    axes.set_xlabel("floating-point operations per byte moved", color=_INK, fontsize=9.5)
    axes.set_ylabel("GFLOP/s", color=_INK, fontsize=9.5)
    axes.set_title(
        "How near that comes to what this machine can do (lines)",
        loc="left",
        fontsize=10,
        color=_INK,
    )
    axes.annotate(
        "above the slope: data stay in the processor's caches", (0.012, 0.97),
        xycoords="axes fraction", va="top", fontsize=8.5, color=_FAINT,
    )  # fmt: skip
    for name in ("top", "right"):
        axes.spines[name].set_visible(False)
    for name in ("left", "bottom"):
        axes.spines[name].set_color(_GRID)


def _draw_roof(
    axes: Axes, flops: float, moved: float, style: str, whose: str, *, above: bool
) -> None:
    left, right = axes.get_xlim()
    at = np.array([left, flops / moved, right])
    axes.plot(at, np.minimum(at * moved, flops) / _GIGA, style, color=_INK, linewidth=1.6, zorder=4)
    axes.annotate(
        f"{whose}: {flops / _GIGA:,.0f} GFLOP/s, {moved / _GIGA:,.0f} GB/s",
        (right, flops / _GIGA), xytext=(-2, 5 if above else -6), textcoords="offset points",
        ha="right", va="bottom" if above else "top", fontsize=9, color=_INK, zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
    )  # fmt: skip


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis that holds `values` and their names."""
    return min(min(values) / 2.5, 0.1), max(max(values) * 6, 30.0)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
