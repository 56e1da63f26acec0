"""Exceptions of an environment in one line."""

import sysconfig
import textwrap
import traceback
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])
_LONGEST = 400  # characters of a message
LIBRARIES = (_PACKAGE, sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"])
"""Where code lies that is not the user's: this package, Python's library, installed packages."""


def described(error: BaseException) -> str:
    """Such as "ValueError: no goal (my_env.py, line 12)": the innermost line of the user's code.

    Where no line is the user's, that of the library which raised it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    others = [frame for frame in frames if not frame.filename.startswith((_PACKAGE, "<"))]
    own = [frame for frame in others if not frame.filename.startswith(LIBRARIES)]
    frame = next(iter((own or others)[-1:]), None)
    where = f" ({Path(frame.filename).name}, line {frame.lineno})" if frame else ""
    words = textwrap.shorten(str(error), _LONGEST, placeholder=" ...")
    return f"{type(error).__name__}{': ' if words else ''}{words}{where}"
