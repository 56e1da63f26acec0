"""The `kiloworlds` command: finds the verb, runs it, and turns errors into one sentence.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted (143 by SIGTERM).
"""

import contextlib
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

import kiloworlds
from kiloworlds.cli.ctrl_c import SIGNALLED, leaving_at_once, raise_again_when_swallowed
from kiloworlds.cli.output import results_only_on_stdout
from kiloworlds.core.errors import (
    InvalidValueError,
    KiloworldsError,
    UnknownNameError,
    did_you_mean,
)

FAILED, WRONG_USE = 1, 2
_TRACEBACK = "\n\nIts own traceback:\n"  # as `EnvironmentFailedError` writes it

# Each verb's module has `run(arguments: list[str]) -> int`; it is imported when the verb is used.
VERBS = {
    "train": ("train", "train an agent, showing how it learns"),
    "eval": ("evaluate", "measure a trained agent's return"),
    "play": ("play", "watch a trained agent: a GIF, an MP4 or text in the terminal"),
    "replay": ("replay", "make one step of a training again, such as one that gave NaN"),
    "compare": ("compare", "put runs side by side, in a table and in pictures"),
    "report": ("report", "one HTML page about a run: curves, videos, settings"),
    "sweep": ("sweep", "look for good settings, many at once"),
    "crossplay": ("cross_play", "let agents of different seeds play with each other"),
    "list": ("list", "the environments there are"),
    "check": ("check", "find out what is wrong with an environment of your own"),
    "doctor": ("doctor", "find out whether this machine is fit, and what is missing"),
    "profile": ("profile", "where the time of a training goes, and what would make it faster"),
    "bench": ("bench", "how many steps per second an environment runs at"),
}
ALIASES = {"enjoy": "play", "evaluate": "eval", "ls": "list", "benchmark": "bench"}

_EXAMPLES = """\
examples:
  kiloworlds train ppo CartPole-v1 --total-steps 500000 --num-seeds 8
  kiloworlds train mappo smax/3m
  kiloworlds eval runs/ppo/CartPole-v1_1
  kiloworlds play runs/ppo/CartPole-v1_1

Every command explains itself with --help and takes --json (results for programs on standard
output, words for people on standard error) and --debug (tracebacks)."""


def help_text() -> str:
    """The overview that `kiloworlds --help` prints."""
    verbs = "\n".join(f"  {name:<11}{summary}" for name, (_, summary) in VERBS.items())
    return (
        f"kiloworlds {kiloworlds.__version__}: {kiloworlds.__doc__}\n\n"
        f"usage: kiloworlds COMMAND ...\n\ncommands:\n{verbs}\n\n{_EXAMPLES}"
    )


def main(
    argv: Sequence[str] | None = None,
    importing: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> int:
    """Runs one command line and returns its exit code.

    Args:
        argv: the words after `kiloworlds`; those of the process if None.
        importing: surrounds the import of the command.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a sign shows "?"
            stream.reconfigure(errors="replace")
    try:
        with results_only_on_stdout("--json" in arguments), _tracebacks_in_log(debug):
            return _dispatch(arguments, importing)
    except KeyboardInterrupt as interrupt:
        print("\nInterrupted.", file=sys.stderr)
        return SIGNALLED + getattr(interrupt, "signal", signal.SIGINT)  # SIGTERM ends sweeps too
    except SystemExit as finished:  # the argument parser's help and errors
        return finished.code if isinstance(finished.code, int) else int(finished.code is not None)
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KiloworldsError, OSError) as error:
        if debug:
            raise
        print(f"kiloworlds: {_without_traceback(_words(error))}", file=sys.stderr)
        return WRONG_USE if isinstance(error, UnknownNameError | InvalidValueError) else FAILED


def entry() -> NoReturn:
    """The `kiloworlds` command."""
    raise_again_when_swallowed()
    code = main(importing=leaving_at_once)
    interrupts = sys.modules.get("kiloworlds.training.survival.interrupts")
    if code > SIGNALLED or (interrupts is not None and interrupts.is_compiling()):
        # Threads of XLA may still compile or compute: nobody waits for that any more, and what takes
        # their devices apart beneath them crashes. Workers end when this process has ended.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: the code says how
    sys.exit(code)


def _words(error: Exception) -> str:
    """The message of an error; of the system's own errors without their numbers."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{str(error.filename)!r}: {error.strerror}."
    return str(error)


def _without_traceback(message: str) -> str:
    """The message of an error without the traceback from a worker that it may hold."""
    said, held, _ = message.partition(_TRACEBACK)
    return f"{said} (--debug shows its traceback)" if held else message


@contextlib.contextmanager
def _tracebacks_in_log(shown: bool) -> Iterator[None]:
    """Without `shown`, cuts them out of what the log says of failures that are survived."""
    logger = logging.getLogger("kiloworlds.vector")
    if not shown:
        logger.addFilter(_cut_tracebacks)
    try:
        yield
    finally:
        logger.removeFilter(_cut_tracebacks)


def _cut_tracebacks(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            _without_traceback(str(given)) if isinstance(given, Exception | str) else given
            for given in record.args
        )
    return True


def _dispatch(arguments: list[str], importing: Callable[[], AbstractContextManager[None]]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else WRONG_USE
    verb, *rest = arguments
    if verb in ("--version", "-V"):
        print(f"kiloworlds {kiloworlds.__version__}")
        return 0
    verb = ALIASES.get(verb, verb)
    if verb not in VERBS:
        kind = "option" if verb.startswith("-") else "command"
        known = ["--help", "--version"] if kind == "option" else [*VERBS, *ALIASES]
        raise UnknownNameError(
            f"Unknown {kind} {verb!r}.{did_you_mean(verb, known)} To see all: kiloworlds --help."
        )
    module, _ = VERBS[verb]
    with importing():
        command = importlib.import_module(f"kiloworlds.cli.{module}")
    return command.run(rest)


if __name__ == "__main__":
    entry()
