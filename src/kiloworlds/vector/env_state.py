"""States of Gymnasium environments as bytes, for those whose every layer is known to allow it.

Nothing loaded runs code: a state is a safetensors file of arrays.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import safetensors.numpy
from gymnasium import wrappers
from safetensors import SafetensorError

from kiloworlds.core.errors import InvalidValueError, StateUnavailableError
from kiloworlds.vector.infos import EpisodeStatistics
from kiloworlds.vector.streams import streams_from_array, streams_to_array

WRAPPERS: dict[type, tuple[str, ...]] = {
    wrappers.ClipAction: (),
    wrappers.ClipReward: (),
    wrappers.DtypeObservation: (),
    wrappers.FlattenObservation: (),
    wrappers.GrayscaleObservation: (),
    wrappers.RescaleAction: (),
    wrappers.RescaleObservation: (),
    wrappers.ReshapeObservation: (),
    wrappers.ResizeObservation: (),
    wrappers.OrderEnforcing: ("_has_reset",),
    wrappers.PassiveEnvChecker: ("checked_reset", "checked_step", "checked_render"),
    wrappers.TimeLimit: ("_elapsed_steps",),
    wrappers.FrameStackObservation: ("obs_queue",),
    wrappers.AtariPreprocessing: ("obs_buffer", "lives", "game_over"),
    wrappers.RecordEpisodeStatistics: ("episode_count", "episode_returns", "episode_lengths"),
}
"""Which attributes change while an environment runs, by wrapper. Exactly these classes: what derives
from one may hold more."""

_STREAM = "stream"
_SIMULATOR = "simulator"


def can_save(env: gymnasium.Env) -> bool:
    """Whether all of an environment's layers save their states.

    A layer does that has `get_state()`, which gives arrays by name, and `set_state(arrays)`, each for
    itself alone; so do the wrappers in `WRAPPERS` and the Arcade Learning Environment.
    """
    return all(_is_known(layer) for layer in _layers(env))


def _layers(env: gymnasium.Env) -> list[gymnasium.Env]:
    layers = [env]
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        layers.append(env)
    return layers


def _is_known(layer: gymnasium.Env) -> bool:
    return type(layer) in WRAPPERS or _has_protocol(layer) or _is_atari(layer)


def _has_protocol(layer: gymnasium.Env) -> bool:
    # Looked for in the class: a wrapper would hand on what it does not have.
    return all(hasattr(type(layer), name) for name in ("get_state", "set_state"))


def _is_atari(layer: gymnasium.Env) -> bool:
    return not isinstance(layer, gymnasium.Wrapper) and hasattr(layer, "ale")


def save_env(env: gymnasium.Env) -> bytes:
    """All that determines how an environment goes on, its random stream included.

    Args:
        env: one that `can_save`.

    Raises:
        StateUnavailableError: `get_state` of a layer failed, or gave something else than numbers.
    """
    arrays: dict[str, np.ndarray] = {}
    for depth, layer in enumerate(_layers(env)):
        arrays |= {f"{depth}/{name}": array for name, array in _arrays_of(layer).items()}
    arrays[_STREAM] = streams_to_array([env.unwrapped._np_random])
    # Copies: a state is of one moment, and files hold no strides.
    return safetensors.numpy.save({name: np.array(array) for name, array in arrays.items()})


def load_env(env: gymnasium.Env, state: bytes) -> None:
    """Puts an environment back to where it was when `save_env` gave `state`."""
    arrays = safetensors.numpy.load(state)
    for depth, layer in enumerate(_layers(env)):
        start = f"{depth}/"
        _load_layer(
            layer,
            {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)},
        )
    env.unwrapped._np_random = streams_from_array(arrays[_STREAM])[0]


def _arrays_of(layer: Any) -> dict[str, np.ndarray]:
    what = f"get_state() of {type(layer).__name__}"
    try:
        told = {str(name): np.asarray(value) for name, value in _save_layer(layer).items()}
    except Exception as error:  # code of the user's
        raise StateUnavailableError(f"{what} failed: {type(error).__name__}: {error}") from error
    for name, array in told.items():
        if array.dtype.kind not in "biuf":
            raise StateUnavailableError(
                f"{what} gave {name!r} as {array.dtype}; it must give numbers or arrays of them."
            )
    return told


def _save_layer(layer: Any) -> Mapping[str, Any]:
    if _has_protocol(layer):
        return layer.get_state()
    if _is_atari(layer):
        # With the console's own random numbers, for its sticky actions.
        told = layer.ale.cloneState(include_rng=True).__getstate__()
        return {_SIMULATOR: np.frombuffer(told, np.uint8)}
    return {name: getattr(layer, name) for name in WRAPPERS[type(layer)] if _there(layer, name)}


def _there(layer: Any, name: str) -> bool:
    return getattr(layer, name) is not None  # None stands for what no reset has set yet


def _load_layer(layer: Any, arrays: dict[str, np.ndarray]) -> None:
    if _has_protocol(layer):
        layer.set_state(arrays)
    elif _is_atari(layer):
        kind: Any = type(layer.ale.cloneState())
        state = kind.__new__(kind)
        state.__setstate__(arrays[_SIMULATOR].tobytes())
        layer.ale.restoreState(state)
    else:
        for name in WRAPPERS[type(layer)]:
            value = _like(getattr(layer, name), arrays[name]) if name in arrays else None
            setattr(layer, name, value)


def _like(now: Any, array: np.ndarray) -> Any:
    """A value as a wrapper keeps it, whose kind is that of what it has now."""
    if isinstance(now, deque):
        return deque(array, maxlen=now.maxlen)
    if isinstance(now, list):
        return list(array)
    return array if array.ndim else array.item()


def pack(
    states: Sequence[bytes], observations: Any, episodes: EpisodeStatistics
) -> dict[str, np.ndarray]:
    """The states of the environments of a vector as arrays `[N, ...]` by name.

    Args:
        states: of each.
        observations: the newest of all, arrays `[N, ...]`; dictionaries and tuples may nest.
        episodes: the running ones.
    """
    sizes = np.array([len(state) for state in states])
    padded = np.zeros((len(states), sizes.max()), np.uint8)
    for row, state in zip(padded, states, strict=True):
        row[: len(state)] = np.frombuffer(state, np.uint8)
    return {
        "environments": padded,
        "sizes": sizes,
        "returns": episodes.returns.copy(),
        "lengths": episodes.lengths.copy(),
        **{name: array.copy() for name, array in _leaves(observations)},
    }


def unpack(
    state: Mapping[str, np.ndarray], observations: Any, episodes: EpisodeStatistics
) -> list[bytes]:
    """The opposite: writes observations into the arrays given, and fills in the episodes.

    Returns:
        The state of each environment.

    Raises:
        InvalidValueError: it is of other environments; nothing has changed then.
    """
    leaves = _leaves(observations)
    wanted = [*leaves, ("returns", episodes.returns), ("lengths", episodes.lengths)]
    known = {"environments", "sizes", *(name for name, _ in wanted)}
    if set(state) != known:
        lacking, more = sorted(known - set(state)), sorted(set(state) - known)
        what = f"lacks {', '.join(lacking)}" if lacking else f"holds {', '.join(more)} besides"
        raise InvalidValueError(f"set_state() takes what get_state() gave; this {what}.")
    for name, array in wanted:
        found = state[name]
        if (found.shape, found.dtype) != (array.shape, array.dtype):
            raise InvalidValueError(
                f"set_state() got {name} of shape {found.shape} and type {found.dtype}; those of these "
                f"environments have {array.shape} and {array.dtype}."
            )
    states = _states(state["environments"], state["sizes"])
    for name, array in leaves:
        array[...] = state[name]
    episodes.begin(np.arange(len(episodes.returns)))
    episodes.returns[:] = state["returns"]
    episodes.lengths[:] = state["lengths"]
    return states


def _states(padded: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    """The states of all environments, each of which is one."""
    states = []
    for row in range(len(sizes)):
        try:
            states.append(padded[row, : sizes[row]].tobytes())
            safetensors.numpy.load(states[-1])
        except (IndexError, TypeError, ValueError, SafetensorError) as error:
            raise InvalidValueError(
                f"set_state() got no state of environment {row} in row {row}: {error}"
            ) from error
    return states


def _leaves(tree: Any, name: str = "observations") -> list[tuple[str, np.ndarray]]:
    """The arrays of a batch of observations by name."""
    if isinstance(tree, Mapping):
        return [leaf for key in tree for leaf in _leaves(tree[key], f"{name}/{key}")]
    if isinstance(tree, tuple):
        return [leaf for key, part in enumerate(tree) for leaf in _leaves(part, f"{name}/{key}")]
    return [(name, tree)]
