"""EnvPool behind our interface."""

import gymnasium
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError

pytest.importorskip("envpool", exc_type=ImportError)

from kiloworlds.vector.native.envpool import ENVPOOL_TASKS, EnvPoolExecutor


@pytest.fixture(autouse=True)
def _log_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file in the working directory


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")  # CartPole-v0
@pytest.mark.parametrize("env_id", ENVPOOL_TASKS)
def test_observations_and_actions_have_gymnasiums_types(env_id):
    envs = EnvPoolExecutor(env_id, 2, seed=1)
    theirs = gymnasium.make(env_id)
    assert envs.single_action_space == theirs.action_space
    assert envs.single_observation_space.shape == theirs.observation_space.shape
    first, _ = envs.reset()
    envs.action_space.seed(0)
    observations, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
    assert first.dtype == observations.dtype == theirs.observation_space.dtype
    assert rewards.dtype == np.float64
    assert terminated.dtype == truncated.dtype == bool
    assert envs._pool.config["max_episode_steps"] == (theirs.spec.max_episode_steps or 2**31 - 1)
    envs.close()
    theirs.close()


def test_cartpole_is_gymnasiums_from_the_same_state():
    """EnvPool's dynamics, its rewards and its ends, from its own first states."""
    envs = EnvPoolExecutor("CartPole-v1", 4, seed=3)
    reference = [gymnasium.make("CartPole-v1").unwrapped for _ in range(4)]
    observations, _ = envs.reset()
    for env, state in zip(reference, observations, strict=True):
        env.reset()
        env.state = state.astype(float)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(120):
        actions = rng.integers(0, 2, 4)
        observations, rewards, terminated, _, infos = envs.step(actions)
        for row, env in enumerate(reference):
            expected, reward, over, _, _ = env.step(actions[row])
            got = infos["final_obs"][row] if terminated[row] else observations[row]
            np.testing.assert_allclose(got, expected, atol=1e-5)
            assert (rewards[row], terminated[row]) == (reward, over)
            if over:
                ends += 1
                env.reset()
                env.state = observations[row].astype(float)
    assert ends > 5
    envs.close()


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_ends_of_episodes(mode):
    envs = EnvPoolExecutor("CartPole-v1", 5, seed=0, autoreset_mode=mode, num_workers=2)
    envs.reset()
    returns, over = np.zeros(5), np.zeros(5, bool)
    ends = 0
    for _ in range(80):
        if mode == "disabled" and over.any():
            started, _ = envs.reset(options={"reset_mask": over})
            assert (np.abs(started[over]) <= 0.05).all()
            over[:] = False
        observations, rewards, terminated, truncated, infos = envs.step(np.ones(5, int))
        if mode == "next_step":
            assert (rewards[over] == 0).all()
            assert (np.abs(observations[over]) <= 0.05).all()
        returns += rewards
        over = terminated | truncated
        assert ("episode" in infos) == over.any()
        if over.any():
            ends += int(over.sum())
            np.testing.assert_array_equal(infos["_episode"], over)
            np.testing.assert_array_equal(infos["episode"]["r"][over], returns[over])
            np.testing.assert_array_equal(infos["episode"]["l"][over], returns[over])
            assert ("final_obs" in infos) == (mode == "same_step")
            for row in np.nonzero(over)[0]:
                last = infos["final_obs"][row] if mode == "same_step" else observations[row]
                assert abs(last[2]) > 0.2  # the pole has fallen
                if mode == "same_step":
                    assert (np.abs(observations[row]) <= 0.05).all()
            returns[over] = 0
    assert ends > 10
    envs.close()


def test_seeds_are_each_environments_own():
    envs = EnvPoolExecutor("CartPole-v1", 3)
    first, _ = envs.reset(seed=5)
    other, _ = envs.reset()
    again, _ = envs.reset(seed=5)
    shifted, _ = envs.reset(seed=6)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(shifted[:2], first[1:])
    assert len(np.unique(first, axis=0)) == 3
    unseeded = [EnvPoolExecutor("CartPole-v1", 3).reset()[0] for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).any()
    envs.close()


def test_results_stay_as_they_were():
    envs = EnvPoolExecutor("Pendulum-v1", 8, seed=0)
    kept = [envs.reset()[0]]
    copies = [kept[0].copy()]
    for _ in range(200):
        kept.append(envs.step(np.zeros((8, 1), np.float32))[0])
        copies.append(kept[-1].copy())
    np.testing.assert_array_equal(np.stack(kept), np.stack(copies))
    envs.close()


def test_groups_keep_each_environments_results_together():
    envs = EnvPoolExecutor("CartPole-v1", 6, seed=0, batch_size=4)
    envs.async_reset()
    lengths, finished = np.zeros(6, int), 0
    for _ in range(90):
        _, _, terminated, _, infos = envs.recv()
        ids = infos["env_id"]
        for place in np.nonzero(terminated)[0]:
            assert infos["episode"]["l"][place] == lengths[ids[place]]
            assert abs(infos["final_obs"][place][2]) > 0.2
            lengths[ids[place]] = 0
            finished += 1
        envs.send(ids % 2, ids)
        lengths[ids] += 1
    assert finished > 5
    envs.close()


def test_what_it_does_not_run_is_named():
    with pytest.raises(InvalidValueError, match=r"'Ant-v4'.*Did you mean 'Ant-v5'"):
        EnvPoolExecutor("Ant-v4", 2)
    with pytest.raises(InvalidValueError, match=r"gravity.*'process'"):
        EnvPoolExecutor("LunarLander-v3", 2, env_kwargs={"gravity": -5.0})
    with pytest.raises(InvalidValueError, match="max_episode_steps=0"):
        EnvPoolExecutor("LunarLander-v3", 2, env_kwargs={"max_episode_steps": 0})
    envs = EnvPoolExecutor("Pendulum-v1", 2, env_kwargs={"max_episode_steps": 7})
    envs.reset(seed=0)
    truncated = [envs.step(np.zeros((2, 1), np.float32))[3].all() for _ in range(7)]
    assert truncated == [False] * 6 + [True]
    envs.close()
