"""The trials of a sweep on disk: an Optuna study in a journal file, which many processes may use."""

import contextlib
import fcntl
import itertools
import json
import os
import random
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kiloworlds.core.errors import KiloworldsError, MissingDependencyError
from kiloworlds.sweep.spec import Choices, Range, SweepSpec

_WORKER, _ERROR = "worker", "error"
_FACTS = frozenset(("returns", "seconds", "steps", "run", "first", "stopped", "curve"))
"""What is told of a trial that ended with a value."""
_AT_RANDOM = 10
"""Trials that "tpe" draws at random before it learns from results; fewer in a short sweep."""
_LOCK_SECONDS = 20.0
"""After so long a lock that nobody lets go of is taken away: its owner was killed."""


class SweepStoreError(KiloworldsError):
    """A study that cannot be read, or belongs to another sweep."""


def optuna() -> Any:
    """The package, or MissingDependencyError."""
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            'Sweeps need Optuna: pip install "kiloworlds[sweep]".'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While one process opens a sweep or takes trials of it, others wait."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of with the file, however the process ends
        yield


class Trials:
    """The trials of one sweep; several processes may have it open.

    Args:
        folder: of the sweep.
        spec: the sweep.

    Raises:
        SweepStoreError: its file is damaged, or holds trials of another sweep.
    """

    def __init__(self, folder: Path, spec: SweepSpec):
        package = optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        self._optuna, self._spec, self._folder = package, spec, folder
        self._file = file = folder / "study.journal"
        lock = JournalFileOpenLock(str(file), grace_period=int(_LOCK_SECONDS))
        _cut_torn_line(file, lock)
        try:
            self.study = package.create_study(
                storage=JournalStorage(JournalFileBackend(str(file), lock_obj=lock)),
                study_name="sweep",
                direction="maximize",
                load_if_exists=True,
                sampler=self._sampler(),
                pruner=package.pruners.NopPruner(),
            )
            if spec.sampler == "grid":
                self._enqueue_grid()
        except (
            ValueError,
            LookupError,
            TypeError,
            AssertionError,
        ) as error:  # of lines that are none
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> SweepStoreError:
        return SweepStoreError(
            f"{str(self._file)!r} is damaged ({why}): what it holds cannot be trusted. Move it away to "
            "start the sweep again; trainings that ended stay in the runs folder."
        )

    def _enqueue_grid(self) -> None:
        """Has as many combinations wait as are wanted, but for those that are known."""
        known = {
            json.dumps(trial.params or trial.system_attrs.get("fixed_params"), sort_keys=True)
            for trial in self.study.get_trials(deepcopy=False)
        }
        for values in _grid(self._spec)[: self._spec.wanted]:
            if json.dumps(values, sort_keys=True) not in known:
                self.study.enqueue_trial(values)

    def _sampler(self) -> Any:
        samplers, spec = self._optuna.samplers, self._spec
        match spec.sampler:
            case "random" | "grid":  # whose trials are all waiting
                return samplers.RandomSampler(seed=spec.seed + os.getpid())
            case _:
                return samplers.TPESampler(
                    seed=spec.seed + os.getpid(),
                    # Its usual ten at random would be most of a short sweep.
                    n_startup_trials=min(_AT_RANDOM, spec.quarter),
                    # Trials that are asked for together must not all be near the best so far.
                    constant_liar=True,
                )

    def missing(self) -> int:
        """How many are still to be begun."""
        states = self._optuna.trial.TrialState
        begun = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state not in (states.FAIL, states.WAITING) or _ERROR in trial.user_attrs
        ]
        return self._spec.wanted - len(begun)

    def ask(self, count: int) -> list[Any]:
        """Begins at most so many trials; fewer where others began them first."""
        asked: list[Any] = []
        try:
            with alone_in(self._folder):  # a trial without a worker is taken for abandoned
                while len(asked) < count and self.missing() > 0:
                    trial = self.study.ask()
                    asked.append(trial)
                    trial.set_user_attr(_WORKER, _this_process())
                    for name, space in self._spec.search.items():
                        _suggest(trial, name, space)
        except BaseException:  # Ctrl-C comes at any time
            self.give_back(asked)
            raise
        return asked

    def take_back_abandoned(self) -> int:
        """Gives up trials whose process is gone, and has the same settings tried again.

        Returns:
            How many there were.
        """
        with alone_in(self._folder):
            gone = [trial for trial in self._running() if _is_gone(trial.user_attrs.get(_WORKER))]
            self.give_back(gone)
        return len(gone)

    def give_back(self, trials: Iterable[Any]) -> None:
        """Has the settings of those that have not ended tried again, by whoever comes next."""
        numbers = {trial.number for trial in trials}
        for trial in self._running():
            if trial.number in numbers:
                self.study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
                settings = trial.system_attrs.get("fixed_params") or trial.params
                if settings.keys() >= self._spec.search.keys():  # else it was not drawn to the end
                    self.study.enqueue_trial(settings)

    @property
    def num_running(self) -> int:
        """How many are being trained, by whichever process."""
        return len(self._running())

    def _running(self) -> list[Any]:
        return self.study.get_trials(
            deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,)
        )

    def tell(self, trial: Any, value: float, **facts: Any) -> None:
        """Ends a trial with its value.

        Args:
            facts: those of `_FACTS`.
        """
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)
        self.study.tell(trial, value)

    def fail(self, trial: Any, error: str) -> None:
        """Ends a trial that has no value, and would not have one if tried again."""
        trial.set_user_attr(_ERROR, error)
        self.study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def errors(self) -> list[str]:
        """Of the trials that failed."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial.user_attrs[_ERROR] for trial in trials if _ERROR in trial.user_attrs]

    def finished(self) -> list[Any]:
        """Those with a value, the best first.

        Raises:
            SweepStoreError: some of what belongs to one is lost.
        """
        complete = self._optuna.trial.TrialState.COMPLETE
        trials = self.study.get_trials(deepcopy=False, states=(complete,))
        for trial in trials:
            lost = (_FACTS - trial.user_attrs.keys()) | (
                self._spec.search.keys() - trial.params.keys()
            )
            if lost:
                raise self._damaged(f"trial {trial.number} lacks {', '.join(sorted(lost))}")
        return sorted(trials, key=lambda trial: -trial.value)


def _cut_torn_line(file: Path, lock: Any) -> None:
    """Cuts a last line off that was not written whole: power was lost, or the disk was full."""
    if not file.exists():
        return
    lock.acquire()
    try:
        with file.open("rb+") as journal:
            content = journal.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                journal.truncate(whole)
    finally:
        lock.release()


def _grid(spec: SweepSpec) -> list[dict[str, Any]]:
    """All combinations, in an order that makes the first few tell the most."""
    choices = [
        [_stored(value) for value in space.values]
        for space in spec.search.values()
        if isinstance(space, Choices)
    ]
    grid = [dict(zip(spec.search, values, strict=True)) for values in itertools.product(*choices)]
    random.Random(spec.seed).shuffle(grid)
    return grid


def _suggest(trial: Any, name: str, space: Range | Choices) -> None:
    if isinstance(space, Choices):
        trial.suggest_categorical(name, [_stored(value) for value in space.values])
    elif space.whole:
        trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    else:
        trial.suggest_float(name, space.low, space.high, log=space.log)


def values_of(trial: Any, spec: SweepSpec) -> dict[str, Any]:
    """The settings of a trial."""
    values = {}
    for name, space in spec.search.items():
        value = trial.params[name]
        if isinstance(space, Choices):
            value = next(each for each in space.values if _stored(each) == value)
        values[name] = value
    return values


def _stored(value: Any) -> Any:
    """A choice as a study can keep it: lists are not among what it can."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_gone(worker: str | None) -> bool:
    """Whether a process of this machine ended; of other machines nothing is known."""
    if worker is None:
        return True
    host, _, process = worker.rpartition(":")
    if host != socket.gethostname():
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
    return False
