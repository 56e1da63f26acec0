"""Running a sweep: trials that fit into one program are trained as one population."""

import contextlib
import dataclasses
import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.evaluation.comparison import RETURN, final_means
from kiloworlds.evaluation.statistics import Estimate, estimate
from kiloworlds.sweep.spec import Choices, SweepSpec
from kiloworlds.sweep.store import SweepStoreError, Trials, values_of
from kiloworlds.training.run import load
from kiloworlds.training.storage.run_directory import write_whole
from kiloworlds.training.train import train_config

_SPEC = "sweep.yaml"
_EARLIEST = 0.5
"""Share of a training before which none is stopped early."""


class SweepFailedError(KiloworldsError, RuntimeError):
    """A sweep without any result."""


class Outcome(NamedTuple):
    """A trial that ended.

    Attributes:
        number: among the trials.
        values: what was looked for.
        value: the mean over seeds of the return at the end.
        returns: each seed's.
        seconds: its share of the training's time, compilation included.
        steps: per seed; fewer than asked for where it was stopped early.
        run: the directory of the run, and where its seeds begin in it.
    """

    number: int
    values: dict[str, Any]
    value: float
    returns: list[float]
    seconds: float
    steps: int
    run: Path
    first: int

    @property
    def estimate(self) -> Estimate:
        """The mean over seeds, with its interval."""
        return estimate(np.array(self.returns), partial(np.mean, axis=-1), resamples=2000)


@dataclass(frozen=True)
class Progress:
    """What a sweep tells as it goes."""

    finished: int
    wanted: int
    best: Outcome | None


class Sweep:
    """A search in a directory of its own.

    Several processes may run the same sweep at once: each takes trials that no other has begun.

    Args:
        folder: its directory; made if it is not there. One that holds the same sweep is gone on with.
        spec: what is looked for.

    Raises:
        SweepStoreError: the folder holds another sweep, or a damaged one.
    """

    def __init__(self, folder: Path, spec: SweepSpec):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.spec = folder, spec
        with _alone(folder):
            _claim(folder, spec)
            self.trials = Trials(folder, spec)

    def run(
        self,
        say: Callable[[str], None] = lambda _: None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> list[Outcome]:
        """Tries what is still to be tried; returns all outcomes, the best first.

        Raises:
            KeyboardInterrupt: Ctrl-C; trials that had begun are tried again by the next run.
            SweepFailedError: no trial ended with a value.
        """
        back = self.trials.take_back_abandoned()
        if back:
            say(f"{back} trials of processes that are gone are tried again.")
        while asked := self.trials.ask(self.spec.population):
            try:
                for group in self._groups(asked):
                    self._train(group, say)
                    outcomes = self.outcomes()
                    best = outcomes[0] if outcomes else None
                    on_progress(Progress(len(outcomes), self.spec.wanted, best))
            except BaseException:  # Ctrl-C comes at any time
                self.trials.give_back(asked)
                raise
        outcomes, errors = self.outcomes(), self.trials.errors()
        if not outcomes and errors:
            raise SweepFailedError(f"all {len(errors)} trials failed; the first: {errors[0]}")
        return outcomes

    def outcomes(self) -> list[Outcome]:
        """All trials that ended, the best first."""
        return [
            Outcome(
                trial.number,
                values_of(trial, self.spec),
                trial.value,
                trial.user_attrs["returns"],
                trial.user_attrs["seconds"],
                trial.user_attrs["steps"],
                self.folder / "runs" / trial.user_attrs["run"],
                trial.user_attrs["first"],
            )
            for trial in self.trials.finished()
        ]

    def _groups(self, asked: Sequence[Any]) -> Iterator[list[Any]]:
        """Trials by the program that can train them."""
        shared = self.spec.shared
        groups: dict[str, list[Any]] = {}
        for trial in asked:
            values = values_of(trial, self.spec)
            own = {name: value for name, value in values.items() if name not in shared}
            groups.setdefault(json.dumps(own, sort_keys=True), []).append(trial)
        yield from groups.values()

    def _train(self, trials: list[Any], say: Callable[[str], None]) -> None:
        """Trains some trials side by side, and tells how they end."""
        values = [values_of(trial, self.spec) for trial in trials]
        shared = self.spec.shared
        own = {name: value for name, value in values[0].items() if name not in shared}
        population = {name: [each[name] for each in values] for name in shared}
        name = "-".join(f"{trial.number:04d}" for trial in (trials[0], trials[-1]))
        stopping = _Stopping(self)
        try:
            config = self.spec.config(own | {"population": population})
            run = train_config(
                config,
                run_dir=self.folder / "runs" / name,
                on_metrics=lambda row: stopping.hear(
                    row, config.num_updates * config.steps_per_update
                ),
                stop=stopping.is_set,
                say=say,
            )
        except (KiloworldsError, OSError) as error:
            say(f"trials {name} failed: {error}")
            for trial in trials:
                self.trials.fail(trial, str(error))
            return
        if run.interrupted and not stopping.is_set():
            raise KeyboardInterrupt
        self._tell(trials, run.path)

    def _tell(self, trials: list[Any], path: Path) -> None:
        run = load(path)
        rows = run.metrics
        returns = np.asarray(rows[RETURN], float).reshape(len(rows["step"]), -1)
        ends = final_means(returns)
        seeds = self.spec.seeds
        seconds = float(rows["seconds"][-1]) / len(trials)
        for index, trial in enumerate(trials):
            first = index * seeds
            each = ends[first : first + seeds]
            if not np.isfinite(each).all():
                self.trials.fail(trial, "no episode ended, or returns are not finite at the end")
                continue
            self.trials.tell(
                trial,
                float(each.mean()),
                returns=[float(value) for value in each],
                seconds=seconds,
                steps=int(rows["step"][-1]),
                run=path.name,
                first=first,
                curve=_curve(rows["step"], returns[:, first : first + seeds]),
            )


class _Stopping:
    """Ends a program all of whose trials are worse than the median of those before, at the same step."""

    def __init__(self, sweep: Sweep):
        self._sweep = sweep
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def hear(self, row: dict[str, Any], total: int) -> None:
        spec = self._sweep.spec
        if not spec.early_stopping or row["step"] < _EARLIEST * total:
            return
        others = [
            np.interp(row["step"], *np.array(trial.user_attrs["curve"]).T)
            for trial in self._sweep.trials.finished()
            if trial.user_attrs["steps"] >= total
        ]
        now = np.array([np.nan if value is None else value for value in row[RETURN]], float)
        means = now.reshape(-1, spec.seeds).mean(axis=1)
        if len(others) >= _ENOUGH and (means < np.median(others)).all():
            self._is_set = True


_ENOUGH = 5
"""Trials before; the median of fewer says little."""


def _curve(steps: np.ndarray, returns: np.ndarray) -> list[tuple[float, float]]:
    """Twenty points of the mean over seeds."""
    known = np.isfinite(returns).all(axis=1)
    steps, means = steps[known], returns[known].mean(axis=1)
    chosen = np.unique(np.linspace(0, len(steps) - 1, 20).round().astype(int))
    return [(float(steps[index]), float(means[index])) for index in chosen]


def pareto_front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that no other beats in return and in seconds, the cheapest first."""
    front: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda each: (each.seconds, -each.value)):
        if not front or outcome.value > front[-1].value:
            front.append(outcome)
    return front


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While one process makes a sweep, others that open it wait."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of with the file, however the process ends
        yield


def _claim(folder: Path, spec: SweepSpec) -> None:
    """Writes the specification into the folder, or finds the same there."""
    file = folder / _SPEC
    ours = _plain(spec)
    if not file.exists():
        write_whole(file, yaml.safe_dump(ours, sort_keys=False))
        return
    try:
        theirs = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SweepStoreError(f"{str(file)!r} is damaged: {error}") from error
    may_change = ("trials", "population", "early_stopping")
    different = [
        f"{name}: {theirs.get(name)!r} there, {value!r} given"
        for name, value in ours.items()
        if theirs.get(name) != value and name not in may_change
    ]
    if different:
        raise SweepStoreError(
            f"{str(folder)!r} holds another sweep ({'; '.join(different)}): give another --output."
        )
    write_whole(file, yaml.safe_dump(ours, sort_keys=False))


def _plain(spec: SweepSpec) -> dict[str, Any]:
    values = dataclasses.asdict(spec)
    values["search"] = {
        name: list(space.values)
        if isinstance(space, Choices)
        else {"min": space.low, "max": space.high, "log": space.log}
        for name, space in spec.search.items()
    }
    return values
