"""Environments and workers that raise, die, hang and lie; each fault injected for real."""

import ctypes
import functools
import itertools
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from pool_envs import CountingEnv, FaultyEnv, SlowEnv

from kiloworlds.core import machine
from kiloworlds.vector.faults import EnvironmentFailedError, RestartBudget, RestartBudgetError
from kiloworlds.vector.process.pool import ProcessExecutor

NUM_ENVS = 4  # on two workers: the fault is in environment 0, environment 1 shares its worker


def killed(env):
    os.kill(os.getpid(), signal.SIGKILL)


def exits(env):
    os._exit(0)


def segfaults(env):
    ctypes.string_at(0)


def stops(env):
    os.kill(os.getpid(), signal.SIGSTOP)


def hangs_in_native_code(env):
    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock all the while


class OddError(Exception):
    """Cannot be rebuilt from its text, as pickle would have to."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")


def raises(env):
    raise OddError(7, "the wheel came off")


def runs_out_of_memory(env):
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    return np.zeros(2**33)


def makes(fault, once, at_step=3):
    """Environments of which the first has a fault, once."""
    faulty = functools.partial(FaultyEnv, fault, at_step, once, length=100)
    return [faulty] + [functools.partial(CountingEnv, length=100)] * (NUM_ENVS - 1)


def run_through_a_fault(envs, steps=6):
    """Steps through the fault at step 3; returns what that step gave."""
    observations, _ = envs.reset(seed=0)
    result = None
    for step in range(1, steps + 1):
        before = observations
        observations, rewards, terminated, truncated, infos = envs.step(np.full(NUM_ENVS, 1))
        if "lost" in infos:
            assert result is None, "lost twice"
            result = (before, observations, rewards, terminated, truncated, infos)
        # The worker without the fault does not notice.
        np.testing.assert_array_equal(observations[2:, 1], step)
        np.testing.assert_allclose(rewards[2:], 1 + step / 10)
        assert not (terminated | truncated)[2:].any()
    return result


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (killed, r"killed by SIGKILL, not for want of memory \(it held \d+ MB when last seen"),
        (exits, "ended with exit code 0 without being closed"),
        (segfaults, "killed by SIGSEGV"),
        (stops, r"gave no answer for 1 s in a step of environment 0 \(see step_timeout\)"),
        (hangs_in_native_code, r"gave no answer for 1 s in a step of environment 0"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_replaced(pool, once, caplog, fault, says):
    envs = pool(makes(fault, once), NUM_ENVS, num_workers=2, step_timeout=1.0)
    with caplog.at_level(logging.WARNING, "kiloworlds.vector"):
        result = run_through_a_fault(envs)
    assert result is not None
    before, observations, rewards, terminated, truncated, infos = result
    np.testing.assert_array_equal(infos["lost"], [True, True, False, False])
    np.testing.assert_array_equal(infos["_lost"], infos["lost"])
    assert (rewards[:2] == 0).all()
    assert truncated[:2].all()
    assert not terminated.any()
    for index in (0, 1):  # the last good observation, and the first of a new episode
        np.testing.assert_array_equal(infos["final_obs"][index], before[index])
    np.testing.assert_array_equal(observations[:2, 1], 0)
    assert "episode" not in infos
    assert (envs.restarts, envs.lost_episodes) == (1, 2)
    assert len(caplog.records) == 1
    assert re.search(says, caplog.text)


def test_a_kill_for_want_of_memory_is_told_from_others(pool, once, caplog, monkeypatch):
    # The kernel's own counter: nothing here may fill the machine's memory to make it count.
    kills = itertools.count()
    monkeypatch.setattr(machine, "out_of_memory_kills", lambda: next(kills))
    envs = pool(makes(killed, once), NUM_ENVS, num_workers=2)
    run_through_a_fault(envs)
    assert "killed by SIGKILL (likely out of memory: it held" in caplog.text
    assert "fewer environments per worker need less" in caplog.text


def test_the_log_names_fault_worker_and_environment(pool, once, caplog):
    envs = pool(makes(segfaults, once), NUM_ENVS, num_workers=2)
    with caplog.at_level(logging.WARNING, "kiloworlds.vector"):
        run_through_a_fault(envs)
    (record,) = caplog.records
    assert record.message == (
        "worker 0 (environments 0 to 1), busy with environment 0, was killed by SIGSEGV; starting "
        "it again in 0 s"
    )


def test_a_worker_killed_from_outside_between_steps(pool):
    envs = pool(functools.partial(CountingEnv, length=100), NUM_ENVS, num_workers=2)
    envs.reset(seed=0)
    envs.step(np.ones(NUM_ENVS, int))
    os.kill(envs.worker_pids[1], signal.SIGKILL)
    observations, _, _, truncated, infos = envs.step(np.ones(NUM_ENVS, int))
    assert infos["lost"].tolist() == truncated.tolist() == [False, False, True, True]
    assert observations[:, 1].tolist() == [2, 2, 0, 0]
    observations = envs.step(np.ones(NUM_ENVS, int))[0]
    assert observations[:, 1].tolist() == [3, 3, 1, 1]


def test_a_pause_shorter_than_the_deadline_costs_nothing(pool):
    envs = pool(functools.partial(CountingEnv, length=100), NUM_ENVS, num_workers=2, step_timeout=5)
    envs.reset(seed=0)
    pid = envs.worker_pids[0]
    os.kill(pid, signal.SIGSTOP)
    waker = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -CONT {pid}"])
    start = time.monotonic()
    observations, _, _, _, infos = envs.step(np.ones(NUM_ENVS, int))
    assert time.monotonic() - start > 0.3
    waker.wait()
    assert "lost" not in infos
    assert (observations[:, 1] == 1).all()
    assert envs.restarts == 0


@pytest.mark.parametrize("mode", ["next_step", "disabled"])
def test_lost_episodes_in_the_other_autoreset_modes(pool, once, mode):
    envs = pool(makes(killed, once), NUM_ENVS, num_workers=2, autoreset_mode=mode)
    before, _ = envs.reset(seed=0)
    for _ in range(2):
        before = envs.step(np.ones(NUM_ENVS, int))[0]
    observations, _, _, truncated, infos = envs.step(np.ones(NUM_ENVS, int))
    assert infos["lost"].tolist() == truncated.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(observations[:2], before[:2])
    if mode == "disabled":
        envs.reset(options={"reset_mask": truncated})
        observations = envs.step(np.ones(NUM_ENVS, int))[0]
        assert observations[:, 1].tolist() == [1, 1, 4, 4]
    else:
        observations, rewards, *_ = envs.step(np.ones(NUM_ENVS, int))
        assert observations[:, 1].tolist() == [0, 0, 4, 4]
        assert rewards[:2].tolist() == [0, 0]
    assert envs.lost_episodes == 2


def test_an_exception_reaches_the_caller(pool, once):
    envs = pool(makes(raises, once), NUM_ENVS, num_workers=2)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.ones(NUM_ENVS, int))
    with pytest.raises(EnvironmentFailedError) as caught:
        envs.step(np.array([2, 1, 1, 1]))
    error = caught.value
    assert error.env_index == 0
    assert "environment 0 failed in step with action" in str(error)
    assert "OddError: 7: the wheel came off" in str(error)
    assert "in raises" in error.worker_traceback
    # Only that environment was built anew, and the vector goes on.
    observations = envs.step(np.ones(NUM_ENVS, int))[0]
    assert observations[:, 1].tolist() == [1, 4, 4, 4]


@pytest.mark.parametrize("fault", [raises, runs_out_of_memory])
def test_an_environment_that_failed_is_built_anew(pool, once, fault):
    envs = pool(makes(fault, once), NUM_ENVS, num_workers=2, on_error="restart")
    result = run_through_a_fault(envs)
    assert result is not None
    assert result[-1]["lost"].tolist() == [True, False, False, False]
    assert envs.lost_episodes == 1


def test_asynchronous_stepping_goes_on_beside_a_dead_worker(pool, once):
    envs = pool(
        makes(killed, once, at_step=5), NUM_ENVS, num_workers=2, batch_size=1, on_error="restart"
    )
    envs.async_reset(seed=0)
    lost, steps = [], np.zeros(NUM_ENVS, int)
    served_meanwhile = 0
    while not lost or steps[lost[0]] < 3:
        observations, _, _, truncated, infos = envs.recv()
        (row,) = infos["env_id"].tolist()
        if "lost" in infos:
            assert truncated[0]
            lost.append(row)
            steps[row] = 0
        served_meanwhile += None in envs.worker_pids or not envs._supervisor.crew.all_live()
        assert observations[0, 1] == steps[row] % 100
        envs.send(np.ones(1, int), np.array([row]))
        steps[row] += 1
    assert set(lost) == {0, 1}
    assert served_meanwhile > 20


def broken_constructor():
    raise FileNotFoundError("no such track")


def slow_constructor():
    time.sleep(1000)


class BrokenReset(CountingEnv):
    """Cannot be reset."""

    def reset(self, *, seed=None, options=None):
        raise ValueError("no track to start on")


def test_a_constructor_that_fails(pool):
    with pytest.raises(EnvironmentFailedError, match=r"failed in constructor.*no such track") as e:
        pool(broken_constructor, NUM_ENVS, num_workers=2)
    assert "in broken_constructor" in e.value.worker_traceback


def test_a_constructor_that_hangs(pool):
    start = time.monotonic()
    with pytest.raises(RestartBudgetError, match=r"no answer for 1 s in starting.*start_timeout"):
        pool(slow_constructor, 2, num_workers=2, start_timeout=1.0)
    assert time.monotonic() - start < 10


def test_a_reset_that_always_fails_ends_in_bounded_time(pool):
    envs = pool(BrokenReset, 2, num_workers=1, max_restarts=3, on_error="restart")
    with pytest.raises(RestartBudgetError, match=r"max_restarts=3.*no track to start on"):
        envs.reset(seed=0)


def test_a_crash_loop_ends_with_the_first_reason(pool):
    envs = pool(
        functools.partial(FaultyEnv, killed, 1, length=100), 1, num_workers=1, max_restarts=1
    )
    envs.reset(seed=0)
    envs.step(np.ones(1, int))
    with pytest.raises(
        RestartBudgetError, match=r"max_restarts=1.*The first was: worker 0.*SIGKILL"
    ):
        envs.step(np.ones(1, int))


def test_the_restart_budget_backs_off(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    budget = RestartBudget(4, window=100)
    assert [budget.spend(str(i)) for i in range(4)] == [0, 1, 2, 4]
    with pytest.raises(RestartBudgetError, match="The first was: 0"):
        budget.spend("4")
    clock[0] = 101.0
    assert budget.spend("5") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda result: (result[0].astype(np.float32), *result[1:]), r"float32 of shape \(2,\)"),
        (lambda result: (result[0][:1], *result[1:]), r"shape \(1,\).*float64 of shape \(2,\)"),
        (lambda result: result[:4], r"not enough values to unpack"),
    ],
)
def test_results_that_do_not_fit_their_space(pool, once, change, message):
    def lies(env):
        return change(CountingEnv.step(env, 0))

    envs = pool(makes(lies, once), NUM_ENVS, num_workers=2)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.ones(NUM_ENVS, int))
    with pytest.raises(EnvironmentFailedError, match=message):
        envs.step(np.ones(NUM_ENVS, int))


def test_a_step_timeout_shorter_than_a_reset_does_not_kill(pool):
    class SlowReset(CountingEnv):
        def reset(self, *, seed=None, options=None):
            time.sleep(2.0)
            return super().reset(seed=seed, options=options)

    envs = pool(functools.partial(SlowReset, length=2), 2, num_workers=2, step_timeout=1.0)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.ones(2, int))
    assert envs.restarts == 0


DRIVER = """
    import ctypes, functools, os, signal, sys, time
    sys.path.insert(0, {tests!r})
    import numpy as np
    from pool_envs import FaultyEnv
    from kiloworlds.vector.process.pool import ProcessExecutor

    def hangs(env):
        ctypes.PyDLL(None).sleep(1000)

    envs = ProcessExecutor(functools.partial(FaultyEnv, hangs, {hang_at}), 2, num_workers=2)
    envs.reset(seed=0)
    print(*envs.worker_pids, flush=True)
    while True:
        envs.step(np.ones(2, int))
"""


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("hang_at", [10**9, 1], ids=["working", "stuck in native code"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_driver(number, hang_at):
    script = textwrap.dedent(DRIVER).format(tests=str(Path(__file__).parents[1]), hang_at=hang_at)
    driver = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with driver:
        pids = list(map(int, driver.stdout.readline().split()))
        time.sleep(0.3)
        assert all(map(exists, pids))
        driver.send_signal(number)
        driver.wait(20)
    deadline = time.monotonic() + 5
    while any(map(exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(exists, pids))


def test_a_vector_that_is_dropped_closes_itself():
    envs = ProcessExecutor(functools.partial(SlowEnv, 0.01), 2, num_workers=2)
    pids = envs.worker_pids
    del envs
    assert not any(map(exists, pids))


def test_waits_grow_only_while_failures_follow_each_other(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("kiloworlds.vector.faults.time.monotonic", lambda: now[0])
    budget = RestartBudget(100, window=600)
    waits = []
    for pause in (0, 5, 20, 33, 50, 1, 1, 1, 1, 1, 1, 1):
        now[0] += pause
        waits.append(budget.spend("x"))
    # The fourth comes 33 s after a failure whose restart was waited for 2 s.
    assert waits == [0, 1, 2, 0, 0, 1, 2, 4, 8, 16, 30, 30]
