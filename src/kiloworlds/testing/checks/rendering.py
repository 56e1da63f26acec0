"""Pictures."""

from collections.abc import Iterator

import gymnasium
import numpy as np

from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.failures import described
from kiloworlds.testing.report import Finding


def check_rendering(context: Context) -> Iterator[Finding]:
    """Pictures as rgb_array, where the environment says that it can draw them."""
    env = context.make()
    modes = (getattr(env, "metadata", None) or {}).get("render_modes", [])
    if "rgb_array" not in modes:
        yield Finding("rendering", "ok", f"has no rgb_array pictures (render_modes: {modes})")
        return
    try:
        env = context.make(render_mode="rgb_array")
    except TypeError as error:
        if "render_mode" not in str(error):
            raise
        yield Finding(
            "rendering",
            "warning",
            "metadata says rgb_array, but the constructor takes no render_mode",
            "take render_mode=None in __init__ and keep it as self.render_mode",
        )
        return
    if getattr(env, "render_mode", None) != "rgb_array":
        yield Finding(
            "rendering",
            "failed",
            f"built with render_mode='rgb_array', its render_mode is "
            f"{getattr(env, 'render_mode', None)!r}",
            "set self.render_mode in __init__",
        )
        return
    player = context.player(env)
    player.reset(context.seed)
    player.step()
    try:
        picture = env.render()
    except Exception as error:  # of the environment, or of what it draws with
        yield _not_drawn(error)
        return
    env.close()
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3:
        height, width, channels = picture.shape
        if channels == 3:
            flat = " (all one colour)" if picture.min() == picture.max() else ""
            yield Finding("rendering", "ok", f"pictures of {width} x {height}{flat}")
            return
    what = (
        f"a {picture.dtype} array of shape {picture.shape}"
        if isinstance(picture, np.ndarray)
        else type(picture).__name__
    )
    yield Finding(
        "rendering",
        "failed",
        f"render returns {what}",
        "return a uint8 array of shape (height, width, 3)",
    )


def _not_drawn(error: Exception) -> Finding:
    """Tells a fault of the environment from a machine without what pictures need."""
    seen = f"render raised {described(error)}"
    of_the_machine = isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled)
    if of_the_machine or "OpenGL" in str(error):
        mend = (
            "install what it names; MuJoCo without a screen needs MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        )
        return Finding("rendering", "warning", seen, mend)
    return Finding("rendering", "failed", seen)
