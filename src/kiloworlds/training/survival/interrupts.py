"""Signals that end training."""

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_LISTEN_SECONDS = 0.1
_left_alone: list[threading.Thread] = []


class InterruptedEarlyError(Exception):
    """A signal came before there was anything to keep."""


Result = TypeVar("Result")


def run_or_leave(function: Callable[[], Result], stop: Callable[[], bool]) -> Result:
    """What `function` returns or raises, from a thread of its own: the compiler, which listens to
    nobody, is left alone with its work. Nobody hears then what becomes of it, so it must change nothing
    that others use.

    Raises:
        InterruptedEarlyError: `stop()` says so before the function returns.
    """
    outcome: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((True, function()))
        except BaseException as error:  # raised where it is waited for
            outcome.put((False, error))

    # No daemon: Python ends those in the middle of the compiler, which then aborts the process.
    thread = threading.Thread(target=work, name="compiler")
    thread.start()
    while True:
        try:
            is_result, value = outcome.get(timeout=_LISTEN_SECONDS)
        except queue.Empty:
            if stop():
                _left_alone.append(thread)
                raise InterruptedEarlyError from None
            continue
        if is_result:
            return value
        raise value


def is_compiling() -> bool:
    """Whether a thread that was left alone still works, for which Python would wait at its end."""
    return any(thread.is_alive() for thread in _left_alone)


class Interrupt(threading.Event):
    """Set by the first signal.

    Attributes:
        signal: its number.
    """

    signal: int | None = None


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Turns the first Ctrl-C or SIGTERM into an event that ends training cleanly; a second one is
    immediate."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # only the main thread may handle signals
        return

    def handle(number, frame):
        interrupt.signal = number
        interrupt.set()
        restore()

    def restore():
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        restore()
