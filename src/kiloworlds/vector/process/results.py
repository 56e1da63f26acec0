"""From the shared memory of a pool to what `step` and `recv` return."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import concatenate, create_empty_array

from kiloworlds.vector.infos import (
    EpisodeStatistics,
    column_for,
    merge_infos,
    own_episodes,
    set_apart,
)
from kiloworlds.vector.process.supervisor import Supervisor

ALL_ROWS = slice(None)
_NOBODY = np.zeros(0, int)


class Results:
    """Reads answers of environments, in batches; N environments, B in a batch.

    Args:
        supervisor: of workers that are ready.
        mode: of autoreset.
        reports_episodes: whether infos report "episode" at each end; "environment" for those that
            the environments report themselves.

    Attributes:
        finished: boolean `[N]`, whose last answer ended an episode.
        episodes: statistics of the running ones.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        mode: AutoresetMode,
        reports_episodes: bool | Literal["environment"],
    ):
        self._supervisor, self._ledger = supervisor, supervisor.ledger
        self._mode, self._reports_episodes = mode, reports_episodes
        memory, layout = supervisor.memory, supervisor.layout
        self._num_envs = layout.num_envs
        self._codec, self._space = layout.observations, layout.observation_space
        self._observation_arrays = (
            memory.numbered("observation0_"),
            memory.numbered("observation1_"),
        )
        self._float_positions = [
            position
            for position, array in enumerate(self._observation_arrays[0])
            if array.dtype.kind in "fc"
        ]
        self._final_arrays = memory.numbered("final")
        self._all = np.arange(self._num_envs)
        self._seconds = memory["seconds"]
        self._seconds_before = np.zeros(self._num_envs)
        self._rewards = memory["rewards"]
        self._terminated, self._truncated = memory["terminated"], memory["truncated"]
        # Which copy of its observation each environment writes next, or wrote last.
        self._parity = memory["parity"]
        self._is_spread = False  # over both copies
        self._loose_observations: list[Any] = [None] * self._num_envs
        self.finished = np.zeros(self._num_envs, bool)
        self._starting = np.zeros(self._num_envs, bool)
        self.episodes = EpisodeStatistics(self._num_envs)

    # Observations.

    def turn(self, rows: Any = ALL_ROWS) -> None:
        """The next answers of `rows` go into the other copy: what was delivered stays whole."""
        self._parity[rows] ^= 1
        self._is_spread |= rows is not ALL_ROWS

    def turn_together(self, kept: np.ndarray) -> None:
        """Turns all; the observations of the environments `kept` (boolean `[N]`) come along."""
        side = self._align()
        if self._codec is not None and kept.any():
            self._carry(np.nonzero(kept)[0], side, 1 - side)
        self._parity[:] = 1 - side

    def _align(self) -> int:
        """Brings all observations into one copy, which asynchronous use may have spread over both."""
        side = int(self._parity[0])
        if not self._is_spread:
            return side
        self._is_spread = False
        other = np.nonzero(self._parity != side)[0]
        if len(other):
            self._carry(other, 1 - side, side)
            self._parity[other] = side
        return side

    def _carry(self, rows: np.ndarray, before: int, after: int) -> None:
        for source, target in zip(
            self._observation_arrays[before], self._observation_arrays[after], strict=True
        ):
            target[rows] = source[rows]

    def observations(self, copy: bool) -> Any:
        """The observations of all environments; views of shared memory unless `copy`."""
        if self._codec is None:
            return self._loose(self._all)
        batch = self._codec.batch(self._observation_arrays[self._align()])
        return _copied(batch) if copy else batch

    def gather(self, rows: np.ndarray) -> Any:
        """Copies of the observations of `rows` `[B]`."""
        if self._codec is None:
            return self._loose(rows)
        return self._codec.batch(self._gathered(rows))

    def _loose(self, rows: np.ndarray) -> Any:
        """A batch of observations of no fixed size, in the form gymnasium.vector gives it."""
        values = [self._loose_observations[row] for row in rows]
        return concatenate(self._space, values, create_empty_array(self._space, len(values)))

    def _gathered(self, rows: np.ndarray) -> list[np.ndarray]:
        parity = self._parity[rows].astype(bool)
        zero, one = self._observation_arrays
        if parity.all() or not parity.any():
            return [array[rows] for array in (one if parity[0] else zero)]
        return [
            np.where(parity.reshape(-1, *[1] * (a.ndim - 1)), b[rows], a[rows])
            for a, b in zip(zero, one, strict=True)
        ]

    def _last_good(self, row: int) -> Any:
        """The observation delivered before the last one; None where they travel as messages."""
        if self._codec is None:
            return None
        return self._codec.value(self._observation_arrays[1 - int(self._parity[row])], row)

    # Rewards, flags, infos.

    def begin(self, rows: Any, to_come: bool = False) -> None:
        """New episodes of `rows` have begun by a reset, whose answer is to be collected if it is
        `to_come`."""
        self.finished[rows] = False
        self._starting[rows] = to_come
        self.episodes.begin(rows)

    def find_nonfinite(self, rows: np.ndarray | None) -> tuple[np.ndarray, str]:
        """Which of the environments `rows` (None: all) answered with NaN or Inf, and in what."""
        chosen = self._all if rows is None else rows
        found = self._nonfinite_observations(rows)
        rewards = self._rewards if rows is None else self._rewards[rows]
        bad = chosen[_rows_not_finite(rewards)]
        if len(bad):
            found["its reward"] = bad
        if self._mode == AutoresetMode.SAME_STEP and self._float_positions:
            # Of episodes that have ended, too, which a reset has followed already.
            over = self._terminated | self._truncated
            ended = np.flatnonzero(over) if rows is None else rows[over[rows]]
            for position in self._float_positions if len(ended) else ():
                bad = ended[_rows_not_finite(self._final_arrays[position][ended])]
                if len(bad):
                    found["the last observation of an episode"] = bad
        return _union(found)

    def find_nonfinite_starts(self, rows: np.ndarray) -> np.ndarray:
        """Which of the environments `rows` start an episode with NaN or Inf in the observation."""
        return _union(self._nonfinite_observations(rows))[0]

    def _nonfinite_observations(self, rows: np.ndarray | None) -> dict[str, np.ndarray]:
        chosen = self._all if rows is None else rows
        found = []
        if self._codec is None:
            extras = self._ledger.extras
            found = [r for r in chosen.tolist() if r in extras and _has_nan(extras[r].observation)]
        elif self._float_positions:
            side = self._observation_arrays[self._align()] if rows is None else self._gathered(rows)
            for position in self._float_positions:
                found += chosen[_rows_not_finite(side[position])].tolist()
        return {"its observation": np.unique(found)} if found else {}

    def slowest(self) -> tuple[int, float]:
        """The environment that took the longest since the last call, and its share of the time of
        all; 0.0 if nothing was timed."""
        seconds = self._seconds - self._seconds_before
        self._seconds_before = self._seconds.copy()
        row, total = int(np.argmax(seconds)), seconds.sum()
        return row, float(seconds[row] / total) if total > 0 else 0.0

    def seconds(self) -> np.ndarray:
        """Seconds spent in steps of each environment so far, `[N]`."""
        return self._seconds.copy()

    def clear_rewards(self, rows: np.ndarray) -> None:
        """Rewards and flags of `rows` must not be delivered."""
        self._rewards[rows] = 0.0
        self._terminated[rows] = self._truncated[rows] = False

    def put_back(self, rows: np.ndarray) -> None:
        """The observations before the last ones of `rows` stand again."""
        for row in rows.tolist():
            if self._codec is not None:
                side = int(self._parity[row])
                self._carry(np.array([row]), 1 - side, side)
            elif row in self._ledger.extras:
                self._ledger.extras[row] = dataclasses.replace(
                    self._ledger.extras[row], observation=self._loose_observations[row]
                )

    def collect(
        self, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Rewards, flags and infos of environments that have answered, in the order of `rows`.

        None stands for all, in order.
        """
        index: Any = ALL_ROWS if rows is None else rows
        rows = self._all if rows is None else rows
        rewards, terminated = self._rewards[index].copy(), self._terminated[index].copy()
        truncated = self._truncated[index].copy()
        ended, starts_over = rows[terminated | truncated], self._mode == AutoresetMode.SAME_STEP
        if len(ended) and starts_over:  # what is delivered is the start of the next episode
            self._supervisor.episodes_ended(ended)
        episodes = self.episodes
        episodes.returns[index] += rewards
        if self._mode == AutoresetMode.NEXT_STEP:
            was_over = self.finished[index]
            episodes.begin(rows[was_over])
            episodes.lengths[index] += ~(was_over | self._starting[index])
        else:
            episodes.lengths[index] += ~self._starting[index]
        self._starting[index] = False
        infos: dict[str, Any] = {}
        self.add_infos(infos, rows, self._all[: len(rows)], len(rows))
        if len(ended) and not starts_over:
            self._supervisor.episodes_ended(ended)
        lost = None
        if self._ledger.disturbed:
            lost = self._ledger.lost[rows]
            truncated |= lost
        finished = terminated | truncated
        if finished.any():
            counted = finished if lost is None else finished & ~lost
            if counted.any():
                if self._mode == AutoresetMode.SAME_STEP:
                    self._add_finals(infos, rows, counted)
                if self._reports_episodes is True:
                    episodes.add_to(infos, counted, index)
            if self._mode == AutoresetMode.SAME_STEP:
                episodes.begin(rows[finished])
        if self._reports_episodes == "environment":
            infos |= own_episodes(infos)
        if lost is not None and lost.any():
            self._add_lost(infos, rows, lost)
        self.finished[index] = finished
        if not starts_over:
            self._ledger.ended[index] = finished
        if self._ledger.disturbed:
            self._ledger.settle(rows)
        return rewards, terminated, truncated, infos

    def _add_finals(self, infos: dict[str, Any], rows: np.ndarray, ended: np.ndarray) -> None:
        """Final observations and infos of the episodes that `ended` (boolean `[B]`)."""
        size = len(rows)
        finals = np.full(size, None, dtype=object)
        final_infos: dict[str, Any] = {}
        positions = np.nonzero(ended)[0]
        if self._codec is not None:
            values = self._codec.values(self._final_arrays, rows[positions])
            for position, value in zip(positions.tolist(), values, strict=True):
                finals[position] = value
        carried = self._ledger.finals
        for position in positions.tolist() if carried else ():
            extras = carried.pop(int(rows[position]), None)
            if extras is not None:
                merge_infos(final_infos, extras.final_infos or {}, position, size)
                if self._codec is None:
                    finals[position] = extras.final_observation
        infos["final_obs"], infos["_final_obs"] = finals, ended.copy()
        infos["final_info"], infos["_final_info"] = final_infos, ended.copy()

    def _add_lost(self, infos: dict[str, Any], rows: np.ndarray, lost: np.ndarray) -> None:
        infos["lost"], infos["_lost"] = lost.copy(), lost.copy()
        finals = infos.setdefault("final_obs", np.full(len(rows), None, dtype=object))
        mask = infos.setdefault("_final_obs", np.zeros(len(rows), bool))
        mask |= lost
        for position in np.nonzero(lost)[0].tolist():
            finals[position] = self._last_good(int(rows[position]))
        if self._mode == AutoresetMode.SAME_STEP:
            return
        # The reset is to come one step later, or when the caller says: until then the last good
        # observation stands.
        self._ledger.owe(rows[lost])
        self.put_back(rows[lost])

    def add_infos(
        self, infos: dict[str, Any], rows: np.ndarray, positions: np.ndarray, size: int
    ) -> None:
        """Adds the infos of `rows` to `infos`, each at its position in a batch of `size`."""
        for columns, chosen, mine in self._supervisor.infos(rows):
            places = positions[chosen]
            for key, values, mask in columns:
                present = mask[mine]
                if not present.any():
                    continue
                column = column_for(infos, key, values.shape[1:], values.dtype, size)
                if column.dtype == object:
                    for place, row in zip(places[present], mine[present], strict=True):
                        column[place] = values[row].copy()
                else:
                    column[places[present]] = values[mine[present]]
                infos.setdefault(f"_{key}", np.zeros(size, bool))[places[present]] = True
        extras = self._ledger.extras
        if extras:
            for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
                if row in extras:
                    extra = extras.pop(row)
                    merge_infos(infos, extra.infos or {}, position, size)
                    if self._codec is None:
                        self._loose_observations[row] = extra.observation
        set_apart(infos)


def _union(found: dict[str, np.ndarray]) -> tuple[np.ndarray, str]:
    """All rows of the lists, and the names of the lists in words."""
    if not found:
        return _NOBODY, ""
    return np.unique(np.concatenate(list(found.values()))), " and ".join(found)


def _has_nan(value: Any) -> bool:
    """Whether there is NaN or Inf in an observation of no fixed size."""
    match value:
        case dict():
            return any(map(_has_nan, value.values()))
        case tuple() | list():
            return any(map(_has_nan, value))
        case float() | np.floating() | np.ndarray():
            array = np.asarray(value)
            return array.dtype.kind in "fc" and not np.isfinite(array).all()
    return False


def _rows_not_finite(array: np.ndarray) -> np.ndarray:
    """Which rows of `[B, ...]` hold NaN or Inf."""
    # One pass over the numbers; only an overflow or a culprit needs the second.
    if math.isfinite(np.vdot(array, array).real):
        return _NOBODY
    return np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))


def _copied(batch: Any) -> Any:
    match batch:
        case np.ndarray():
            return batch.copy()
        case dict():
            return {key: _copied(part) for key, part in batch.items()}
        case tuple():
            return tuple(map(_copied, batch))
    return batch
