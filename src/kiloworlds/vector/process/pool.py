"""The executor that runs any Gymnasium environment in parallel workers."""

import errno
import functools
import itertools
import os
import resource
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import iterate

from kiloworlds.core.checks import require_choice, require_count, require_flag
from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import InvalidValueError, StateUnavailableError, WrongCallError
from kiloworlds.vector.base import (
    VectorEnv,
    choose_batch_size,
    choose_workers,
    expand_seeds,
    make_env_list,
    parse_autoreset_mode,
)
from kiloworlds.vector.env_state import pack, unpack
from kiloworlds.vector.faults import (
    EnvironmentFailedError,
    RestartBudget,
    Sparingly,
    logger,
)
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.child import ProcessWorker
from kiloworlds.vector.process.handle import WorkerHandle
from kiloworlds.vector.process.limits import Limits
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.results import Results
from kiloworlds.vector.process.supervisor import Supervisor

_CLOSE_TIMEOUT = 5.0

_MAX_STARTS = 5
"""How often an episode that begins with NaN or Inf is started over before that is an error."""

_NONFINITE_POLICIES = ("mask", "raise", "quarantine", "ignore")


class PoolExecutor(VectorEnv):
    """Steps environments in workers that share memory with the caller.

    `reset` and `step` drive all environments together. `async_reset`, `send` and `recv` drive them
    apart: `recv` returns the `batch_size` that finish first.

    A worker that dies or hangs is started again. Its environments come back truncated, with
    `infos["lost"]` True and reward 0: the last good observation is in `infos["final_obs"]`, the
    transition must not be learnt from, and the episode counts in no statistics. Other environments
    do not notice.

    Args:
        make_env: builds one environment; or one function per environment.
        num_envs: how many.
        num_workers: how many workers; one per available core if None, never more than `num_envs`.
        batch_size: how many results `recv` waits for; `num_envs` if None.
        ordered: `recv` returns results in the order of sending, for reproducible runs, instead of
            first finished first.
        seed: the seed of the first `reset` where that gives none.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        episode_statistics: whether infos report "episode" at each end; "environment" takes what the
            environments report themselves, such as whole games whose parts are episodes.
        copy: whether `step` and `reset` return observations of their own. False saves the copy: they
            are then views of shared memory, overwritten by the second next step. `recv` always
            returns its own.
        step_timeout: seconds a step may take before its worker counts as hung; None waits for ever.
        start_timeout: the same for building and resetting environments.
        max_restarts: restarts allowed in 10 minutes before giving up.
        max_worker_memory: bytes a worker process may hold (of its own: shared memory and libraries
            do not count); None for no limit. Above it another worker takes over each environment when
            its episode ends, and the first one leaves when it has none left: nothing is lost.
        on_error: "raise" hands an exception inside an environment to the caller, as
            EnvironmentFailedError; "restart" builds that environment anew, its episode lost. Either
            way the vector stays usable.
        on_nonfinite: what to do about NaN or Inf in a reward or an observation: "mask" loses the
            episode and starts another, "raise" raises EnvironmentFailedError, "quarantine" takes
            the environment out for good (its steps come back lost), "ignore" hands it on.

    Raises:
        EnvironmentFailedError: a constructor failed.
        InvalidValueError: environments with differing spaces, a function that cannot be pickled, or
            a value out of range.
    """

    _workers_own_memory = True

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
        episode_statistics: bool | Literal["environment"] = True,
        copy: bool = True,
        step_timeout: float | None = 60.0,
        start_timeout: float | None = 120.0,
        max_restarts: int = 10,
        max_worker_memory: float | None = None,
        on_error: str = "raise",
        on_nonfinite: str = "mask",
    ):
        if not hasattr(os, "pidfd_open"):
            raise InvalidValueError(
                f"backend={self.backend!r} needs Linux 5.3 or newer; use 'sync'."
            )
        if max_worker_memory is not None and not self._workers_own_memory:
            raise InvalidValueError(
                f"max_worker_memory={max_worker_memory!r}: the threads of backend={self.backend!r} "
                "share this process's memory; backend='process' can replace workers."
            )
        require_flag("ordered", ordered)
        require_flag("copy", copy)
        require_flag("episode_statistics", episode_statistics, "environment")
        num_envs = require_count("num_envs", num_envs)
        make_envs = make_env_list(make_env, num_envs)
        mode = parse_autoreset_mode(autoreset_mode)
        require_choice("on_nonfinite", on_nonfinite, _NONFINITE_POLICIES)
        self.num_workers = choose_workers(num_workers, num_envs)
        self.batch_size = choose_batch_size(batch_size, num_envs)
        self._ordered, self._copy, self._on_nonfinite = ordered, copy, on_nonfinite
        self._first_seed = None if seed is None else expand_seeds(seed, num_envs)
        self._tells_nonfinite = Sparingly()
        self._order: list[int] = []
        self._all = np.arange(num_envs)
        self.closed = False
        supervisor = Supervisor(
            make_envs,
            self.num_workers,
            mode.name,
            # No bound method: a supervisor that knows its vector would keep it from being collected.
            functools.partial(self._hire, num_workers=self.num_workers),
            Limits(step_timeout, start_timeout, on_error, max_worker_memory),
            RestartBudget(max_restarts),
        )
        self._supervisor = supervisor
        self._finalizer = weakref.finalize(self, _stop_all, supervisor, os.getpid())
        try:
            supervisor.start()
        except BaseException:
            self._finalizer()
            raise
        layout, ready, memory = supervisor.layout, supervisor.ready, supervisor.memory
        self._describe(
            num_envs, layout.observation_space, layout.action_space, mode, ready.metadata
        )
        self.render_mode, self.spec = ready.render_mode, ready.spec
        self._action_codec = layout.actions
        self._action_arrays = memory.numbered("action")
        self._results = Results(supervisor, mode, episode_statistics)

    @staticmethod
    @abstractmethod
    def _hire(number: int, setup: protocol.Setup, rows: range, num_workers: int) -> WorkerHandle:
        """Starts worker `number` of `num_workers`."""

    def while_short_handed(self, call: Callable[[], None]) -> None:
        """Has something called every few seconds while results are awaited and workers are missing.

        Args:
            call: must not hold the vector: it would never be collected.
        """
        self._supervisor.while_short_handed = call

    # The synchronous interface.

    def reset(
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts all environments over, or those in `options["reset_mask"]` (boolean `[N]`)."""
        self._check_nothing_pending("reset")
        mask, options = self._check_reset(seed, options)
        if mask is None:
            mask = np.ones(self.num_envs, bool)
        self._results.turn_together(~mask)
        rows = np.nonzero(mask)[0]
        self._supervisor.ask_for_resets(rows, self._seeds(seed), options or None)
        self._supervisor.wait_for_all()
        self._check_starts(rows)
        self._results.begin(mask)
        infos: dict[str, Any] = {}
        self._results.add_infos(infos, rows, rows, self.num_envs)
        self._supervisor.ledger.settle(rows)
        self._supervisor.raise_failures()
        self._was_reset = True
        return self._results.observations(self._copy), infos

    def _seeds(self, seed: Any) -> list[int | None]:
        if seed is None and not self._was_reset:
            seed = self._first_seed
        return [None] * self.num_envs if seed is None else list(expand_seeds(seed, self.num_envs))

    def _check_starts(self, rows: np.ndarray) -> None:
        """Starts episodes that begin with NaN or Inf over, a few times."""
        if self._on_nonfinite == "ignore":
            return
        bad = self._results.find_nonfinite_starts(rows)
        for _ in range(0 if self._on_nonfinite == "raise" else _MAX_STARTS):
            if not len(bad):
                return
            logger.warning("environment %d starts with NaN or Inf in its observation", bad[0])
            self._supervisor.reset_now(bad)
            bad = self._results.find_nonfinite_starts(bad)
        if len(bad):
            what = "NaN or Inf in its observation (see on_nonfinite)"
            raise EnvironmentFailedError(int(bad[0]), "reset", "", what, "")

    def _check_nothing_pending(self, call: str) -> None:
        self._check_open(call)
        if self._supervisor.ledger.pending:
            raise WrongCallError(
                f"{call}() while {self._supervisor.ledger.pending} results are pending; "
                "recv() them first."
            )

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; see `gymnasium.vector.VectorEnv.step`."""
        self._check_steppable()
        self._check_nothing_pending("step")
        finished = self._results.finished
        if self.autoreset_mode == AutoresetMode.DISABLED and finished.any():
            raise self._needs_reset(int(np.argmax(finished)))
        actions = self._check_actions(actions)
        self._write_actions(slice(None), actions)
        self._results.turn()
        self._supervisor.ask_for_all_steps()
        self._supervisor.wait_for_all()
        error = self._check_finite(None)
        rewards, terminated, truncated, infos = self._results.collect(None)
        # Only now: what the others have answered is on record, though nobody sees it.
        self._supervisor.raise_failures()
        if error is not None:
            raise error
        return self._results.observations(self._copy), rewards, terminated, truncated, infos

    def _write_actions(self, rows: Any, actions: Any) -> None:
        if self._action_codec is not None:
            self._action_codec.write_batch(self._action_arrays, rows, actions)
            return
        numbers = self._all[rows].tolist()
        given = dict(zip(numbers, _single_actions(self.action_space, actions), strict=True))
        for worker, mine in self._supervisor.crew.by_worker(self._all[rows]):
            if worker is not None and worker.is_live and len(mine):
                first = worker.rows.start
                worker.send(protocol.Actions({row - first: given[row] for row in mine.tolist()}))

    def _check_finite(self, rows: np.ndarray | None) -> EnvironmentFailedError | None:
        """Applies the policy for NaN and Inf to answers that are about to be delivered; None: all.

        Returns:
            What is to be raised, if anything.
        """
        if self._on_nonfinite == "ignore":
            return None
        bad, what = self._results.find_nonfinite(rows)
        if not len(bad):
            return None
        for row in bad.tolist():
            if self._tells_nonfinite():
                logger.warning(
                    "environment %d gave NaN or Inf in %s (see on_nonfinite=%r; %d so far)",
                    row,
                    what,
                    self._on_nonfinite,
                    self._tells_nonfinite.count,
                )
        self._results.clear_rewards(bad)
        if self._on_nonfinite == "quarantine":
            self._results.put_back(bad)
            self._supervisor.ledger.quarantine(bad)
            return None
        ledger = self._supervisor.ledger
        ledger.lose(bad)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            try:
                self._supervisor.reset_now(bad)
                self._check_starts(bad)
            except EnvironmentFailedError as error:
                return error
            finally:
                ledger.lost[bad] = True  # until the caller knows; resets clear it
        else:
            self._results.put_back(bad)  # else the next call would find the same again
        if self._on_nonfinite == "raise":
            return EnvironmentFailedError(int(bad[0]), "step", "", f"NaN or Inf in {what}", "")
        return None

    # The asynchronous interface.

    def async_reset(self, seed: int | list[int] | None = None) -> None:
        """Starts all environments over; `recv` then gives their first observations."""
        self._check_nothing_pending("async_reset")
        seeds = self._seeds(seed)
        self._was_reset = True
        self._results.begin(slice(None), to_come=True)
        self._results.turn()
        self._supervisor.ask_for_resets(self._all, seeds, None)
        if self._ordered:
            self._order.extend(self._all.tolist())

    def send(self, actions: Any, env_ids: Any) -> None:
        """Sends actions `[B, ...]` to the environments `env_ids` `[B]` and returns at once.

        Raises:
            InvalidValueError: wrong shapes or numbers.
            WrongCallError: an environment still has a result pending.
        """
        self._check_steppable()
        rows = self._check_env_ids(env_ids)
        over = self._results.finished[rows]
        if self.autoreset_mode == AutoresetMode.DISABLED and over.any():
            raise self._needs_reset(int(rows[np.argmax(over)]))
        actions = self._check_actions(actions, len(rows), rows)
        self._write_actions(rows, actions)
        self._results.turn(rows)
        self._supervisor.ask_for_steps(rows)
        if self._ordered:
            self._order.extend(rows.tolist())

    def _check_env_ids(self, env_ids: Any) -> np.ndarray:
        rows = self._check_rows(env_ids)
        pending = set(rows[self._supervisor.ledger.in_flight[rows]].tolist())
        if self._supervisor.ledger.arrived:
            pending |= set(rows.tolist()) & set(self._supervisor.ledger.arrived)
        if pending:
            raise WrongCallError(
                f"send() to environment {min(pending)}, which still works on its last action; "
                "recv() its result first."
            )
        return rows

    def recv(
        self, batch_size: int | None = None, env_ids: Any = None
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Waits for `batch_size` results; `infos["env_id"]` `[B]` says whose they are.

        Args:
            batch_size: another number than the vector's, this time.
            env_ids: whose results it waits for, and returns in that order, in place of those that come
                first.

        Raises:
            InvalidValueError: `env_ids` names no environment, or one twice.
            WrongCallError: fewer results are pending than that, so it would wait for ever.
        """
        self._check_open("recv")
        supervisor, ledger = self._supervisor, self._supervisor.ledger
        wanted: list[int] = []
        if env_ids is not None:
            rows = self._check_rows(env_ids)
            wanted = rows.tolist()
            pending = ledger.in_flight[rows] | np.isin(rows, list(ledger.arrived))
            if not pending.all():
                raise WrongCallError(
                    f"recv() waits for environment {rows[~pending][0]}, which has no result pending; "
                    "send() it an action first."
                )
            batch_size = len(rows)
        elif batch_size is None:
            batch_size = self.batch_size
        else:
            batch_size = require_count("batch_size", batch_size, self.num_envs, "num_envs")
        if ledger.pending < batch_size:
            raise WrongCallError(
                f"recv() waits for batch_size={batch_size} results, but {ledger.pending} "
                "are pending; call async_reset() or send() first."
            )
        arrived = ledger.arrived
        if self._ordered or env_ids is not None:
            wanted = wanted or self._order[:batch_size]
            supervisor.wait(lambda: not ledger.in_flight[wanted].any())
        else:
            supervisor.wait(lambda: len(arrived) >= batch_size)
            wanted = list(itertools.islice(arrived, batch_size))
        supervisor.raise_failures()  # the results stay: the next call gives them
        for row in wanted:
            arrived.remove(row)
            if self._ordered:
                self._order.remove(row)
        rows = np.asarray(wanted)
        error = self._check_finite(rows)
        if error is not None:  # the results stay; the culprits, marked as lost, come last
            lost = ledger.lost
            stay = wanted if self._ordered else sorted(wanted, key=lambda row: bool(lost[row]))
            arrived.extendleft(reversed(stay))
            self._order[:0] = wanted if self._ordered else []
            raise error
        rewards, terminated, truncated, infos = self._results.collect(rows)
        infos["env_id"] = rows
        return self._results.gather(rows), rewards, terminated, truncated, infos

    # States.

    @property
    def saves_state(self) -> bool:
        """Whether all layers of the environments save their states, and autoreset is same-step."""
        supervisor = self._supervisor
        return (
            supervisor.ready.saves_state
            and self.autoreset_mode == AutoresetMode.SAME_STEP
            and supervisor.layout.observations is not None
        )

    def _get_state(self) -> dict[str, np.ndarray]:
        lost = np.flatnonzero(self._supervisor.ledger.without_episode)
        if lost.size:
            raise StateUnavailableError(
                f"environment {lost[0]} was lost, which the next step tells: states can be saved after "
                "it, unless it is quarantined."
            )
        try:
            states = self._supervisor.ask(
                self._all, lambda indices, _: protocol.GetState(indices), "get_state"
            )
        except (EnvironmentFailedError, WrongCallError) as error:  # it raised, or its worker died
            raise StateUnavailableError(str(error)) from error
        return pack(states, self._results.observations(copy=False), self._results.episodes)

    def _set_state(self, state: Mapping[str, np.ndarray]) -> Any:
        if not self._was_reset:
            self.reset()  # for all that a state does not hold
        results = self._results
        states = unpack(state, results.observations(copy=False), results.episodes)
        results.finished[:] = False
        self._supervisor.ask(
            self._all,
            lambda indices, rows: protocol.SetState(indices, [states[row] for row in rows]),
            "set_state",
        )
        return results.observations(copy=True)

    # Everything else.

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method (or reads an attribute) of every environment."""
        return self.call_some(self._all, name, *args, **kwargs)

    def call_some(self, env_ids: Any, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method (or reads an attribute) of the environments `env_ids` `[B]`, in that order."""
        call = f"call({name!r})"
        self._check_nothing_pending(call)
        rows = self._check_rows(env_ids)
        return tuple(
            self._supervisor.ask(
                rows, lambda indices, _: protocol.Call(indices, name, args, kwargs), call
            )
        )

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Reads an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every environment, one value for all or a list or tuple.

        Environments that take the place of others later have it too.
        """
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise InvalidValueError(f"{len(values)} values for {self.num_envs} environments.")
        call = f"set_attr({name!r})"
        self._check_nothing_pending(call)
        self._supervisor.set_attribute(name, values, call)

    def render(self, env_ids: Any = None) -> tuple[Any, ...]:
        """The frames of all environments, or of those in `env_ids` `[B]`, in that order."""
        self._check_nothing_pending("render")
        rows = self._all if env_ids is None else self._check_rows(env_ids)
        return tuple(
            self._supervisor.ask(rows, lambda indices, _: protocol.Render(indices), "render")
        )

    @property
    def restarts(self) -> int:
        """Restarts of workers and environments so far."""
        return self._supervisor.budget.spent

    @property
    def lost_episodes(self) -> int:
        """Episodes lost so far, to dead workers and failed environments."""
        return self._supervisor.ledger.lost_episodes

    @property
    def num_quarantined(self) -> int:
        """Environments that were taken out for good."""
        return int(self._supervisor.ledger.quarantined.sum())

    @property
    def num_recycled(self) -> int:
        """Workers that were replaced because they held more than `max_worker_memory`."""
        return self._supervisor.crew.num_successions

    def slowest(self) -> tuple[int, float]:
        """The environment that took the longest since the last call of this, and its share of the
        time spent in all: 1 / N where all are alike. Measured in a sample of the steps."""
        return self._results.slowest()

    def seconds_by_worker(self) -> list[np.ndarray]:
        """Seconds spent so far in steps (without resets) of each environment, in one array for each
        worker. Measured in a sample of the steps."""
        seconds = self._results.seconds()
        return [seconds[rows.start : rows.stop] for rows in self._supervisor.crew.ranges]

    def close_extras(self, **kwargs: Any) -> None:
        self._finalizer()

    def __repr__(self) -> str:
        name = self.spec.id if self.spec else "?"
        return (
            f"{type(self).__name__}({name}, num_envs={self.num_envs}, "
            f"num_workers={self.num_workers})"
        )


class ProcessExecutor(PoolExecutor):
    __doc__ = PoolExecutor.__doc__

    backend = "process"

    @staticmethod
    def _hire(number: int, setup: protocol.Setup, rows: range, num_workers: int) -> WorkerHandle:
        # One worker for each core stays there: some schedulers leave two workers that the same
        # process wakes on its own core, one after the other.
        cores = sorted(os.sched_getaffinity(0))
        pinned = len(cores) == available_cores() and num_workers % len(cores) == 0
        try:
            return ProcessWorker(
                number, setup, rows, cores[number % len(cores)] if pinned else None
            )
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            raise InvalidValueError(
                f"num_workers={num_workers}: no file descriptor is left for worker {number}; each "
                f"takes ten or so, and {limit} are allowed (ulimit -n). Take fewer workers, or allow "
                "more."
            ) from error

    @property
    def worker_pids(self) -> list[int | None]:
        """Process ids of the workers; None for one that is being restarted."""
        return [
            worker.process.pid if isinstance(worker, ProcessWorker) else None
            for worker in self._supervisor.crew.workers
        ]


def _single_actions(space: gymnasium.Space, actions: Any) -> Sequence[Any]:
    """The actions of a batch one by one."""
    try:
        return list(iterate(space, actions))
    except CustomSpaceError:  # a space of the user's, whose batches are tuples
        return list(actions)


def _stop_all(supervisor: Supervisor, owner: int) -> None:
    if os.getpid() != owner:  # a fork of the process whose workers they are
        return
    supervisor.closed = True
    # Another thread may be waiting: it notices within a second. One that does not is left behind.
    if supervisor.listening.acquire(timeout=_CLOSE_TIMEOUT):
        supervisor.listening.release()
    memory: SharedArrays | None = getattr(supervisor, "memory", None)
    if memory is not None:
        memory.close()
    workers = supervisor.crew.dismiss()
    for worker in workers:
        if worker.is_live:
            worker.send(protocol.Close())  # to all first: they close side by side
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    for worker in workers:
        worker.stop(max(0.1, deadline - time.monotonic()))
