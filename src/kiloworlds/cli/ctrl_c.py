"""Ctrl-C where Python would lose it.

KeyboardInterrupt is raised wherever the main thread happens to be. In the middle of an import it may be
swallowed by the interpreter, so that the command goes on, or reach C code that expects no error and dies
of it.
"""

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALLED = 128
"""The exit code of a command that a signal ended is this and its number, as shells have it."""
_AGAIN_SECONDS = 0.05
"""After the callback has returned."""


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C ends the process without anything in between: for imports, before which nothing is begun
    that would have to be ended in order.

    Where Ctrl-C is ignored, as in a job behind nohup, it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.stdout.flush()
    os.write(2, b"\nInterrupted.\n")
    os._exit(SIGNALLED + number)


def raise_again_when_swallowed() -> None:
    """From now on a KeyboardInterrupt that came in a callback, where Python only prints it, is raised
    again a moment later."""
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            timer = threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main)
            timer.daemon = True
            timer.start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
