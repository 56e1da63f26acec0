"""Infos by the conventions of gymnasium.vector: batched values, each beside a mask."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kiloworlds.core.errors import InvalidValueError


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
    """The entries "episode" (return "r", length "l", seconds "t") and its mask, all `[N]`.

    Of several agents returns are `[N, A]`.
    """
    counts = finished[:, None] if np.ndim(returns) > 1 else finished
    return {
        "episode": {
            "r": np.where(counts, returns, 0.0),
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

    def add_to(self, infos: dict[str, Any], finished: np.ndarray, rows: Any = slice(None)) -> None:
        """Adds the entries for a batch of environments, `rows`, of which some ended an episode.

        Raises:
            InvalidValueError: the environments report episodes themselves.
        """
        if "episode" in infos:
            raise InvalidValueError(
                "the environment already reports info['episode']; make it with "
                "episode_statistics='environment', or False."
            )
        seconds = time.perf_counter() - self._start_times[rows]
        infos |= episode_infos(finished, self.returns[rows], self.lengths[rows], seconds)


_OURS = ("lost", "env_id", "final_obs", "final_info")


def set_apart(infos: dict[str, Any]) -> None:
    """Renames, in place, what environments report under names that mean something else in a vector:
    "lost" becomes "lost_", "env_id" becomes "env_id_" and so on; likewise the masks beside them."""
    for key in _OURS:
        if key in infos:
            infos[f"{key}_"], infos[f"_{key}_"] = infos.pop(key), infos.pop(f"_{key}")


def own_episodes(infos: dict[str, Any]) -> dict[str, Any]:
    """The entries "episode" and its mask that environments report themselves, wherever the autoreset
    mode puts them; none if no episode ended."""
    where = infos.get("final_info", {})
    where = where if "episode" in where else infos
    return {key: where[key] for key in ("episode", "_episode") if key in where}


def merge_infos(infos: dict[str, Any], info: dict[str, Any], position: int, size: int) -> None:
    """Adds one environment's info to batched infos, in place, as gymnasium.vector does.

    Args:
        infos: batched so far; every key "k" with its mask "_k".
        position: the environment's place in the batch.
        size: of the batch.
    """
    for key, value in info.items():
        mask = infos.setdefault(f"_{key}", np.zeros(size, bool))
        if isinstance(value, dict) and isinstance(infos.get(key, {}), dict):
            merge_infos(infos.setdefault(key, {}), value, position, size)
        else:
            is_array = isinstance(value, np.ndarray) or np.isscalar(value)
            like = np.asarray(value) if is_array else np.empty((), object)
            column_for(infos, key, like.shape, like.dtype, size)[position] = value
        mask[position] = True


def add_ending(
    infos: dict[str, Any], observation: Any, info: dict[str, Any], position: int, size: int
) -> None:
    """Adds the last observation and info of an episode, as same-step autoreset reports them."""
    infos.setdefault("final_obs", np.full(size, None, object))[position] = observation
    merge_infos(infos.setdefault("final_info", {}), info, position, size)
    for mask in ("_final_obs", "_final_info"):
        infos.setdefault(mask, np.zeros(size, bool))[position] = True


def column_for(
    infos: dict[str, Any], key: str, shape: tuple[int, ...], dtype: np.dtype, size: int
) -> np.ndarray:
    """The batched values of an info, able to hold ones of this shape and type.

    It is made where it is missing, widened where another type came before, and holds objects, None
    where there is no value, for what is no number and where shapes differ.

    Args:
        infos: batched so far, changed in place.
        key: of the info.
        shape, dtype: of one value.
        size: of the batch.
    """
    column = infos.get(key)
    is_number = dtype.kind in "biufc"
    if isinstance(column, dict):
        raise InvalidValueError(
            f"the info {key!r} is a dictionary in one environment and something else in another."
        )
    if column is None:
        whole = (size, *shape)
        column = np.zeros(whole, dtype) if is_number else np.full(whole, None, object)
    elif column.shape[1:] != shape:
        if column.shape[1:] or column.dtype != object:
            column = _as_objects(column, infos[f"_{key}"])
    elif not is_number and column.dtype != object:
        column = column.astype(object) if shape else _as_objects(column, infos[f"_{key}"])
    elif is_number and column.dtype not in (object, dtype):
        column = column.astype(np.result_type(column.dtype, dtype), copy=False)
    infos[key] = column
    return column


def _as_objects(column: np.ndarray, mask: np.ndarray) -> np.ndarray:
    objects = np.full(len(column), None, dtype=object)
    for place in np.nonzero(mask)[0]:
        objects[place] = column[place].copy()
    return objects
