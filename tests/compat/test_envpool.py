"""EnvPool's interface. The expectations are what EnvPool 1.2.5 itself gives for these calls."""

import gymnasium
import numpy as np
import pytest

from kiloworlds.compat import envpool
from kiloworlds.core.errors import InvalidValueError, UnknownNameError, WrongCallError

# Of envpool.make("CartPole-v1", "gymnasium", num_envs=3, max_episode_steps=4), four steps of action 0
# after the reset and two more: the time limit, the step that resets, the first of the new episode.
REWARDS = [1, 1, 1, 1, 0, 1]
TRUNCATED = [False, False, False, True, False, False]
ELAPSED = [1, 2, 3, 4, 0, 1]
STEP_TYPES = [1, 1, 1, 2, 0, 1]
DISCOUNTS = [1, 1, 1, 0, 1, 1]
INFO_KEYS = {"env_id", "players", "elapsed_step"}

BACKENDS = ["auto", "process"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def make(backend, env_type="gymnasium", **kwargs):
    return envpool.make("CartPole-v1", env_type, num_envs=3, backend=backend, **kwargs)


def test_gymnasium_face_is_envpools(backend):
    envs = make(backend, max_episode_steps=4)
    observations, info = envs.reset()
    assert (observations.shape, observations.dtype) == ((3, 4), np.float32)
    assert set(info) == INFO_KEYS
    for array in (info["env_id"], info["players"]["env_id"]):
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, [0, 1, 2])
    assert info["elapsed_step"].dtype == np.int32
    np.testing.assert_array_equal(info["elapsed_step"], [0, 0, 0])
    for reward, truncated, elapsed in zip(REWARDS, TRUNCATED, ELAPSED, strict=True):
        observations, rewards, terminated, truncations, info = envs.step(np.zeros(3, int))
        assert (rewards.dtype, terminated.dtype, truncations.dtype) == (np.float32, bool, bool)
        assert set(info) == INFO_KEYS
        np.testing.assert_array_equal(rewards, np.full(3, reward))
        np.testing.assert_array_equal(terminated, np.zeros(3, bool))
        np.testing.assert_array_equal(truncations, np.full(3, truncated))
        np.testing.assert_array_equal(info["elapsed_step"], np.full(3, elapsed))
    envs.close()


def test_attributes_are_envpools(backend):
    envs = make(backend, seed=5)
    assert len(envs) == envs.num_envs == 3
    assert envs.observation_space.shape == (4,)
    assert envs.observation_space == envs.single_observation_space
    assert envs.action_space == gymnasium.spaces.Discrete(2)
    assert envs.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    assert not envs.is_async
    expected = {
        "num_envs": 3,
        "batch_size": 3,
        "num_threads": 0,
        "max_num_players": 1,
        "thread_affinity_offset": -1,
        "seed": 5,
        "env_seed": [],
        "gym_reset_return_info": True,
        "max_episode_steps": 500,
    }
    assert envs.config == expected
    assert envs.spec.config.max_episode_steps == 500
    assert envs.spec.reward_threshold == 475.0
    np.testing.assert_array_equal(envs.all_env_ids, [0, 1, 2])
    assert isinstance(envs, gymnasium.vector.VectorEnv)
    assert gymnasium.Wrapper(envs).action_space == envs.action_space
    envs.close()


def test_dm_face_is_envpools(backend):
    dm_env = pytest.importorskip("dm_env")
    envs = make(backend, "dm", max_episode_steps=4)
    step = envs.reset()
    assert isinstance(step, dm_env.TimeStep)
    np.testing.assert_array_equal(step.step_type, [0, 0, 0])
    np.testing.assert_array_equal(step.discount, [1, 1, 1])
    assert step.observation._fields == ("env_id", "players", "obs")
    assert step.observation.obs.shape == (3, 4)
    np.testing.assert_array_equal(step.observation.players.env_id, [0, 1, 2])
    for kind, discount, reward in zip(STEP_TYPES, DISCOUNTS, REWARDS, strict=True):
        step = envs.step(np.zeros(3, int))
        assert (step.step_type.dtype, step.discount.dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(step.step_type, np.full(3, kind))
        np.testing.assert_array_equal(step.discount, np.full(3, discount))
        np.testing.assert_array_equal(step.reward, np.full(3, reward))
    action = envs.action_spec()
    assert (action.num_values, action.dtype, action.name) == (2, np.int32, "action")
    spec = envs.observation_spec()
    assert (spec.obs.shape, spec.obs.dtype, spec.obs.name) == ((4,), np.float32, "obs")
    assert (spec.env_id.shape, spec.env_id.dtype) == ((), np.int32)
    envs.close()


def test_reset_of_some_returns_those(backend):
    envs = make(backend)
    envs.reset()
    envs.step(np.zeros(3, int))
    observations, info = envs.reset(np.array([1, 2]))
    assert observations.shape == (2, 4)
    np.testing.assert_array_equal(info["env_id"], [1, 2])
    *_, info = envs.step(np.zeros(3, int))
    np.testing.assert_array_equal(info["elapsed_step"], [2, 1, 1])
    _, info = envs.reset(options={"reset_mask": np.array([True, False, False])})
    np.testing.assert_array_equal(info["env_id"], [0])
    envs.close()


def test_actions_follow_their_env_ids():
    envs, twin = (envpool.make("CartPole-v1", num_envs=3, seed=1) for _ in range(2))
    envs.reset(), twin.reset()
    observations = envs.step(np.array([1, 0, 0]), np.array([1, 2, 0]))[0]
    np.testing.assert_array_equal(observations, twin.step(np.array([0, 1, 0]))[0])
    by_dict = envs.step({"action": np.array([1, 0, 0]), "env_id": np.array([1, 2, 0])})[0]
    np.testing.assert_array_equal(by_dict, twin.step(np.array([0, 1, 0]))[0])


def test_send_and_recv_in_lockstep(backend):
    envs = make(backend)
    envs.async_reset()
    observations, rewards, *_, info = envs.recv()
    assert observations.shape == (3, 4)
    np.testing.assert_array_equal(rewards, [0, 0, 0])
    np.testing.assert_array_equal(info["elapsed_step"], [0, 0, 0])
    with pytest.raises(WrongCallError, match="nothing sent"):
        envs.recv()
    envs.send(np.ones(3, int))
    with pytest.raises(WrongCallError, match="recv"):
        envs.send(np.ones(3, int))
    assert envs.recv()[4]["elapsed_step"].tolist() == [1, 1, 1]
    with pytest.raises(InvalidValueError, match="all 3"):
        envs.send(np.ones(2, int), np.array([0, 1]))
    envs.close()


def test_asynchronous_batches():
    envs = envpool.make_gymnasium("CartPole-v1", num_envs=4, batch_size=2, num_threads=2, seed=9)
    assert envs.is_async
    assert envs.config["batch_size"] == 2
    envs.async_reset()
    steps = np.zeros(4, int)
    seen = np.zeros(4, bool)
    for _ in range(60):
        observations, rewards, terminated, truncated, info = envs.recv()
        rows = info["env_id"]
        assert observations.shape == (2, 4)
        first = ~seen[rows] | (steps[rows] == -1)
        steps[rows] = np.where(first, 0, steps[rows] + 1)
        seen[rows] = True
        np.testing.assert_array_equal(info["elapsed_step"], steps[rows])
        np.testing.assert_array_equal(rewards, (~first).astype(np.float32))
        steps[rows[terminated | truncated]] = -1  # the next is a reset
        envs.send(np.zeros(2, int), rows)
    with pytest.raises(InvalidValueError, match="start over together"):
        envs.reset(np.array([1]))
    envs.close()


def test_seeds():
    def first(**kwargs):
        return envpool.make("CartPole-v1", num_envs=3, **kwargs).reset()[0]

    np.testing.assert_array_equal(first(), first(seed=42))
    assert not np.array_equal(first(seed=3), first())
    np.testing.assert_array_equal(first(seed=3)[2], first(env_seed=[5, 6, 5])[2])
    np.testing.assert_array_equal(first(seed=[7, 8, 5])[2], first(seed=3)[2])


def test_specs_and_lists():
    spec = envpool.make_spec("Pendulum-v1", num_envs=2, max_episode_steps=7)
    assert spec.config.max_episode_steps == 7
    assert spec.gymnasium_observation_space.shape == (3,)
    assert spec.gymnasium_action_space.shape == (1,)
    assert {"CartPole-v1", "Pendulum-v1", "LunarLander-v3"} <= set(envpool.list_all_envs())


def test_render_gives_the_pictures_asked_for():
    envs = envpool.make("CartPole-v1", num_envs=3)
    envs.reset()
    assert envs.render().shape[0] == 1
    assert envs.render(np.array([0, 2])).shape[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_threads": 2}, "num_threads=2.*backend='process'"),
        ({"max_num_players": 2}, "max_num_players=2"),
        ({"thread_affinity_offset": 0}, "thread_affinity_offset=0"),
        ({"gym_reset_return_info": False}, "gym_reset_return_info=False"),
        ({"base_path": "/x"}, "base_path"),
        ({"from_pixels": True}, "from_pixels"),
        ({"batch_size": 3}, "batch_size=3.*num_envs=2"),
        ({"batch_size": 1, "backend": "compiled"}, "backend='compiled'"),
        ({"frame_skip": 4}, "frame_skip"),
        ({"env_type": "gymnasum"}, "Did you mean 'gymnasium'"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        envpool.make("CartPole-v1", **{"num_envs": 2, **arguments})


def test_unknown_id():
    with pytest.raises(UnknownNameError, match="CartPole-v1"):
        envpool.make("CartPol-v1", num_envs=1)


def test_several_agents_are_refused():
    with pytest.raises(
        InvalidValueError, match=r"several agents \(agent_0, agent_1\) are not supported"
    ):
        envpool.make("mpe/simple_spread_v3", num_envs=2, N=2)
