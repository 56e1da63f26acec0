"""The first calls: reset and a few steps return what the interface says."""

from collections.abc import Iterator

import numpy as np

from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.checks.players import InterfaceError
from kiloworlds.testing.failures import described
from kiloworlds.testing.report import Finding

_STEPS = 3


def check_interface(context: Context) -> Iterator[Finding]:
    """Stops at the first call that fails: nothing that steps makes sense after it."""
    env = context.make()
    if context.kind == "gymnasium":
        missing = [n for n in ("observation_space", "action_space") if not hasattr(env, n)]
        if missing:
            yield Finding(
                "interface",
                "failed",
                f"has no {' and no '.join(missing)}",
                "set them in __init__, from gymnasium.spaces",
            )
            return
    player, call = context.player(env), "reset"
    try:
        player.reset(context.seed)
        player.reset()
        call = "step"
        for _ in range(_STEPS):
            if player.step().over:
                call = "reset after the end of an episode"
                player.reset()
                call = "step"
    except InterfaceError as error:
        yield Finding("interface", "failed", error.seen, error.mend)
        return
    except Exception as error:  # of the environment
        yield Finding("interface", "failed", f"{call} raised {described(error)}")
        return
    yield Finding("interface", "ok", "reset and step return what they should")
    yield from _check_after_end(context)


def _check_after_end(context: Context) -> Iterator[Finding]:
    """A step after the end may raise, but must leave an environment that can be reset."""
    if context.kind != "gymnasium":
        return
    player, over = context.player(), context.clock(0.25)
    player.reset(context.seed)
    for _ in range(context.steps):
        if player.step().over:
            break
        if over():
            return
    else:
        return
    try:
        result = player.step()
        seen = "goes on"
        finite = np.all(np.isfinite(np.asarray(result.rewards[None], float)))
        if not finite:
            seen = "gives a reward that is not finite"
    except InterfaceError as error:
        seen = f"gives something else: {error.seen}"
    except Exception as error:  # of the environment
        seen = f"raises {type(error).__name__}"
    try:
        player.reset()
    except Exception as error:
        yield Finding(
            "step after end",
            "failed",
            f"step {seen}, and the reset after it raised {described(error)}",
            "let reset start over from any state",
        )
        return
    yield Finding("step after end", "ok", f"step {seen}; a reset starts over")
