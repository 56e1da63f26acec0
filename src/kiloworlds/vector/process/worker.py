"""One worker of a pool: a process that steps its share of the environments.

Started as `python -m kiloworlds.vector.process.worker`, not forked: JAX and many simulators do not
survive a fork, and the main script is not imported again, so it needs no `__name__` guard.
"""

import contextlib
import fcntl
import os
import pickle
import signal
import socket
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.codec import SpaceMismatchError
from kiloworlds.vector.process.memory import SharedArrays
from kiloworlds.vector.process.protocol import ALL, IDLE, INFO_SLOTS, MESSAGE, RESETTING, STEPPING
from kiloworlds.vector.process.signals import Signal


class Worker:
    """Steps environments on request.

    Args:
        number: which worker of the pool this is.
        control: messages to and from the pool.
        inbox, outbox: signals that work or results wait.
    """

    def __init__(self, number: int, control: Connection, inbox: Signal, outbox: Signal):
        self._number = number
        self._control = control
        self._inbox_signal, self._outbox_signal = inbox, outbox
        self._read, self._written = 0, 0
        # From the process that started this one, over a socket that has no name: nothing foreign.
        self._setup: protocol.Setup = pickle.loads(control.recv_bytes())
        self._envs: list[gymnasium.Env] = []
        self._slots: dict[tuple[str, str], int] = {}
        self._same_step = self._setup.autoreset_mode == "SAME_STEP"
        self._next_step = self._setup.autoreset_mode == "NEXT_STEP"
        # What is being done, for the report of a failure.
        self._phase = "constructor"
        self._action: Any = None

    def run(self) -> None:
        """Builds the environments, attaches the shared memory and serves until told to close."""
        for index in range(len(self._setup.make_envs)):
            self._phase = "constructor"
            try:
                self._envs.append(self._build(index))
            except Exception as error:
                self._control.send(self._failure(index, error))
                return
        self._control.send(self._ready())
        attach: protocol.Attach = self._control.recv()
        memory = SharedArrays(attach.layout.specs(), _receive_descriptor(self._control))
        self._attach(attach.layout, memory)
        with contextlib.suppress(EOFError):  # the pool has gone
            while self._serve():
                pass
        for env in self._envs:
            env.close()

    def _ready(self) -> protocol.Ready:
        first = self._envs[0]
        return protocol.Ready(
            first.observation_space,
            first.action_space,
            {key: value for key, value in first.metadata.items() if key != "autoreset_mode"},
            first.render_mode,
            first.spec,
        )

    def _build(self, index: int) -> gymnasium.Env:
        env = self._setup.make_envs[index]()
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"the function made {type(env).__name__}, not a gymnasium.Env.")
        first = self._envs[0] if self._envs else env
        for name in ("observation_space", "action_space"):
            ours, others = getattr(env, name), getattr(first, name)
            if ours != others:
                raise SpaceMismatchError(
                    f"its {name} is {ours}, that of environment {self._setup.first} is {others}."
                )
        return env

    def _attach(self, layout: protocol.Layout, memory: SharedArrays) -> None:
        count = len(self._setup.make_envs)
        first = self._setup.first
        self._rows = range(first, first + count)
        self._observations, self._actions = layout.observations, layout.actions

        self._action_arrays, self._final_arrays = (
            memory.numbered("action"),
            memory.numbered("final"),
        )
        self._observation_arrays = (
            memory.numbered("observation0_"),
            memory.numbered("observation1_"),
        )
        self._rewards = memory["rewards"]
        self._terminated = memory["terminated"]
        self._truncated = memory["truncated"]
        self._parity = memory["parity"]
        self._info_values, self._info_mask = memory["info_values"], memory["info_mask"]
        self._has_infos = [False] * count
        self._inbox, self._outbox = memory["inbox"][self._number], memory["outbox"][self._number]
        self._progress = memory["progress"][self._number]
        self._starts_over = [False] * count  # in the next step, under next-step autoreset
        self._loose_actions: dict[int, Any] = {}

    def _serve(self) -> bool:
        """Does what waits in the inbox; False when told to close."""
        for _ in range(self._inbox_signal.take()):
            entry = int(self._inbox[self._read % len(self._inbox)])
            self._read += 1
            if entry == ALL:
                for index in range(len(self._envs)):
                    self._answer(index, STEPPING)
                self._post(ALL)
            elif entry == MESSAGE:
                if not self._obey(self._control.recv()):
                    return False
            elif self._answer(entry, STEPPING):
                self._post(entry)
        self._progress[1] = IDLE
        return True

    def _post(self, entry: int, message: Any = None) -> None:
        self._outbox[self._written % len(self._outbox)] = entry
        self._written += 1
        self._outbox_signal.post()
        if entry == MESSAGE:  # announced first: a message larger than the socket's buffer waits for
            self._control.send(message)  # the pool to read it

    def _obey(self, message: Any) -> bool:
        match message:
            case protocol.Reset():
                for index, seed in zip(message.indices, message.seeds, strict=True):
                    if self._answer(index, RESETTING, seed, message.options):
                        self._post(index)
            case protocol.Rebuild():
                self._rebuild(message)
            case protocol.Actions():
                self._loose_actions |= message.by_index
            case protocol.Call() | protocol.SetAttribute() | protocol.Render():
                self._call(message)
            case protocol.Close():
                return False
        return True

    def _rebuild(self, message: protocol.Rebuild) -> None:
        index = message.index
        self._begin(RESETTING, self._rows[index])
        self._phase = "constructor"
        try:
            self._envs[index].close()
        except Exception:  # what failed once may well fail to close; it is replaced all the same
            traceback.print_exc()
        try:
            self._envs[index] = self._build(index)
        except Exception as error:
            self._post(MESSAGE, self._failure(index, error))
            return
        if self._answer(index, RESETTING, message.seed):
            self._post(index)

    def _call(self, message: Any) -> None:
        values: list[Any] = []
        self._action = None
        self._phase = "render" if isinstance(message, protocol.Render) else "call"
        for position, index in enumerate(message.indices):
            env = self._envs[index]
            try:
                match message:
                    case protocol.Call():
                        value = env.get_wrapper_attr(message.name)
                        values.append(
                            value(*message.args, **message.kwargs) if callable(value) else value
                        )
                    case protocol.SetAttribute():
                        env.set_wrapper_attr(message.name, message.values[position])
                        values.append(None)
                    case protocol.Render():
                        values.append(env.render())
            except Exception as error:
                self._post(MESSAGE, self._failure(index, error))
                return
        self._post(MESSAGE, protocol.Answer(values))

    def _answer(self, index: int, phase: int, seed: int | None = None, options: Any = None) -> bool:
        """Steps or resets one environment and writes its row, or reports why it failed.

        Returns:
            Whether it succeeded. A failure is its own answer: only an `ALL` that it was part of is
            posted as well.
        """
        self._action = None
        try:
            if phase == STEPPING:
                self._step(index)
            else:
                self._reset(index, seed, options)
        except Exception as error:
            self._post(MESSAGE, self._failure(index, error))
            return False
        return True

    def _step(self, index: int) -> None:
        row = self._rows[index]
        if self._starts_over[index]:
            self._reset(index, None, None)
            return
        self._begin(STEPPING, row)
        self._phase = "step"
        if self._actions is None:
            action = self._loose_actions.pop(index)
        else:
            action = self._actions.value(self._action_arrays, row)
        self._action = action
        observation, reward, terminated, truncated, info = self._envs[index].step(action)
        final_info = final_observation = None
        if terminated or truncated:
            if self._same_step:
                final_info, final_observation = info, observation
                if self._observations is not None:
                    self._observations.write(self._final_arrays, row, observation)
                self._begin(RESETTING, row)
                self._phase = "reset"
                observation, info = self._envs[index].reset()
            else:
                self._starts_over[index] = self._next_step
        self._write(row, observation)
        self._rewards[row] = reward
        self._terminated[row] = terminated
        self._truncated[row] = truncated
        self._report(index, info, final_info, observation, final_observation)

    def _reset(self, index: int, seed: int | None, options: Any) -> None:
        row = self._rows[index]
        self._begin(RESETTING, row)
        self._phase = "reset"
        observation, info = self._envs[index].reset(seed=seed, options=options)
        self._write(row, observation)
        self._starts_over[index] = False
        self._rewards[row] = 0.0
        self._terminated[row] = self._truncated[row] = False
        self._report(index, info, None, observation, None)

    def _begin(self, activity: int, row: int) -> None:
        progress = self._progress
        progress[0] += 1
        progress[1] = activity
        progress[2] = row

    def _write(self, row: int, observation: Any) -> None:
        if self._observations is not None:
            self._observations.write(self._observation_arrays[self._parity[row]], row, observation)

    def _report(
        self, index: int, info: dict, final_info: dict | None, observation: Any, final: Any
    ) -> None:
        """Puts infos into their slots; what has none goes as a message."""
        if self._has_infos[index]:
            self._info_mask[:, self._rows[index]] = False
            self._has_infos[index] = False
        odd = {key: value for key, value in info.items() if not self._to_slot(index, key, value)}
        loose = self._observations is None
        if odd or final_info is not None or loose:
            self._post(
                MESSAGE,
                protocol.Extras(
                    index,
                    odd or None,
                    final_info,
                    observation if loose else None,
                    final if loose else None,
                ),
            )

    def _to_slot(self, index: int, key: Any, value: Any) -> bool:
        """Writes a scalar info into shared memory; False if it must go as a message."""
        if not isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
            return False
        kind = np.asarray(value).dtype.kind
        if (key, kind) not in self._slots:
            if len(self._slots) == INFO_SLOTS or not isinstance(key, str) or kind not in "bif":
                return False
            self._slots[key, kind] = len(self._slots)
            self._post(MESSAGE, protocol.NewInfo(self._slots[key, kind], key, kind))
        if abs(value) > 2**53 and kind == "i":  # more than a double can hold exactly
            return False
        slot, row = self._slots[key, kind], self._rows[index]
        self._info_values[slot, row] = value
        self._info_mask[slot, row] = True
        self._has_infos[index] = True
        return True

    def _failure(self, index: int, error: Exception) -> protocol.Failure:
        return protocol.Failure(
            index,
            self._phase,
            "" if self._action is None else repr(self._action),
            f"{type(error).__name__}: {error}",
            "".join(traceback.format_exception(error)),
        )


def _receive_descriptor(control: Connection) -> int:
    with socket.socket(fileno=os.dup(control.fileno())) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    return descriptors[0]


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
    number, control, lifeline, *signals = map(int, arguments)
    _die_with(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool to handle
    inbox, outbox = Signal(*signals[:2]), Signal(*signals[2:])
    connection = Connection(control)
    sys.path[:] = connection.recv()
    Worker(number, connection, inbox, outbox).run()


if __name__ == "__main__":
    main(sys.argv[1:])
