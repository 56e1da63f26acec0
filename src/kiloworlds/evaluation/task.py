"""What is known about a task by its id, whether kiloworlds or Gymnasium registered it."""

import contextlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.core.registry import find_spec
from kiloworlds.core.user_code import is_imported, load_user_object

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
    return _metadata(_creator(env_id)).get("render_fps") or DEFAULT_FRAMES_PER_SECOND


def gymnasium_render_mode(env_id: str) -> str | None:
    """How a Gymnasium environment can be seen without a window: pictures, else text, else None.

    None too where its class or function takes no `render_mode`.
    """
    creator = _creator(env_id)
    if creator is not None and not _takes_render_mode(creator):
        return None
    modes = _metadata(creator).get("render_modes", ["rgb_array"])
    return next((mode for mode in ("rgb_array", "ansi") if mode in modes), None)


def _creator(env_id: str) -> Callable[..., Any] | None:
    """The class or function that builds a Gymnasium environment; None if it cannot be had.

    Of "module:name" it is looked for once that module has been imported.
    """
    module, colon, name = env_id.rpartition(":")
    spec = gymnasium.registry.get(name)
    if spec is None and colon and is_imported(module):
        with contextlib.suppress(KiloworldsError):
            return load_user_object(env_id)
    creator = None if spec is None else spec.entry_point
    if isinstance(creator, str):
        try:
            return load_env_creator(creator)
        except (ImportError, gymnasium.error.DependencyNotInstalled):
            return None  # its simulator is not installed: ids shared with it still run compiled
    return creator


def _takes_render_mode(creator: Callable[..., Any]) -> bool:
    parameters = inspect.signature(creator).parameters
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return "render_mode" in parameters or is_open


def _metadata(creator: Callable[..., Any] | None) -> dict[str, Any]:
    """What the class of an environment says of itself; {} if it says nothing."""
    return getattr(creator, "metadata", {})
