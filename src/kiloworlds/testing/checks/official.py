"""The checkers that Gymnasium and PettingZoo bring along; each of their warnings is a finding."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator

from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.failures import described
from kiloworlds.testing.report import Finding

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MOST_CYCLES = 200

# Words of warnings that tell nothing about the environment itself.
_IRRELEVANT = ("different from the unwrapped version",)


def check_gymnasium(context: Context) -> Iterator[Finding]:
    """`gymnasium.utils.env_checker.check_env`; pictures have a check of their own."""
    from gymnasium.utils.env_checker import check_env

    env = context.make()
    yield from _findings("gymnasium check_env", lambda: check_env(env, skip_render_check=True))


def check_pettingzoo(context: Context) -> Iterator[Finding]:
    """PettingZoo's API and seed tests."""
    from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

    cycles = max(1, min(_MOST_CYCLES, context.steps))
    if context.kind == "parallel":
        api, seeded = parallel_api_test, parallel_seed_test
    else:
        api, seeded = api_test, seed_test
    yield from _findings("pettingzoo api", lambda: api(context.make(), cycles))
    yield from _findings("pettingzoo seed", lambda: seeded(context.make, cycles))


def _findings(name: str, test: Callable[[], object]) -> Iterator[Finding]:
    error: Exception | None = None
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            test()
        except Exception as raised:  # assertions, and whatever the environment raises
            error = raised
    every = dict.fromkeys(_words(str(warning.message)) for warning in caught)
    told = [words for words in every if not any(part in words for part in _IRRELEVANT)]
    for words in told:
        yield Finding(name, "warning", words)
    if error is not None:
        words = _words(str(error))
        if not isinstance(error, AssertionError) or not words:
            words = f"raised {described(error)}"
        yield Finding(name, "failed", words)
    elif not told:
        yield Finding(name, "ok", "passed")


def _words(message: str) -> str:
    message = " ".join(_COLOURS.sub("", message).split())
    return re.sub(r"^(WARN|ERROR): ", "", message)
