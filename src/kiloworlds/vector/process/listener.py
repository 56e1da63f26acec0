"""Waits for all workers of a pool at once."""

import select

from kiloworlds.vector.process.handle import WorkerHandle


class Listener:
    """The descriptors that workers are heard by.

    Each worker has three: its end, the messages of its start, and its outbox when it is live.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._by_descriptor: dict[int, WorkerHandle] = {}

    def add_starting(self, worker: WorkerHandle) -> None:
        """Listens for the first word of a worker, and its end."""
        for descriptor in (worker.control.fileno(), worker.ended_fd):
            self._add(descriptor, worker, select.POLLIN)

    def add_live(self, worker: WorkerHandle) -> None:
        """Listens to the outbox of a worker that has started, and no longer for messages: those are
        announced in the outbox."""
        self._remove(worker.control.fileno())
        self._add(worker.outbox.read_fd, worker, select.POLLIN)

    def remove(self, worker: WorkerHandle) -> None:
        """Listens to a worker no more."""
        for descriptor in (worker.ended_fd, worker.outbox.read_fd, worker.control.fileno()):
            self._remove(descriptor)

    def hears(self, worker: WorkerHandle) -> bool:
        """Whether the worker has not been removed."""
        return self._by_descriptor.get(worker.ended_fd) is worker

    def watch_for_room(self, workers: list[WorkerHandle]) -> None:
        """Sees to it that workers whose socket was full are noticed when it takes more."""
        for worker in workers:
            if worker.has_unsent and worker.is_live:
                descriptor = worker.control.fileno()
                if descriptor not in self._by_descriptor:
                    self._add(descriptor, worker, select.POLLOUT)

    def send_rest(self, worker: WorkerHandle) -> None:
        """Sends what a live worker's socket takes of what it did not take before."""
        worker.send_rest()
        if not worker.has_unsent:
            self._remove(worker.control.fileno())

    def wait(self, seconds: float) -> list[tuple[int, WorkerHandle]]:
        """Sleeps until something is to be read: the descriptors, and whose they are."""
        events = self._poll.poll(seconds * 1000)
        return [(descriptor, self._by_descriptor[descriptor]) for descriptor, _ in events]

    def _add(self, descriptor: int, worker: WorkerHandle, event: int) -> None:
        self._poll.register(descriptor, event)
        self._by_descriptor[descriptor] = worker

    def _remove(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
