"""Collecting rollouts from environments that live outside XLA.

Letters in shapes: T steps of a rollout, N environments, B environments that act together.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import PyTree

from kiloworlds.algorithms.ppo import PPO, PolicyNetwork
from kiloworlds.training.loops.arrival_order import RECEIVED, Playback, Recording
from kiloworlds.training.loops.policy_board import PolicyBoard
from kiloworlds.training.loops.rollout_buffer import Collected, RolloutBuffer
from kiloworlds.training.loops.stopwatch import Stopwatch
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.process.pool import PoolExecutor


class Collector(Protocol):
    """Collects one rollout after the other."""

    def start(self, seed: int, first: int, state: Mapping[str, np.ndarray] | None = None) -> None:
        """Resets the environments, for rollouts from number `first` on; or puts them back into a
        state."""

    def collect(self, update: int, board: PolicyBoard, max_staleness: int) -> Collected:
        """The rollout that update number `update` learns from.

        No step is taken with a policy that more than `max_staleness` updates will then separate from
        the one that learns.
        """
        ...


class Acting:
    """The compiled function that draws actions.

    Args:
        algorithm: whose policy acts.
        stopwatch: what measures how long that takes.
    """

    def __init__(self, algorithm: PPO, stopwatch: Stopwatch):
        self._algorithm, self._stopwatch = algorithm, stopwatch
        self._act = jax.jit(self._act_and_map)

    def _act_and_map(self, policy, keys, index, observations):
        raw, outputs = self._algorithm.act(policy, keys[index], observations)
        log_prob = self._algorithm.log_prob(policy, outputs, raw)
        return raw, log_prob, self._algorithm.head.to_environment(raw)

    def __call__(
        self, policy: PolicyNetwork, keys: jax.Array, index: int, observations: PyTree
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Raw actions, their log-probabilities, and the actions for the environments, all `[B, ...]`.

        Args:
            policy: that acts.
            keys: many, made at once; picking one outside the compiled function would take longer than
                the function itself.
            index: which of them counts.
            observations: `[B, ...]`.
        """
        began = time.perf_counter()
        drawn = jax.tree.map(np.asarray, self._act(policy, keys, np.int32(index), observations))
        self._stopwatch.add("network_acts", time.perf_counter() - began)
        return drawn


class SteppedCollector:
    """Steps all environments together.

    Args:
        envs: with same-step autoreset.
        acting: draws actions.
        num_steps: T.
        keys: gives T keys for acting by the number of the rollout.
        stopwatch: what measures how long environments step.
    """

    def __init__(
        self,
        envs: VectorEnv,
        acting: Acting,
        num_steps: int,
        keys: Callable[[int], jax.Array],
        stopwatch: Stopwatch,
    ):
        self._envs, self._acting, self._num_steps = envs, acting, num_steps
        self._keys_of, self._stopwatch = keys, stopwatch
        self._observations: PyTree = None

    def start(self, seed: int, first: int, state: Mapping[str, np.ndarray] | None = None) -> None:
        if state is None:
            self._observations, _ = self._envs.reset(seed=seed)
        else:
            self._observations = self._envs.set_state(state)

    def collect(self, update: int, board: PolicyBoard, max_staleness: int) -> Collected:
        buffer = RolloutBuffer(self._num_steps, self._envs.num_envs)
        version, policy = board.version(update - max_staleness)
        everyone = slice(None)
        keys = self._keys_of(update)
        for step in range(self._num_steps):
            raw, log_prob, actions = self._acting(policy, keys, step, self._observations)
            buffer.put_action(step, everyone, self._observations, raw, log_prob, version)
            began = time.perf_counter()
            result = self._envs.step(actions)
            self._stopwatch.add("environments_step", time.perf_counter() - began)
            self._observations = result[0]
            buffer.put_result(step, everyone, result)
        return buffer.finish(update)

    def at_step(self, update: int, board: PolicyBoard, step: int) -> tuple[PyTree, np.ndarray]:
        """Goes to just before a step of a rollout; what is seen and done then, `[N, ...]`."""
        _, policy = board.version(update)
        keys = self._keys_of(update)
        for earlier in range(step):
            *_, actions = self._acting(policy, keys, earlier, self._observations)
            self._observations = self._envs.step(actions)[0]
        *_, actions = self._acting(policy, keys, step, self._observations)
        return self._observations, actions


class StreamedCollector:
    """Lets each environment go at its own pace, by `send` and `recv` of `batch_size` results.

    A fast environment goes on into the next rollout as far as `max_staleness` allows; a rollout is
    finished when the slowest has taken its steps.

    Args:
        envs: a pool with same-step autoreset.
        acting, num_steps, keys, stopwatch: see `SteppedCollector`.
    """

    def __init__(
        self,
        envs: PoolExecutor,
        acting: Acting,
        num_steps: int,
        keys: Callable[[int], jax.Array],
        stopwatch: Stopwatch,
    ):
        self._envs, self._acting, self._num_steps = envs, acting, num_steps
        self._keys_of, self._stopwatch = keys, stopwatch
        self._buffers: dict[int, RolloutBuffer] = {}
        count = envs.num_envs
        self._steps = np.zeros(count, int)  # taken so far, over all rollouts
        self._acted = np.zeros(count, bool)  # and wait for the result
        self._waiting: list[int] = []  # that have an observation and may act
        self._observations: PyTree = None  # the newest of each, [N, ...]
        self._calls = 0
        self._keys: Any = None
        self._looked_at = 0.0
        self.order: Recording | Playback = Recording()
        """What notes in which order environments come back, or says so."""

    def start(self, seed: int, first: int, state: Mapping[str, np.ndarray] | None = None) -> None:
        assert state is None  # which environments at their own pace do not save
        self._envs.async_reset(seed=seed)
        self._steps[:] = first * self._num_steps
        self._calls = int(self._steps.sum())  # there were fewer, so that no key is used twice
        self._looked_at = time.perf_counter()

    def collect(self, update: int, board: PolicyBoard, max_staleness: int) -> Collected:
        if isinstance(self.order, Playback):
            for version, rows in self.order.events(update):
                if version == RECEIVED:
                    self._receive(self._envs.recv(env_ids=rows))
                else:
                    self._send(rows, *board.version(version))
            collected = self._buffers.pop(update).finish(update)
            self.order.check(update, collected)
            return collected
        while self._buffer(update).missing:
            self._act(board, max_staleness)
            self._receive(self._envs.recv(min(self._envs.batch_size, self._in_flight)))
        collected = self._buffers.pop(update).finish(update)
        self.order.finish(update, collected)
        return collected

    def _buffer(self, update: int) -> RolloutBuffer:
        if update not in self._buffers:
            self._buffers[update] = RolloutBuffer(self._num_steps, self._envs.num_envs)
        return self._buffers[update]

    def _act(self, board: PolicyBoard, max_staleness: int) -> None:
        """Sends those off that wait, and whose rollout the newest policy is fresh enough for."""
        while self._waiting:
            updates = self._steps[self._waiting] // self._num_steps
            rows = [
                row
                for row, update in zip(self._waiting, updates.tolist(), strict=True)
                if board.has(update - max_staleness)
            ][: self._envs.batch_size]
            if rows:
                self._send(np.array(rows), *board.newest(0))
            elif self._in_flight:
                return
            else:  # all environments wait for the learner
                board.newest(int(updates.min()) - max_staleness)

    def _send(self, rows: np.ndarray, version: int, policy: PolicyNetwork) -> None:
        """Draws actions for the environments `rows` and sends them off."""
        # Always as many, so that one compiled program serves.
        padded = np.resize(rows, self._envs.batch_size)
        block, index = divmod(self._calls, self._num_steps)
        if index == 0:
            self._keys = self._keys_of(block)
        self._calls += 1
        drawn = self._acting(policy, self._keys, index, _take(self._observations, padded))
        raw, log_prob, actions = _take(drawn, slice(len(rows)))
        updates, steps = np.divmod(self._steps[rows], self._num_steps)
        for update in np.unique(updates).tolist():
            mine = updates == update
            self._buffer(update).put_action(
                steps[mine],
                rows[mine],
                _take(self._observations, rows[mine]),
                raw[mine],
                log_prob[mine],
                version,
            )
        sent = set(rows.tolist())
        self._waiting = [row for row in self._waiting if row not in sent]
        self._look()
        self._note(version, rows)
        self._envs.send(actions, rows)
        self._acted[rows] = True

    @property
    def _in_flight(self) -> int:
        return self._envs.num_envs - len(self._waiting)

    def _look(self) -> None:
        """Counts the environments' time since the last look."""
        now = time.perf_counter()
        busy = self._in_flight / self._envs.num_envs
        self._stopwatch.add("environments_step", busy * (now - self._looked_at))
        self._looked_at = now

    def _note(self, version: int, rows: np.ndarray) -> None:
        if isinstance(self.order, Recording):
            self.order.note(version, rows)

    def _receive(self, result: tuple) -> None:
        """Takes results in; their environments may act again."""
        self._look()
        observations, infos = result[0], result[4]
        rows = infos["env_id"]
        self._note(RECEIVED, rows)
        if self._observations is None:
            self._observations = jax.tree.map(
                lambda leaf: np.zeros((self._envs.num_envs, *leaf.shape[1:]), leaf.dtype),
                observations,
            )

        def put(array: np.ndarray, leaf: np.ndarray) -> None:
            array[rows] = leaf

        jax.tree.map(put, self._observations, observations)
        acted = self._acted[rows]
        updates, steps = np.divmod(self._steps[rows], self._num_steps)
        for update in np.unique(updates[acted]).tolist():
            mine = acted & (updates == update)
            self._buffer(update).put_result(steps[mine], rows[mine], _take(result, mine))
        self._steps[rows[acted]] += 1
        self._acted[rows] = False
        self._waiting.extend(rows.tolist())


def _take(tree: PyTree, index: Any) -> PyTree:
    """The part of all arrays that `index` selects on their first axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
