"""From the metrics of updates to rows."""

import time
from collections import deque
from typing import Any

import jax
import numpy as np

from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.fused_loop import Episodes, UpdateMetrics
from kiloworlds.training.loops.guard import Fault
from kiloworlds.training.storage.arrays import Arrays, to_arrays

WINDOW = 100
"""Episodes over which `rollout/ep_rew_mean` is taken."""

Row = dict[str, Any]

_SUMS = ("ended", "return_sum", "length_sum")


class Report:
    """Gathers the metrics of updates and turns them into rows.

    Args:
        config: the settings.
        seconds: that training took before, where it goes on.
    """

    def __init__(self, config: TrainConfig, seconds: float = 0.0):
        self._config = config
        self._began = time.perf_counter() - seconds
        self._last = time.perf_counter()
        self._compiled = False
        """Whether compilation fell into the row that is gathered: then it has no meaningful speed."""
        self._collected = 0
        """Updates whose steps were collected while the program compiled, and count for no speed."""
        self._recent: deque[Episodes] = deque()
        self._gathered: list[UpdateMetrics] = []

    @property
    def seconds(self) -> float:
        """How long training has taken so far."""
        return time.perf_counter() - self._began

    def add(self, metrics: UpdateMetrics, compiling: bool) -> None:
        """Takes the metrics `[S, U]` of some updates."""
        self._gathered.append(metrics)
        if compiling:
            self._compiled = True
            self._collected = self._config.max_staleness

    def row(self, done: int) -> Row:
        """The row of what was gathered since the last: counters, episode statistics over the last
        WINDOW episodes, mean metrics.

        Args:
            done: updates so far.
        """
        recent = self._newest()
        row = self._row(done, recent)
        self._last = time.perf_counter()
        if not self._compiled:
            self._collected -= min(self._collected, self._updates)
        self._compiled = False
        self._recent = recent
        self._gathered = []
        return row

    def preview(self, done: int) -> Row:
        """What `row` would give now."""
        return self._row(done, self._newest())

    def _row(self, done: int, recent: deque[Episodes]) -> Row:
        config, now = self._config, time.perf_counter()
        updates = self._updates
        timed = 0 if self._compiled else updates - min(updates, self._collected)
        steps = timed * config.steps_per_update * config.num_members
        metrics: Any = _join(self._gathered)
        sums = jax.tree.map(lambda *columns: np.sum(columns, axis=0), *recent)
        episodes = sums.ended
        return {
            "step": done * config.steps_per_update,
            "seconds": round(now - self._began, 4),
            "fps": round(steps / (now - self._last), 1) if timed else None,
            "rollout/ep_rew_mean": _ratio(sums.return_sum, episodes),
            "rollout/ep_len_mean": _ratio(sums.length_sum, episodes),
            **{f"rollout/{name}": _ratio(total, episodes) for name, total in sums.others.items()},
            "rollout/episodes": [int(count) for count in metrics.episodes.ended.sum(axis=1)],
            "train/nonfinite": [int(count) for count in (metrics.fault.field > 0).sum(axis=1)],
            **{
                f"train/{name}": [_number(_mean_of_finite(numbers)) for numbers in values]
                for name, values in metrics.train.items()
            },
        }

    @property
    def _updates(self) -> int:
        return sum(metrics.episodes.ended.shape[1] for metrics in self._gathered)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was gathered since the last row."""
        return not self._gathered

    def _newest(self) -> deque[Episodes]:
        """The newest updates that together saw WINDOW episodes for every seed."""
        recent = self._recent.copy()
        for metrics in self._gathered:
            for index in range(metrics.episodes.ended.shape[1]):
                recent.append(jax.tree.map(lambda sums: sums[:, index], metrics.episodes))  # noqa: B023
        total = np.sum([row.ended for row in recent], axis=0)
        while np.all(total - recent[0].ended >= WINDOW):
            total = total - recent.popleft().ended
        return recent

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """All that the next rows depend on beside the time, as arrays and as JSON."""
        recent = _stack(list(self._recent))
        gathered = _join(self._gathered)
        known = recent or (gathered.episodes if gathered else None)
        names = {
            "recent": recent is not None,
            "gathered": gathered is not None,
            "others": sorted(known.others) if known else [],
            "train": sorted(gathered.train) if gathered else [],
        }
        return to_arrays({"recent": recent, "gathered": gathered}), names

    def restore(self, arrays: Arrays, names: dict[str, Any]) -> None:
        """Takes what `save` gave."""

        def episodes(path: str) -> Episodes:
            others = {name: arrays[f"{path}/others/{name}"] for name in names["others"]}
            own = {name: arrays[f"{path}/{name}"] for name in _SUMS}
            return Episodes(**own, others=others)

        if names["recent"]:
            stacked = episodes("recent")
            count = len(stacked.ended)
            self._recent = deque(jax.tree.map(lambda leaf: leaf[i], stacked) for i in range(count))  # noqa: B023
        if names["gathered"]:
            train: Any = {name: arrays[f"gathered/train/{name}"] for name in names["train"]}
            fault = Fault(*(arrays[f"gathered/fault/{name}"] for name in Fault._fields))
            self._gathered = [UpdateMetrics(episodes("gathered/episodes"), train, fault)]


def _stack(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts) if parts else None


def _join(parts: list[UpdateMetrics]) -> UpdateMetrics | None:
    """Metrics `[S, U]` of several calls as those of one."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *parts) if parts else None


def _mean_of_finite(numbers: np.ndarray) -> Any:
    """The mean over updates, of which some may have gone wrong."""
    finite = np.isfinite(numbers)
    return numbers.mean() if finite.all() or not finite.any() else numbers[finite].mean()


def _number(value: Any) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _ratio(sums: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [
        _number(total / count) if count else None for total, count in zip(sums, counts, strict=True)
    ]
