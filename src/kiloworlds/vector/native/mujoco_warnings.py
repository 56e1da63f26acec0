"""MuJoCo's warnings, as log records."""

import importlib
import importlib.util
import logging
from typing import Any

logger = logging.getLogger("kiloworlds.mujoco")


def log_warnings() -> None:
    """Logs MuJoCo's warnings instead of printing them.

    MuJoCo prints them and writes them to MUJOCO_LOG.TXT in the working directory. That a model file,
    such as Gymnasium's HalfCheetah, is written in an old way concerns nobody who runs it.
    """
    if importlib.util.find_spec("mujoco") is None:
        return
    mujoco: Any = importlib.import_module("mujoco")
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_log)


def _log(text: str) -> None:
    logger.log(logging.DEBUG if "deprecated" in text else logging.WARNING, "%s", text.strip())
