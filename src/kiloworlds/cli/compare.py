"""`kiloworlds compare`: puts runs side by side, in a table and in pictures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

import kiloworlds
from kiloworlds.cli import options
from kiloworlds.core import devices
from kiloworlds.core.checks import require_count
from kiloworlds.core.outputs import check_output_directory
from kiloworlds.core.words import number
from kiloworlds.evaluation.comparison import RETURN, Comparison, Entry, compare
from kiloworlds.evaluation.remarks import unsaid
from kiloworlds.evaluation.scores import (
    Finals,
    Scale,
    Verdict,
    aggregates,
    final_values,
    interquartile_means,
    on_one_scale,
    scale_of,
    verdicts,
)
from kiloworlds.evaluation.statistics import Aggregates, Estimate

DESCRIPTION = """\
Puts runs side by side: how each ends, over seeds, with 95% bootstrap intervals; how soon it solves its
task; how likely one is better than another. Draws curves by steps and by time, and over several
tasks aggregates and performance profiles, as PNG and SVG. Runs that differ in their seeds only are
taken together."""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `compare`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of runs, such as runs/ppo/CartPole-v1_1."""
    metric: str = RETURN
    """What to compare, by its name in the runs' metrics."""
    episodes: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Play so many episodes with each seed's final policy, by its most likely actions, instead of
    taking the returns at the end of training."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("comparison")
    """Directory for the pictures."""
    allow_differences: options.Flag = False
    """Compare runs of other versions or parameters of an environment all the same."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "compare", DESCRIPTION)
    if chosen.episodes is not None:
        require_count("--episodes", chosen.episodes)
    check_output_directory(chosen.output)
    from kiloworlds.evaluation.comparison_plots import plot_aggregates, plot_curves, plot_profiles

    console = options.wide_console(chosen.json)
    devices.configure()
    comparison = compare(
        [kiloworlds.load(path) for path in chosen.runs], chosen.metric, chosen.allow_differences
    )
    finals = final_values(comparison, chosen.episodes)
    scales: dict[str, Scale] = {}
    if len(comparison.shared) > 1:
        found = {env_id: scale_of(comparison, env_id, finals) for env_id in comparison.shared}
        scales = {env_id: scale for env_id, scale in found.items() if scale is not None}
    scores = on_one_scale(comparison, finals, scales)
    told = aggregates(scores)
    judged = verdicts(comparison, finals)
    comparison.remarks += unsaid(
        comparison, judged, has_aggregates=bool(told), episodes=chosen.episodes
    )

    figures = {"curves": plot_curves(comparison)}
    if scores:
        tasks = len(next(iter(scores.values())))
        figures |= {"aggregates": plot_aggregates(told, tasks), "profiles": plot_profiles(scores)}
    pictures = _save(figures, chosen.output)

    if chosen.json:
        options.print_json(_as_json(comparison, finals, scales, told, judged, pictures))
    _print_tasks(console, comparison, finals, chosen.episodes)
    _print_aggregates(console, told, scales, comparison)
    _print_verdicts(console, judged, comparison)
    for remark in comparison.remarks:
        console.print(Text("! ", "yellow").append(remark, "default"), soft_wrap=True)
    for path in pictures.values():
        console.print(Text("picture  ", "dim").append(str(path), "not dim"), soft_wrap=True)
    return 0


def _save(figures: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Writes each figure as PNG and as SVG, whose words stay words."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg")
            figure.savefig(folder / f"{name}.png", dpi=200)
    return {name: folder / f"{name}.png" for name in figures}


def _print_tasks(
    console: Console, comparison: Comparison, finals: Finals, episodes: int | None
) -> None:
    estimates = interquartile_means(finals)
    measured = "final return" if comparison.metric == RETURN else comparison.metric
    for env_id in comparison.env_ids:
        threshold = comparison.threshold(env_id)
        table = Table(title=env_id, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("training", "seeds", measured, "95% interval"):
            _add_column(table, column, comparison.labels)
        if threshold is not None:
            _add_column(table, f"reaches {threshold:g} at", comparison.labels)
        for entry in comparison.of(env_id):
            estimate = estimates[entry.label, env_id]
            cells = [
                entry.label,
                str(len(entry.seeds)),
                number(estimate.value),
                _interval(estimate),
            ]
            if threshold is not None:
                cells.append(_reached(entry, threshold))
            table.add_row(*cells)
        console.print(table)
    how = (
        f"of {episodes} episodes of each seed's final policy"
        if episodes is not None
        else "of the last tenth of training"
    )
    console.print(Text(f"{measured}: interquartile mean over seeds, {how}", "dim"), soft_wrap=True)


def _add_column(table: Table, name: str, labels: Sequence[str]) -> None:
    """Names of trainings may be broken between words; numbers may not."""
    if name == "training":
        longest = max(len(word) for label in labels for word in label.split())
        table.add_column(name, min_width=longest)
    else:
        table.add_column(name, justify="right", no_wrap=True)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "none"
    return f"{number(estimate.low)} to {number(estimate.high)}"


def _reached(entry: Entry, threshold: float) -> str:
    """The median over seeds of when they do, and how many of them do."""
    steps, seconds = (entry.reaches(threshold, by) for by in ("steps", "seconds"))
    there = np.isfinite(steps)
    if not there.any():
        return "never"
    if not np.isfinite(np.median(steps)):
        return f"{there.sum()} of {len(steps)} seeds"
    text = f"{np.median(steps):,.0f} steps, {np.median(seconds):,.1f} s"
    return text if there.all() else f"{text} ({there.sum()} of {len(steps)})"


def _print_aggregates(
    console: Console,
    told: dict[str, Aggregates],
    scales: dict[str, Scale],
    comparison: Comparison,
) -> None:
    if not told:
        return
    tasks = "All tasks" if len(scales) == len(comparison.env_ids) else ", ".join(scales)
    title = f"{tasks}, normalized"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("training", "IQM", "95% interval", "median", "mean", "optimality gap"):
        _add_column(table, column, list(told))
    for label, each in told.items():
        table.add_row(
            label,
            f"{each.iqm.value:.2f}",
            "none" if each.iqm.low is None else f"{each.iqm.low:.2f} to {each.iqm.high:.2f}",
            f"{each.median.value:.2f}",
            f"{each.mean.value:.2f}",
            f"{each.optimality_gap.value:.2f}",
        )
    console.print(table)
    for env_id, scale in scales.items():
        words = f"{env_id}: 0 is {number(scale.zero)}, an untrained policy's return; 1 is "
        console.print(Text(f"{words}{number(scale.one)}, {scale.goal_is}", "dim"), soft_wrap=True)


def _print_verdicts(console: Console, judged: list[Verdict], comparison: Comparison) -> None:
    """How likely the first training is better than each other, told of the likelier one; of losses less
    is better, and nothing is said of them."""
    if comparison.metric != RETURN:
        return
    for verdict in (each.likelier_first for each in judged):
        all_tasks = len(verdict.env_ids) == len(comparison.env_ids)
        line = Text("" if all_tasks else f"on {' and '.join(verdict.env_ids)} ")
        line.append(f"a seed of {verdict.first} does better than one of {verdict.second} ")
        line.append("with probability ")
        line.append(f"{verdict.probability.value:.2f}", "bold")
        if verdict.probability.low is not None:
            line.append(f" ({verdict.probability.low:.2f} to {verdict.probability.high:.2f})")
        console.print(line.append(f": {verdict.words}"), soft_wrap=True)


def _as_json(
    comparison: Comparison,
    finals: Finals,
    scales: dict[str, Scale],
    told: dict[str, Aggregates],
    judged: list[Verdict],
    pictures: dict[str, Path],
) -> dict[str, Any]:
    estimates = interquartile_means(finals)
    rows = []
    for (label, env_id), entry in comparison.entries.items():
        estimate = estimates[label, env_id]
        threshold = comparison.threshold(env_id)
        row = {
            "training": label,
            "env_id": env_id,
            "runs": [run.path for run in entry.runs],
            "seeds": entry.seeds,
            "values": finals[label, env_id],
            "iqm": estimate.value,
            "interval": None if estimate.low is None else [estimate.low, estimate.high],
            "steps": int(entry.steps[-1]),
            "seconds": entry.seconds[-1],
        }
        if threshold is not None:
            row |= {
                "threshold": threshold,
                "steps_to_threshold": entry.reaches(threshold),
                "seconds_to_threshold": entry.reaches(threshold, "seconds"),
            }
        rows.append(row)
    return {
        "metric": comparison.metric,
        "confidence": 0.95,
        "trainings": rows,
        "scales": {env_id: scale._asdict() for env_id, scale in scales.items()},
        "aggregates": {
            label: {name: value._asdict() for name, value in each._asdict().items()}
            for label, each in told.items()
        },
        "verdicts": [
            {
                "first": verdict.first,
                "second": verdict.second,
                "env_ids": verdict.env_ids,
                "probability": verdict.probability._asdict(),
                "words": verdict.words,
            }
            for verdict in judged
        ],
        "remarks": comparison.remarks,
        "pictures": pictures,
    }
