"""What a pool does after a fault was told: nothing of the others is lost, nothing is told twice."""

import os
import signal
import time

import gymnasium
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.faults import EnvironmentFailedError, RestartBudgetError
from kiloworlds.vector.process.protocol import IDLE

ENDS, NAN, EXITS = 1, 2, 3


class Walk(gymnasium.Env):
    """Counts its steps and does what the action says; may start badly, or hold ever more memory."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self, bad_starts=False, leak=0):
        self.bad_starts, self.leak, self.tag = bad_starts, leak, "old"
        self.resets, self.held = 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.resets = 0, self.resets + 1
        bad = self.bad_starts and self.resets > 1
        return np.array([np.nan if bad else 0.0], np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.leak:
            self.held.append(np.ones(self.leak // 8))
        if action == EXITS:
            os._exit(3)
        value = np.nan if action == NAN else self.steps
        info = {"final_obs": 2.0, "final_info": {"a": 1}, "odd": "text"}
        return np.array([value], np.float32), 1.0, action == ENDS, False, info


def eventually(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def make():
    made = []

    def make(*make_envs, **options):
        made.append(kw.make(list(make_envs), len(make_envs), backend="process", **options))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


@pytest.mark.parametrize("mode", ["next_step", "disabled"])
def test_nan_is_raised_once_and_then_delivered_as_lost(make, mode):
    envs = make(Walk, Walk, num_workers=1, autoreset_mode=mode, on_nonfinite="raise")
    envs.async_reset(seed=0)
    envs.recv()
    envs.send(np.array([NAN, 0]), [0, 1])
    with pytest.raises(EnvironmentFailedError, match=r"environment 0.*NaN"):
        envs.recv()
    observations, rewards, _, truncated, infos = envs.recv()
    by_env = np.argsort(infos["env_id"])
    assert infos["lost"][by_env].tolist() == [True, False]
    assert truncated[by_env].tolist() == [True, False]
    assert rewards[by_env].tolist() == [0.0, 1.0]
    assert observations[by_env, 0].tolist() == [0.0, 1.0]
    assert envs.lost_episodes == 1


@pytest.mark.parametrize("ordered", [False, True])
def test_a_start_that_stays_nan_keeps_the_results_of_the_others(make, ordered):
    envs = make(lambda: Walk(bad_starts=True), Walk, num_workers=2, ordered=ordered)
    envs.async_reset(seed=0)
    envs.recv()
    envs.send(np.array([ENDS, 0]), [0, 1])
    with pytest.raises(EnvironmentFailedError, match=r"environment 0 failed in reset"):
        envs.recv()
    assert envs.lost_episodes == 1
    if ordered:  # environment 0 comes first, and is asked for again
        with pytest.raises(EnvironmentFailedError, match=r"environment 0 failed in reset"):
            envs.recv(batch_size=1)
        assert envs.lost_episodes == 1
        return
    observations, *_, infos = envs.recv(batch_size=1)
    assert infos["env_id"].tolist() == [1]
    assert observations.tolist() == [[1.0]]


def test_an_episode_is_lost_though_the_next_starts_badly_at_first(make):
    class BadSecondStart(Walk):
        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed, options=options)
            return observation + (np.nan if self.resets == 2 else 0.0), info

    envs = make(BadSecondStart, Walk, num_workers=1)
    envs.reset(seed=0)
    observations, _, _, truncated, infos = envs.step(np.array([NAN, 0]))
    assert infos["lost"].tolist() == truncated.tolist() == [True, False]
    assert observations.tolist() == [[0.0], [1.0]]
    assert envs.lost_episodes == 1


def test_a_budget_that_is_spent_stays_spent(make):
    envs = make(Walk, Walk, num_workers=2, max_restarts=0)
    envs.reset(seed=0)
    with pytest.raises(RestartBudgetError):
        envs.step(np.array([EXITS, 0]))
    for call in (envs.recv, envs.recv):
        with pytest.raises(RestartBudgetError, match="exit code 3"):
            call()


def test_what_is_set_during_a_handover_stays(make):
    envs = make(lambda: Walk(leak=4_000_000), Walk, num_workers=1, max_worker_memory=1.5e8)
    envs.reset(seed=0)
    deadline = time.monotonic() + 60
    while not envs._supervisor.crew.hands_over and time.monotonic() < deadline:
        envs.step(np.zeros(2, int))
    assert envs._supervisor.crew.hands_over
    envs.set_attr("tag", ["new0", "new1"])
    assert envs.get_attr("tag") == ("new0", "new1")
    envs.step(np.full(2, ENDS))
    assert envs.num_recycled == 1
    assert envs.get_attr("tag") == ("new0", "new1")


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_names_of_ours_among_the_infos_of_an_environment(make, mode):
    envs = make(Walk, Walk, num_workers=2, autoreset_mode=mode)
    twin = kw.make([Walk, Walk], 2, backend="sync", autoreset_mode=mode)
    envs.reset(seed=0)
    twin.reset(seed=0)
    for action in (0, ENDS, 0):
        results, expected = (one.step(np.array([action, 0]))[-1] for one in (envs, twin))
        assert results.keys() == expected.keys()
        told = [not (mode == "same_step" and action == ENDS), True]
        if action or mode == "same_step":
            assert results["_final_obs_"].tolist() == expected["_final_obs_"].tolist() == told
            assert results["final_info_"]["a"].tolist() == expected["final_info_"]["a"].tolist()
    os.kill(envs.worker_pids[0], signal.SIGKILL)
    infos = envs.step(np.zeros(2, int))[-1]
    assert infos["lost"].tolist() == [True, False]
    np.testing.assert_array_equal(infos["final_obs"][0].shape, (1,))


def test_the_end_of_an_episode_outlives_the_worker(make):
    envs = make(Walk, Walk, num_workers=1)
    envs.async_reset(seed=0)
    envs.recv()
    envs.send(np.array([ENDS]), [0])
    worker = envs._supervisor.crew.workers[0]
    eventually(worker.has_entries)
    eventually(lambda: worker.activity == IDLE)  # all of the answer is there
    os.kill(envs.worker_pids[0], signal.SIGKILL)
    eventually(worker.has_ended)
    envs.send(np.array([0]), [1])
    _, _, terminated, truncated, infos = envs.recv()
    first = infos["env_id"].tolist().index(0)
    assert terminated[first]
    assert not truncated[first]
    assert infos["final_info"]["odd"][first] == "text"


def test_an_episode_that_has_ended_is_not_lost_with_its_worker(make):
    envs = make(Walk, Walk, num_workers=1, autoreset_mode="next_step")
    envs.reset(seed=0)
    envs.step(np.array([ENDS, ENDS]))
    os.kill(envs.worker_pids[0], signal.SIGKILL)
    observations, rewards, terminated, truncated, infos = envs.step(np.zeros(2, int))
    assert "lost" not in infos
    assert (observations == 0).all()
    assert not np.any([rewards, terminated, truncated])
    assert envs.lost_episodes == 0
    assert envs.step(np.zeros(2, int))[0].tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("name", ["num_workers", "batch_size", "step_timeout", "copy", "on_error"])
def test_an_array_is_no_setting(name):
    with pytest.raises(InvalidValueError, match=name):
        kw.make(lambda: Walk(), 2, backend="process", **{name: np.array([1, 2])})
