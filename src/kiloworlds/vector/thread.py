"""The pool on threads, for simulators that release Python's lock while they step.

They start at once, and need neither pickling nor memory of their own, but a thread cannot be ended:
one that hangs, or a simulator that crashes, ends the vector or the program.
"""

import threading
from multiprocessing.connection import Connection

from kiloworlds.vector.faults import RestartBudgetError
from kiloworlds.vector.process import protocol
from kiloworlds.vector.process.handle import WorkerHandle
from kiloworlds.vector.process.pool import PoolExecutor
from kiloworlds.vector.process.signals import Signal
from kiloworlds.vector.process.worker import Worker


class ThreadWorker(WorkerHandle):
    """A worker in a thread of this process; see `WorkerHandle`."""

    def __init__(self, number: int, setup: protocol.Setup, rows: range):
        super().__init__(number, rows)
        self._ended = Signal.create()
        self.ended_fd = self._ended.read_fd
        self._error: BaseException | None = None
        # A daemon: a simulator that hangs must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, args=(setup,), daemon=True)
        self._thread.start()

    def _run(self, setup: protocol.Setup) -> None:
        control = Connection(self._theirs.detach())
        try:
            Worker(setup, control, self.inbox, self.outbox).run()
        except BaseException as error:
            self._error = error
        finally:
            control.close()
            self._ended.post()

    def kill(self) -> None:
        raise RestartBudgetError(
            f"environment {self.current_row} gave no answer in time, and a thread cannot be ended; "
            "backend='process' can start its worker again."
            if self.is_live
            else "an environment was not built in time (see start_timeout), and a thread cannot be "
            "ended; backend='process' can."
        )

    def how_it_ended(self) -> str:
        self._thread.join()
        return f"ended by {self._error!r}" if self._error else "ended without being closed"

    def stop(self, patience: float) -> None:
        self._thread.join(patience)
        if not self._thread.is_alive():  # else it still needs the descriptors
            self.free()


class ThreadExecutor(PoolExecutor):
    __doc__ = PoolExecutor.__doc__

    backend = "thread"
    _workers_own_memory = False

    @staticmethod
    def _hire(number: int, setup: protocol.Setup, rows: range, num_workers: int) -> WorkerHandle:
        return ThreadWorker(number, setup, rows)
