"""Keeps the workers of a pool at work: starts them, hands out work, listens, replaces the fallen."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from kiloworlds.vector.process.ledger import Ledger
from kiloworlds.vector.process.limits import Limits
from kiloworlds.vector.process.listener import Listener
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.protocol import ALL, IDLE, MESSAGE

_SIGN_SECONDS = 2.0
"""Between two signs that it waits for workers to come back."""

_MEMORY_INTERVAL = 1.0
"""Seconds between looks at the memory of a worker."""


class Supervisor:
    """Starts the workers of a pool, hands out work, listens, and replaces who dies or hangs.

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
        ledger: what each environment is at.
        closed: set when the workers are about to be stopped.
        listening: held while some thread waits for workers.
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
        self._listener = Listener()
        self._clocks_checked_at = 0.0
        self.ledger = Ledger(num_envs)
        self.closed = False
        self._given_up: str | None = None
        self.listening = threading.Lock()
        self._attributes: dict[str, dict[int, Any]] = {}  # set from outside, by name and row
        self._request = 0
        self._asked: list[WorkerHandle] = []
        self._answers: dict[WorkerHandle, protocol.Answer | protocol.Failure] = {}
        self._failures: list[EnvironmentFailedError] = []
        self.while_short_handed: Callable[[], None] = lambda: None
        """Called every few seconds while results are awaited and workers are missing."""

    # Workers: starting, listening, burying.

    def start(self) -> None:
        """Starts all workers and waits until they have built their environments."""
        for number in range(len(self.crew.workers)):
            self._listener.add_starting(self.crew.start(number))
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

    def wait(self, enough: Callable[[], bool]) -> None:
        """Listens to the workers until `enough()`; restarts those that die or hang.

        Raises:
            WrongCallError: the vector was closed meanwhile, from another thread.
        """
        with self.listening:
            self._wait(enough)

    def _wait(self, enough: Callable[[], bool]) -> None:
        while True:
            if self._given_up is not None:
                raise RestartBudgetError(self._given_up)
            if enough():
                return
            if self.closed:
                raise WrongCallError("close() while results were awaited; there will be none.")
            if not self.crew.all_live():
                self.while_short_handed()
            self._listener.watch_for_room(self.crew.present())
            events = self._listener.wait(self._patience())
            ended = []
            for descriptor, worker in events:
                if not self._listener.hears(worker):
                    continue  # buried earlier in this round
                if worker.has_unsent and worker.is_live:
                    self._listener.send_rest(worker)
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

    def _patience(self) -> float:
        """Seconds until some clock must be looked at."""
        patience = self._limits.patience
        if not self.crew.all_live():
            patience = min(patience, _SIGN_SECONDS)
        if None in self.crew.workers:
            now = time.monotonic()
            for number, worker in enumerate(self.crew.workers):
                if worker is None:
                    patience = min(patience, max(0.0, self._restart_at[number] - now))
        return patience

    def _check_clocks(self, now: float) -> None:
        self._clocks_checked_at = now
        crew = self.crew
        crew.see_off(now)
        for number, missing in enumerate(crew.workers):
            if missing is None and now >= self._restart_at[number]:
                self._listener.add_starting(crew.start(number))
        for worker in crew.present():
            self._check_memory(worker, now)
            reason = self._limits.overdue(
                worker,
                is_asked=worker in self._asked and worker not in self._answers,
                is_stepping=bool(self.ledger.in_flight[crew.rows_of(worker)].any()),
            )
            # Unless it has answered since we last listened.
            if reason is not None and not (worker.is_live and worker.has_entries()):
                worker.kill()
                self._bury(worker, reason)

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
            self._listener.add_starting(self.crew.start_successor(worker.number))

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
        self._listener.add_live(worker)
        for name in self._attributes:  # set with the one before it
            self._pass_on(name, worker)
        self._ask_again(worker, self.crew.rows_of(worker))

    def _lay_out(self, worker: WorkerHandle, ready: protocol.Ready) -> None:
        self.ready, self._layout_from = ready, worker.rows.start
        self.layout = protocol.Layout(
            ready.observation_space,
            ready.action_space,
            len(self.ledger.in_flight),
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
                if self.ledger.disturbed:  # a lost environment answers for itself, later
                    rows = [row for row in rows if not self.ledger.lost[row]]
                self.ledger.arrive(rows)
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
                self.ledger.arrive([first + entry])

    def _hear(self, worker: WorkerHandle, message: Any) -> None:
        match message:
            case protocol.NewInfo():
                worker.add_info(message)
            case protocol.Extras():
                of_episode = message.final_infos is not None
                where = self.ledger.finals if of_episode else self.ledger.extras
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
        self._spend(str(error))
        if self._limits.on_error == "raise":
            self._failures.append(error)
        logger.warning("%s; building environment %d anew", error, row)
        self.ledger.lose_running(row)
        started = self.ledger.resets.get(row)
        seed = started.seeds[0] if started is not None else None
        worker.send(protocol.Rebuild(failure.index, seed))
        worker.mark_progress()

    def _bury(self, worker: WorkerHandle, reason: str | None = None) -> None:
        """Notes the end of a worker, and when another takes its place."""
        if not self._listener.hears(worker):
            return
        if worker.is_live:
            while worker.has_entries():
                self._take(worker)
        reason = reason or worker.how_it_ended()
        self._listener.remove(worker)
        number = worker.number
        what = f"worker {number} (environments {worker.rows.start} to {worker.rows.stop - 1})"
        if worker.is_live and worker.activity != IDLE:
            what += f", busy with environment {worker.current_row},"
        if worker.is_live:
            self._keep_infos(worker)
        rows, heir = self.crew.remove(worker)
        if not hasattr(self, "layout"):
            raise RestartBudgetError(f"{what} {reason} while it built its environments.")
        delay = self._spend(f"{what} {reason}.")
        if heir is None:
            logger.warning("%s %s; starting it again in %.0f s", what, reason, delay)
        else:
            logger.warning("%s %s; the worker it shared them with has them now", what, reason)
        for row in rows.tolist():
            self.ledger.lose_running(row)
        self._restart_at[number] = time.monotonic() + delay
        self._memory_seen_at[number] = time.monotonic() + delay
        if heir is not None and heir.is_live:
            self._ask_again(heir, rows)

    def _spend(self, reason: str) -> float:
        """Takes a restart from the budget; returns the seconds to wait before it.

        Raises:
            RestartBudgetError: there is none left. All that waits for workers then raises it again.
        """
        try:
            return self.budget.spend(reason)
        except RestartBudgetError as error:
            self._given_up = str(error)
            raise

    def _keep_infos(self, worker: WorkerHandle) -> None:
        """Answers that wait to be collected keep their infos when the worker's memory is given to
        another."""
        ledger = self.ledger
        for row in self.crew.rows_of(worker).tolist():
            if row not in ledger.arrived or not worker.infos:
                continue
            index = row - worker.rows.start
            infos = {c.key: c.values[index].copy() for c in worker.infos if c.mask[index]}
            extras = ledger.extras.get(row, protocol.Extras(index))
            ledger.extras[row] = dataclasses.replace(extras, infos=infos | (extras.infos or {}))

    def _ask_again(self, worker: WorkerHandle, rows: np.ndarray) -> None:
        """Gives a worker what the one before it was at: a reset instead of a lost step."""
        for row in rows.tolist():
            if self.ledger.in_flight[row]:
                message = self.ledger.resets.get(row)
                index = row - worker.rows.start
                worker.send(message or protocol.Reset([index], [None], None))
        worker.mark_progress()

    # Handing out work.

    def ask_for_all_steps(self) -> None:
        """Sends all environments off with the actions already in shared memory."""
        if self.ledger.disturbed or self.crew.hands_over:
            self.ask_for_steps(np.arange(len(self.ledger.in_flight)))
            return
        self.ledger.depart_all()
        for worker in self.crew.workers:
            if worker is not None and worker.is_live:  # else `_ask_again` serves its successor
                worker.mark_progress()
                worker.push(ALL)

    def ask_for_steps(self, rows: np.ndarray) -> None:
        """Sends the environments `rows` `[B]` off with the actions already in shared memory."""
        steps, anew = self.ledger.depart(rows)
        for worker, mine in self._live_workers(steps):
            worker.push_rows(mine.tolist())
        for worker, mine in self._live_workers(anew):
            for row in mine.tolist():
                worker.send(protocol.Reset([row - worker.rows.start], [None], None))

    def _live_workers(self, rows: np.ndarray) -> Iterator[tuple[WorkerHandle, np.ndarray]]:
        """Those that run some of `rows`, to be given work; `_ask_again` serves the others."""
        for worker, mine in self.crew.by_worker(rows) if len(rows) else ():
            if worker is not None and worker.is_live and len(mine):
                worker.mark_progress()
                yield worker, mine

    def ask_for_resets(self, rows: np.ndarray, seeds: list[int | None], options: Any) -> None:
        """Resets the environments `rows` `[B]`; `seeds` has one entry for each environment of all."""
        if options:
            protocol.pickled_or_refused(options)  # before anything has changed
        self.ledger.depart_to_reset(rows)
        if self.crew.hands_over:
            self._hand_over(rows)
        for range_ in self.crew.ranges:
            for row in rows[(rows >= range_.start) & (rows < range_.stop)].tolist():
                message = protocol.Reset([row - range_.start], [seeds[row]], options)
                self.ledger.resets[row] = message
        for worker, some in self._live_workers(rows):
            mine = some.tolist()
            indices = [row - worker.rows.start for row in mine]
            worker.send(protocol.Reset(indices, [seeds[row] for row in mine], options))

    def _hand_over(self, rows: np.ndarray) -> np.ndarray:
        taken = self.crew.hand_over(rows)
        leaver = self.crew.let_go(self.ledger.quarantined)
        if leaver is not None:
            self._listener.remove(leaver)
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
            self.ledger.owe(taken)
            return
        carried = self.ledger.finals
        finals = {row: carried[row] for row in taken.tolist() if row in carried}
        self.reset_now(taken)
        carried |= finals  # of the episodes that have ended

    def reset_now(self, rows: np.ndarray) -> None:
        """Starts new episodes of `rows`, whose answers are in, and waits for them."""
        ledger = self.ledger
        self.ask_for_resets(rows, [None] * len(ledger.in_flight), None)
        self.wait(lambda: not ledger.in_flight[rows].any())
        for row in rows.tolist():
            ledger.arrived.remove(row)

    def wait_for_all(self) -> None:
        """Waits until nothing is in flight. The answers count as collected."""
        self.wait(lambda: not self.ledger.num_in_flight)
        self.ledger.arrived.clear()

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
        successor = self.crew.successor
        if successor is not None and successor.is_live:  # also to those it is yet to take over
            self._pass_on(name, successor)

    def _pass_on(self, name: str, worker: WorkerHandle) -> None:
        """Sets an attribute of all environments that a worker has built."""
        values, rows = self._attributes[name], worker.rows
        indices = [row - rows.start for row in rows if row in values]
        mine = [values[row] for row in rows if row in values]
        worker.send(protocol.Request(-1, protocol.SetAttribute(indices, name, mine)))


def _are_same(one: gymnasium.Space, other: gymnasium.Space) -> bool:
    if type(one).__eq__ is object.__eq__:  # a class of the user's that does not say
        return type(one).__name__ == type(other).__name__ and repr(one) == repr(other)
    return one == other
