"""The MuJoCo engine held against Gymnasium's own environments, step by step."""

import gymnasium
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, WrongCallError

pytest.importorskip("mujoco")

from kiloworlds.vector.native.mujoco import MUJOCO_IDS, MuJoCoExecutor
from kiloworlds.vector.native.mujoco_physics import ThreadPhysics
from kiloworlds.vector.sync import SyncExecutor

_SLOW = {"HumanoidStandup-v5": 60, "Humanoid-v5": 150}


@pytest.fixture(autouse=True)
def _log_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file in the working directory


def _random_actions(envs, rng):
    space = envs.single_action_space
    return rng.uniform(space.low, space.high, envs.action_space.shape).astype(np.float32)


def _flat(infos, prefix=""):
    for key, value in infos.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" != "episode.t":  # seconds
            yield prefix + key, value


def _assert_equal_infos(ours, theirs):
    ours, theirs = dict(_flat(ours)), dict(_flat(theirs))
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype, key
        if value.dtype == object:
            for left, right in zip(value, theirs[key], strict=True):
                assert (left is None) == (right is None)
                if left is not None:
                    np.testing.assert_allclose(left, right, rtol=0, atol=1e-10, err_msg=key)
        else:
            np.testing.assert_allclose(value, theirs[key], rtol=0, atol=1e-10, err_msg=key)


def _assert_equal_runs(ours, theirs, steps):
    """Steps both alike; returns how many episodes ended."""
    rng, ended = np.random.default_rng(0), 0
    (observations, infos), (expected, expected_infos) = ours.reset(), theirs.reset()
    np.testing.assert_array_equal(observations, expected)
    _assert_equal_infos(infos, expected_infos)
    for _ in range(steps):
        actions = _random_actions(ours, rng)
        results, expected = ours.step(actions), theirs.step(actions)
        for left, right in zip(results[:4], expected[:4], strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-10)
        _assert_equal_infos(results[4], expected[4])
        ended += int((results[2] | results[3]).sum())
    ours.close()
    theirs.close()
    return ended


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
def test_equals_gymnasium(env_id):
    ours = MuJoCoExecutor(env_id, 3, seed=3, num_workers=2)
    theirs = SyncExecutor(lambda: gymnasium.make(env_id), 3, seed=3)
    ended = _assert_equal_runs(ours, theirs, _SLOW.get(env_id, 250))
    assert ended > 0 or env_id in ("HalfCheetah-v5", "Swimmer-v5", "HumanoidStandup-v5")


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_time_limit_in_either_mode(mode):
    ours = MuJoCoExecutor(
        "HalfCheetah-v5", 2, seed=1, autoreset_mode=mode, env_kwargs={"max_episode_steps": 9}
    )
    theirs = SyncExecutor(
        lambda: gymnasium.make("HalfCheetah-v5", max_episode_steps=9),
        2,
        seed=1,
        autoreset_mode=mode,
    )
    assert _assert_equal_runs(ours, theirs, 30) == 6


@pytest.mark.parametrize(
    ("env_id", "parameters"),
    [
        (
            "HalfCheetah-v5",
            {
                "ctrl_cost_weight": 0.3,
                "forward_reward_weight": 2.0,
                "reset_noise_scale": 0.02,
                "frame_skip": 3,
                "exclude_current_positions_from_observation": False,
            },
        ),
        (
            "Ant-v5",
            {
                "healthy_z_range": (0.4, 0.9),
                "contact_force_range": (-0.5, 0.5),
                "contact_cost_weight": 0.01,
                "healthy_reward": 0.7,
                "main_body": 2,
                "include_cfrc_ext_in_observation": False,
            },
        ),
        ("Ant-v5", {"terminate_when_unhealthy": False}),
        ("Hopper-v5", {"healthy_state_range": (-2.0, 2.0), "healthy_angle_range": (-0.1, 0.1)}),
        ("Humanoid-v5", {"include_cvel_in_observation": False, "contact_cost_range": (0.1, 0.2)}),
        ("Walker2d-v5", {"xml_file": "walker2d.xml"}),
    ],
)
def test_parameters_mean_what_they_mean_in_gymnasium(env_id, parameters):
    ours = MuJoCoExecutor(env_id, 2, seed=8, env_kwargs=parameters)
    theirs = SyncExecutor(lambda: gymnasium.make(env_id, **parameters), 2, seed=8)
    assert ours.single_observation_space == theirs.single_observation_space
    _assert_equal_runs(ours, theirs, 60)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_threads_of_python_give_what_the_batch_gives(num_workers):
    ours = MuJoCoExecutor("Hopper-v5", 4, seed=5, num_workers=num_workers)
    theirs = MuJoCoExecutor("Hopper-v5", 4, seed=5)
    ours._physics.close()
    ours._physics = ThreadPhysics(
        ours._task.model, 4, num_workers, ours._task.fields, contact_forces=False
    )
    assert _assert_equal_runs(ours, theirs, 100) > 5


def test_disabled_autoreset_resets_where_told():
    envs = MuJoCoExecutor("InvertedPendulum-v5", 3, seed=0, autoreset_mode="disabled")
    envs.reset()
    ended = np.zeros(3, bool)
    while not ended.any():
        observations, _, ended, _, _ = envs.step(np.array([[3.0], [0.1], [0.0]], np.float32))
        assert not ended.all()
    with pytest.raises(WrongCallError, match="reset_mask"):
        envs.step(np.zeros((3, 1), np.float32))
    after, _ = envs.reset(options={"reset_mask": ended})
    np.testing.assert_array_equal(after[~ended], observations[~ended])
    assert (after[ended] != observations[ended]).all()
    envs.step(np.zeros((3, 1), np.float32))
    envs.close()


def test_streams_go_on_and_begin_anew():
    envs = MuJoCoExecutor("Reacher-v5", 2)
    first, _ = envs.reset(seed=[7, 4])
    second, _ = envs.reset()
    again, _ = envs.reset(seed=[7, 4])
    np.testing.assert_array_equal(first, again)
    assert (first != second).any(axis=1).all()
    swapped, _ = envs.reset(seed=[4, 7])
    np.testing.assert_array_equal(swapped, first[::-1])
    envs.close()


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_groups_give_what_steps_give(mode):
    """Each environment's own results are the same, whether it steps with all or with a group."""
    apart = MuJoCoExecutor("Hopper-v5", 6, seed=2, batch_size=4, autoreset_mode=mode)
    together = MuJoCoExecutor("Hopper-v5", 6, seed=2, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (60, 6, 3)).astype(np.float32)
    expected = [together.reset()[0]]
    rewards = [np.zeros(6)]
    for row in actions:
        observations, reward, *_ = together.step(row)
        expected.append(observations)
        rewards.append(reward)
    taken = np.zeros(6, int)
    apart.async_reset()
    for _ in range(60):
        observations, reward, _, _, infos = apart.recv()
        ids = infos["env_id"]
        assert ids.shape == (4,)
        for place, row in enumerate(ids):
            np.testing.assert_array_equal(observations[place], expected[taken[row]][row])
            assert reward[place] == rewards[taken[row]][row]
        apart.send(actions[taken[ids], ids], ids)
        taken[ids] += 1
    assert taken.min() > 30
    with pytest.raises(WrongCallError, match="recv\\(\\) them first"):
        apart.step(actions[0])
    apart.close()
    together.close()


def test_calls_out_of_order_and_bad_numbers():
    envs = MuJoCoExecutor("Reacher-v5", 4, batch_size=2)
    with pytest.raises(WrongCallError, match="reset"):
        envs.step(np.zeros((4, 2), np.float32))
    with pytest.raises(WrongCallError, match="batch_size=2 results, but 0 are pending"):
        envs.recv()
    envs.async_reset(seed=0)
    with pytest.raises(WrongCallError, match="still works on its last action"):
        envs.send(np.zeros((1, 2), np.float32), [0])
    ids = envs.recv()[4]["env_id"]
    with pytest.raises(InvalidValueError, match="twice"):
        envs.send(np.zeros((2, 2), np.float32), [ids[0], ids[0]])
    with pytest.raises(InvalidValueError, match="holds 9; there are 0 to 3"):
        envs.send(np.zeros((1, 2), np.float32), [9])
    with pytest.raises(InvalidValueError, match="must be finite"):
        envs.send(np.full((2, 2), np.nan, np.float32), ids)
    with pytest.raises(InvalidValueError, match="backend='process'"):
        envs.get_attr("model")
    envs.close()
    with pytest.raises(WrongCallError, match="close"):
        envs.recv()


def test_what_it_does_not_run_is_named():
    with pytest.raises(InvalidValueError, match=r"'HalfCheetah-v4'.*Did you mean 'HalfCheetah-v5'"):
        MuJoCoExecutor("HalfCheetah-v4", 2)
    with pytest.raises(InvalidValueError, match=r"render_mode.*'process'"):
        MuJoCoExecutor("Ant-v5", 2, env_kwargs={"render_mode": "rgb_array"})
    with pytest.raises(InvalidValueError, match="control_cost"):
        MuJoCoExecutor("Ant-v5", 2, env_kwargs={"control_cost": 1.0})
    with pytest.raises(InvalidValueError, match="num_workers=5 is more than num_envs=2"):
        MuJoCoExecutor("Ant-v5", 2, num_workers=5)


def test_make_takes_it_by_itself():
    envs = kw.make("HalfCheetah-v5", 3, batch_size=2, ctrl_cost_weight=0.4)
    assert (envs.backend, envs.engine, envs.batch_size) == ("native", "mujoco", 2)
    assert repr(envs).startswith("MuJoCoExecutor(HalfCheetah-v5, num_envs=3, num_workers=")
    envs.close()
    envs = kw.make("HalfCheetah-v5", 2, render_mode="rgb_array")
    assert envs.backend in ("process", "sync")
    envs.close()
