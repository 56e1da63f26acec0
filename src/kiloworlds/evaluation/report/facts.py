"""What a report tells of a run, as plain values and words."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kiloworlds.core.words import duration, number
from kiloworlds.evaluation.clock import without_compilation
from kiloworlds.evaluation.evaluate import EntryEvaluation, RunEvaluation, best_of, entries_of
from kiloworlds.evaluation.task import reward_threshold
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.presets import preset
from kiloworlds.training.run import Run
from kiloworlds.training.storage.metrics import Metrics
from kiloworlds.training.storage.run_files import read_events


class Setting(NamedTuple):
    """One setting of a run.

    Attributes:
        name, value: as in its config.yaml.
        usual: of the preset, where that is another; else "".
    """

    name: str
    value: str
    usual: str


@dataclass(frozen=True)
class Facts:
    """Everything a report says without pictures; pairs are a name and what there is to say.

    Attributes:
        title, summary: at the top.
        remarks: on what is lacking, in sentences.
        settings: all, in the order of config.yaml.
        evaluation: of the final policies.
        entries: of a population, each entry's mean return in the evaluation, by name.
        seeds: each training's, by name.
        performance: how fast it was, and what waited for what.
        metrics: their last values.
        events: when what happened, in words.
        origin: versions, machine, command.
    """

    title: str
    summary: list[tuple[str, str]]
    remarks: list[str]
    settings: list[Setting]
    evaluation: list[tuple[str, str]]
    entries: list[tuple[str, str]]
    seeds: list[tuple[str, str]]
    performance: list[tuple[str, str]]
    metrics: list[tuple[str, str]]
    events: list[tuple[str, str]]
    origin: list[tuple[str, str]]


def facts_of(run: Run, title: str, evaluation: RunEvaluation, episodes: int) -> Facts:
    """Gathers them.

    Args:
        title: of the page.
        evaluation: of the run's policies.
        episodes: that each of them played.
    """
    damage: list[str] = []
    metrics = run.read_metrics(damage.append)
    config = TrainConfig.from_dict(run.config)
    entries = entries_of(config, evaluation)
    best = best_of(entries)
    return Facts(
        title,
        _summary(config, evaluation, best, metrics),
        _remarks(metrics, damage),
        _settings(run),
        _evaluation(config, evaluation, best, episodes),
        [(entry.name, _in_words(entry)) for entry in entries],
        _by_seed(config, evaluation),
        _performance(config, metrics),
        _metrics(config, metrics),
        _events(run.path),
        _origin(run),
    )


def _summary(
    config: TrainConfig, evaluation: RunEvaluation, best: EntryEvaluation | None, metrics: Metrics
) -> list[tuple[str, str]]:
    mean = evaluation.mean_return
    told = [("return", _with_interval(evaluation))]
    if best is not None:  # of a population one entry is wanted, and not their mean
        mean = best.mean_return
        told = [("best return", f"{_in_words(best)}, {best.name}")]
    threshold = reward_threshold(config.env_id)
    if threshold is not None:
        solved = mean >= threshold
        told.append(("solved", f"{'yes' if solved else 'no'} ({threshold:g} is enough)"))
    if len(metrics.get("step", ())):
        told.append(("steps", f"{int(metrics['step'][-1]):,} per seed"))
        told.append(("time", duration(float(metrics["seconds"][-1]))))
    return told


def _remarks(metrics: Metrics, damage: list[str]) -> list[str]:
    if not metrics.num_rows and not damage:
        return ["The run holds no metrics: nothing was trained yet, or they were deleted."]
    return damage


def _with_interval(evaluation: RunEvaluation) -> str:
    interval = None if evaluation.returns.size == 1 else evaluation.interval
    return _mean_in_words(evaluation.mean_return, interval)


def _in_words(entry: EntryEvaluation) -> str:
    return _mean_in_words(entry.mean_return, entry.interval)


def _mean_in_words(mean: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return number(mean)
    return f"{number(mean)} (95% interval {number(interval[0])} to {number(interval[1])})"


def _settings(run: Run) -> list[Setting]:
    config = run.config
    algorithm, env_id = config["algorithm"], config["env_id"]
    usual = build_config(algorithm, env_id, preset(algorithm, env_id)).as_dict()
    return [
        Setting(name, _plain(value), "" if value == usual[name] else _plain(usual[name]))
        for name, value in config.items()
        if name not in ("algorithm", "env_id")
    ]


def _plain(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(_plain, value))
        case dict():
            return ", ".join(f"{name}: {_plain(entry)}" for name, entry in value.items()) or "none"
    return str(value)


def _evaluation(
    config: TrainConfig, evaluation: RunEvaluation, best: EntryEvaluation | None, episodes: int
) -> list[tuple[str, str]]:
    over = f"{episodes} episodes, by the most likely actions"
    if config.num_seeds > 1:
        over += f", of each of {config.num_seeds} seeds; the interval is over seeds"
    told = [("mean return", _with_interval(evaluation) if best is None else _in_words(best))]
    if best is not None:
        evaluation = best.evaluation
        told.append(("of", f"{best.name}, the best entry of the population"))
    told += [
        ("played", over),
        ("standard deviation", f"{_plain(float(evaluation.returns.std().round(2)))} over episodes"),
        ("episode length", f"{number(float(evaluation.lengths.mean()))} steps"),
    ]
    if evaluation.win_rate is not None:
        told.append(("won", f"{evaluation.win_rate:.1%} of the episodes"))
    told += [
        (f"return of {name}", number(value)) for name, value in evaluation.agent_returns.items()
    ]
    if evaluation.cut:
        told.append(
            ("never ended", f"{evaluation.cut} episodes; what was earned up to the cut counts")
        )
    return told


def _by_seed(config: TrainConfig, evaluation: RunEvaluation) -> list[tuple[str, str]]:
    means = evaluation.returns.mean(axis=1).tolist()
    return list(zip(config.member_names, map(number, means), strict=True))


_SHARES = {
    "time/learner_waits": "the learner waits for rollouts",
    "time/environments_wait": "environments wait for actions",
    "time/network_acts": "drawing actions",
    "time/network_learns": "learning",
    "environments/share_slowest": "the slowest environment's share of all stepping",
}


def _performance(config: TrainConfig, metrics: Metrics) -> list[tuple[str, str]]:
    steps, seconds = (np.asarray(metrics.get(name, ()), float) for name in ("step", "seconds"))
    if not len(steps):
        return []
    rates = np.asarray(metrics["fps"], float)
    rates = rates[np.isfinite(rates)]
    told = []
    if len(rates):
        seeds = f" of {config.members_in_words} together" if config.num_members > 1 else ""
        low, middle, high = np.percentile(rates, [10, 50, 90])
        told.append(("steps per second", f"{middle:,.0f}{seeds} (median over rows)"))
        told.append(("its spread", f"{low:,.0f} to {high:,.0f} in four of five rows"))
    clock = without_compilation(steps, seconds)
    if clock is not None:
        compiled = seconds[-1] - clock[-1]
        told.append(("compilation", f"about {compiled:.1f} s of {duration(seconds[-1])}"))
    for name, meaning in _SHARES.items():
        if name in metrics:
            told.append(
                (meaning, f"{np.nanmean(np.asarray(metrics[name], float)):.0%} of the time")
            )
    if "environments/restarts" in metrics:
        told.append(
            ("environments and workers restarted", f"{metrics['environments/restarts'][-1]:.0f}")
        )
    return told


def _metrics(config: TrainConfig, metrics: Metrics) -> list[tuple[str, str]]:
    told = []
    for name, values in metrics.items():
        last = np.asarray(values, float)[-1]
        known = last[np.isfinite(last)] if last.ndim else last[None][np.isfinite(last[None])]
        if len(known):
            text = number(float(known.mean()))
            told.append(
                (
                    name,
                    text
                    if known.size == 1
                    else f"{text} (mean over {_counted(config, known.size)})",
                )
            )
    return told


def _counted(config: TrainConfig, values: int) -> str:
    return config.members_in_words if values == config.num_members else f"{values} of them"


def _events(path: Path) -> list[tuple[str, str]]:
    told = []
    for event in read_events(path):
        details = ", ".join(
            f"{name} {_plain(value)}"
            for name, value in event.items()
            if name not in ("time", "event", "versions") and value not in ({}, None)
        )
        told.append(
            (str(event.get("time", "")), f"{event['event']}{': ' if details else ''}{details}")
        )
    return told


def _origin(run: Run) -> list[tuple[str, str]]:
    facts = run.environment
    packages = facts.get("packages", {})
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    command = shlex.join(map(str, facts.get("command", ())))
    told = [
        ("started", facts.get("started")),
        ("command", command),
        ("kiloworlds", facts.get("kiloworlds")),
        ("packages", versions),
        ("Python", facts.get("python")),
        ("machine", f"{facts.get('processor')}, {facts.get('cores')} cores"),
        ("devices", ", ".join(facts.get("jax_devices", ()))),
        ("system", facts.get("platform")),
        ("environments", f"{facts['backend']}"),
        ("git commit", facts.get("git_commit")),
        ("directory", str(run.path.resolve())),
    ]
    return [(name, str(value)) for name, value in told if value]
