"""Keeps the workers of a pool at work: starts them, hands out work, listens, replaces the fallen."""

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.faults import (
    EnvironmentFailedError,
    RestartBudget,
    RestartBudgetError,
    logger,
)
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.handle import WorkerHandle, share
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.protocol import ALL, IDLE, MESSAGE, RESETTING

_MEMORY_INTERVAL = 1.0
"""Seconds between looks at the memory of a worker."""


@dataclass(frozen=True)
class Limits:
    """How long to wait for workers, and what to do about an exception in an environment.

    Attributes:
        step_timeout: seconds a step may take; None for no limit.
        start_timeout: the same for building and resetting environments.
        on_error: "raise" or "restart".
    """

    step_timeout: float | None
    start_timeout: float | None
    on_error: str

    def __post_init__(self) -> None:
        for name in ("step_timeout", "start_timeout"):
            limit = getattr(self, name)
            if limit is not None and not (isinstance(limit, int | float) and limit > 0):
                raise InvalidValueError(f"{name}={limit!r} must be seconds above 0, or None.")
        if self.on_error not in ("raise", "restart"):
            raise InvalidValueError(f"on_error={self.on_error!r} is not 'raise' or 'restart'.")


class Supervisor:
    """The workers of a pool, and what each environment is at.

    Args:
        make_envs: one function per environment.
        num_workers: how many workers share them.
        autoreset_mode: name of the mode.
        hire: starts one worker: `hire(number, setup, rows)`.
        limits: deadlines and the policy for exceptions.
        budget: of restarts.

    Attributes:
        ready: what the first worker said of its environments.
        layout, memory: of the shared memory.
        in_flight: boolean `[N]`, the environments that were sent off and have not answered.
        arrived: the environments whose answers wait to be collected, first come first.
        lost: boolean `[N]`: the episode in flight, or just arrived, is gone; what comes back is the
            start of another.
        disturbed: whether any environment is lost or its worker has no running episode of it; else
            nobody needs to look.
        lost_episodes: how many so far.
        extras, finals: what an answer, or the end of an episode in it, carries beside the row, by
            environment.
        closed: set when the workers are about to be stopped.
        listening: held while some thread waits for workers.
        quarantined: boolean `[N]`, environments that are not stepped any more: each step of theirs
            is answered at once, as lost.
    """

    layout: protocol.Layout
    memory: SharedArrays
    ready: protocol.Ready

    def __init__(
        self,
        make_envs: Sequence[Callable[[], gymnasium.Env]],
        num_workers: int,
        autoreset_mode: str,
        hire: Callable[[int, protocol.Setup, range], WorkerHandle],
        limits: Limits,
        budget: RestartBudget,
    ):
        num_envs = len(make_envs)
        self.ranges = share(num_envs, num_workers)
        self._setups = [
            protocol.Setup(tuple(make_envs[rows.start : rows.stop]), rows.start, autoreset_mode)
            for rows in self.ranges
        ]
        self._hire, self._limits, self.budget = hire, limits, budget
        self.workers: list[WorkerHandle | None] = [None] * num_workers
        self._restart_at = [0.0] * num_workers
        self._memory_seen_at = [-_MEMORY_INTERVAL] * num_workers
        self._poll = select.poll()
        self._by_descriptor: dict[int, WorkerHandle] = {}
        self._clocks_checked_at = 0.0

        self.in_flight = np.zeros(num_envs, bool)
        self._num_in_flight = 0
        self._resets: dict[int, protocol.Reset] = {}  # in flight
        self.arrived: deque[int] = deque()
        self.lost = np.zeros(num_envs, bool)
        # The worker holds no running episode: the next step must be a reset.
        self._stale = np.zeros(num_envs, bool)
        # Stale because a lost episode was reported as ended, and this mode resets one step later.
        self._owed = np.zeros(num_envs, bool)
        self.disturbed = False
        self.lost_episodes = 0
        self.closed = False
        self.listening = threading.Lock()
        self.quarantined = np.zeros(num_envs, bool)
        self.extras: dict[int, protocol.Extras] = {}
        self.finals: dict[int, protocol.Extras] = {}
        self._answers: list[protocol.Answer | protocol.Failure] = []
        self._failures: list[EnvironmentFailedError] = []

    # Workers: starting, listening, burying.

    def start(self) -> None:
        """Starts all workers and waits until they have built their environments."""
        for number in range(len(self.workers)):
            self._start(number)
        self.wait(self.all_live)

    def all_live(self) -> bool:
        """Whether every worker has built its environments."""
        return all(worker is not None and worker.is_live for worker in self.workers)

    def _start(self, number: int) -> None:
        worker = self._hire(number, self._setups[number], self.ranges[number])
        self.workers[number] = worker
        for descriptor in (worker.control.fileno(), worker.ended_fd):
            self._listen(descriptor, worker)

    def _listen(self, descriptor: int, worker: WorkerHandle) -> None:
        self._poll.register(descriptor, select.POLLIN)
        self._by_descriptor[descriptor] = worker

    def _ignore(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def wait(self, enough: Callable[[], bool]) -> None:
        """Listens to the workers until `enough()`; restarts those that die or hang.

        Raises:
            WrongCallError: the vector was closed meanwhile, from another thread.
        """
        with self.listening:
            self._wait(enough)

    def _wait(self, enough: Callable[[], bool]) -> None:
        while not enough():
            if self.closed:
                raise WrongCallError("close() while results were awaited; there will be none.")
            events = self._poll.poll(self._patience() * 1000)
            ended = []
            for descriptor, _ in events:
                worker = self._by_descriptor.get(descriptor)
                if worker is None:
                    continue  # buried earlier in this round
                if descriptor == worker.ended_fd:
                    ended.append(worker)
                elif worker.is_live:
                    self._take(worker)
                else:
                    self._greet(worker)
            for worker in ended:  # after what they still said
                if not self.closed:
                    self._bury(worker)
            now = time.monotonic()
            if ended or not events or now - self._clocks_checked_at > 0.1:
                self._check_clocks(now)

    def _patience(self) -> float:
        """Seconds until some clock must be looked at."""
        limits = [
            limit for limit in (self._limits.step_timeout, self._limits.start_timeout) if limit
        ]
        patience = min([1.0, *(limit / 4 for limit in limits)])
        if None in self.workers:
            now = time.monotonic()
            for number, worker in enumerate(self.workers):
                if worker is None:
                    patience = min(patience, max(0.0, self._restart_at[number] - now))
        return patience

    def _check_clocks(self, now: float) -> None:
        self._clocks_checked_at = now
        limits = self._limits
        for number, worker in enumerate(self.workers):
            if worker is None:
                if now >= self._restart_at[number]:
                    self._start(number)
                continue
            if now - self._memory_seen_at[number] > _MEMORY_INTERVAL:
                self._memory_seen_at[number] = now
                worker.resident_memory()  # what it reports if it is killed before the next look
            silent = worker.seconds_without_progress()
            if not worker.is_live:
                self._check_clock(worker, silent, limits.start_timeout, "start_timeout", "starting")
            elif self.in_flight[worker.rows.start : worker.rows.stop].any():
                if worker.activity == RESETTING:
                    self._check_clock(
                        worker, silent, limits.start_timeout, "start_timeout", "a reset"
                    )
                else:  # idle means that it has not begun what it was given
                    self._check_clock(worker, silent, limits.step_timeout, "step_timeout", "a step")

    def _check_clock(
        self, worker: WorkerHandle, silent: float, limit: float | None, name: str, doing: str
    ) -> None:
        if limit is None or silent <= limit:
            return
        if worker.is_live and worker.has_entries():  # it has answered since we last listened
            return
        where = f" of environment {worker.current_row}" if worker.is_live else ""
        worker.kill()
        self._bury(worker, f"gave no answer for {limit:g} s in {doing}{where} (see {name})")

    def _greet(self, worker: WorkerHandle) -> None:
        """Takes the first word of a worker that has started."""
        try:
            message = worker.control.recv()
        except (EOFError, OSError):
            return  # its end will be noticed
        if isinstance(message, protocol.Failure):
            raise self._error(worker, message)
        if not hasattr(self, "layout"):
            self._lay_out(worker, message)
        self._check_spaces(worker, message)
        worker.attach(self.layout, self.memory)
        self._ignore(worker.control.fileno())
        self._listen(worker.outbox.read_fd, worker)
        self._ask_again(worker)

    def _lay_out(self, worker: WorkerHandle, ready: protocol.Ready) -> None:
        self.ready, self._layout_from = ready, worker.rows.start
        self.layout = protocol.Layout(
            ready.observation_space,
            ready.action_space,
            len(self.in_flight),
            len(self.workers),
            max(map(len, self.ranges)),
        )
        self.memory = SharedArrays(self.layout.specs())

    def _check_spaces(self, worker: WorkerHandle, ready: protocol.Ready) -> None:
        for name in ("observation_space", "action_space"):
            ours, others = getattr(ready, name), getattr(self.layout, name)
            if ours != others:
                (one, first), (two, second) = sorted(
                    [(self._layout_from, others), (worker.rows.start, ours)],
                    key=lambda pair: pair[0],
                )
                raise InvalidValueError(
                    f"environment {two} has the {name} {second}, environment {one} has {first}; all "
                    "environments of a vector must have the same."
                )

    def _take(self, worker: WorkerHandle) -> None:
        """Reads what a live worker has posted."""
        first = worker.rows.start
        for entry in worker.take():
            if entry == ALL:
                rows = worker.rows
                if self.disturbed:  # a lost environment answers for itself, later
                    rows = [row for row in rows if not self.lost[row]]
                self._arrive(rows)
            elif entry == MESSAGE:
                try:
                    self._hear(worker, worker.control.recv())
                except (EOFError, OSError):
                    return  # it died while it spoke; its end will be noticed
            else:
                self._arrive([first + entry])

    def _arrive(self, rows: Sequence[int]) -> None:
        if isinstance(rows, range):
            self.in_flight[rows.start : rows.stop] = False
        else:
            self.in_flight[rows] = False
        self._num_in_flight -= len(rows)
        if self._resets:
            for row in rows:
                self._resets.pop(row, None)
        self.arrived.extend(rows)

    def _hear(self, worker: WorkerHandle, message: Any) -> None:
        match message:
            case protocol.NewInfo():
                worker.add_info(message)
            case protocol.Extras():
                of_episode = message.final_infos is not None
                where = self.finals if of_episode else self.extras
                where[worker.rows.start + message.index] = message
            case protocol.Answer():
                self._answers.append(message)
            case protocol.Failure() if message.phase in ("call", "render"):
                self._answers.append(message)
            case protocol.Failure():
                self._environment_failed(worker, message)

    def _error(self, worker: WorkerHandle, failure: protocol.Failure) -> EnvironmentFailedError:
        return EnvironmentFailedError(
            worker.rows.start + failure.index,
            failure.phase,
            failure.action,
            failure.error,
            failure.traceback,
        )

    def _environment_failed(self, worker: WorkerHandle, failure: protocol.Failure) -> None:
        error = self._error(worker, failure)
        row = error.env_index
        self.budget.spend(str(error))
        if self._limits.on_error == "raise":
            self._failures.append(error)
        logger.warning("%s; building environment %d anew", error, row)
        self._lose(row)
        seed = self._resets[row].seeds[0] if row in self._resets else None
        worker.send(protocol.Rebuild(failure.index, seed))
        worker.mark_progress()

    def _lose(self, row: int) -> None:
        """The running episode of an environment is gone."""
        if row in self._resets:  # it was starting anyway: nothing is lost
            return
        self.disturbed = True
        self.finals.pop(row, None)
        if not self.in_flight[row]:
            self._stale[row] = True
        elif not self.lost[row]:
            self.lost[row] = True
            self.lost_episodes += 1

    def _bury(self, worker: WorkerHandle, reason: str | None = None) -> None:
        """Notes the end of a worker, and when another takes its place."""
        if self._by_descriptor.get(worker.ended_fd) is not worker:
            return
        if worker.is_live:
            while worker.has_entries():
                self._take(worker)
        reason = reason or worker.how_it_ended()
        for descriptor in (worker.ended_fd, worker.outbox.read_fd, worker.control.fileno()):
            self._ignore(descriptor)
        number = worker.number
        self.workers[number] = None
        what = f"worker {number} (environments {worker.rows.start} to {worker.rows.stop - 1})"
        if worker.is_live and worker.activity != IDLE:
            what += f", busy with environment {worker.current_row},"
        worker.free()
        if not hasattr(self, "layout"):
            raise RestartBudgetError(f"{what} {reason} while it built its environments.")
        delay = self.budget.spend(f"{what} {reason}.")
        logger.warning("%s %s; starting it again in %.0f s", what, reason, delay)
        for row in worker.rows:
            self._lose(row)
        self._restart_at[number] = time.monotonic() + delay

    def _ask_again(self, worker: WorkerHandle) -> None:
        """Gives a restarted worker what its predecessor was at: a reset instead of a lost step."""
        for row in worker.rows:
            if self.in_flight[row]:
                message = self._resets.get(row)
                index = row - worker.rows.start
                worker.send(message or protocol.Reset([index], [None], None))
        worker.mark_progress()

    # Handing out work.

    @property
    def pending(self) -> int:
        """Environments in flight or with an answer to collect."""
        return self._num_in_flight + len(self.arrived)

    def ask_for_all_steps(self) -> None:
        """Sends all environments off with the actions already in shared memory."""
        if self.disturbed:
            self.ask_for_steps(np.arange(len(self.in_flight)))
            return
        self.in_flight[:] = True
        self._num_in_flight = len(self.in_flight)
        for worker in self.workers:
            if worker is not None and worker.is_live:  # else `_ask_again` serves its successor
                worker.mark_progress()
                worker.push(ALL)

    def ask_for_steps(self, rows: np.ndarray) -> None:
        """Sends the environments `rows` `[B]` off with the actions already in shared memory."""
        self.in_flight[rows] = True
        self._num_in_flight += len(rows)
        if self.disturbed:
            out = rows[self.quarantined[rows]]
            rows = rows[~self.quarantined[rows]]
            self.lost[out] = True
            self._arrive(out.tolist())
            gone = rows[self._stale[rows] & ~self._owed[rows]]
            self.lost[gone] = True
            self.lost_episodes += len(gone)
        for worker, share_ in zip(self.workers, self.ranges, strict=True):
            if worker is None or not worker.is_live:
                continue
            mine = rows[(rows >= share_.start) & (rows < share_.stop)]
            if not len(mine):
                continue
            worker.mark_progress()
            if self.disturbed:
                for row in mine[self._stale[mine]].tolist():
                    worker.send(protocol.Reset([row - share_.start], [None], None))
                mine = mine[~self._stale[mine]]
            if len(mine):
                worker.push_rows(mine.tolist())
        self._stale[rows] = self._owed[rows] = False

    def ask_for_resets(self, rows: np.ndarray, seeds: list[int | None], options: Any) -> None:
        """Resets the environments `rows` `[B]`; `seeds` has one entry for each environment of all."""
        self.lost[rows] = self._stale[rows] = self._owed[rows] = False
        self.in_flight[rows] = True
        self._num_in_flight += len(rows)
        for worker, share_ in zip(self.workers, self.ranges, strict=True):
            mine = rows[(rows >= share_.start) & (rows < share_.stop)].tolist()
            for row in mine:
                index = row - share_.start
                self._resets[row] = protocol.Reset([index], [seeds[row]], options)
            if mine and worker is not None and worker.is_live:
                worker.mark_progress()
                indices = [row - share_.start for row in mine]
                worker.send(protocol.Reset(indices, [seeds[row] for row in mine], options))

    def quarantine(self, rows: np.ndarray) -> None:
        """Loses the episodes of `rows`, whose answers are in, and steps them no more."""
        self.disturbed = True
        self.quarantined[rows] = self.lost[rows] = True
        self.lost_episodes += len(rows)

    def lose(self, rows: np.ndarray) -> None:
        """Counts the episodes of `rows`, whose answers are in, as lost."""
        self.disturbed = True
        self.lost[rows] = True
        self.lost_episodes += len(rows)

    def start_over(self, rows: np.ndarray) -> None:
        """Loses the episodes of `rows`, whose answers are in, and waits for new ones."""
        self.ask_for_resets(rows, [None] * len(self.in_flight), None)
        self.lose(rows)
        self.wait(lambda: not self.in_flight[rows].any())
        for row in rows.tolist():
            self.arrived.remove(row)

    def owe(self, rows: np.ndarray) -> None:
        """The next step of `rows` is a reset: their lost episodes have been reported as ended."""
        self._stale[rows] = self._owed[rows] = True

    def settle(self, rows: np.ndarray) -> None:
        """The caller knows what was lost of `rows`."""
        self.lost[rows] = False
        self.disturbed = bool(self.lost.any() or self._stale.any() or self.quarantined.any())

    def wait_for_all(self) -> None:
        """Waits until nothing is in flight. The answers count as collected."""
        self.wait(lambda: not self._num_in_flight)
        self.arrived.clear()

    def raise_failures(self) -> None:
        """Raises the first exception that came from inside an environment since the last time."""
        if self._failures:
            failures, self._failures = self._failures, []
            raise failures[0]

    @property
    def has_failures(self) -> bool:
        """Whether `raise_failures` would raise."""
        return bool(self._failures)

    def ask(self, message: Callable[[list[int], range], Any], call: str) -> tuple[Any, ...]:
        """Sends each worker a message of its own; returns the answers, one per environment."""
        values: list[Any] = []
        self.wait(self.all_live)
        for worker in list(self.workers):
            assert worker is not None
            worker.send(message(list(range(len(worker.rows))), worker.rows))
            self.wait(lambda worker=worker: bool(self._answers) or worker not in self.workers)
            if not self._answers:
                raise WrongCallError(f"worker {worker.number} died in {call}; see the log.")
            answer = self._answers.pop()
            if isinstance(answer, protocol.Failure):
                raise self._error(worker, answer)
            values.extend(answer.values)
        return tuple(values)
