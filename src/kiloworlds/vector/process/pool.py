"""The executor that runs any Gymnasium environment in parallel worker processes."""

import itertools
import os
import select
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.base import (
    VectorEnv,
    check_num_envs,
    expand_seeds,
    make_env_list,
    parse_autoreset_mode,
)
from kiloworlds.vector.faults import (
    EnvironmentFailedError,
    RestartBudget,
    RestartBudgetError,
    logger,
)
from kiloworlds.vector.infos import EpisodeStatistics, merge_infos
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.handle import WorkerHandle, pickle_setup, share
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.protocol import ALL, IDLE, MESSAGE, RESETTING

_CLOSE_TIMEOUT = 5.0


class ProcessExecutor(VectorEnv):
    """Steps environments in worker processes that share memory with the caller.

    `reset` and `step` drive all environments together. `async_reset`, `send` and `recv` drive them
    apart: `recv` returns the `batch_size` that finish first.

    A worker that dies or hangs is started again. Its environments come back truncated, with
    `infos["lost"]` True and reward 0: the last good observation is in `infos["final_obs"]`, the
    transition must not be learnt from, and the episode counts in no statistics. Other environments
    do not notice.

    Args:
        make_env: builds one environment; or one function per environment.
        num_envs: how many.
        num_workers: processes; one per available core if None, never more than `num_envs`.
        batch_size: how many results `recv` waits for; `num_envs` if None.
        ordered: `recv` returns results in the order of sending, for reproducible runs, instead of
            first finished first.
        seed: the seed of the first `reset` where that gives none.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        episode_statistics: see `CompiledVectorEnv`.
        copy: whether `step` and `reset` return observations of their own. False saves the copy: they
            are then views of shared memory, overwritten by the second next step. `recv` always
            returns its own.
        step_timeout: seconds a step may take before its worker counts as hung; None waits for ever.
        start_timeout: the same for building and resetting environments.
        max_restarts: restarts allowed in 10 minutes before giving up.
        on_error: "raise" hands an exception inside an environment to the caller, as
            EnvironmentFailedError; "restart" builds that environment anew, its episode lost. Either
            way the vector stays usable.

    Raises:
        EnvironmentFailedError: a constructor failed.
        InvalidValueError: environments with differing spaces, a function that cannot be pickled, or
            a value out of range.
    """

    backend = "process"

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env] | Sequence[Callable[[], gymnasium.Env]],
        num_envs: int,
        *,
        num_workers: int | None = None,
        batch_size: int | None = None,
        ordered: bool = False,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        episode_statistics: bool = True,
        copy: bool = True,
        step_timeout: float | None = 60.0,
        start_timeout: float | None = 120.0,
        max_restarts: int = 10,
        on_error: str = "raise",
    ):
        if not hasattr(os, "pidfd_open"):
            raise InvalidValueError("backend='process' needs Linux 5.3 or newer; use 'sync'.")
        for name, limit in (("step_timeout", step_timeout), ("start_timeout", start_timeout)):
            if limit is not None and not (isinstance(limit, int | float) and limit > 0):
                raise InvalidValueError(f"{name}={limit!r} must be seconds above 0, or None.")
        num_envs = check_num_envs(num_envs)
        make_envs = make_env_list(make_env, num_envs)
        if on_error not in ("raise", "restart"):
            raise InvalidValueError(f"on_error={on_error!r} is not 'raise' or 'restart'.")
        mode = parse_autoreset_mode(autoreset_mode)
        if num_workers is None:
            num_workers = min(available_cores(), num_envs)
        num_workers = _check_count("num_workers", num_workers, num_envs)
        self.batch_size = _check_count(
            "batch_size", num_envs if batch_size is None else batch_size, num_envs
        )
        self.num_workers = num_workers
        self._ordered, self._copy, self._on_error = ordered, copy, on_error
        self._step_timeout, self._start_timeout = step_timeout, start_timeout
        self._first_seed = None if seed is None else expand_seeds(seed, num_envs)
        self._budget = RestartBudget(max_restarts)
        self.lost_episodes = 0
        """Episodes lost so far, to dead workers and failed environments."""

        ranges = share(num_envs, num_workers)
        self._setups = [
            pickle_setup(
                protocol.Setup(tuple(make_envs[rows.start : rows.stop]), rows.start, mode.name)
            )
            for rows in ranges
        ]
        self._ranges = ranges
        self._workers: list[WorkerHandle | None] = [None] * num_workers
        self._restart_at = [0.0] * num_workers
        self._poll = select.poll()
        self._by_descriptor: dict[int, WorkerHandle] = {}
        self._memory: SharedArrays | None = None
        self._answers: list[protocol.Answer | protocol.Failure] = []
        self._failures: list[EnvironmentFailedError] = []
        self._extras: dict[int, protocol.Extras] = {}
        self._arrived: deque[int] = deque()
        self._order: deque[int] = deque()
        self._in_flight = np.zeros(num_envs, bool)
        self._resets: dict[int, protocol.Reset] = {}  # in flight
        # In flight, its episode lost: what comes back is the start of another.
        self._lost = np.zeros(num_envs, bool)
        # Its worker holds no running episode: the next step must be a reset.
        self._stale = np.zeros(num_envs, bool)
        # Stale because a lost episode was reported as ended, and this mode resets one step later.
        self._owed = np.zeros(num_envs, bool)
        self._loose_observations: list[Any] = [None] * num_envs
        self._shared: list[SharedArrays] = []
        self._finalizer = weakref.finalize(self, _stop_all, self._workers, self._shared)
        self.closed = False
        try:
            for number in range(num_workers):
                self._start(number)
            self._wait(self._all_live)
        except BaseException:
            self._finalizer()
            raise
        layout = self._layout
        assert layout is not None
        self._describe(
            num_envs, layout.observation_space, layout.action_space, mode, self._ready.metadata
        )
        self.render_mode, self.spec = self._ready.render_mode, self._ready.spec
        self._reports_episodes = episode_statistics
        self._episodes = EpisodeStatistics(num_envs)
        self._finished = np.zeros(num_envs, bool)

    # Workers: starting, listening, burying.

    _layout: protocol.Layout | None = None

    def _start(self, number: int) -> None:
        worker = WorkerHandle(number, self._setups[number], self._ranges[number])
        self._workers[number] = worker
        for descriptor in (worker.control.fileno(), worker.ended_fd):
            self._poll.register(descriptor, select.POLLIN)
            self._by_descriptor[descriptor] = worker

    def _wait(self, enough: Callable[[], bool]) -> None:
        """Listens to the workers until `enough()`; restarts those that die or hang."""
        while not enough():
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
                self._bury(worker)
            self._check_clocks()

    def _patience(self) -> float:
        """Seconds until some clock must be looked at."""
        now = time.monotonic()
        times = [1.0]
        for number, worker in enumerate(self._workers):
            if worker is None:
                times.append(max(0.0, self._restart_at[number] - now))
        limits = [limit for limit in (self._step_timeout, self._start_timeout) if limit]
        return min(times + [limit / 4 for limit in limits])

    def _check_clocks(self) -> None:
        now = time.monotonic()
        for number, worker in enumerate(self._workers):
            if worker is None:
                if now >= self._restart_at[number]:
                    self._start(number)
                continue
            silent = worker.seconds_without_progress()
            if not worker.is_live:
                self._check_clock(worker, silent, self._start_timeout, "start_timeout", "starting")
            elif self._in_flight[worker.rows.start : worker.rows.stop].any():
                if worker.activity == RESETTING:
                    self._check_clock(
                        worker, silent, self._start_timeout, "start_timeout", "a reset"
                    )
                else:  # idle means that it has not begun what it was given
                    self._check_clock(worker, silent, self._step_timeout, "step_timeout", "a step")

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
        self._ready: protocol.Ready = message
        if self._layout is None:
            self._layout = protocol.Layout(
                message.observation_space,
                message.action_space,
                len(self._in_flight),
                len(self._workers),
                max(map(len, self._ranges)),
            )
            self._layout_from = worker.rows.start
            self._memory = SharedArrays(self._layout.specs())
            self._shared.append(self._memory)
            self._open_memory()
        for name in ("observation_space", "action_space"):
            ours, others = getattr(message, name), getattr(self._layout, name)
            if ours != others:
                (one, first), (two, second) = sorted(
                    [(self._layout_from, others), (worker.rows.start, ours)],
                    key=lambda pair: pair[0],
                )
                raise InvalidValueError(
                    f"environment {two} has the {name} {second}, environment {one} has {first}; all "
                    "environments of a vector must have the same."
                )
        assert self._memory is not None
        worker.attach(self._layout, self._memory)
        self._poll.unregister(worker.control.fileno())
        del self._by_descriptor[worker.control.fileno()]
        self._poll.register(worker.outbox.read_fd, select.POLLIN)
        self._by_descriptor[worker.outbox.read_fd] = worker
        self._ask_again(worker)

    def _open_memory(self) -> None:
        layout, memory = self._layout, self._memory
        assert layout is not None
        assert memory is not None
        self._observation_codec, self._action_codec = layout.observations, layout.actions
        self._action_arrays, self._final_arrays = (
            memory.numbered("action"),
            memory.numbered("final"),
        )
        self._observation_arrays = (
            memory.numbered("observation0_"),
            memory.numbered("observation1_"),
        )
        self._parity = memory["parity"]

    def _take(self, worker: WorkerHandle) -> None:
        """Reads what a live worker has posted."""
        worker.mark_progress()
        first = worker.rows.start
        for entry in worker.take():
            if entry == ALL:
                rows = np.arange(first, worker.rows.stop)
                self._arrive(rows[~self._lost[first : worker.rows.stop]].tolist())
            elif entry == MESSAGE:
                try:
                    self._hear(worker, worker.control.recv())
                except (EOFError, OSError):
                    return  # it died while it spoke; its end will be noticed
            else:
                self._arrive([first + entry])

    def _arrive(self, rows: list[int]) -> None:
        for row in rows:
            self._in_flight[row] = False
            self._resets.pop(row, None)
        self._arrived.extend(rows)

    def _hear(self, worker: WorkerHandle, message: Any) -> None:
        match message:
            case protocol.NewInfo():
                worker.slots[message.slot] = (message.key, message.kind)
            case protocol.Extras():
                self._extras[worker.rows.start + message.index] = message
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
        self._budget.spend(str(error))
        if self._on_error == "raise":
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
        if not self._in_flight[row]:
            self._stale[row] = True
        elif not self._lost[row]:
            self._lost[row] = True
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
            if self._by_descriptor.pop(descriptor, None) is not None:
                self._poll.unregister(descriptor)
        number = worker.number
        self._workers[number] = None
        what = f"worker {number} (environments {worker.rows.start} to {worker.rows.stop - 1})"
        if worker.is_live and worker.activity != IDLE:
            what += f", busy with environment {worker.current_row},"
        worker.free()
        if self._layout is None:
            raise RestartBudgetError(f"{what} {reason} while it built its environments.")
        delay = self._budget.spend(f"{what} {reason}.")
        logger.warning("%s %s; starting it again in %.0f s", what, reason, delay)
        for row in worker.rows:
            self._lose(row)
        self._restart_at[number] = time.monotonic() + delay

    def _ask_again(self, worker: WorkerHandle) -> None:
        """Gives a restarted worker what its predecessor was at: a reset instead of a lost step."""
        for row in worker.rows:
            if self._in_flight[row]:
                message = self._resets.get(row)
                index = row - worker.rows.start
                worker.send(message or protocol.Reset([index], [None], None))
        worker.mark_progress()

    # Asking for steps and resets.

    def _ask_for_steps(self, rows: np.ndarray) -> None:
        """Sends environments off with the actions already in shared memory."""
        self._in_flight[rows] = True
        stale = self._stale[rows].any()
        if stale:
            gone = rows[self._stale[rows] & ~self._owed[rows]]
            self._lost[gone] = True
            self.lost_episodes += len(gone)
        everything = len(rows) == self.num_envs and not stale
        for worker, share_ in zip(self._workers, self._ranges, strict=True):
            if worker is None or not worker.is_live:
                continue  # `_ask_again` serves these when its successor is ready
            worker.mark_progress()
            if everything:
                worker.push(ALL)
                continue
            mine = rows[(rows >= share_.start) & (rows < share_.stop)]
            steps = mine[~self._stale[mine]].tolist()
            if steps:
                worker.push_rows(steps)
            for row in mine[self._stale[mine]].tolist():
                worker.send(protocol.Reset([row - share_.start], [None], None))
        self._stale[rows] = self._owed[rows] = False

    def _ask_for_resets(self, rows: np.ndarray, seeds: list[int | None], options: Any) -> None:
        self._lost[rows] = self._stale[rows] = self._owed[rows] = False
        self._in_flight[rows] = True
        for worker, share_ in zip(self._workers, self._ranges, strict=True):
            mine = rows[(rows >= share_.start) & (rows < share_.stop)].tolist()
            for row in mine:
                index = row - share_.start
                self._resets[row] = protocol.Reset([index], [seeds[row]], options)
            if mine and worker is not None and worker.is_live:
                worker.mark_progress()
                indices = [row - share_.start for row in mine]
                worker.send(protocol.Reset(indices, [seeds[row] for row in mine], options))

    def _check_nothing_in_flight(self, call: str) -> None:
        self._check_open(call)
        if self._in_flight.any() or self._arrived:
            raise WrongCallError(
                f"{call}() while {int(self._in_flight.sum()) + len(self._arrived)} results are "
                "pending; recv() them first."
            )

    def _raise_failures(self) -> None:
        if self._failures:
            failures, self._failures = self._failures, []
            raise failures[0]

    # The synchronous interface.

    def reset(
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts all environments over, or those in `options["reset_mask"]` (boolean `[N]`)."""
        self._check_nothing_in_flight("reset")
        mask, options = self._check_reset(seed, options)
        if mask is None:
            mask = np.ones(self.num_envs, bool)
        self._flip(~mask)
        rows = np.nonzero(mask)[0]
        self._ask_for_resets(rows, self._seeds(seed), options or None)
        self._wait_for_all()
        self._was_reset = True
        self._finished[mask] = False
        self._episodes.begin(mask)
        infos = self._infos(rows, rows, self.num_envs)
        return self._observations(), infos

    def _seeds(self, seed: Any) -> list[int | None]:
        if seed is None and not self._was_reset:
            seed = self._first_seed
        return [None] * self.num_envs if seed is None else list(expand_seeds(seed, self.num_envs))

    def _flip(self, kept: np.ndarray) -> None:
        """Turns to the other copy of the observations; those of `kept` environments come along."""
        old = int(self._parity[0])
        if self._observation_codec is not None and kept.any():
            rows = np.nonzero(kept)[0]
            for before, after in zip(
                self._observation_arrays[old], self._observation_arrays[1 - old], strict=True
            ):
                after[rows] = before[rows]
        self._parity[:] = 1 - old

    def _wait_for_all(self) -> None:
        self._wait(lambda: not self._in_flight.any())
        self._arrived.clear()
        if self._failures:  # the caller gets no results to be marked as lost
            self._episodes.begin(self._lost)
            self._lost[:] = False
        self._raise_failures()

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; see `gymnasium.vector.VectorEnv.step`."""
        self._check_steppable()
        self._check_nothing_in_flight("step")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._finished.any():
            raise self._needs_reset(int(np.argmax(self._finished)))
        actions = self._check_actions(actions)
        rows = np.arange(self.num_envs)
        self._write_actions(rows, actions)
        self._parity[:] = 1 - int(self._parity[0])
        self._ask_for_steps(rows)
        self._wait_for_all()
        rewards, terminated, truncated, infos = self._results(rows)
        return self._observations(), rewards, terminated, truncated, infos

    def _write_actions(self, rows: np.ndarray, actions: Any) -> None:
        if self._action_codec is not None:
            self._action_codec.write_batch(self._action_arrays, rows, actions)
            return
        for worker, share_ in zip(self._workers, self._ranges, strict=True):
            by_index = {
                int(row) - share_.start: actions[position]
                for position, row in enumerate(rows)
                if share_.start <= row < share_.stop
            }
            if by_index and worker is not None and worker.is_live:
                worker.send(protocol.Actions(by_index))

    def _observations(self) -> Any:
        """The batch of the last step."""
        if self._observation_codec is None:
            return tuple(self._loose_observations)
        batch = self._observation_codec.batch(self._observation_arrays[int(self._parity[0])])
        return _copied(batch) if self._copy else batch

    def _results(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
        """Rewards, flags and infos of environments that have answered, in the order of `rows`."""
        memory = self._memory
        assert memory is not None
        rewards = memory["rewards"][rows]
        terminated, truncated = memory["terminated"][rows], memory["truncated"][rows]
        lost = self._lost[rows]
        was_over = self._finished[rows] & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        self._episodes.begin(rows[was_over])
        self._episodes.returns[rows] += rewards
        self._episodes.lengths[rows] += ~was_over
        truncated |= lost
        finished = terminated | truncated
        infos = self._infos(rows, np.arange(len(rows)), len(rows))
        counted = finished & ~lost
        if lost.any():
            self._add_lost(infos, rows, lost)
            if self.autoreset_mode != AutoresetMode.SAME_STEP:
                self._put_back(rows[lost])
        if counted.any() and self._reports_episodes:
            infos |= self._episodes.infos(counted, rows)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._episodes.begin(rows[finished])
        self._finished[rows] = finished
        self._lost[rows] = False
        return rewards, terminated, truncated, infos

    def _add_lost(self, infos: dict[str, Any], rows: np.ndarray, lost: np.ndarray) -> None:
        infos["lost"], infos["_lost"] = lost.copy(), lost.copy()
        finals = infos.setdefault("final_obs", np.full(len(rows), None, dtype=object))
        mask = infos.setdefault("_final_obs", np.zeros(len(rows), bool))
        for position in np.nonzero(lost)[0].tolist():
            row = int(rows[position])
            if self._observation_codec is not None:
                before = self._observation_arrays[1 - int(self._parity[row])]
                finals[position] = self._observation_codec.value(before, row)
            mask[position] = True

    def _put_back(self, rows: np.ndarray) -> None:
        """Gives the last good observation of lost episodes, where a reset is to come later."""
        self._stale[rows] = self._owed[rows] = True
        for row in rows.tolist():
            new = int(self._parity[row])
            for before, after in zip(
                self._observation_arrays[1 - new], self._observation_arrays[new], strict=True
            ):
                after[row] = before[row]

    def _infos(self, rows: np.ndarray, positions: np.ndarray, size: int) -> dict[str, Any]:
        """Infos of `rows`, each at its position in a batch of `size`."""
        infos: dict[str, Any] = {}
        assert self._memory is not None
        values, masks = self._memory["info_values"], self._memory["info_mask"]
        for worker, share_ in zip(self._workers, self._ranges, strict=True):
            if worker is None or not worker.slots:
                continue
            chosen = (rows >= share_.start) & (rows < share_.stop)
            mine, places = rows[chosen], positions[chosen]
            for slot, (key, kind) in worker.slots.items():
                present = masks[slot, mine]
                if present.any():
                    dtype = {"b": np.dtype(bool), "i": np.dtype(int), "f": np.dtype(float)}[kind]
                    column = infos.setdefault(key, np.zeros(size, dtype))
                    if column.dtype != dtype:
                        column = infos[key] = column.astype(np.result_type(column.dtype, dtype))
                    column[places[present]] = values[slot, mine[present]]
                    infos.setdefault(f"_{key}", np.zeros(size, bool))[places[present]] = True
        if self._extras:
            place_of = dict(zip(rows.tolist(), positions.tolist(), strict=True))
            for row in [row for row in self._extras if row in place_of]:
                self._merge_extras(infos, row, place_of[row], size)
        return infos

    def _merge_extras(self, infos: dict[str, Any], row: int, position: int, size: int) -> None:
        extras = self._extras.pop(row)
        if extras.final_infos is not None:
            final = extras.final_observation
            if self._observation_codec is not None:
                final = self._observation_codec.value(self._final_arrays, row)
            finals = infos.setdefault("final_obs", np.full(size, None, dtype=object))
            finals[position] = final
            infos.setdefault("_final_obs", np.zeros(size, bool))[position] = True
            merge_infos(infos, {"final_info": extras.final_infos}, position, size)
        if extras.infos:
            merge_infos(infos, extras.infos, position, size)
        if self._observation_codec is None:
            self._loose_observations[row] = extras.observation

    # The asynchronous interface.

    def async_reset(self, seed: int | list[int] | None = None) -> None:
        """Starts all environments over; `recv` then gives their first observations."""
        self._check_nothing_in_flight("async_reset")
        rows = np.arange(self.num_envs)
        self._was_reset, seeds = True, self._seeds(seed)
        self._finished[:] = False
        self._episodes.begin(rows)
        self._parity[:] = 1 - int(self._parity[0])
        self._ask_for_resets(rows, seeds, None)
        self._order.extend(rows.tolist())

    def send(self, actions: Any, env_ids: Any) -> None:
        """Sends actions `[B, ...]` to the environments `env_ids` `[B]` and returns at once.

        Raises:
            InvalidValueError: wrong shapes or numbers.
            WrongCallError: an environment still has a result pending.
        """
        self._check_steppable()
        rows = self._check_env_ids(env_ids)
        actions = self._check_actions(actions, len(rows))
        self._write_actions(rows, actions)
        self._parity[rows] ^= 1
        self._ask_for_steps(rows)
        self._order.extend(rows.tolist())

    def _check_env_ids(self, env_ids: Any) -> np.ndarray:
        rows = np.asarray(env_ids)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise InvalidValueError(f"env_ids must be environment numbers [B], not {env_ids!r}.")
        rows = rows.astype(int)
        if rows.min() < 0 or rows.max() >= self.num_envs:
            wrong = rows[(rows < 0) | (rows >= self.num_envs)][0]
            raise InvalidValueError(f"env_ids holds {wrong}; there are 0 to {self.num_envs - 1}.")
        if len(np.unique(rows)) < len(rows):
            raise InvalidValueError("env_ids names an environment twice.")
        pending = set(rows[self._in_flight[rows]].tolist()) | (
            set(rows.tolist()) & set(self._arrived)
        )
        if pending:
            raise WrongCallError(
                f"send() to environment {min(pending)}, which still works on its last action; "
                "recv() its result first."
            )
        return rows

    def recv(self) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Waits for `batch_size` results; `infos["env_id"]` `[B]` says whose they are.

        Raises:
            WrongCallError: fewer results are pending than `batch_size`, so it would wait for ever.
        """
        self._check_open("recv")
        pending = int(self._in_flight.sum()) + len(self._arrived)
        if pending < self.batch_size:
            raise WrongCallError(
                f"recv() waits for batch_size={self.batch_size} results, but {pending} are "
                "pending; call async_reset() or send() first."
            )
        if self._ordered:
            wanted = list(itertools.islice(self._order, self.batch_size))
            self._wait(lambda: not self._in_flight[wanted].any())
        else:
            self._wait(lambda: len(self._arrived) >= self.batch_size)
            wanted = list(itertools.islice(self._arrived, self.batch_size))
        self._raise_failures()  # the results stay: the next call gives them
        for row in wanted:
            self._arrived.remove(row)
            self._order.remove(row)
        rows = np.asarray(wanted)
        rewards, terminated, truncated, infos = self._results(rows)
        infos["env_id"] = rows
        return self._gather(rows), rewards, terminated, truncated, infos

    def _gather(self, rows: np.ndarray) -> Any:
        codec = self._observation_codec
        if codec is None:
            return tuple(self._loose_observations[row] for row in rows)
        parity = self._parity[rows].astype(bool)
        zero, one = self._observation_arrays
        return codec.batch(
            [
                np.where(parity.reshape(-1, *[1] * (a.ndim - 1)), b[rows], a[rows])
                for a, b in zip(zero, one, strict=True)
            ]
        )

    # Everything else.

    def _call_all(self, message: Callable[[list[int], range], Any], call: str) -> tuple[Any, ...]:
        self._check_nothing_in_flight(call)
        values: list[Any] = []
        self._wait(self._all_live)
        for worker in list(self._workers):
            assert worker is not None
            values.extend(
                self._ask(worker, message(list(range(len(worker.rows))), worker.rows), call)
            )
        return tuple(values)

    def _ask(self, worker: WorkerHandle, message: Any, call: str) -> list[Any]:
        worker.send(message)
        self._wait(lambda: bool(self._answers) or worker not in self._workers)
        if not self._answers:
            raise WrongCallError(f"worker {worker.number} died in {call}; see the log.")
        answer = self._answers.pop()
        if isinstance(answer, protocol.Failure):
            raise self._error(worker, answer)
        return answer.values

    def _all_live(self) -> bool:
        return all(worker is not None and worker.is_live for worker in self._workers)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method (or reads an attribute) of every environment."""
        return self._call_all(
            lambda indices, _: protocol.Call(indices, name, args, kwargs), f"call({name!r})"
        )

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Reads an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every environment, one value for all or a list or tuple."""
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise InvalidValueError(f"{len(values)} values for {self.num_envs} environments.")
        self._call_all(
            lambda indices, rows: protocol.SetAttribute(
                indices, name, list(values[rows.start : rows.stop])
            ),
            f"set_attr({name!r})",
        )

    def render(self) -> tuple[Any, ...]:
        """The frames of all environments."""
        return self._call_all(lambda indices, _: protocol.Render(indices), "render")

    @property
    def worker_pids(self) -> list[int | None]:
        """Process ids of the workers; None for one that is being restarted."""
        return [worker.process.pid if worker else None for worker in self._workers]

    @property
    def restarts(self) -> int:
        """Restarts of workers and environments so far."""
        return self._budget.spent

    def close_extras(self, **kwargs: Any) -> None:
        self._finalizer()


def _stop_all(workers: list[WorkerHandle | None], shared: list[SharedArrays]) -> None:
    for memory in shared:
        memory.close()
    for worker in workers:
        if worker is not None and worker.is_live:
            worker.send(protocol.Close())  # to all first: they close side by side
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    for number, worker in enumerate(workers):
        workers[number] = None
        if worker is not None:
            worker.stop(max(0.1, deadline - time.monotonic()))


def _copied(batch: Any) -> Any:
    match batch:
        case np.ndarray():
            return batch.copy()
        case dict():
            return {key: _copied(part) for key, part in batch.items()}
        case tuple():
            return tuple(map(_copied, batch))
    return batch


def _check_count(name: str, value: Any, num_envs: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidValueError(f"{name}={value!r} must be a whole number of 1 or more.")
    if value > num_envs:
        raise InvalidValueError(
            f"{name}={value} is more than num_envs={num_envs}; the nearest valid value is "
            f"{num_envs}."
        )
    return int(value)
