import os
import threading
import time

import numpy as np
import pytest
from pool_envs import CountingEnv

from kiloworlds.core.errors import WrongCallError
from kiloworlds.vector.faults import RestartBudgetError
from kiloworlds.vector.thread import ThreadExecutor


class SleepingEnv(CountingEnv):
    """Sleeps, which releases Python's lock."""

    def step(self, action):
        time.sleep(0.1)
        return super().step(action)


def test_threads_share_the_process_and_need_no_pickling():
    lock = threading.Lock()
    made = []

    def make():
        with lock:
            made.append(os.getpid())
        return CountingEnv()

    envs = ThreadExecutor(make, 4, num_workers=2)
    assert made == [os.getpid()] * 4
    envs.close()


def test_workers_step_side_by_side():
    envs = ThreadExecutor(SleepingEnv, 4, num_workers=4)
    envs.reset(seed=0)
    began = time.perf_counter()
    for _ in range(3):
        envs.step(np.ones(4, int))
    assert time.perf_counter() - began < 0.9  # one after the other: 1.2
    envs.close()


def test_close_ends_the_threads_and_frees_the_descriptors():
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    envs = ThreadExecutor(CountingEnv, 4, num_workers=2)
    envs.reset(seed=0)
    envs.step(np.ones(4, int))
    assert threading.active_count() == threads + 2
    envs.close()
    assert threading.active_count() == threads
    del envs  # with its shared memory
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_thread_that_hangs_is_an_error_that_says_what_helps():
    class HangingEnv(CountingEnv):
        def step(self, action):
            time.sleep(2.0)
            return super().step(action)

    envs = ThreadExecutor(HangingEnv, 2, num_workers=1, step_timeout=0.3)
    envs.reset(seed=0)
    with pytest.raises(RestartBudgetError, match=r"environment 0 gave no answer.*'process' can"):
        envs.step(np.ones(2, int))
    envs.close()


def test_closing_from_another_thread_ends_the_wait():
    class LongEnv(CountingEnv):
        def step(self, action):
            time.sleep(0.5)
            return super().step(action)

    envs = ThreadExecutor(LongEnv, 2, num_workers=2)
    envs.reset(seed=0)
    timer = threading.Timer(0.1, envs.close)
    timer.start()

    def step_for_ever():
        while True:
            envs.step(np.ones(2, int))

    with pytest.raises(WrongCallError, match="close"):
        step_for_ever()
    timer.join()
