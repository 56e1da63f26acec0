"""Signals that end training."""

import contextlib
import signal
import threading
from collections.abc import Iterator


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
