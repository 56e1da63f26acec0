"""A rollout on the host, filled step by step or environment by environment.

Letters in shapes: T steps of a rollout, N environments.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from kiloworlds.algorithms.ppo import Rollout
from kiloworlds.training.loops.fused_loop import Episodes


class Collected(NamedTuple):
    """A rollout, and how it came about.

    Attributes:
        rollout: numpy arrays, axes `[T, N, ...]`.
        episodes: that ended in it.
        staleness: `[T, N]`, updates of the policy between the one that acted and the one that is now
            going to learn.
    """

    rollout: Rollout
    episodes: Episodes
    staleness: np.ndarray


class RolloutBuffer:
    """A rollout that is being filled."""

    def __init__(self, num_steps: int, num_envs: int):
        self._shape = num_steps, num_envs
        self._arrays: dict[str, PyTree] = {}
        self._versions = np.zeros(self._shape, int)
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self.missing = num_steps * num_envs
        """Steps that are not in yet."""

    def _put(self, name: str, step: Any, rows: Any, values: PyTree) -> None:
        if name not in self._arrays:
            self._arrays[name] = jax.tree.map(
                lambda leaf: np.empty((*self._shape, *leaf.shape[1:]), leaf.dtype), values
            )

        def put(array: np.ndarray, leaf: np.ndarray) -> None:
            array[step, rows] = leaf

        jax.tree.map(put, self._arrays[name], values)

    def put_action(
        self,
        step: Any,
        rows: Any,
        observations: PyTree,
        raw: np.ndarray,
        log_prob: np.ndarray,
        version: int,
    ) -> None:
        """What the environments `rows` saw at `step` (one number for all, or one for each), and what
        the policy of that version did."""
        self._put("observation", step, rows, observations)
        self._put("raw_action", step, rows, raw)
        self._put("log_prob", step, rows, log_prob)
        self._versions[step, rows] = version

    def put_result(self, step: Any, rows: Any, result: tuple) -> None:
        """What that led to, as `step` of a vector returns it."""
        observations, rewards, terminated, truncated, infos = result
        finished = terminated | truncated
        self._put("reward", step, rows, np.asarray(rewards, np.float32))
        self._put("terminated", step, rows, terminated)
        self._put("finished", step, rows, finished)
        self._put("valid", step, rows, ~infos.get("lost", np.zeros_like(finished)))
        self._put("next_observation", step, rows, _led_to(observations, finished, infos))
        if "episode" in infos:  # none for an episode that was lost
            ended = infos["_episode"]
            self._returns.extend(infos["episode"]["r"][ended])
            self._lengths.extend(infos["episode"]["l"][ended])
        self.missing -= len(finished)

    def finish(self, update: int) -> Collected:
        """The rollout, all of whose steps are in."""
        episodes = Episodes(
            np.float32(len(self._returns)),
            np.float32(sum(self._returns)),
            np.float32(sum(self._lengths)),
        )
        return Collected(Rollout(**self._arrays), episodes, update - self._versions)


def _led_to(observations: PyTree, finished: np.ndarray, infos: dict) -> PyTree:
    """The observations after a step: the final ones where an episode ended."""
    if not finished.any():
        return observations
    observations = jax.tree.map(np.copy, observations)
    for index in np.nonzero(finished)[0]:

        def put(batch, value, index=index):
            batch[index] = value

        jax.tree.map(put, observations, infos["final_obs"][index])
    return observations
