"""Simulators that save their states."""

import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.native.streams import streams_from_array, streams_to_array

pytest.importorskip("mujoco")


def play(envs, steps, seed):
    envs.action_space.seed(seed)
    told = []
    for _ in range(steps):
        observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
        returns = infos["episode"]["r"] if "episode" in infos else None
        told.append((observations, rewards, terminated, truncated, returns, infos.keys()))
    return told


def assert_same(one, other):
    for mine, theirs in zip(one, other, strict=True):
        for value, wanted in zip(mine[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(value, wanted)
        assert mine[5] == theirs[5]
        np.testing.assert_array_equal(mine[4], theirs[4])


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
@pytest.mark.parametrize(
    "env_id",
    [
        "Hopper-v5",  # in MuJoCo's batch
        "Ant-v5",  # whose contact forces need simulations one by one
        pytest.param("Humanoid-v5", marks=pytest.mark.slow),
        pytest.param("Reacher-v5", marks=pytest.mark.slow),
    ],
)
def test_mujoco_goes_on_exactly_from_a_saved_state(env_id, mode):
    envs = kw.make(env_id, 3, backend="native", autoreset_mode=mode, max_episode_steps=40)
    envs.reset(seed=0)
    play(envs, 25, seed=1)
    state = envs.get_state()
    kept = {name: array.copy() for name, array in state.items()}
    first = play(envs, 60, seed=2)  # over ends of episodes, whose starts are drawn
    observations = envs.set_state(state)
    np.testing.assert_array_equal(observations, state["observations"])
    assert_same(play(envs, 60, seed=2), first)
    for name, array in kept.items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
    other = kw.make(env_id, 3, backend="native", autoreset_mode=mode, max_episode_steps=40)
    other.set_state(state)
    assert_same(play(other, 60, seed=2), first)


def test_random_streams_come_back_in_the_middle():
    streams = [np.random.default_rng(seed) for seed in (0, 1)]
    streams[1].integers(5, dtype=np.int32)  # half of a number is left over
    copies = streams_from_array(streams_to_array([*streams, None]))
    assert copies[2] is None
    for stream, copy in zip(streams, copies, strict=False):
        for _ in range(3):
            assert stream.integers(1000, dtype=np.int32) == copy.integers(1000, dtype=np.int32)
            assert stream.normal() == copy.normal()


def test_what_cannot_be_saved_says_so():
    envs = kw.make("Hopper-v5", 2, backend="native")
    assert envs.saves_state
    with pytest.raises(WrongCallError, match="get_state\\(\\) before reset"):
        envs.get_state()
    envs.async_reset(seed=0)
    with pytest.raises(WrongCallError, match="results are pending"):
        envs.get_state()
    envs.recv()
    more = kw.make("Hopper-v5", 3, backend="native")
    with pytest.raises(
        InvalidValueError, match=r"observations of shape \(2, 11\); those of .* have"
    ):
        more.set_state(envs.get_state())
    plain = kw.make("CartPole-v1", 2, backend="sync")
    assert not plain.saves_state
    for call in (plain.get_state, lambda: plain.set_state({})):
        with pytest.raises(InvalidValueError, match="cannot save their states"):
            call()


def test_a_training_on_mujoco_goes_on_exactly(tmp_path):
    settings = {
        "num_envs": 4,
        "num_steps": 16,
        "num_minibatches": 4,
        "total_steps": 640,
        "hidden_sizes": (8,),
        "normalize_rewards": True,
        "env_kwargs": {"max_episode_steps": 30},
    }
    whole = kw.train("ppo", "Hopper-v5", run_dir=tmp_path / "whole", **settings)

    def stop(row):
        if row["step"] >= 256:
            raise KeyboardInterrupt

    path = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        kw.train("ppo", "Hopper-v5", run_dir=path, on_metrics=stop, **settings)
    run = kw.train("ppo", "Hopper-v5", run_dir=path, resume=True)
    mine, theirs = run.load_checkpoint(), whole.load_checkpoint()
    assert mine.step == theirs.step == 640
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(mine.arrays[name], array, err_msg=name)
    for name in ("rollout/ep_rew_mean", "train/value_loss"):
        np.testing.assert_array_equal(run.metrics[name], whole.metrics[name])
