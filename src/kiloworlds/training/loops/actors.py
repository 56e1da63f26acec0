"""Actors: what steps environments while the learner learns."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np

from kiloworlds.algorithms.ppo import PolicyNetwork
from kiloworlds.training.loops.collect import Collector
from kiloworlds.training.loops.policy_board import PolicyBoard, StoppedError
from kiloworlds.training.loops.rollout_buffer import Collected
from kiloworlds.training.loops.stopwatch import Stopwatch


class Actors:
    """Hands out one rollout after the other.

    With `max_staleness` of 0 a rollout is collected when it is asked for, with the newest policy:
    collecting and learning take turns. From 1 on a thread collects ahead: rollout k is acted by a
    policy of at least k - `max_staleness` updates, so that the actors stop after `max_staleness` + 1
    rollouts if the learner does.

    Args:
        collector: what steps the environments.
        max_staleness: updates by which the policy that acts may be behind the one that learns.
        num_updates: how many rollouts will be asked for.
        stopwatch: what measures how long the learner waits.
    """

    def __init__(
        self, collector: Collector, max_staleness: int, num_updates: int, stopwatch: Stopwatch
    ):
        self._collector, self._max_staleness = collector, max_staleness
        self._num_updates, self._stopwatch = num_updates, stopwatch
        self.board = PolicyBoard(max_staleness + 1)
        self._rollouts = [Future() for _ in range(num_updates)] if max_staleness else []
        self._thread: threading.Thread | None = None

    def start(
        self, seed: int, first: int = 0, state: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Resets the environments and, if they may run ahead, sets them going.

        Args:
            first: the number of the first rollout.
            state: that the environments are put back into, in place of a reset.
        """
        self._collector.start(seed, first, state)
        if self._max_staleness:
            self._thread = threading.Thread(
                target=self._run, args=(first,), name="actors", daemon=True
            )
            self._thread.start()

    def _run(self, first: int) -> None:
        for update, rollout in enumerate(self._rollouts[first:], first):
            try:
                rollout.set_result(self._collector.collect(update, self.board, self._max_staleness))
            except StoppedError:
                return
            except BaseException as error:  # the learner, who waits for it, raises it
                rollout.set_exception(error)
                return

    def publish(self, version: int, policy: PolicyNetwork) -> None:
        """Offers the policy as it is after `version` updates."""
        self.board.publish(version, policy)

    def rollout(self, update: int) -> Collected:
        """The rollout that update number `update` learns from; whatever ended an actor is raised."""
        began = time.perf_counter()
        try:
            if not self._max_staleness:
                return self._collector.collect(update, self.board, 0)
            collected = self._rollouts[update].result()
            self._rollouts[update] = Future()  # its memory is the caller's now
            return collected
        finally:
            self._stopwatch.add("learner_waits", time.perf_counter() - began)

    def close(self) -> None:
        """Ends collecting: after the step that is being taken."""
        self.board.stop()
        if self._thread is not None:
            self._thread.join()
