"""What is known about a task by its id, whether kiloworlds or Gymnasium registered it."""

import sys
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from kiloworlds.core.registry import find_spec

DEFAULT_FRAMES_PER_SECOND = 30.0


def reward_threshold(env_id: str) -> float | None:
    """The mean return at which the task counts as solved; None if undefined or unknown.

    Of a task "module:id" it is unknown until that module has been imported.
    """
    module, colon, _ = env_id.rpartition(":")
    if colon and module not in sys.modules:
        return None
    spec = find_spec(env_id) or gymnasium.registry.get(env_id)
    return None if spec is None else spec.reward_threshold


def frames_per_second(env_id: str) -> float:
    """The frame rate that Gymnasium's environment of that id asks for, else 30."""
    return _metadata(env_id).get("render_fps") or DEFAULT_FRAMES_PER_SECOND


def gymnasium_render_mode(env_id: str) -> str | None:
    """How a Gymnasium environment can be seen without a window: pictures, else text, else None."""
    modes = _metadata(env_id).get("render_modes", ["rgb_array"])
    return next((mode for mode in ("rgb_array", "ansi") if mode in modes), None)


def _metadata(env_id: str) -> dict[str, Any]:
    """What the class of a Gymnasium environment says of itself; {} if it cannot be asked."""
    spec = gymnasium.registry.get(env_id)
    if spec is None or spec.entry_point is None:
        return {}
    creator = spec.entry_point
    if isinstance(creator, str):
        try:
            creator = load_env_creator(creator)
        except (ImportError, gymnasium.error.DependencyNotInstalled):
            return {}  # its simulator is not installed: ids shared with it still run compiled
    return getattr(creator, "metadata", {})
