"""Infos by the conventions of gymnasium.vector: batched values, each beside a mask."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def with_masks(info: dict[str, Any], mask: np.ndarray, give: Callable = np.array) -> dict[str, Any]:
    """Each key of `info` beside "_key", the environments for which it counts.

    Args:
        info: batched values `[N, ...]`; dictionaries may nest.
        mask: boolean `[N]`.
        give: makes of a value what the caller gets.
    """
    infos = {}
    for key, value in info.items():
        infos[key] = with_masks(value, mask, give) if isinstance(value, dict) else give(value)
        infos[f"_{key}"] = mask.copy()
    return infos


def episode_infos(
    finished: np.ndarray, returns: np.ndarray, lengths: np.ndarray, seconds: np.ndarray
) -> dict[str, Any]:
    """The entries "episode" (return "r", length "l", seconds "t") and its mask, all `[N]`."""
    return {
        "episode": {
            "r": np.where(finished, returns, 0.0),
            "l": np.where(finished, lengths, 0),
            "t": np.where(finished, seconds, 0.0),
        },
        "_episode": finished.copy(),
    }


class EpisodeStatistics:
    """Return, length and duration of the running episode of each of `num_envs` environments."""

    def __init__(self, num_envs: int):
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs, int)
        self._start_times = np.zeros(num_envs)

    def begin(self, which: np.ndarray) -> None:
        """Starts new episodes of the environments `which` (a mask or indices)."""
        self.returns[which] = 0.0
        self.lengths[which] = 0
        self._start_times[which] = time.perf_counter()

    def infos(self, finished: np.ndarray) -> dict[str, Any]:
        """The entries for the environments whose episode ended; see `episode_infos`."""
        seconds = time.perf_counter() - self._start_times
        return episode_infos(finished, self.returns, self.lengths, seconds)
