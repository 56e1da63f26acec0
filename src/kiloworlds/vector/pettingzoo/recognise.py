"""Tells PettingZoo environments from others."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


def is_pettingzoo(env: Any) -> bool:
    """Whether `env` is an environment of PettingZoo, parallel or AEC.

    Example:
        >>> from mpe2 import simple_spread_v3
        >>> is_pettingzoo(simple_spread_v3.parallel_env()), is_pettingzoo(simple_spread_v3.env())
        (True, True)
    """
    if "pettingzoo" not in sys.modules:  # what was built has imported it
        return False
    from pettingzoo import AECEnv, ParallelEnv

    return isinstance(env, ParallelEnv | AECEnv)


def builds_pettingzoo(make_env: Callable[[], Any]) -> bool:
    """Whether a function builds environments of PettingZoo.

    Where PettingZoo is installed this builds one environment, and closes it.
    """
    if find_spec("pettingzoo") is None:
        return False
    env = make_env()
    try:
        return is_pettingzoo(env)
    finally:
        close = getattr(env, "close", None)
        if callable(close):
            close()
