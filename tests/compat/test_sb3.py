"""The Stable-Baselines3 adapter, on compiled, process and sync vectors."""

import gymnasium
import numpy as np
import pytest
from pool_envs import CountingEnv, EchoEnv

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError

pytest.importorskip("stable_baselines3")

from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from kiloworlds.compat.sb3 import SB3VecEnv, make_vec_env

BACKENDS = ["compiled", "process", "sync"]


def counting(backend, num_envs=2, **kwargs):
    return make_vec_env(
        lambda: CountingEnv(**kwargs), num_envs, vec_env_kwargs={"backend": backend}, seed=3
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_has_the_form_that_sb3_expects(backend):
    envs = make_vec_env("CartPole-v1", 3, seed=7, vec_env_kwargs={"backend": backend})
    observations = envs.reset()
    assert observations.shape == (3, 4)
    assert observations.dtype == np.float32
    again = make_vec_env("CartPole-v1", 3, seed=7, vec_env_kwargs={"backend": backend})
    np.testing.assert_array_equal(again.reset(), observations)
    lengths = np.zeros(3, int)
    ended = 0
    while ended < 5:
        before = lengths.copy()
        _, rewards, dones, infos = envs.step(np.ones(3, np.int64))
        assert rewards.dtype == np.float32
        assert dones.dtype == bool
        lengths += 1
        for index in np.nonzero(dones)[0]:
            info = infos[index]
            assert info["terminal_observation"].shape == (4,)
            assert abs(info["terminal_observation"][2]) > 0.2  # the pole fell
            assert info["TimeLimit.truncated"] is False
            assert info["episode"]["r"] == info["episode"]["l"] == before[index] + 1
            lengths[index] = 0
            ended += 1
        for index in np.nonzero(~dones)[0]:
            assert "episode" not in infos[index]
    envs.close()
    again.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_truncation_is_told_from_termination(backend):
    envs = make_vec_env(
        "CartPole-v1",
        2,
        env_kwargs={"max_episode_steps": 3},
        vec_env_kwargs={"backend": backend},
    )
    envs.reset()
    for _ in range(2):
        assert not envs.step(np.zeros(2, int))[2].any()
    _, _, dones, infos = envs.step(np.zeros(2, int))
    assert dones.all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    envs.close()


@pytest.mark.parametrize("backend", ["process", "sync"])
def test_infos_are_those_of_the_step_and_of_the_reset_after_it(backend):
    envs = counting(backend, length=2)
    envs.reset()
    assert envs.reset_infos[1]["name"] == "step 0"
    _, _, _, infos = envs.step(np.zeros(2, int))
    assert infos[1]["steps"] == 1
    assert "half" not in infos[1]
    _, rewards, dones, infos = envs.step(np.array([0, 2]))
    assert dones.all()
    np.testing.assert_array_equal(rewards, np.array([0.2, 2.2], np.float32))
    assert infos[1]["name"] == "step 2"
    np.testing.assert_array_equal(infos[1]["pair"], [2, -2])
    assert infos[1]["episode"]["r"] == pytest.approx(0.1 + 2.2)
    assert envs.reset_infos[1]["steps"] == 0
    envs.close()


def test_a_caller_may_write_to_infos():
    envs = make_vec_env("CartPole-v1", 2)
    envs.reset()
    envs.step(np.zeros(2, int))[3][0]["mine"] = 1
    assert "mine" not in envs.step(np.zeros(2, int))[3][0]


@pytest.mark.parametrize("backend", ["process", "sync"])
def test_attributes_and_methods_of_single_environments(backend):
    envs = counting(backend, num_envs=3, length=4)
    assert envs.get_attr("length") == [4, 4, 4]
    envs.set_attr("length", 6, indices=[0, 2])
    assert envs.get_attr("length", indices=[1, 2]) == [4, 6]
    envs.set_attr("length", [1, 2])  # a list is a value as any other
    assert envs.get_attr("length", 0) == [[1, 2]]
    assert envs.env_method("double", 4) == [8, 8, 8]
    assert envs.has_attr("length")
    assert not envs.has_attr("width")
    with pytest.raises(AttributeError, match="width"):
        envs.get_attr("width")
    envs.close()


def test_methods_of_some_environments():
    sync, process = counting("sync", 3), counting("process", 3)
    assert sync.env_method("double", 4, indices=[1]) == [8]
    assert process.env_method("double", 4, indices=[1]) == [8]
    process.close()


def test_compiled_environments_show_their_parameters_and_keep_them():
    envs = make_vec_env("CartPole-v1", 2, env_kwargs={"length": np.array([0.4, 0.7])})
    np.testing.assert_allclose(envs.get_attr("length"), [0.4, 0.7], rtol=1e-6)
    assert envs.render_mode == "rgb_array"
    assert not envs.has_attr("width")
    with pytest.raises(InvalidValueError, match="immutable"):
        envs.set_attr("length", 1.0)
    envs.reset()
    assert envs.render().shape[2] == 3
    assert len(envs.env_method("render", indices=[0])) == 1


class Doubled(gymnasium.RewardWrapper):
    """Twice the reward."""

    def reward(self, reward):
        return 2 * reward


def test_wrappers_are_found_and_statistics_are_of_what_is_beneath_them():
    envs = make_vec_env(
        "CartPole-v1", 2, wrapper_class=Doubled, env_kwargs={"max_episode_steps": 5}
    )
    assert envs.vector.backend != "compiled"
    envs.reset()
    for _ in range(5):
        _, rewards, _, infos = envs.step(np.array([0, 1]))
    assert rewards.tolist() == [2, 2]
    assert infos[0]["episode"]["r"] == 5
    assert infos[0]["episode"]["l"] == 5
    assert envs.env_is_wrapped(Monitor) == [True, True]
    envs.close()
    sync = make_vec_env("CartPole-v1", 2, wrapper_class=Doubled, vec_env_cls=DummyVecEnv)
    assert sync.env_is_wrapped(Doubled) == [True, True]
    assert sync.env_is_wrapped(gymnasium.wrappers.FlattenObservation, indices=1) == [False]
    assert sync.env_is_wrapped(Monitor) == [True, True]


def test_vec_env_classes_choose_the_backend():
    for vec_env_cls, backend in ((DummyVecEnv, "sync"), (SubprocVecEnv, "process")):
        envs = make_vec_env("CartPole-v1", 2, vec_env_cls=vec_env_cls)
        assert envs.vector.backend == backend
        envs.close()


def test_wrappers_of_sb3_take_it():
    envs = VecNormalize(VecMonitor(SB3VecEnv(kw.make("Pendulum-v1", 3), episode_statistics=False)))
    with pytest.warns(UserWarning, match="VecMonitor"):
        VecMonitor(SB3VecEnv(kw.make("Pendulum-v1", 3)))
    envs.reset()
    assert abs(envs.step(np.zeros((3, 1), np.float32))[0]).max() < 10


def test_dictionary_observations():
    space = gymnasium.spaces.Dict(
        a=gymnasium.spaces.Box(0, 1, (2,)), b=gymnasium.spaces.Discrete(3)
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    envs = make_vec_env(
        EchoEnv, 2, env_kwargs={"observation_space": space, "action_space": action_space}
    )
    assert envs.reset()["a"].shape == (2, 2)
    for _ in range(4):
        observations, _, _, infos = envs.step(np.zeros((2, 2), np.float32))
    assert set(observations) == set(infos[0]["terminal_observation"]) == {"a", "b"}
    envs.close()


def test_monitor_files_are_read_by_sb3(tmp_path):
    pytest.importorskip("pandas")
    folder = tmp_path / "logs"
    envs = make_vec_env(
        "CartPole-v1", 2, monitor_dir=str(folder), env_kwargs={"max_episode_steps": 4}
    )
    envs.reset()
    for _ in range(8):
        envs.step(np.array([0, 1]))
    envs.close()
    results = load_results(str(folder))
    assert results["l"].tolist() == [4, 4, 4, 4]
    assert results["r"].tolist() == [4, 4, 4, 4]


def test_options_go_to_all_environments():
    envs = counting("sync")
    envs.set_options({"k": 5})
    assert (envs.reset()[:, 0] >= 5000).all()
    envs.set_options([{"k": 1}, {"k": 2}])
    with pytest.raises(InvalidValueError, match="different options"):
        envs.reset()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"monitor_kwargs": {"info_keywords": ("x",)}}, "monitor_kwargs"),
        ({"vec_env_cls": dict}, "vec_env_cls='dict'"),
        ({"vec_env_kwargs": {"num_worker": 2}}, "Did you mean 'num_workers'"),
        ({"vec_env_kwargs": {"start_method": "fork"}}, "no 'start_method'"),
        ({"env_kwargs": {"lenght": 2}}, "Did you mean 'length'"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        make_vec_env("CartPole-v1", 2, **arguments)


def test_other_autoreset_modes_are_refused():
    with pytest.raises(InvalidValueError, match=r"NEXT_STEP.*'same_step'"):
        SB3VecEnv(kw.make("CartPole-v1", 2, autoreset_mode="next_step"))


def test_several_agents_are_refused():
    with pytest.raises(
        InvalidValueError, match=r"SB3VecEnv: .* several agents \(agent_0, agent_1\)"
    ):
        SB3VecEnv(kw.make("mpe/simple_spread_v3", 2, N=2))
