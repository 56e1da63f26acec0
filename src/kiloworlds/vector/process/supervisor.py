"""Keeps the workers of a pool at work: starts them, hands out work, listens, replaces the fallen."""

import dataclasses
import functools
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from kiloworlds.core import errors
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.faults import (
    EnvironmentFailedError,
    RestartBudget,
    RestartBudgetError,
    logger,
)
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.crew import Crew
from kiloworlds.vector.process.handle import InfoColumn, WorkerHandle, share
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
        worker_memory: bytes a worker may hold before another takes over from it; None for no limit.
    """

    step_timeout: float | None
    start_timeout: float | None
    on_error: str
    worker_memory: float | None = None

    @functools.cached_property
    def patience(self) -> float:
        """Seconds after which to look whether one has passed."""
        limits = [limit for limit in (self.step_timeout, self.start_timeout) if limit]
        return min([1.0, *(limit / 4 for limit in limits)])

    def __post_init__(self) -> None:
        for name in ("step_timeout", "start_timeout"):
            limit = getattr(self, name)
            is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if limit is not None and not (is_number and limit > 0):
                raise InvalidValueError(f"{name}={limit!r} must be seconds above 0, or None.")
        if self.on_error not in ("raise", "restart"):
            raise InvalidValueError(f"on_error={self.on_error!r} is not 'raise' or 'restart'.")
        memory = self.worker_memory
        if memory is not None and not (isinstance(memory, int | float) and memory > 0):
            raise InvalidValueError(
                f"max_worker_memory={memory!r} must be bytes above 0, such as 2e9, or None."
            )


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
        crew: the workers, and which environments each has.
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
        ranges = share(num_envs, num_workers)
        setups = [
            protocol.Setup(tuple(make_envs[rows.start : rows.stop]), rows.start, autoreset_mode)
            for rows in ranges
        ]
        self.crew = Crew(ranges, lambda number: hire(number, setups[number], ranges[number]))
        self._starts_over = autoreset_mode == "SAME_STEP"
        self._limits, self.budget = limits, budget
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
        self._attributes: dict[str, dict[int, Any]] = {}  # set from outside, by name and row
        self._request = 0
        self._asked: list[WorkerHandle] = []
        self._answers: dict[WorkerHandle, protocol.Answer | protocol.Failure] = {}
        self._failures: list[EnvironmentFailedError] = []

    # Workers: starting, listening, burying.

    def start(self) -> None:
        """Starts all workers and waits until they have built their environments."""
        for number in range(len(self.crew.workers)):
            self._listen_to(self.crew.start(number))
        self.wait(self.crew.all_live)
        limit = self._limits.worker_memory
        for worker in self.crew.present():
            held = worker.resident_memory()
            if limit is not None and held > limit:
                raise InvalidValueError(
                    f"max_worker_memory={limit:g} bytes, but worker {worker.number} holds {held:,} "
                    f"when it has just built its {len(worker.rows)} environments; allow twice that, "
                    f"{2 * held:.2g}, or take more workers."
                )

    def _listen_to(self, worker: WorkerHandle) -> None:
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
            self._watch_for_room()
            events = self._poll.poll(self._patience() * 1000)
            ended = []
            for descriptor, _ in events:
                worker = self._by_descriptor.get(descriptor)
                if worker is None:
                    continue  # buried earlier in this round
                if worker.has_unsent and worker.is_live:
                    self._send_rest(worker)
                if descriptor == worker.ended_fd:
                    ended.append(worker)
                elif descriptor == worker.outbox.read_fd:
                    self._take(worker)
                elif worker.is_live:
                    continue  # there was room in its socket
                else:
                    self._greet(worker)
            for worker in ended:  # after what they still said
                if not self.closed:
                    self._bury(worker)
            now = time.monotonic()
            if ended or not events or now - self._clocks_checked_at > 0.1:
                self._check_clocks(now)

    def _watch_for_room(self) -> None:
        """Sees to it that workers whose socket was full are noticed when it takes more."""
        for worker in self.crew.present():
            if not worker.has_unsent or not worker.is_live:
                continue
            descriptor = worker.control.fileno()
            if descriptor not in self._by_descriptor:
                self._poll.register(descriptor, select.POLLOUT)
                self._by_descriptor[descriptor] = worker

    def _send_rest(self, worker: WorkerHandle) -> None:
        worker.send_rest()
        if not worker.has_unsent:
            self._ignore(worker.control.fileno())

    def _patience(self) -> float:
        """Seconds until some clock must be looked at."""
        patience = self._limits.patience
        if None in self.crew.workers:
            now = time.monotonic()
            for number, worker in enumerate(self.crew.workers):
                if worker is None:
                    patience = min(patience, max(0.0, self._restart_at[number] - now))
        return patience

    def _check_clocks(self, now: float) -> None:
        self._clocks_checked_at = now
        limits, crew = self._limits, self.crew
        crew.see_off(now)
        for number, missing in enumerate(crew.workers):
            if missing is None and now >= self._restart_at[number]:
                self._listen_to(crew.start(number))
        for worker in crew.present():
            self._check_memory(worker, now)
            # Before the clock: the worker writes its mark first and its activity second, so that a
            # long reset that ends meanwhile is not taken for a long step.
            activity = worker.activity if worker.is_live else IDLE
            silent = worker.seconds_without_progress()
            if not worker.is_live:
                self._check_clock(worker, silent, limits.start_timeout, "start_timeout", "starting")
            elif worker in self._asked and worker not in self._answers:
                self._check_clock(worker, silent, limits.start_timeout, "start_timeout", "a call")
            elif self.in_flight[crew.rows_of(worker)].any():
                if activity == RESETTING:
                    self._check_clock(
                        worker, silent, limits.start_timeout, "start_timeout", "a reset"
                    )
                else:  # idle means that it has not begun what it was given
                    self._check_clock(worker, silent, limits.step_timeout, "step_timeout", "a step")

    def _check_memory(self, worker: WorkerHandle, now: float) -> None:
        if now - self._memory_seen_at[worker.number] < _MEMORY_INTERVAL:
            return
        self._memory_seen_at[worker.number] = now
        # Asked without a limit too: it is what a worker that gets killed held when last seen.
        held, limit = worker.resident_memory(), self._limits.worker_memory
        if limit is not None and held > limit and self.crew.may_recycle:
            logger.info(
                "worker %d (environments %d to %d) holds %.0f MB, more than max_worker_memory allows; "
                "another takes over each environment when its episode ends",
                worker.number,
                worker.rows.start,
                worker.rows.stop - 1,
                held / 1e6,
            )
            self._listen_to(self.crew.start_successor(worker.number))

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
            message = worker.receive()
        except (EOFError, OSError):
            return  # its end will be noticed
        if isinstance(message, protocol.Failure):
            error: Exception = self._error(worker, message)
            if message.refusal:  # the user is to hear what was asked for wrongly, not where
                text = message.error.removeprefix(f"{message.refusal}: ")
                error = getattr(errors, message.refusal)(text)
            if worker is not self.crew.successor:
                raise error
            worker.kill()  # the one it was to take over from goes on
            self._bury(worker, f"could not take over: {error}")
            return
        if not hasattr(self, "layout"):
            self._lay_out(worker, message)
        self._check_spaces(worker, message)
        self.crew.attach(worker, self.layout, self.memory)
        self._ignore(worker.control.fileno())
        self._listen(worker.outbox.read_fd, worker)
        for name, values in self._attributes.items():  # of the one before it
            rows = worker.rows
            mine = [values[row] for row in rows if row in values]
            indices = [row - rows.start for row in rows if row in values]
            worker.send(protocol.Request(-1, protocol.SetAttribute(indices, name, mine)))
        self._ask_again(worker, self.crew.rows_of(worker))

    def _lay_out(self, worker: WorkerHandle, ready: protocol.Ready) -> None:
        self.ready, self._layout_from = ready, worker.rows.start
        self.layout = protocol.Layout(
            ready.observation_space,
            ready.action_space,
            len(self.in_flight),
            len(self.crew.ranges),
            max(map(len, self.crew.ranges)),
        )
        self.memory = SharedArrays(self.layout.specs())

    def _check_spaces(self, worker: WorkerHandle, ready: protocol.Ready) -> None:
        for name in ("observation_space", "action_space"):
            ours, others = getattr(ready, name), getattr(self.layout, name)
            if not _are_same(ours, others):
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
                    message = worker.receive()
                except (EOFError, ConnectionError):
                    return  # it died while it spoke; its end will be noticed
                except OSError:  # it has stopped in the middle of it
                    worker.kill()
                    return
                self._hear(worker, message)
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
            case protocol.Answer() | protocol.Failure() if message.request >= 0:
                if message.request == self._request:  # else nobody waits for it any more
                    self._answers[worker] = message
            case protocol.Answer():  # to an attribute that was set again: nobody asked
                return
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
        what = f"worker {number} (environments {worker.rows.start} to {worker.rows.stop - 1})"
        if worker.is_live and worker.activity != IDLE:
            what += f", busy with environment {worker.current_row},"
        if worker.is_live:
            self._keep_infos(worker)
        rows, heir = self.crew.remove(worker)
        if not hasattr(self, "layout"):
            raise RestartBudgetError(f"{what} {reason} while it built its environments.")
        delay = self.budget.spend(f"{what} {reason}.")
        if heir is None:
            logger.warning("%s %s; starting it again in %.0f s", what, reason, delay)
        else:
            logger.warning("%s %s; the worker it shared them with has them now", what, reason)
        for row in rows.tolist():
            self._lose(row)
        self._restart_at[number] = time.monotonic() + delay
        self._memory_seen_at[number] = time.monotonic() + delay
        if heir is not None and heir.is_live:
            self._ask_again(heir, rows)

    def _keep_infos(self, worker: WorkerHandle) -> None:
        """Answers that wait to be collected keep their infos when the worker's memory is given to
        another."""
        for row in self.crew.rows_of(worker).tolist():
            if row not in self.arrived or not worker.infos:
                continue
            index = row - worker.rows.start
            infos = {c.key: c.values[index].copy() for c in worker.infos if c.mask[index]}
            extras = self.extras.get(row, protocol.Extras(index))
            self.extras[row] = dataclasses.replace(extras, infos=infos | (extras.infos or {}))

    def _ask_again(self, worker: WorkerHandle, rows: np.ndarray) -> None:
        """Gives a worker what the one before it was at: a reset instead of a lost step."""
        for row in rows.tolist():
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
        if self.disturbed or self.crew.hands_over:
            self.ask_for_steps(np.arange(len(self.in_flight)))
            return
        self.in_flight[:] = True
        self._num_in_flight = len(self.in_flight)
        for worker in self.crew.workers:
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
        for worker, mine in self.crew.by_worker(rows):
            if worker is None or not worker.is_live or not len(mine):
                continue
            worker.mark_progress()
            if self.disturbed:
                for row in mine[self._stale[mine]].tolist():
                    worker.send(protocol.Reset([row - worker.rows.start], [None], None))
                mine = mine[~self._stale[mine]]
            if len(mine):
                worker.push_rows(mine.tolist())
        self._stale[rows] = self._owed[rows] = False

    def ask_for_resets(self, rows: np.ndarray, seeds: list[int | None], options: Any) -> None:
        """Resets the environments `rows` `[B]`; `seeds` has one entry for each environment of all."""
        if options:
            protocol.pickled_or_refused(options)  # before anything has changed
        self.lost[rows] = self._stale[rows] = self._owed[rows] = False
        self.in_flight[rows] = True
        self._num_in_flight += len(rows)
        if self.crew.hands_over:
            self._hand_over(rows)
        for row in rows.tolist():  # what was not collected belongs to an episode that is over
            self.extras.pop(row, None)
            self.finals.pop(row, None)
        for range_ in self.crew.ranges:
            for row in rows[(rows >= range_.start) & (rows < range_.stop)].tolist():
                self._resets[row] = protocol.Reset([row - range_.start], [seeds[row]], options)
        for worker, some in self.crew.by_worker(rows):
            mine = some.tolist()
            if mine and worker is not None and worker.is_live:
                worker.mark_progress()
                indices = [row - worker.rows.start for row in mine]
                worker.send(protocol.Reset(indices, [seeds[row] for row in mine], options))

    def _hand_over(self, rows: np.ndarray) -> np.ndarray:
        taken = self.crew.hand_over(rows)
        leaver = self.crew.let_go(self.quarantined)
        if leaver is not None:
            for descriptor in (leaver.ended_fd, leaver.outbox.read_fd):
                self._ignore(descriptor)
            logger.info("worker %d has been replaced; no step was lost", leaver.number)
        return taken

    def episodes_ended(self, rows: np.ndarray) -> None:
        """Episodes of `rows` `[B]` have ended, and their answers are in: the moment for another worker
        to take environments over. Where ending an episode begins the next, it gives the first
        observation of that instead."""
        if not self.crew.hands_over:
            return
        taken = self._hand_over(rows)
        if not len(taken):
            return
        if not self._starts_over:
            self.disturbed = True
            self.owe(taken)
            return
        finals = {row: self.finals[row] for row in taken.tolist() if row in self.finals}
        self.reset_now(taken)
        self.finals |= finals  # of the episodes that have ended

    def reset_now(self, rows: np.ndarray) -> None:
        """Starts new episodes of `rows`, whose answers are in, and waits for them."""
        self.ask_for_resets(rows, [None] * len(self.in_flight), None)
        self.wait(lambda: not self.in_flight[rows].any())
        for row in rows.tolist():
            self.arrived.remove(row)

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
        self.lose(rows)
        self.reset_now(rows)
        self.lost[rows] = True  # until the caller knows

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

    def infos(self, rows: np.ndarray) -> Iterator[tuple[list[InfoColumn], np.ndarray, np.ndarray]]:
        """The infos that workers keep of their environments: the columns, which of `rows` `[B]` they
        are of (boolean `[B]`), and where in the columns these are."""
        if not any(worker.infos for worker in self.crew.present()):
            return
        for worker, mine in self.crew.by_worker(rows):
            if worker is not None and worker.infos and len(mine):
                yield worker.infos, np.isin(rows, mine), mine - worker.rows.start

    def ask(
        self, rows: np.ndarray, message: Callable[[list[int], list[int]], Any], call: str
    ) -> list[Any]:
        """Sends messages about the environments `rows` to their workers; returns the answers.

        Args:
            rows: numbers of environments, whose answers come in that order.
            message: makes the one to a worker, from the numbers that environments have there and in
                the vector.
            call: what is being done, for errors.
        """
        self.wait(self.crew.all_live)
        self._request += 1
        self._answers.clear()
        asked: dict[WorkerHandle, list[int]] = {}
        for worker, mine in self.crew.by_worker(rows):
            if worker is None or not len(mine):
                continue
            numbers = mine.tolist()
            what = message([row - worker.rows.start for row in numbers], numbers)
            worker.send(protocol.Request(self._request, what))
            worker.mark_progress()
            asked[worker] = numbers
        self._asked = list(asked)
        try:
            self.wait(
                lambda: all(w in self._answers or w not in self.crew.present() for w in asked)
            )
        finally:
            self._asked = []
        values: dict[int, Any] = {}
        for worker, numbers in asked.items():
            answer = self._answers.get(worker)
            if answer is None:
                raise WrongCallError(f"worker {worker.number} died in {call}; see the log.")
            if isinstance(answer, protocol.Failure):
                raise self._error(worker, answer)
            values |= zip(numbers, answer.values, strict=True)
        return [values[row] for row in rows.tolist()]

    def set_attribute(self, name: str, values: Sequence[Any], call: str) -> None:
        """Sets an attribute of all environments, and of those that take their place later."""
        self.ask(
            np.arange(len(values)),
            lambda indices, rows: protocol.SetAttribute(
                indices, name, [values[row] for row in rows]
            ),
            call,
        )
        self._attributes[name] = dict(enumerate(values))


def _are_same(one: gymnasium.Space, other: gymnasium.Space) -> bool:
    if type(one).__eq__ is object.__eq__:  # a class of the user's that does not say
        return type(one).__name__ == type(other).__name__ and repr(one) == repr(other)
    return one == other
