"""Running a sweep: trials that fit into one program are trained as one population."""

import json
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.core.outputs import check_output_directory
from kiloworlds.evaluation.clock import without_compilation
from kiloworlds.evaluation.comparison import RETURN, final_means
from kiloworlds.sweep.claim import claim
from kiloworlds.sweep.outcome import Outcome
from kiloworlds.sweep.spec import SweepSpec
from kiloworlds.sweep.stopping import Stopping
from kiloworlds.sweep.store import Trials, alone_in, values_of
from kiloworlds.training.run import load
from kiloworlds.training.train import train_config

_RUNS = "runs"


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
        with alone_in(folder):
            claim(folder, spec)
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
                trial.user_attrs["stopped"],
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
        stopping = Stopping(self.spec, self.trials)
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
        self._tell(trials, run.path, run.interrupted)
        if run.signal is not None:  # it came when all was done, or was to stop anyway
            raise SweepInterrupted(run.signal)

    def _tell(self, trials: list[Any], path: Path, stopped: bool) -> None:
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
                stopped=stopped,
                curve=_curve(rows["step"], returns[:, first : first + seeds]),
            )


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
