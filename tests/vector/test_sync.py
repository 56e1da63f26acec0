"""The loop of the sync executor, held against Gymnasium's."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from kiloworlds.vector.sync import SyncExecutor


class Talkative(gymnasium.Env):
    """Tells much in its infos, and uses its arrays again."""

    observation_space = spaces.Dict(
        {"where": spaces.Box(-50.0, 50.0, (2,), np.float64), "steps": spaces.Discrete(20)}
    )
    action_space = spaces.Discrete(3)

    def __init__(self):
        self.where = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.where[:] = self.np_random.uniform(-1, 1, 2)
        return self.observe(), {"begun": True, "options": dict(options or {})}

    def step(self, action):
        self.steps += 1
        self.where += action - 1 + self.np_random.normal(size=2)
        over = bool(abs(self.where).max() > 4)
        info = {"where": self.where, "parts": {"norm": float(abs(self.where).sum())}}
        if self.steps % 3 == 0:
            info["word"] = f"{self.steps}"
        return self.observe(), float(self.where[0]), over, self.steps == 9, info

    def observe(self):
        return {"where": self.where, "steps": self.steps}


def assert_same(ours, theirs):
    """Compares nested results; arrays of objects value by value."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, tuple):
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    elif isinstance(ours, np.ndarray) and ours.dtype == object:
        assert_same(tuple(ours), tuple(theirs))
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


def theirs_in_arrays_of_their_own(results):
    """Gymnasium keeps the last observation in the environment's arrays, which the reset overwrites:
    only whether there is one can be compared."""
    *rest, infos = results
    return (*rest, {key: value for key, value in infos.items() if key != "final_obs"})


@pytest.mark.parametrize("mode", AutoresetMode)
def test_all_that_it_returns_equals_what_gymnasiums_loop_returns(mode):
    with SyncExecutor(Talkative, 3, autoreset_mode=mode, episode_statistics=False) as ours:
        theirs = SyncVectorEnv([Talkative] * 3, autoreset_mode=mode)
        assert_same(ours.reset(seed=5), theirs.reset(seed=5))
        random, endings = np.random.default_rng(0), 0
        for _ in range(200):
            actions = random.integers(0, 3, 3)
            results, expected = ours.step(actions), theirs.step(actions)
            over = results[2] | results[3]
            endings += over.sum()
            assert_same(*map(theirs_in_arrays_of_their_own, (results, expected)))
            if mode == AutoresetMode.DISABLED and over.any():
                options = {"reset_mask": over, "height": 2}
                assert_same(ours.reset(options=options), theirs.reset(options=dict(options)))
        assert endings > 30
        theirs.close()


def test_some_environments_are_reset_while_the_others_keep_their_place():
    with SyncExecutor(Talkative, 3) as envs:
        before, _ = envs.reset(seed=0)
        before, *_ = envs.step(np.zeros(3, int))
        after, infos = envs.reset(options={"reset_mask": np.array([False, True, False])})
        assert after["steps"].tolist() == [1, 0, 1]
        np.testing.assert_array_equal(after["where"][[0, 2]], before["where"][[0, 2]])
        assert infos["_begun"].tolist() == [False, True, False]


def test_the_last_observation_is_kept_though_the_environment_uses_its_arrays_again():
    with SyncExecutor(Talkative, 1) as envs:
        envs.reset(seed=0)
        over = False
        while not over:
            observations, _, terminated, truncated, infos = envs.step(np.zeros(1, int))
            over = bool(terminated[0] | truncated[0])
        last = infos["final_obs"][0]
        np.testing.assert_array_equal(last["where"], infos["final_info"]["where"][0])
        assert last["steps"] > 0
        assert observations["steps"].tolist() == [0]
        assert abs(last["where"] - observations["where"][0]).max() > 0.1
