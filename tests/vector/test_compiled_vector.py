import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.classic.cartpole import CartPole
from kiloworlds.vector.random_rollout import random_rollout


def rollout(envs, steps, seed=0):
    """Observations, rewards and flags of `steps` steps with seeded random actions."""
    rng = np.random.default_rng(seed)
    observations, _ = envs.reset(seed=seed)
    rows = [(observations, np.zeros(envs.num_envs), False, False)]
    for _ in range(steps):
        rows.append(envs.step(rng.integers(0, 2, envs.num_envs))[:4])
    return rows


def test_is_a_gymnasium_vector_env():
    envs = kw.make("CartPole-v1", num_envs=3)
    assert isinstance(envs, gymnasium.vector.VectorEnv)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.single_observation_space.shape == (4,)
    assert envs.observation_space.shape == (3, 4)
    observations, infos = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    assert infos == {}
    observations, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
    assert envs.observation_space.contains(observations)
    assert rewards.tolist() == [1, 1, 1]
    assert not terminated.any()
    assert not truncated.any()


def test_gymnasium_statistics_wrapper_counts_what_we_report():
    ours = kw.make("CartPole-v1", num_envs=8)
    plain = kw.make("CartPole-v1", num_envs=8, episode_statistics=False)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(plain)
    ours.reset(seed=1)
    wrapped.reset(seed=1)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(120):
        actions = rng.integers(0, 2, 8)
        infos, expected = ours.step(actions)[4], wrapped.step(actions)[4]
        assert ("episode" in infos) == ("episode" in expected)
        if "episode" in infos:
            ended += infos["_episode"].sum()
            np.testing.assert_array_equal(infos["_episode"], expected["_episode"])
            np.testing.assert_allclose(infos["episode"]["r"], expected["episode"]["r"])
            np.testing.assert_array_equal(infos["episode"]["l"], expected["episode"]["l"])
            assert (infos["episode"]["t"][infos["_episode"]] > 0).all()
    assert ended > 10


def test_same_step_delivers_the_final_observation():
    same = kw.make("CartPole-v1", num_envs=16)
    disabled = kw.make("CartPole-v1", num_envs=16, autoreset_mode="disabled")
    same.reset(seed=3)
    disabled.reset(seed=3)
    for _ in range(100):
        actions = np.ones(16, int)
        last, _, terminated, truncated, _ = disabled.step(actions)
        observations, _, same_terminated, _, infos = same.step(actions)
        np.testing.assert_array_equal(terminated, same_terminated)
        finished = terminated | truncated
        if finished.any():
            np.testing.assert_array_equal(infos["_final_obs"], finished)
            for index in np.nonzero(finished)[0]:
                np.testing.assert_array_equal(infos["final_obs"][index], last[index])
                assert not np.array_equal(observations[index], last[index])
            assert all(infos["final_obs"][index] is None for index in np.nonzero(~finished)[0])
            return
        np.testing.assert_array_equal(observations, last)
    pytest.fail("no episode ended")


def test_next_step_gives_one_void_step_after_an_end():
    envs = kw.make("CartPole-v1", num_envs=16, autoreset_mode=AutoresetMode.NEXT_STEP)
    envs.reset(seed=3)
    previous = np.zeros(16, bool)
    resets = 0
    for _ in range(60):
        observations, rewards, terminated, truncated, infos = envs.step(np.ones(16, int))
        assert "final_obs" not in infos
        assert (rewards[previous] == 0).all()
        assert not (terminated | truncated)[previous].any()
        assert (np.abs(observations[previous]) <= 0.05).all()
        assert (rewards[~previous] == 1).all()
        if "episode" in infos:
            # Pushing right for ever ends an episode after 8 to 11 steps, void steps not counted.
            lengths = infos["episode"]["l"][infos["_episode"]]
            assert ((lengths >= 7) & (lengths <= 12)).all()
        resets += previous.sum()
        previous = terminated | truncated
    assert resets >= 32


def test_disabled_resets_only_on_request():
    envs = kw.make("CartPole-v1", num_envs=4, autoreset_mode="disabled")
    envs.reset(seed=0)
    finished = np.zeros(4, bool)
    while not finished.any():
        before, _, terminated, truncated, _ = envs.step(np.ones(4, int))
        finished = terminated | truncated
    with pytest.raises(WrongCallError, match=r"reset_mask"):
        envs.step(np.ones(4, int))
    after, _ = envs.reset(options={"reset_mask": finished})
    np.testing.assert_array_equal(after[~finished], before[~finished])
    assert (np.abs(after[finished]) <= 0.05).all()
    envs.step(np.ones(4, int))


def test_environment_i_depends_only_on_its_seed():
    eight = rollout(kw.make("CartPole-v1", num_envs=8), 60)
    two = kw.make("CartPole-v1", num_envs=2)
    two.reset(seed=[3, 5])
    rng = np.random.default_rng(0)
    for step in range(1, 61):
        actions = rng.integers(0, 2, 8)
        observations = two.step(actions[[3, 5]])[0]
        np.testing.assert_array_equal(observations, eight[step][0][[3, 5]])


def test_devices_do_not_change_results():
    one = rollout(kw.make("CartPole-v1", num_envs=8), 60)
    two = rollout(kw.make("CartPole-v1", num_envs=8, devices=2), 60)
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first[0], second[0])


def test_seeds_repeat_and_differ():
    envs = kw.make("CartPole-v1", num_envs=4, seed=7)
    first, _ = envs.reset()
    again, _ = envs.reset(seed=7)
    other, _ = envs.reset(seed=8)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(other[:-1], again[1:])  # environment i has seed + i
    onwards, _ = envs.reset()
    assert not np.array_equal(onwards, other)


def test_parameters_differ_per_environment():
    lengths = np.linspace(0.2, 2.0, 1024)
    envs = kw.make("CartPole-v1", num_envs=1024, length=lengths)
    single = [kw.make("CartPole-v1", num_envs=1, length=float(x)) for x in lengths[[0, 1023]]]
    envs.reset(seed=0)
    single[0].reset(seed=0)
    single[1].reset(seed=1023)
    for _ in range(8):
        observations = envs.step(np.ones(1024, int))[0]
        np.testing.assert_allclose(observations[0], single[0].step([1])[0][0], rtol=1e-5)
        np.testing.assert_allclose(observations[1023], single[1].step([1])[0][0], rtol=1e-5)
    assert len(np.unique(observations[:, 3])) > 1000


def test_a_built_environment_with_batched_fields():
    envs = kw.make(CartPole(gravity=jnp.array([1.0, 9.8])), num_envs=2)
    envs.reset(seed=0)
    assert envs.environment(0).gravity == 1.0
    assert envs.environment(1).gravity == pytest.approx(9.8)


def test_a_parameter_of_wrong_length_is_named():
    with pytest.raises(InvalidValueError, match=r"length has shape \(3,\).*num_envs=4"):
        kw.make("CartPole-v1", num_envs=4, length=np.ones(3))


def test_functional_equals_step():
    envs = kw.make("CartPole-v1", num_envs=16)
    init, step = envs.functional()
    actions = jax.random.randint(jax.random.key(1), (50, 16), 0, 2)
    state, _ = init(fast_key(5))
    final, steps = jax.jit(lambda s: jax.lax.scan(step, s, actions))(state)
    for row in range(50):
        state, one = jax.jit(step)(state, actions[row])
        np.testing.assert_array_equal(one.observation, steps.observation[row])
    np.testing.assert_array_equal(state.episode_length, final.episode_length)
    assert steps.finished.any()


def test_sparse_resets_equal_dense_ones(monkeypatch):
    dense = rollout(kw.make("CartPole-v1", num_envs=40), 80)
    monkeypatch.setattr(CartPole, "cheap_reset", False)
    sparse = rollout(kw.make("CartPole-v1", num_envs=40), 80)
    for first, second in zip(dense, sparse, strict=True):
        np.testing.assert_array_equal(first[0], second[0])


def test_results_may_be_written_to():
    envs = kw.make("CartPole-v1", num_envs=2)
    observations, _ = envs.reset(seed=0)
    observations[:] = 100.0
    after = envs.step([0, 0])[0]
    assert (np.abs(after) < 1).all()


def test_jax_output_stays_on_the_device():
    envs = kw.make("CartPole-v1", num_envs=2, output="jax")
    observations, _ = envs.reset(seed=0)
    assert isinstance(observations, jax.Array)
    assert isinstance(envs.step(jnp.zeros(2, int))[1], jax.Array)


def test_infos_carry_masks_and_final_info():
    envs = kw.make("Taxi-v3", num_envs=4, max_episode_steps=3)
    _, infos = envs.reset(seed=0)
    assert infos["action_mask"].shape == (4, 6)
    assert infos["_action_mask"].all()
    for _ in range(3):
        infos = envs.step(np.zeros(4, int))[4]
    assert infos["_final_info"].all()
    assert infos["final_info"]["action_mask"].shape == (4, 6)
    assert infos["action_mask"].shape == (4, 6)


def test_random_rollout_steps_and_resets():
    step = random_rollout(kw.make("CartPole-v1", num_envs=64), 100)(0)
    assert step.observation.shape == (64, 4)
    assert (step.episode_length < 100).all()
    assert np.isfinite(step.observation).all()


def test_random_rollout_is_the_same_on_two_devices():
    one = random_rollout(kw.make("CartPole-v1", num_envs=64), 100)(0)
    two = random_rollout(kw.make("CartPole-v1", num_envs=64, devices=2), 100)(0)
    np.testing.assert_array_equal(one.observation, two.observation)


def test_render_and_describe():
    envs = kw.make("CartPole-v1", num_envs=2)
    with pytest.raises(WrongCallError, match="before reset"):
        envs.render()
    envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2
    assert frames[0].shape == (400, 600, 3)
    assert frames[0].dtype == np.uint8
    taxi = kw.make("Taxi-v3", num_envs=1)
    taxi.reset(seed=0)
    assert "|" in taxi.describe(0)


def test_some_environments_are_drawn_in_the_order_asked_for():
    envs = kw.make("CartPole-v1", num_envs=4, length=np.array([0.3, 0.5, 0.7, 0.9]))
    envs.reset(seed=0)
    all_frames, some = envs.render(), envs.render(env_ids=[3, 1])
    assert len(some) == 2
    np.testing.assert_array_equal(some[0], all_frames[3])
    np.testing.assert_array_equal(some[1], all_frames[1])
    assert (all_frames[3] != all_frames[1]).any()
    for wrong, words in (([4], "env_ids holds 4"), ([1, 1], "twice"), ([], "environment numbers")):
        with pytest.raises(InvalidValueError, match=words):
            envs.render(wrong)


def test_pictures_show_the_parameters_that_a_restored_state_brings():
    long, short = (
        kw.make("CartPole-v1", num_envs=2, length=np.full(2, length)) for length in (1.0, 0.3)
    )
    for envs in (long, short):
        envs.reset(seed=0)
    assert (long.render()[0] != short.render()[0]).any()
    short.restore(long.snapshot())
    np.testing.assert_array_equal(long.render()[0], short.render()[0])
    assert short.environment(1).unwrapped.length == 1.0


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1], r"shape \(2,\).*\(3,\)"),
        ([[0], [1], [0]], r"shape \(3, 1\)"),
        ([0.0, 1.0, 0.0], r"float64.*integers"),
        ([0, 2, 0], r"environment 1 is 2.*nearest.*1"),
        ([0, 0, -1], r"environment 2 is -1.*nearest.*0"),
    ],
)
def test_wrong_actions_are_named(actions, message):
    envs = kw.make("CartPole-v1", num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match=message):
        envs.step(np.asarray(actions))


def test_wrong_continuous_actions_are_named():
    envs = kw.make("Pendulum-v1", num_envs=2)
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match=r"shape \(2,\).*\(2, 1\)"):
        envs.step(np.zeros(2))
    with pytest.raises(InvalidValueError, match=r"environment 1 is \[nan\].*finite"):
        envs.step(np.array([[0.0], [np.nan]]))


def test_calls_out_of_order_are_named():
    envs = kw.make("CartPole-v1", num_envs=1)
    with pytest.raises(WrongCallError, match=r"step\(\) before reset\(\)"):
        envs.step([0])
    envs.reset(seed=0)
    envs.close()
    with pytest.raises(WrongCallError, match="after close"):
        envs.step([0])
    with pytest.raises(WrongCallError, match="after close"):
        envs.reset()


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-1, "nearest valid seed is 0"),
        (1.5, "integer"),
        (2**32, "nearest valid seed is 4294967295"),
        ([1, 2, 3], "3 entries for 2"),
    ],
)
def test_wrong_seeds_are_named(seed, message):
    envs = kw.make("CartPole-v1", num_envs=2)
    with pytest.raises(InvalidValueError, match=message):
        envs.reset(seed=seed)


def test_wrong_reset_masks_are_named():
    envs = kw.make("CartPole-v1", num_envs=2, autoreset_mode="disabled")
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match=r"shape \(3,\)"):
        envs.reset(options={"reset_mask": np.ones(3, bool)})
    with pytest.raises(InvalidValueError, match="boolean"):
        envs.reset(options={"reset_mask": [True, False]})
    with pytest.raises(InvalidValueError, match="no environment"):
        envs.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(InvalidValueError, match="unknown reset options"):
        envs.reset(options={"low": 1})
