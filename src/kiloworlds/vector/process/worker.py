"""One worker of a pool: steps its share of the environments.

As a process it is started by `python -m kiloworlds.vector.process.worker`, not forked: JAX and many
simulators do not survive a fork, and the main script is not imported again, so it needs no `__name__`
guard.
"""

import contextlib
import dataclasses
import fcntl
import functools
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium
import numpy as np

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.vector.env_state import can_save, load_env, save_env
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.codec import SpaceMismatchError
from kiloworlds.vector.process.handle import receive_descriptor
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.protocol import (
    ALL,
    IDLE,
    MAX_INFO_COLUMNS,
    MESSAGE,
    NEXT_MARK,
    RESETTING,
    STEPPING,
    progress_mark,
)
from kiloworlds.vector.process.signals import Signal

_FULL_PAUSE = 5e-4
"""Seconds between looks whether the pool has read a full outbox."""

_LONG_STEP = 1e-4
"""Seconds of a step from which on looking at the clock takes no time that counts."""


@dataclass(eq=False)
class _Column:
    """An info of all environments of this worker, in shared memory."""

    values: np.ndarray
    mask: np.ndarray


class Worker:
    """Steps environments on request.

    Args:
        setup: what it runs.
        control: messages to and from the pool.
        inbox, outbox: signals that work or results wait.
    """

    def __init__(
        self,
        setup: protocol.Setup,
        control: Connection,
        inbox: Signal,
        outbox: Signal,
    ):
        self._control = control
        self._inbox_signal, self._outbox_signal = inbox, outbox
        self._read, self._written = 0, 0
        self._setup = setup
        self._envs: list[gymnasium.Env] = []
        self._steps: list[Callable[[Any], tuple]] = []
        """What a step of each environment calls."""
        self._attributes: dict[str, dict[int, Any]] = {}
        """What was set from outside, for environments that are built anew: by name and index."""
        self._columns: dict[Any, _Column | None] = {}
        self._phase = "constructor"
        """What is being done, for the report of a failure."""

    def run(self) -> None:
        """Builds the environments, attaches the shared memory and serves until told to close."""
        for index in range(len(self._setup.make_envs)):
            try:
                self._envs.append(self._build(index))
            except Exception as error:
                self._control.send_bytes(protocol.pickled(self._failure(index, error)))
                return
        self._send_ready()
        with contextlib.suppress(EOFError, ConnectionError):  # the pool has gone
            attach: protocol.Attach = pickle.loads(self._control.recv_bytes())
            memory = SharedArrays(attach.layout.specs(), receive_descriptor(self._control))
            memory.close()
            self._attach(attach.layout, attach.slot, memory)
            while self._serve():
                pass
        for env in self._envs:
            env.close()

    def _send_ready(self) -> None:
        first = self._envs[0]
        ready = protocol.Ready(
            first.observation_space,
            first.action_space,
            {key: value for key, value in first.metadata.items() if key != "autoreset_mode"},
            first.render_mode,
            first.spec,
            can_save(first),
        )
        try:
            pickled = cloudpickle.dumps(ready)
        except Exception:  # wrappers put anything into a spec, which nobody needs to step
            pickled = cloudpickle.dumps(dataclasses.replace(ready, spec=None))
        self._control.send_bytes(pickled)

    def _build(self, index: int) -> gymnasium.Env:
        env = self._setup.make_envs[index]()
        if not isinstance(env, gymnasium.Env):
            raise TypeError(
                f"the function made {type(env).__name__}, not a gymnasium.Env. Environments of "
                "PettingZoo are known as such where pettingzoo is imported before kiloworlds.make."
            )
        first = self._envs[0] if self._envs else env
        for name in ("observation_space", "action_space"):
            ours, others = getattr(env, name), getattr(first, name)
            if ours != others:
                raise SpaceMismatchError(
                    f"its {name} is {ours}, that of environment {self._setup.first} is {others}."
                )
        return env

    def _attach(self, layout: protocol.Layout, slot: int, memory: SharedArrays) -> None:
        count, first = len(self._envs), self._setup.first
        self._rows = range(first, first + count)
        self._observation_codec, self._action_codec = layout.observations, layout.actions
        self._action_arrays = memory.numbered("action")
        if self._observation_codec is not None:
            writer = self._observation_codec.writer
            self._write_final = writer(memory.numbered("final"))
            self._write_observation = (
                writer(memory.numbered("observation0_")),
                writer(memory.numbered("observation1_")),
            )
        else:  # they travel with the report
            self._write_final = lambda row, value: None
            self._write_observation = (self._write_final, self._write_final)
        # A memoryview sets a number in a quarter of the time that an array needs.
        self._rewards: Any = memory["rewards"].data
        self._terminated: Any = memory["terminated"].data
        self._truncated: Any = memory["truncated"].data
        self._parity: Any = memory["parity"].data
        self._seconds: Any = memory["seconds"].data
        self._progress: Any = memory["progress"][slot].data
        self._begun = self._calls = 0
        self._steps_are_long = True  # until the first call of `_step` says otherwise
        self._inbox, self._outbox = memory["inbox"][slot], memory["outbox"][slot]
        self._taken = memory["taken"][slot]
        self._info_memory, self._info_end = memory["infos"][slot], 0
        self._columns_of: list[list[_Column]] = [[] for _ in range(count)]
        self._steps = [env.step for env in self._envs]
        self._loose_actions: dict[int, Any] = {}

    def _serve(self) -> bool:
        """Does what waits in the inbox; False when told to close."""
        for _ in range(self._inbox_signal.take()):
            entry = int(self._inbox[self._read % len(self._inbox)])
            self._read += 1
            if entry == ALL:
                self._step(range(len(self._envs)))
                self._post(ALL)
            elif entry == MESSAGE:
                if not self._obey(self._control.recv()):
                    return False
            elif self._step([entry]):
                self._post(entry)
        self._progress[1] = IDLE
        return True

    def _post(self, entry: int, message: Any = None) -> None:
        # What cannot be pickled must fail before it is announced.
        data = protocol.pickled(message) if entry == MESSAGE else b""
        while self._written - int(self._taken[0]) >= len(self._outbox):
            time.sleep(_FULL_PAUSE)
        self._outbox[self._written % len(self._outbox)] = entry
        self._written += 1
        self._outbox_signal.post()
        if entry == MESSAGE:  # announced first: a message larger than the socket's buffer waits for
            self._control.send_bytes(data)  # the pool to read it

    def _obey(self, message: Any) -> bool:
        match message:
            case protocol.Reset():
                for index, seed in zip(message.indices, message.seeds, strict=True):
                    if self._reset(index, seed, message.options):
                        self._post(index)
            case protocol.Rebuild():
                self._rebuild(message)
            case protocol.Actions():
                self._loose_actions |= message.by_index
            case protocol.Request():
                self._answer(message)
            case protocol.Close():
                return False
        return True

    # Stepping and resetting.

    def _step(self, indices: Sequence[int]) -> bool:
        """Steps environments one after the other and writes their rows: the hot loop.

        Returns:
            Whether all succeeded. A failure is its own answer.
        """
        actions = self._actions(indices)
        rows = self._rows if isinstance(indices, range) else [self._rows[i] for i in indices]
        progress, mark = self._progress, progress_mark(self._begun, 0)
        self._begun += len(indices)
        steps, columns_of, is_loose = self._steps, self._columns_of, self._observation_codec is None
        parity, write_observation = self._parity, self._write_observation
        rewards, all_terminated, all_truncated = self._rewards, self._terminated, self._truncated
        progress[1] = STEPPING
        self._phase = "step"
        succeeded = True
        clock, weight = self._clock()
        call_began = clock and clock()
        for index, row, action in zip(indices, rows, actions, strict=True):
            mark += NEXT_MARK
            progress[0] = mark + row
            try:
                began = clock and clock()
                observation, reward, terminated, truncated, info = steps[index](action)
                if began:
                    self._seconds[row] += weight * (clock() - began)
                if terminated or truncated:
                    observation, info = self._end_episode(index, observation, info)
                write_observation[parity[row]](row, observation)
                try:
                    rewards[row] = reward
                except TypeError:
                    rewards[row] = _as_number(reward)
                all_terminated[row] = terminated
                all_truncated[row] = truncated
                if info or columns_of[index] or is_loose:
                    self._report(index, info, observation)
            except Exception as error:
                self._post(MESSAGE, self._failure(index, error, action))
                self._phase = "step"
                succeeded = False
        if clock:
            self._steps_are_long = clock() - call_began > _LONG_STEP * len(indices)
        return succeeded

    def _clock(self) -> tuple[Any, float]:
        """What to time the next steps with (None: nothing), and how many steps each stands for.

        Long steps are all timed; of short ones, where it would tell in the speed, those of one call
        in sixteen, spread like random numbers.
        """
        if self._steps_are_long:
            return time.perf_counter, 1.0
        self._calls += 1
        return (None if self._calls * 0x9E3779B1 & 0xF0000000 else time.perf_counter), 16.0

    def _actions(self, indices: Sequence[int]) -> Sequence[Any]:
        if self._action_codec is None:
            return [self._loose_actions.pop(index) for index in indices]
        first = self._rows.start
        if isinstance(indices, range):
            return self._action_codec.values(
                self._action_arrays, slice(first, first + len(indices))
            )
        return [self._action_codec.value(self._action_arrays, first + index) for index in indices]

    def _end_episode(self, index: int, observation: Any, info: dict) -> tuple[Any, dict]:
        """Keeps what the last step of an episode gave and starts over, as the mode says.

        Returns:
            The observation and info to deliver with this step.
        """
        if self._setup.autoreset_mode == "NEXT_STEP":
            self._steps[index] = functools.partial(self._step_over, index)
        if self._setup.autoreset_mode != "SAME_STEP":
            return observation, info
        row, is_loose = self._rows[index], self._observation_codec is None
        self._write_final(row, observation)
        if info or is_loose:
            final = observation if is_loose else None
            extras = protocol.Extras(index, final_infos=info, final_observation=final)
            self._post_extras(extras, info)
        return self._start_over(index)

    def _start_over(self, index: int) -> tuple[Any, dict]:
        self._mark(index, RESETTING, "reset")
        result = self._envs[index].reset()
        self._mark(index, STEPPING, "step")
        return result

    def _mark(self, index: int, activity: int, phase: str) -> None:
        """Notes what begins now, for the pool's clocks and for the report of a failure."""
        self._begun += 1
        self._progress[0] = progress_mark(self._begun, self._rows[index])
        self._progress[1] = activity
        self._phase = phase

    def _step_over(self, index: int, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """The step after an episode's end, under next-step autoreset: a reset."""
        observation, info = self._start_over(index)
        self._steps[index] = self._envs[index].step
        return observation, 0.0, False, False, info

    def _reset(self, index: int, seed: int | None, options: Any = None) -> bool:
        """Resets one environment and writes its row; False if it failed, which is its own answer."""
        row = self._rows[index]
        self._mark(index, RESETTING, "reset")
        try:
            observation, info = self._envs[index].reset(seed=seed, options=options)
            self._write_observation[self._parity[row]](row, observation)
            self._steps[index] = self._envs[index].step
            self._rewards[row] = 0.0
            self._terminated[row] = self._truncated[row] = False
            self._report(index, info, observation)
        except Exception as error:
            self._post(MESSAGE, self._failure(index, error))
            return False
        return True

    def _rebuild(self, message: protocol.Rebuild) -> None:
        index = message.index
        self._mark(index, RESETTING, "constructor")
        try:
            self._envs[index].close()
        except Exception:  # what failed once may well fail to close; it is replaced all the same
            traceback.print_exc()
        try:
            self._envs[index] = self._build(index)
            for name, values in self._attributes.items():
                if index in values:
                    self._envs[index].set_wrapper_attr(name, values[index])
        except Exception as error:
            self._post(MESSAGE, self._failure(index, error))
            return
        if self._reset(index, message.seed):
            self._post(index)

    # Infos and everything else.

    def _report(self, index: int, info: dict, observation: Any) -> None:
        """Puts infos into shared memory; what has no place there goes as a message."""
        columns, odd = [], {}
        for key, value in info.items():
            column = self._column(key, value)
            if column is None:
                odd[key] = value
                continue
            try:
                column.values[index] = value
                columns.append(column)
            except OverflowError:  # an integer that needs more than 64 bits
                odd[key] = value
        before = self._columns_of[index]
        if columns != before:
            for column in before:
                column.mask[index] = False
            for column in columns:
                column.mask[index] = True
            self._columns_of[index] = columns
        is_loose = self._observation_codec is None
        if odd or is_loose:
            extras = protocol.Extras(index, odd, observation=observation if is_loose else None)
            self._post_extras(extras, odd)

    def _post_extras(self, extras: protocol.Extras, info: dict) -> None:
        try:
            self._post(MESSAGE, extras)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            odd = next((key for key, value in info.items() if not _can_be_sent(value)), None)
            where = "the observation" if odd is None else f"the info {odd!r}"
            raise TypeError(f"{where} cannot be sent to the caller: {error}") from error

    def _column(self, key: Any, value: Any) -> _Column | None:
        """Where an info of this key, type and shape is kept; None if it must go as a message."""
        kind = (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value)
        try:
            return self._columns[key, kind]
        except KeyError:
            column = self._columns[key, kind] = self._new_column(key, value)
            return column

    def _new_column(self, key: Any, value: Any) -> _Column | None:
        is_number = isinstance(value, bool | int | float | np.generic | np.ndarray)
        if not isinstance(key, str) or not is_number:
            return None
        array = np.asarray(value)
        known = sum(column is not None for column in self._columns.values())
        if array.dtype.kind not in "biufc" or known == MAX_INFO_COLUMNS:
            return None
        info = protocol.NewInfo(key, array.dtype.str, array.shape, self._info_end)
        size = sum(spec.size for spec in protocol.info_specs(info, len(self._envs)))
        if self._info_end + size > len(self._info_memory):
            return None
        self._info_end += size
        values, mask = protocol.info_arrays(info, len(self._envs), self._info_memory)
        mask[:] = False  # another worker may have used this memory before
        self._post(MESSAGE, info)
        return _Column(values, mask)

    def _answer(self, request: protocol.Request) -> None:
        message, values = request.what, []
        phase = "render" if isinstance(message, protocol.Render) else "call"
        index = message.indices[0]
        try:
            for position, index in enumerate(message.indices):
                self._mark(index, RESETTING, phase)
                values.append(self._do(message, index, position))
            index = message.indices[0]
            self._post(MESSAGE, protocol.Answer(request.number, values))
        except Exception as error:  # of the environment, or an answer that cannot be sent
            failure = self._failure(index, error)
            self._post(MESSAGE, dataclasses.replace(failure, request=request.number))

    def _do(self, message: Any, index: int, position: int) -> Any:
        env = self._envs[index]
        match message:
            case protocol.Call():
                value = env.get_wrapper_attr(message.name)
                return value(*message.args, **message.kwargs) if callable(value) else value
            case protocol.SetAttribute():
                value = message.values[position]
                env.set_wrapper_attr(message.name, value)
                self._attributes.setdefault(message.name, {})[index] = value
                return None
            case protocol.Render():
                return env.render()
            case protocol.GetState():
                return save_env(env)
            case protocol.SetState():
                return load_env(env, message.states[position])
        raise TypeError(f"unknown request {message}")

    def _failure(self, index: int, error: Exception, action: Any = None) -> protocol.Failure:
        is_refusal = isinstance(error, InvalidValueError | MissingDependencyError)
        return protocol.Failure(
            index,
            self._phase,
            str(action) if self._phase == "step" else "",
            f"{type(error).__name__}: {error}",
            "".join(traceback.format_exception(error)),
            refusal=type(error).__name__ if is_refusal else "",
        )


def _as_number(reward: Any) -> float:
    """A reward that shared memory does not take as it is."""
    array = np.asarray(reward)
    if array.shape == () and array.dtype.kind in "biuf":
        return float(array)
    what = f"an array of shape {array.shape}" if array.shape else f"{reward!r}"
    raise TypeError(f"the reward is {what}; it must be one number.")


def _can_be_sent(value: Any) -> bool:
    try:
        protocol.pickled(value)
    except Exception:
        return False
    return True


def _die_with(descriptor: int) -> None:
    """Ends this process when the other end of a pipe closes, even in the middle of native code.

    The kernel then sends SIGIO, whose default action is to end the process.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


def main(arguments: list[str]) -> None:
    """Runs a worker on the descriptors the pool passed."""
    control, lifeline, *signals = map(int, arguments)
    _die_with(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool to handle
    inbox, outbox = Signal(*signals[:2]), Signal(*signals[2:])
    connection = Connection(control)
    sys.path[:] = connection.recv()
    # From the process that started this one, over a socket that has no name: nothing foreign.
    setup = pickle.loads(connection.recv_bytes())
    Worker(setup, connection, inbox, outbox).run()


if __name__ == "__main__":
    main(sys.argv[1:])
