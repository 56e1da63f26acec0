"""Simulators that leak memory: another worker takes over, and no step is lost."""

import functools
import os
import signal
import time

import numpy as np
import pytest
from pool_envs import CountingEnv

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.thread import ThreadExecutor

NUM_ENVS = 4  # on two workers
MEGABYTE = 2**20


class LeakingEnv(CountingEnv):
    """Keeps a megabyte of every step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.kept = []

    def step(self, action):
        self.kept.append(np.ones(MEGABYTE, np.uint8))
        time.sleep(0.02)
        return super().step(action)

    @property
    def process(self):
        return os.getpid()


@pytest.fixture
def limit(pool):
    """Bytes that two fresh environments need, and room for 100 steps."""
    envs = pool(LeakingEnv, 2, num_workers=1)
    envs.reset(seed=0)
    fresh = envs._supervisor.crew.workers[0].resident_memory()
    envs.close()
    return fresh + 100 * MEGABYTE


def own_memory() -> int:
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "mode",
    ["same_step", *(pytest.param(m, marks=pytest.mark.slow) for m in ("next_step", "disabled"))],
)
def test_another_worker_takes_over_between_episodes(pool, limit, mode):
    # Episodes end at different times, so that environments pass over one by one.
    lengths = [5, 7, 9, 11]
    envs = pool(
        [functools.partial(LeakingEnv, length=length) for length in lengths],
        NUM_ENVS,
        num_workers=2,
        autoreset_mode=mode,
        max_worker_memory=limit,
    )
    observations, infos = envs.reset(seed=0)
    before = own_memory()
    steps, over = np.zeros(NUM_ENVS, int), np.zeros(NUM_ENVS, bool)
    pids = set(envs.worker_pids)
    most_held, started = 0, time.monotonic()
    while envs.num_recycled < 2 and time.monotonic() - started < 60:
        observations, rewards, terminated, truncated, infos = envs.step(np.ones(NUM_ENVS, int))
        assert "lost" not in infos
        assert not truncated.any()
        # Every episode has its full length: each step is the one after the last.
        steps = np.where(over, 0, steps + 1) if mode == "next_step" else steps + 1
        was_reset = over & (mode == "next_step")
        expected = np.where(was_reset, 0.0, 1 + steps / 10)
        np.testing.assert_allclose(rewards, expected)
        over = steps == lengths
        np.testing.assert_array_equal(terminated, over)
        if over.any():
            np.testing.assert_array_equal(infos["episode"]["l"][over], np.array(lengths)[over])
        if mode == "same_step":
            for row in np.nonzero(over)[0]:
                assert infos["final_obs"][row][1] == lengths[row]
            steps[over] = 0
        np.testing.assert_array_equal(observations[:, 1], steps)
        np.testing.assert_array_equal(infos["steps"], steps)
        assert infos["name"].tolist() == [f"step {step}" for step in steps]
        if mode == "disabled" and over.any():
            observations, _ = envs.reset(options={"reset_mask": over})
            np.testing.assert_array_equal(observations[over, 1], 0)
            steps[over] = 0
            over[:] = False
        pids |= set(envs.worker_pids)
        most_held = max(
            [most_held, *(worker.resident_memory() for worker in envs._supervisor.crew.present())]
        )
    assert envs.num_recycled >= 2
    assert (envs.restarts, envs.lost_episodes) == (0, 0)
    assert len(pids) >= 4
    # A look at the memory each second, a start and one episode later: some 200 steps of two.
    assert most_held < limit + 1000 * MEGABYTE
    assert own_memory() - before < 20 * MEGABYTE


@pytest.mark.slow
def test_asynchronously(pool, limit):
    lengths = [5, 7, 9, 11]
    envs = pool(
        [functools.partial(LeakingEnv, length=length) for length in lengths],
        NUM_ENVS,
        num_workers=2,
        batch_size=1,
        max_worker_memory=limit,
    )
    envs.async_reset(seed=0)
    expected = np.zeros(NUM_ENVS, int)
    started = time.monotonic()
    while envs.num_recycled < 2 and time.monotonic() - started < 60:
        observations, _, terminated, truncated, infos = envs.recv()
        (row,) = infos["env_id"].tolist()
        assert terminated[0] == (expected[row] == lengths[row])
        assert not truncated[0]
        assert "lost" not in infos
        expected[row] %= lengths[row]
        assert observations[0, 1] == expected[row]
        envs.send(np.ones(1, int), np.array([row]))
        expected[row] += 1
    assert envs.num_recycled >= 2


def short_and_long(pool, limit):
    """Two environments in one worker, whose episodes end at very different times."""
    makes = [functools.partial(LeakingEnv, length=length) for length in (5, 400)]
    envs = pool(makes, 2, num_workers=1, max_worker_memory=limit)
    envs.reset(seed=0)
    return envs


def hands_over(envs):
    """Steps until some environments have passed to the successor and some have not."""
    crew = envs._supervisor.crew
    for _ in range(5000):
        envs.step(np.ones(envs.num_envs, int))
        successor = crew.successor
        if successor is not None and 0 < len(crew.rows_of(successor)) < len(successor.rows):
            return crew.workers[successor.number], successor
    raise AssertionError("no successor took over")


@pytest.mark.parametrize("who", ["the one that leaves", "the one that takes over"])
def test_either_of_the_two_may_die_meanwhile(pool, limit, who):
    envs = short_and_long(pool, limit)
    leaving, successor = hands_over(envs)
    dies = leaving if who == "the one that leaves" else successor
    stays = successor if dies is leaving else leaving
    mine = envs._supervisor.crew.rows_of(dies).tolist()
    assert mine == ([1] if dies is leaving else [0])
    dies.process.kill()
    *_, truncated, infos = envs.step(np.ones(2, int))
    assert np.nonzero(infos["lost"])[0].tolist() == np.nonzero(truncated)[0].tolist() == mine
    assert envs.get_attr("process") == (stays.process.pid,) * 2
    assert (envs.restarts, envs.lost_episodes) == (1, 1)
    observations, *_ = envs.step(np.ones(2, int))
    assert observations[mine[0], 1] == 1


@pytest.mark.slow
def test_calls_and_attributes_reach_either_worker(pool, limit):
    envs = short_and_long(pool, limit)
    leaving, successor = hands_over(envs)
    assert envs.get_attr("process") == (successor.process.pid, leaving.process.pid)
    envs.set_attr("mark", ["first", "second"])
    assert envs.get_attr("mark") == ("first", "second")


def test_a_limit_below_what_a_fresh_worker_needs(pool):
    with pytest.raises(InvalidValueError, match=r"max_worker_memory=1000 bytes.*just built its 2"):
        pool(LeakingEnv, 4, num_workers=2, max_worker_memory=1000)


@pytest.mark.parametrize("value", [0, -1, "2GB"])
def test_a_limit_that_is_no_amount(value):
    with pytest.raises(InvalidValueError, match="must be bytes above 0"):
        ProcessExecutor(LeakingEnv, 2, num_workers=1, max_worker_memory=value)


def test_threads_cannot_be_replaced():
    with pytest.raises(InvalidValueError, match="share this process's memory"):
        ThreadExecutor(LeakingEnv, 2, num_workers=1, max_worker_memory=1e9)


class BuiltTwice(LeakingEnv):
    """Cannot be built a second time."""

    def __init__(self, file, **kwargs):
        file.open("x").close()
        super().__init__(**kwargs)


def test_a_successor_that_cannot_be_built(pool, limit, tmp_path, caplog):
    envs = pool(
        functools.partial(BuiltTwice, tmp_path / "built", length=5),
        1,
        num_workers=1,
        max_worker_memory=limit,
    )
    envs.reset(seed=0)
    started = time.monotonic()
    while not envs.restarts and time.monotonic() - started < 60:
        *_, infos = envs.step(np.ones(1, int))
        assert "lost" not in infos
    assert envs.restarts == 1
    assert "could not take over" in caplog.text
    assert "FileExistsError" in caplog.text


def test_closing_while_environments_pass_over(pool, limit):
    envs = short_and_long(pool, limit)
    both = hands_over(envs)
    envs.close()
    for worker in both:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.process.pid, signal.SIG_DFL)
