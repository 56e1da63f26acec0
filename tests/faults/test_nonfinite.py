"""NaN and Inf from an environment (row 11 of the matrix of faults)."""

import functools

import numpy as np
import pytest
from pool_envs import CountingEnv

from kiloworlds.vector.faults import EnvironmentFailedError

NUM_ENVS = 4


class NonFiniteEnv(CountingEnv):
    """The third step of the life of the environment whose start is even gives NaN or Inf."""

    def __init__(self, where: str, value: float, is_bad: bool):
        super().__init__(length=100)
        self.where, self.value, self.is_bad, self.life = where, value, is_bad, 0

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.life += 1
        if self.is_bad and self.life == 3:
            if self.where == "reward":
                reward = self.value
            else:
                observation[1] = self.value
        return observation, reward, terminated, truncated, info


def makes(where="observation", value=np.nan):
    return [functools.partial(NonFiniteEnv, where, value, row == 1) for row in range(NUM_ENVS)]


@pytest.mark.parametrize("where", ["reward", "observation"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_episode_is_lost_by_default(pool, caplog, where, value):
    envs = pool(makes(where, value), NUM_ENVS, num_workers=2)
    envs.reset(seed=0)
    for _ in range(2):
        before, *_ = envs.step(np.ones(NUM_ENVS, int))
    observations, rewards, terminated, truncated, infos = envs.step(np.ones(NUM_ENVS, int))
    np.testing.assert_array_equal(infos["lost"], [False, True, False, False])
    np.testing.assert_array_equal(truncated, infos["lost"])
    assert not terminated.any()
    np.testing.assert_allclose(rewards, [1.3, 0, 1.3, 1.3])
    np.testing.assert_array_equal(
        observations[:, 1], [3, 0, 3, 3]
    )  # a new episode of environment 1
    np.testing.assert_array_equal(infos["final_obs"][1], before[1])
    assert envs.lost_episodes == 1
    assert f"environment 1 gave NaN or Inf in its {where}" in caplog.text
    observations, *_, infos = envs.step(np.ones(NUM_ENVS, int))
    np.testing.assert_array_equal(observations[:, 1], [4, 1, 4, 4])
    assert "lost" not in infos


def test_in_next_step_mode_the_reset_comes_one_step_later(pool):
    envs = pool(makes(), NUM_ENVS, num_workers=2, autoreset_mode="next_step")
    envs.reset(seed=0)
    for _ in range(3):
        observations, _, _, truncated, infos = envs.step(np.ones(NUM_ENVS, int))
    assert infos["lost"].tolist() == truncated.tolist() == [False, True, False, False]
    np.testing.assert_array_equal(observations[:, 1], [3, 2, 3, 3])  # the last good one
    observations, *_, infos = envs.step(np.ones(NUM_ENVS, int))
    np.testing.assert_array_equal(observations[:, 1], [4, 0, 4, 4])
    assert envs.lost_episodes == 1


def test_raise_leaves_the_vector_usable(pool):
    envs = pool(makes(), NUM_ENVS, num_workers=2, on_nonfinite="raise")
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.ones(NUM_ENVS, int))
    with pytest.raises(
        EnvironmentFailedError, match=r"environment 1 .*NaN or Inf in its observation"
    ):
        envs.step(np.ones(NUM_ENVS, int))
    observations, *_, infos = envs.step(np.ones(NUM_ENVS, int))
    np.testing.assert_array_equal(observations[:, 1], [4, 1, 4, 4])
    assert "lost" not in infos


def test_quarantine_takes_the_environment_out_for_good(pool):
    envs = pool(makes(), NUM_ENVS, num_workers=2, on_nonfinite="quarantine")
    envs.reset(seed=0)
    for step in range(6):
        observations, rewards, _, truncated, infos = envs.step(np.ones(NUM_ENVS, int))
        out = step >= 2
        assert infos.get("lost", np.zeros(NUM_ENVS, bool)).tolist() == [False, out, False, False]
        assert truncated[1] == out
        assert np.isfinite(observations).all()
        assert observations[1, 1] == min(step + 1, 2)  # the last good one stays
        assert (rewards[1] == 0) == out
    assert envs.num_quarantined == 1
    assert envs.lost_episodes == 1


def test_ignore_hands_it_on(pool):
    envs = pool(makes(), NUM_ENVS, num_workers=2, on_nonfinite="ignore")
    envs.reset(seed=0)
    for _ in range(3):
        observations, *_, infos = envs.step(np.ones(NUM_ENVS, int))
    assert np.isnan(observations[1, 1])
    assert "lost" not in infos


def test_asynchronously(pool):
    envs = pool(makes(), NUM_ENVS, num_workers=2, batch_size=2)
    envs.async_reset(seed=0)
    lost: list[int] = []
    for _ in range(2000):  # the workers need not serve alike
        observations, _, _, _, infos = envs.recv()
        assert np.isfinite(observations).all()
        rows = infos["env_id"]
        if "lost" in infos:
            lost.extend(rows[infos["lost"]].tolist())
            break
        envs.send(np.ones(2, int), rows)
    assert lost == [1]


def test_the_last_observation_of_an_episode_counts_too(pool):
    class BadEnd(CountingEnv):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            if terminated:
                observation[1] = np.nan
            return observation, reward, terminated, truncated, info

    makes = [functools.partial(BadEnd if row == 2 else CountingEnv, length=3) for row in range(4)]
    envs = pool(makes, NUM_ENVS, num_workers=2)
    envs.reset(seed=0)
    for _ in range(3):
        observations, _, terminated, truncated, infos = envs.step(np.ones(NUM_ENVS, int))
    assert infos["lost"].tolist() == truncated.tolist() == [False, False, True, False]
    assert terminated.tolist() == infos["_episode"].tolist() == [True, True, False, True]
    assert infos["final_obs"][2][1] == 2  # the last good one
    np.testing.assert_array_equal(observations[:, 1], np.zeros(NUM_ENVS))
