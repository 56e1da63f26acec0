"""Running a sweep: trials that fit into one program are trained as one population."""

import contextlib
import dataclasses
import fcntl
import json
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.core.outputs import check_output_directory
from kiloworlds.evaluation.clock import without_compilation
from kiloworlds.evaluation.comparison import RETURN, final_means
from kiloworlds.evaluation.statistics import Estimate, estimate
from kiloworlds.sweep.spec import Choices, SweepSpec
from kiloworlds.sweep.store import SweepStoreError, Trials, values_of
from kiloworlds.training.run import load
from kiloworlds.training.storage.run_directory import write_whole
from kiloworlds.training.train import train_config

_SPEC, _RUNS = "sweep.yaml", "runs"
_EARLIEST = 0.5
"""Share of a training before which none is stopped early."""


class SweepFailedError(KiloworldsError, RuntimeError):
    """A sweep without any result."""


class SweepInterrupted(KeyboardInterrupt):
    """A sweep that a signal ended.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int | None):
        super().__init__()
        self.signal = signal.SIGINT if number is None else number


class Outcome(NamedTuple):
    """A trial that ended.

    Attributes:
        number: among the trials.
        values: what was looked for.
        value: the mean over seeds of the return at the end.
        returns: each seed's.
        seconds: that its training took, compilation left out where it can be told. Programs train
            several trials side by side, so this is a share: of the time of all programs that differ in
            nothing that changes the work, by the steps of the trial.
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
        InvalidValueError: there can be no such folder.
    """

    def __init__(self, folder: Path, spec: SweepSpec):
        check_output_directory(folder)
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
            SweepInterrupted: Ctrl-C or SIGTERM; trials that had begun are tried again by the next run.
            SweepFailedError: no trial ended with a value.
        """
        back = self.trials.take_back_abandoned()
        if back:
            say(f"{back} trials of processes that are gone are tried again.")
        if self._learns_nothing():
            say(
                f"population {self.spec.population} draws all {self.spec.wanted} trials at once: tpe "
                "learns from no result, and none is stopped early; leave population out, or give "
                f"{self.spec.quarter}."
            )
        while asked := self.trials.ask(self.spec.drawn_at_once):
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

    def _learns_nothing(self) -> bool:
        """Whether a sampler that learns from results will have none to learn from."""
        spec = self.spec
        draws_all = 1 < spec.wanted <= spec.drawn_at_once
        return spec.sampler == "tpe" and draws_all and not self.trials.finished()

    def outcomes(self) -> list[Outcome]:
        """All trials that ended, the best first."""
        finished = self.trials.finished()
        pace = self._seconds_per_step(finished)
        return [
            Outcome(
                trial.number,
                values_of(trial, self.spec),
                trial.value,
                trial.user_attrs["returns"],
                pace[self._program(trial)] * trial.user_attrs["steps"],
                trial.user_attrs["steps"],
                self.folder / _RUNS / trial.user_attrs["run"],
                trial.user_attrs["first"],
            )
            for trial in finished
        ]

    def _seconds_per_step(self, finished: Sequence[Any]) -> dict[str, float]:
        """By program, over all trials of it.

        Trials of one program do the same work whatever numbers it holds: what one took less than
        another is how many shared a program, and what else the machine did.
        """
        seconds: dict[str, float] = defaultdict(float)
        steps: dict[str, float] = defaultdict(float)
        for trial in finished:
            program = self._program(trial)
            seconds[program] += trial.user_attrs["seconds"]
            steps[program] += trial.user_attrs["steps"]
        return {program: seconds[program] / steps[program] for program in seconds}

    def _program(self, trial: Any) -> str:
        """The settings of a trial that need a program of their own, as one word."""
        shared = self.spec.shared
        values = values_of(trial, self.spec)
        own = {name: value for name, value in values.items() if name not in shared}
        return json.dumps(own, sort_keys=True)

    def _groups(self, asked: Sequence[Any]) -> Iterator[list[Any]]:
        """Trials by the program that can train them."""
        if not self.spec.shared:  # a program of its own for each, though two be alike
            yield from ([trial] for trial in asked)
            return
        groups: dict[str, list[Any]] = {}
        for trial in asked:
            groups.setdefault(self._program(trial), []).append(trial)
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
                run_dir=self.folder / _RUNS / name,
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
            raise SweepInterrupted(run.signal)
        self._tell(trials, run.path)
        if run.signal is not None:  # it came when all was done, or was to stop anyway
            raise SweepInterrupted(run.signal)

    def _tell(self, trials: list[Any], path: Path) -> None:
        run = load(path)
        # One whose directory could not be written is elsewhere.
        runs = (self.folder / _RUNS).resolve()
        place = path.name if path.resolve().parent == runs else str(path.resolve())
        rows = run.metrics
        returns = np.asarray(rows[RETURN], float).reshape(len(rows["step"]), -1)
        ends = final_means(returns)
        seeds = self.spec.seeds
        seconds = _training_seconds(rows) / len(trials)
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
                run=place,
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


_NEARLY_THE_SAME = 1.1
"""Costs within this factor are not told apart."""

_ENOUGH = 5
"""Trials before; the median of fewer says little."""


def _training_seconds(rows: Mapping[str, Any]) -> float:
    """Compilation left out, but for trainings of too few rows to tell."""
    steps, seconds = (np.asarray(rows[name], float) for name in ("step", "seconds"))
    clock = without_compilation(steps, seconds)
    return float((seconds if clock is None else clock)[-1])


def _curve(steps: np.ndarray, returns: np.ndarray) -> list[tuple[float, float]]:
    """Twenty points of the mean over seeds."""
    known = np.isfinite(returns).all(axis=1)
    steps, means = steps[known], returns[known].mean(axis=1)
    chosen = np.unique(np.linspace(0, len(steps) - 1, 20).round().astype(int))
    return [(float(steps[index]), float(means[index])) for index in chosen]


def pareto_front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that no other beats in return and in seconds, the cheapest first.

    A return below the median is worth nothing, however cheap. Where all cost nearly the same, only the
    best is left.
    """
    if not costs_differ(outcomes):
        return [max(outcomes, key=lambda each: each.value)] if outcomes else []
    median = np.median([outcome.value for outcome in outcomes])
    front: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda each: (each.seconds, -each.value)):
        if outcome.value >= median and (not front or outcome.value > front[-1].value):
            front.append(outcome)
    return front


def costs_differ(outcomes: Sequence[Outcome]) -> bool:
    """Whether the dearest trial cost more than a tenth more than the cheapest."""
    seconds = [outcome.seconds for outcome in outcomes]
    return bool(seconds) and max(seconds) > _NEARLY_THE_SAME * min(seconds)


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
        why = " ".join(str(error).split())
        raise SweepStoreError(f"{str(file)!r} is damaged: {why}") from error
    if not isinstance(theirs, dict):
        raise SweepStoreError(
            f"{str(file)!r} is damaged: it holds no names and values. Delete it if the sweep in "
            f"{str(folder)!r} is the one given: it is written again."
        )
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
