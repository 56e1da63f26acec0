"""Where candidates run: processes, one for each way to split the CPU."""

import time
from collections.abc import Iterable, Sequence

from kiloworlds.core.devices import available_cores
from kiloworlds.profiling.tuning.candidates import Candidate, Kind
from kiloworlds.profiling.tuning.contest import Entrant
from kiloworlds.profiling.tuning.process import TooLateError, TrialError, TrialProcess
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.placement import Split, cpu_split

_SLACK = 10.0
"""Seconds that a measurement may take beyond those it was told, on a machine that is busy."""
_LIKE_THE_LAST = 1.1
"""How much longer than the slowest before it building another candidate may take."""
NO_TIME = "there was no time left to try it."


class Processes:
    """Runs candidates in processes of their own; close it when done.

    Args:
        config: the settings that were asked for.
        imports: modules that know the environment.
        split: how the CPU is split whatever candidates ask for; None: as they do.
        until: when all must be over, by `time.monotonic`.
    """

    def __init__(
        self, config: TrainConfig, imports: Sequence[str], split: Split | None, until: float
    ):
        self._config, self._imports, self._split, self._until = config, imports, split, until
        self._processes: dict[Split, TrialProcess] = {}
        self._longest = 0.0  # seconds that building a candidate took

    def _process(self, candidate: Candidate) -> TrialProcess:
        split = self._split or cpu_split(candidate.apply(self._config))
        if split not in self._processes:
            self._processes[split] = TrialProcess(*split, tuple(self._imports))
        return self._processes[split]

    def describe(self) -> Kind:
        """What runs the environment.

        Raises:
            TrialError: it cannot be found out.
        """
        process = self._process(Candidate())
        answer = process.ask(self._until, do="describe", config=self._config.as_dict())
        return Kind(**answer)

    def open(self, candidates: Iterable[Candidate], until: float) -> list[Entrant]:
        """Builds candidates, those of different processes at the same time.

        Args:
            until: when to stop, by `time.monotonic`; what is not built by then was not tried.
        """
        entrants = [Entrant(candidate) for candidate in candidates]
        waiting = list(entrants)
        while waiting:
            wave = self._wave(waiting)
            waiting = [entrant for entrant in waiting if entrant not in wave]
            began = time.monotonic()
            sent = [one for one in wave if self._send(one, until)]
            for entrant in sent:
                self._take(entrant, began)
        return entrants

    def _wave(self, waiting: list[Entrant]) -> list[Entrant]:
        """The next to be built at the same time: no more than there are cores, each in a process of its
        own."""
        wave: dict[TrialProcess, Entrant] = {}
        for entrant in waiting:
            wave.setdefault(self._process(entrant.candidate), entrant)
            if len(wave) == available_cores():
                break
        return list(wave.values())

    def _send(self, entrant: Entrant, until: float) -> bool:
        """Has a candidate built, if there is time; whether there is."""
        process = self._process(entrant.candidate)
        if not process.is_alive or time.monotonic() + _LIKE_THE_LAST * self._longest > until:
            entrant.failure = NO_TIME
            return False
        settings = entrant.candidate.apply(self._config).as_dict()
        try:
            process.send(do="open", name=_name(entrant.candidate), config=settings)
        except TrialError as error:
            entrant.failure = str(error)
        return not entrant.failure

    def _take(self, entrant: Entrant, began: float) -> None:
        try:
            self._process(entrant.candidate).receive(self._until)
        except TooLateError:
            entrant.failure = NO_TIME
        except TrialError as error:
            entrant.failure = str(error)
        else:
            self._longest = max(self._longest, time.monotonic() - began)

    def measure(self, candidate: Candidate, seconds: float) -> float:
        """Steps per second, measured for about `seconds`.

        Raises:
            TrialError: it cannot be timed.
        """
        until = min(self._until, time.monotonic() + seconds + _SLACK)
        answer = self._process(candidate).ask(
            until, do="measure", name=_name(candidate), seconds=seconds
        )
        return answer["steps"] / answer["seconds"]

    def close(self, candidate: Candidate) -> None:
        """Gives back what a candidate holds."""
        process = self._process(candidate)
        if process.is_alive:
            process.ask(self._until, do="close", name=_name(candidate))

    def close_all(self) -> None:
        """Ends the processes."""
        for process in self._processes.values():
            process.close()


def _name(candidate: Candidate) -> str:
    return repr(candidate.changes)
