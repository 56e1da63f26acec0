"""The learning curve of a run as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.task import reward_threshold

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

_CURVE, _GOAL, _INK, _GRID = "#4f46e5", "#059669", "#1e293b", "#e2e8f0"


def learning_curve(
    steps: Float[np.ndarray, " rows"],
    seconds: Float[np.ndarray, " rows"],
    returns: Float[np.ndarray, "rows seeds"],
    *,
    title: str,
    threshold: float | None = None,
) -> Figure:
    """Draws mean return against environment steps and against seconds.

    The band is one standard deviation over seeds to either side; thin lines are single seeds.

    Args:
        steps: environment steps of one seed.
        seconds: wall-clock time since training began.
        returns: NaN where no episode had ended yet.
        title: above the panels.
        threshold: drawn as a dashed line: the return at which the task counts as solved.

    Raises:
        InvalidValueError: there is no return to draw.
    """
    seen = np.isfinite(returns).any(axis=1)
    if not seen.any():
        raise InvalidValueError("there is no learning curve: no episode has ended.")
    steps, seconds, returns = steps[seen], seconds[seen], returns[seen]
    figure = Figure(figsize=(9, 4.2), dpi=150, layout="constrained", facecolor="white")
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw(by_steps, steps, returns, threshold)
    _draw(by_seconds, seconds, returns, threshold)
    by_steps.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_steps.set_xlabel("environment steps per seed" if returns.shape[1] > 1 else "steps")
    by_seconds.set_xlabel("seconds")
    by_steps.set_ylabel("mean episode return")
    if threshold is not None:
        by_steps.annotate(
            f"solved at {threshold:g}",
            (0.01, threshold),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            color=_GOAL,
            fontsize=8,
        )
    figure.suptitle(title, x=0.012, ha="left", color=_INK, fontsize=12, fontweight="bold")
    return figure


def _draw(
    axes: Axes,
    x: Float[np.ndarray, " rows"],
    returns: Float[np.ndarray, "rows seeds"],
    threshold: float | None,
) -> None:
    mean, spread = np.nanmean(returns, axis=1), np.nanstd(returns, axis=1)
    if threshold is not None:
        axes.axhline(threshold, color=_GOAL, linewidth=1, linestyle=(0, (5, 3)))
    if returns.shape[1] > 1:
        axes.plot(x, returns, color=_CURVE, linewidth=0.6, alpha=0.25)
        axes.fill_between(x, mean - spread, mean + spread, color=_CURVE, alpha=0.15, linewidth=0)
    axes.plot(x, mean, color=_CURVE, linewidth=2, marker="o" if len(x) == 1 else None)
    axes.set_xlim(left=0)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(colors=_INK, length=0, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)


def plot_run(run: "Run", path: str | Path | None = None) -> Path:
    """Writes the learning curve of `run` as a PNG and returns where.

    Args:
        path: the file; `learning_curve.png` in the run directory if None.

    Raises:
        InvalidValueError: no episode has ended in the run.
    """
    path = Path(run.path) / "learning_curve.png" if path is None else Path(path)
    metrics = run.metrics
    if "rollout/ep_rew_mean" not in metrics:
        raise InvalidValueError(f"{run.path} has no learning curve: it holds no metrics.")
    returns = np.asarray(metrics["rollout/ep_rew_mean"], float)
    figure = learning_curve(
        np.asarray(metrics["step"], float),
        np.asarray(metrics["seconds"], float),
        returns.reshape(len(returns), -1),
        title=run_title(run.config),
        threshold=reward_threshold(run.config["env_id"]),
    )
    figure.savefig(path)
    return path


def run_title(config: dict[str, Any]) -> str:
    """Such as "PPO on CartPole-v1, 8 seeds"."""
    seeds = config.get("num_seeds", 1)
    suffix = f"{seeds} seeds" if seeds > 1 else f"seed {config.get('seed', 0)}"
    return f"{config['algorithm'].upper()} on {config['env_id']}, {suffix}"
