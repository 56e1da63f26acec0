"""Building, copying, pickling and closing an environment."""

import functools
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle

from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.checks.players import InterfaceError
from kiloworlds.testing.report import Finding

_OF_ITS_OWN = "build a new environment in each call"


def check_constructor(context: Context) -> Iterator[Finding]:
    """Builds two: each must be an object of its own."""
    started = time.perf_counter()
    first = context.make()
    seconds = time.perf_counter() - started
    second = context.make()
    core, other = (getattr(env, "unwrapped", env) for env in (first, second))
    if core is other:
        yield Finding("constructor", "failed", "gives the same object each time", _OF_ITS_OWN)
        return
    yield Finding(
        "constructor",
        "ok",
        f"builds {type(core).__name__} in {1000 * seconds:.3g} ms",
        measured={"constructor_seconds": seconds},
    )
    for env in (first, second):
        _close_quietly(env)


def check_pickling(context: Context) -> Iterator[Finding]:
    """Whether what builds the environment can be sent to a worker process."""
    try:
        pickle.dumps(context.make)
    except Exception:  # whatever objects raise that cannot be pickled
        culprit = why_not_picklable(context.make)
        if culprit is not None:
            yield Finding(
                "pickling",
                "failed",
                f"cannot be sent to worker processes: {culprit}",
                "create locks, files, connections and the like inside the environment's constructor",
            )
        else:
            yield Finding("pickling", "ok", "with cloudpickle, which kiloworlds' workers use")
        return
    yield Finding("pickling", "ok", "can be sent to worker processes")


def why_not_picklable(function: Callable[..., Any]) -> str | None:
    """What keeps a function from being pickled, by name; None if cloudpickle takes it."""
    reason = _pickle_error(function)
    if reason is None:
        return None
    for name, part in _parts(function):
        if _pickle_error(part) is not None:
            inner = why_not_picklable(part) if callable(part) and name != "" else None
            return inner if inner and inner != reason else f"{name} is {type(part).__name__}"
    return reason


def _pickle_error(value: Any) -> str | None:
    try:
        cloudpickle.dumps(value)
    except Exception as error:  # as above
        return f"{type(error).__name__}: {error}"
    return None


def _parts(function: Any) -> Iterator[tuple[str, Any]]:
    """The variables a function captures, the arguments of a partial, the attributes of an object."""
    if isinstance(function, functools.partial):
        yield "the function", function.func
        yield from ((f"argument {index}", value) for index, value in enumerate(function.args))
        yield from ((f"argument {name!r}", value) for name, value in function.keywords.items())
        return
    code = getattr(function, "__code__", None)
    if code is not None:
        cells = function.__closure__ or ()
        for name, cell in zip(code.co_freevars, cells, strict=True):
            yield f"the captured variable {name!r}", cell.cell_contents
        for name in code.co_names:
            if name in function.__globals__:
                yield f"the global variable {name!r}", function.__globals__[name]
    elif not isinstance(function, type):
        attributes = getattr(function, "__dict__", {})
        yield from ((f"the attribute {name!r}", value) for name, value in attributes.items())


def check_closing(context: Context) -> Iterator[Finding]:
    """Closing after use, and closing again."""
    env = context.make()
    _reset_once(context, env)
    try:
        env.close()
    except Exception as error:  # of the environment
        yield Finding("closing", "failed", f"close raised {type(error).__name__}: {error}")
        return
    try:
        env.close()
    except Exception as error:
        yield Finding(
            "closing",
            "failed",
            f"the second close raised {type(error).__name__}: {error}",
            "let close do nothing where there is nothing left to close",
        )
        return
    unused = context.make()
    try:
        unused.close()
    except Exception as error:
        yield Finding(
            "closing",
            "failed",
            f"close before the first reset raised {type(error).__name__}: {error}",
            "set in __init__ what close frees",
        )
        return
    yield Finding("closing", "ok", "after use, twice, and before the first reset")


def _reset_once(context: Context, env: Any) -> None:
    try:
        context.player(env).reset(context.seed)
    except InterfaceError:
        return  # told by another check; it can be closed all the same


def _close_quietly(env: Any) -> None:
    """Frees what a check built; what close raises is told by its own check."""
    try:
        env.close()
    except Exception:
        return
