"""The learning curve of a run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from kiloworlds.core.errors import InvalidValueError
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
from kiloworlds.evaluation.clock import without_compilation
from kiloworlds.evaluation.task import reward_threshold
from kiloworlds.training.config import TrainConfig

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

_KIND = "rollout/ep_rew_mean/"
_FEW_CURVES = 4  # so few find room for their names in the panel
_FEW_ROWS = 10  # so few are marked, as the line alone hides where they are


def learning_curve(
    steps: Float[np.ndarray, " rows"],
    seconds: Float[np.ndarray, " rows"],
    returns: Float[np.ndarray, "rows seeds"],
    *,
    title: str,
    threshold: float | None = None,
    kinds: Mapping[str, Float[np.ndarray, "rows seeds"]] | None = None,
    won: Float[np.ndarray, "rows seeds"] | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> Figure:
    """Draws mean return against environment steps and against seconds.

    The band goes from the lowest to the highest seed; thin lines are single seeds. Where the first
    returns are so bad that they would squeeze the rest, the axis begins above them and a note says where
    the curve does. Seconds begin after compilation; a single row has none.

    Args:
        steps: environment steps of one seed.
        seconds: wall-clock time since training began.
        returns: NaN where no episode had ended yet.
        title: above the panels.
        threshold: drawn as a dashed line: the return at which the task counts as solved.
        kinds: of agents of several kinds the returns of each, drawn instead of their mean.
        won: shares of episodes that were won, drawn below.
        groups: of seeds that do not belong together, which ones do, by name: each group has a curve.

    Raises:
        InvalidValueError: there is no return to draw.
    """
    seen = np.isfinite(returns).any(axis=1)
    if not seen.any():
        raise InvalidValueError(
            "no row of metrics tells a return: no episode has ended, or returns are not finite."
        )
    clock = without_compilation(steps, seconds)
    steps = steps[seen]
    kinds = {name: each[seen] for name, each in (kinds or {"": returns}).items()}
    curves = _by_group(kinds, groups)
    has_clock = clock is not None and len(steps) > 1
    rows = 1 if won is None else 2
    figure = figure_of(9, 4.2 if won is None else 6.2)
    panels = figure.subplots(
        rows,
        1 + has_clock,
        sharex="col",
        sharey="row",
        squeeze=False,
        width_ratios=(3, 2)[: 1 + has_clock],
        height_ratios=(3, 2)[:rows],
    )
    by_steps, last = panels[0, 0], panels[0, -1]
    for column, x in enumerate((steps, clock[seen]) if has_clock else (steps,)):  # type: ignore[index]
        _draw(panels[0, column], x, curves, threshold)
        if won is not None:
            _draw(panels[1, column], x, _by_group({"": won[seen]}, groups))
    below = panels[-1]
    below[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    below[0].set_xlabel("environment steps per seed" if returns.shape[1] > 1 else "steps")
    if has_clock:
        below[1].set_xlabel("seconds, without compilation")
    by_steps.set_ylabel("mean episode return")
    if won is not None:
        below[0].set_ylabel("episodes won")
        below[0].set_ylim(-0.02, 1.02)
        below[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    if len(curves) > 1:
        _name_curves(figure, by_steps, len(curves))
    if returns.shape[1] > 1:
        _say_what_is_drawn(by_steps, next(iter(curves.values())).shape[1], len(curves) > 1)
    drawn = np.concatenate(list(curves.values()), axis=1)
    if len(steps) == 1:
        _note(by_steps, 0.7, "one row of metrics only: train for more steps to see a curve")
    elif (limits := limits_without_the_start(steps, drawn, threshold)) is not None:
        by_steps.set_ylim(*limits)
        worst = f"{np.nanmin(drawn):,.0f}"
        _note(by_steps, 0.985, f"axis cut: the first returns, down to {worst}, lie below")
    if threshold is not None:
        name_goal(last, threshold)
    headline(figure, title)
    return figure


def _by_group(
    curves: Mapping[str, Float[np.ndarray, "rows seeds"]],
    groups: Mapping[str, Sequence[int]] | None,
) -> dict[str, Float[np.ndarray, "rows members"]]:
    """Each curve, or one for each of the groups of its seeds."""
    if not groups:
        return dict(curves)
    return {
        ", ".join(filter(None, (group, name))): values[:, list(members)]
        for group, members in groups.items()
        for name, values in curves.items()
    }


def _name_curves(figure: Figure, axes: Axes, count: int) -> None:
    """A legend, below everything where it would fill the panel."""
    if count <= _FEW_CURVES:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    else:
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside lower left",
            ncols=3,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
        )


def _say_what_is_drawn(axes: Axes, seeds: int, has_several: bool) -> None:
    """What the lines and bands are, above the panel."""
    each = " each" if has_several else ""
    words = f"mean and range of {seeds} seeds{each}" if seeds > 1 else "one seed each"
    axes.set_title(words, loc="left", color=INK, fontsize=9)


def _note(axes: Axes, right: float, text: str) -> None:
    """Small text at the bottom of a panel; `right` is where it ends, in widths of the panel."""
    place = right, 0.03
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    axes.annotate(
        text, place, xycoords="axes fraction", ha="right", color=INK, fontsize=8, bbox=paper
    )


def _draw(
    axes: Axes,
    x: Float[np.ndarray, " rows"],
    curves: Mapping[str, Float[np.ndarray, "rows seeds"]],
    threshold: float | None = None,
) -> None:
    if threshold is not None:
        draw_goal(axes, threshold)
    for number, (name, values) in enumerate(curves.items()):
        color, dashes, _ = look(number)
        known = np.isfinite(values).any(axis=1)
        steps, values = x[known], values[known]
        if values.shape[1] > 1:
            ends = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
            axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
            axes.fill_between(steps, *ends, color=color, alpha=0.15, linewidth=0)
        axes.plot(
            steps,
            np.nanmean(values, axis=1),
            color=color,
            linestyle=dashes,
            linewidth=2,
            marker="o" if len(x) <= _FEW_ROWS else None,
            markersize=4,
            label=name,
        )
    axes.set_xlim(left=0)
    dress(axes)


def plot_run(run: "Run", path: str | Path | None = None) -> Path:
    """Writes the learning curve of `run` as a PNG and returns where.

    Args:
        path: the file; `learning_curve.png` in the run directory if None.

    Raises:
        InvalidValueError: no episode has ended in the run.
    """
    path = Path(run.path) / "learning_curve.png" if path is None else Path(path)
    plot_run_figure(run).savefig(path)
    return path


def plot_run_figure(run: "Run") -> Figure:
    """The same as a figure.

    Raises:
        InvalidValueError: no episode has ended in the run.
    """
    metrics = run.metrics
    if "rollout/ep_rew_mean" not in metrics:
        raise InvalidValueError(f"{run.path} has no learning curve: it holds no metrics.")
    rows = len(metrics["step"])

    def by_seed(name: str) -> np.ndarray:
        return np.asarray(metrics[name], float).reshape(rows, -1)

    config = TrainConfig.from_dict(run.config)
    groups: dict[str, list[int]] = {}
    for name, members in zip(config.entry_names, config.entry_members, strict=False):
        groups.setdefault(name, []).extend(members)  # equal entries are one
    return learning_curve(
        np.asarray(metrics["step"], float),
        np.asarray(metrics["seconds"], float),
        by_seed("rollout/ep_rew_mean"),
        title=run_title(run.config),
        threshold=reward_threshold(run.config["env_id"]),
        kinds={name.removeprefix(_KIND): by_seed(name) for name in metrics if _KIND in name},
        won=by_seed("rollout/win_rate") if "rollout/win_rate" in metrics else None,
        groups=groups,
    )


def run_title(config: dict[str, Any]) -> str:
    """Such as "PPO on CartPole-v1, 8 seeds"; of a population "..., 3 values of gamma x 4 seeds"."""
    seeds = config.get("num_seeds", 1)
    size = f"{seeds} seeds" if seeds > 1 else f"seed {config.get('seed', 0)}"
    population = config.get("population", {})
    if population:
        count = len(next(iter(population.values())))
        size = f"{count} values of {' with '.join(population)} x {size}"
    return f"{config['algorithm'].upper()} on {config['env_id']}, {size}"
