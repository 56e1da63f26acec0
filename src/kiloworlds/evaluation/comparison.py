"""Several runs side by side: which trainings they are, whether they can be compared, how they end.

Runs of the same settings that differ in their seeds only are one entry; its seeds are pooled.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from kiloworlds.core.errors import InvalidValueError, unknown_name
from kiloworlds.evaluation.clock import without_compilation
from kiloworlds.evaluation.statistics import steps_to_threshold
from kiloworlds.evaluation.task import reward_threshold
from kiloworlds.training.config import PLACES, SURVIVAL, TrainConfig, build_config
from kiloworlds.training.presets import preset
from kiloworlds.training.run import Run

RETURN = "rollout/ep_rew_mean"

FINAL_SHARE = 0.1
"""The end of a training: of its rows, the last so many."""

_NO_DIFFERENCE = SURVIVAL | PLACES | {"seed", "num_seeds"}
"""Settings that change nothing about what is learnt, but for which random numbers are drawn."""

_OF_THE_TASK = frozenset(("algorithm", "env_id", "env_kwargs", "preprocessing"))
"""What is to be learnt, and how; told elsewhere."""


class UnlikeRunsError(InvalidValueError):
    """Runs whose numbers do not mean the same."""


@dataclass
class Entry:
    """One training: the seeds of all runs that have its settings and its task.

    Attributes:
        label: what tells it from the others.
        env_id: its task.
        runs: that it was made of.
        columns: which of each run's seeds, by number.
        seeds: of all of them, in order.
        steps: `[rows]` of one seed.
        seconds: `[rows]` since training began, compilation left out where it can be told.
        values: `[rows, seeds]` of the metric; NaN where there is none.
    """

    label: str
    env_id: str
    runs: list[Run]
    columns: list[range]
    seeds: list[int]
    steps: Float[np.ndarray, " rows"]
    seconds: Float[np.ndarray, " rows"]
    values: Float[np.ndarray, "rows seeds"]
    side_by_side: int = 1
    """How many seeds shared the machine while `seconds` passed."""

    @property
    def final(self) -> Float[np.ndarray, " seeds"]:
        """Each seed's mean over the last tenth of the rows; NaN where there is none."""
        return final_means(self.values)

    def reaches(self, threshold: float, by: str = "steps") -> Float[np.ndarray, " seeds"]:
        """After how many steps (or `seconds`) each seed reaches a threshold; infinity: never."""
        return steps_to_threshold(getattr(self, by), self.values, threshold)


def final_means(values: Float[np.ndarray, "rows seeds"]) -> Float[np.ndarray, " seeds"]:
    """Each seed's mean over the end of a training; NaN where there is no finite value."""
    last = values[-max(1, round(FINAL_SHARE * len(values))) :]
    known = np.isfinite(last)
    totals = np.where(known, last, 0).sum(axis=0)
    return np.where(known.any(axis=0), totals / np.maximum(known.sum(axis=0), 1), np.nan)


@dataclass
class Comparison:
    """Entries by label and task.

    Attributes:
        metric: what is compared.
        labels, env_ids: in the order in which they came.
        entries: by both; not every label need have every task.
        remarks: what a reader must know.
    """

    metric: str
    labels: list[str]
    env_ids: list[str]
    entries: dict[tuple[str, str], Entry]
    remarks: list[str] = field(default_factory=list)

    def of(self, env_id: str) -> list[Entry]:
        """The entries of a task."""
        return [entry for (_, where), entry in self.entries.items() if where == env_id]

    @property
    def shared(self) -> list[str]:
        """The tasks that every label has."""
        return [
            env_id
            for env_id in self.env_ids
            if all((label, env_id) in self.entries for label in self.labels)
        ]

    def threshold(self, env_id: str) -> float | None:
        """The return at which a task counts as solved; None for other metrics, or if there is none."""
        return reward_threshold(env_id) if self.metric == RETURN else None


def compare(
    runs: Sequence[Run], metric: str = RETURN, allow_differences: bool = False
) -> Comparison:
    """Puts runs side by side.

    Args:
        runs: at least one.
        metric: its name in the runs' metrics.
        allow_differences: compare, and remark upon, what would be refused.

    Raises:
        UnlikeRunsError: runs of one task whose numbers do not mean the same: of different versions or
            parameters of the environment, preprocessing, or versions of the simulator.
        InvalidValueError: no runs, a run without metrics, the same training twice.
        UnknownNameError: a metric that a run does not have.
    """
    if not runs:
        raise InvalidValueError(
            "there is nothing to compare: give the directory of a run, or several."
        )
    remarks = _unlike(runs)
    if remarks and not allow_differences:
        raise UnlikeRunsError(
            f"{' '.join(remarks)} Their numbers do not mean the same; to compare them all the same, "
            "give --allow-differences."
        )
    groups: dict[tuple[Any, ...], list[_Part]] = {}
    for run in runs:
        for part in _parts(run, remarks.append):
            groups.setdefault(_identity(part), []).append(part)
    labels = _labels(groups)
    entries: dict[tuple[str, str], Entry] = {}
    for identity, members in groups.items():
        entry = _entry(labels[identity], members, metric, remarks.append)
        entries[entry.label, entry.env_id] = entry
    comparison = Comparison(
        metric,
        list(dict.fromkeys(label for label, _ in entries)),
        list(dict.fromkeys(env_id for _, env_id in entries)),
        entries,
        remarks,
    )
    for env_id in comparison.env_ids:
        remarks += _uneven(env_id, comparison.of(env_id))
    return comparison


def _uneven(env_id: str, entries: list[Entry]) -> list[str]:
    """What makes one entry of a task look better than another, in sentences."""
    told = []
    lengths = [f"{entry.label} {entry.steps[-1]:,.0f}" for entry in entries]
    if len({entry.steps[-1] for entry in entries}) > 1:
        told.append(f"{env_id} was trained for different numbers of steps: {', '.join(lengths)}.")
    if len({entry.side_by_side for entry in entries}) > 1:
        shared = ", ".join(f"{entry.label} {entry.side_by_side}" for entry in entries)
        told.append(
            f"Seconds of {env_id} are of trainings that had other numbers of seeds share the machine: "
            f"{shared}."
        )
    return told


class _Part(NamedTuple):
    """The seeds of a run that have the same settings: all, unless it trained a population.

    Attributes:
        config: their settings.
        first: where they begin among the run's.
    """

    run: Run
    config: dict[str, Any]
    first: int

    @property
    def seeds(self) -> range:
        return range(self.config["seed"], self.config["seed"] + self.config["num_seeds"])


def _parts(run: Run, remark: Callable[[str], None]) -> list[_Part]:
    """Equal entries of a population are the same training, and one part."""
    config = TrainConfig.from_dict(run.config)
    firsts = [members[0] for members in config.entry_members]
    entries = [config.member(first)[0] for first in firsts]
    different = [at for at, entry in enumerate(entries) if entry not in entries[:at]]
    if len(different) < len(entries):
        remark(
            f"{str(run.path)!r}: {len(entries) - len(different)} of the {len(entries)} entries of its "
            "population repeat others, and are left out."
        )
    return [
        _Part(run, {**run.config, "population": {}, **entries[at]}, firsts[at]) for at in different
    ]


def _identity(part: _Part) -> tuple[Any, ...]:
    """What two runs share that are seeds of one training."""
    return tuple(
        (name, repr(value))
        for name, value in sorted(part.config.items())
        if name not in _NO_DIFFERENCE
    )


def _labels(groups: dict[tuple[Any, ...], list[_Part]]) -> dict[tuple[Any, ...], str]:
    """The algorithm, and in what it differs from the preset of its task, unless all do so alike.

    The preset and not the other runs, so that a training has one name on all tasks.
    """
    changes = {identity: _changes(part.config) for identity, (part, *_) in groups.items()}
    labels: dict[tuple[Any, ...], str] = {}
    for identity, (part, *_) in groups.items():
        algorithm = part.config["algorithm"]
        alike = [
            changes[other]
            for other, (first, *_) in groups.items()
            if first.config["algorithm"] == algorithm
        ]
        own = [
            f"{name}={_short(value, [other[name] for other in alike if name in other])}"
            for name, value in changes[identity].items()
            if not all(other.get(name, _THE_PRESET) == value for other in alike)
        ]
        on_same = [
            dict(other) for other in groups if dict(other)["env_id"] == dict(identity)["env_id"]
        ]
        own += [
            f"{name}={part.config[name]}"
            for name in ("env_kwargs", "preprocessing")
            if len({other[name] for other in on_same}) > 1
        ]
        labels[identity] = " ".join([algorithm, *own])
    return labels


_THE_PRESET = object()


def _short(value: Any, others: Sequence[Any]) -> str:
    """A value in four digits, where that tells it from the others."""
    if not isinstance(value, float):
        return str(value)
    alike = {
        other for other in others if isinstance(other, float) and f"{other:.4g}" == f"{value:.4g}"
    }
    return f"{value:.4g}" if alike <= {value} else str(value)


def _changes(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not those of the preset of the task."""
    algorithm, env_id = config["algorithm"], config["env_id"]
    usual = build_config(algorithm, env_id, preset(algorithm, env_id)).as_dict()
    return {
        name: value
        for name, value in config.items()
        if name not in _NO_DIFFERENCE | _OF_THE_TASK and value != usual[name]
    }


def _entry(label: str, parts: list[_Part], metric: str, remark: Callable[[str], None]) -> Entry:
    env_id = parts[0].config["env_id"]
    seeds: list[int] = []
    curves = []
    for part in parts:
        curves.append(_curve(part, metric, remark))  # which finds out whether it has those seeds
        twice = sorted(set(part.seeds) & set(seeds))
        if twice:
            raise InvalidValueError(
                f"{str(part.run.path)!r} repeats seeds {twice} of {label} on {env_id}: the same "
                "training would count twice; leave one of the runs out."
            )
        seeds += part.seeds
    if len(curves) > 1:
        named = ", ".join(map(str, seeds))
        remark(f"{label} on {env_id}: seeds {named} of {len(parts)} runs are taken together.")
        ends = sorted({int(each[0][-1]) for each in curves})
        if len(ends) > 1:
            remark(
                f"{label} on {env_id}: these runs end at steps {', '.join(f'{end:,}' for end in ends)}; "
                "all are taken as far as the shortest went."
            )
    steps, seconds, values = _on_common_rows(curves)
    runs = [part.run for part in parts]
    columns = [range(part.first, part.first + len(part.seeds)) for part in parts]
    side_by_side = max(TrainConfig.from_dict(run.config).num_members for run in runs)
    return Entry(label, env_id, runs, columns, seeds, steps, seconds, values, side_by_side)


_Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def _curve(part: _Part, metric: str, remark: Callable[[str], None]) -> _Curve:
    run = part.run
    damage: list[str] = []
    metrics = run.read_metrics(damage.append)
    if not len(metrics.get("step", ())):
        why = damage[0] if damage else "nothing was trained yet."
        raise InvalidValueError(f"{str(run.path)!r} holds no metrics: {why}")
    for words in damage:
        remark(words)
    if metric not in metrics:
        raise unknown_name(
            "metric", metric, metrics, f"those of {str(run.path)!r}: {', '.join(metrics)}"
        )
    rows = len(metrics["step"])
    values = np.asarray(metrics[metric], float).reshape(rows, -1)
    if values.shape[1] > 1:  # else it is one number of all
        values = values[:, part.first : part.first + len(part.seeds)]
    begun = np.maximum.accumulate(np.isfinite(values), axis=0)  # before, no episode had ended
    wrong = (begun & ~np.isfinite(values)).any(axis=0)
    if wrong.any():
        named = ", ".join(str(part.seeds[index]) for index in np.flatnonzero(wrong))
        remark(
            f"{str(run.path)!r}: {metric} is not finite in some rows of seed {named}; they are left out."
        )
    steps, seconds = (np.asarray(metrics[name], float) for name in ("step", "seconds"))
    clock = without_compilation(steps, seconds)
    return steps, seconds if clock is None else clock, values


def _on_common_rows(curves: list[_Curve]) -> _Curve:
    """The curves of several runs at the steps of the first, as far as all go."""
    steps, seconds, values = curves[0]
    if len(curves) == 1:
        return steps, seconds, values
    end = min(each[0][-1] for each in curves)
    steps = steps[steps <= end]
    if not len(steps):
        steps = np.array([end])
    clocks, columns = [], []
    for theirs, clock, many in curves:
        clocks.append(np.interp(steps, theirs, clock))
        columns += [np.interp(steps, theirs, column) for column in many.T]
    return steps, np.mean(clocks, axis=0), np.stack(columns, axis=1)


def _unlike(runs: Sequence[Run]) -> list[str]:
    """Why the numbers of some runs do not mean the same, in sentences."""
    told = []
    versions: dict[str, list[str]] = {}
    for env_id in dict.fromkeys(run.config["env_id"] for run in runs):
        versions.setdefault(re.sub(r"[-_]v\d+$", "", env_id), []).append(env_id)
    for ids in versions.values():
        if len(ids) > 1:
            told.append(f"{' and '.join(ids)} are different versions of one environment.")
    by_task: dict[str, list[Run]] = {}
    for run in runs:
        by_task.setdefault(run.config["env_id"], []).append(run)
    for env_id, members in by_task.items():
        for what, of in (
            ("parameters of the environment", lambda run: run.config["env_kwargs"] or "none"),
            ("preprocessing", lambda run: run.config["preprocessing"] or "none"),
            (
                "versions of Gymnasium",
                lambda run: run.environment.get("packages", {}).get("gymnasium"),
            ),
            ("versions of kiloworlds", lambda run: run.environment.get("kiloworlds")),
        ):
            values = list(dict.fromkeys(repr(of(run)) for run in members))
            if len(values) > 1:
                told.append(f"Runs of {env_id} differ in {what}: {' and '.join(values)}.")
    return told
