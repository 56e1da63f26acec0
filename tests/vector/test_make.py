import time

import gymnasium
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, UnknownNameError
from kiloworlds.envs.classic.cartpole import CartPole
from kiloworlds.vector.choice import host_backend


def test_auto_prefers_compiled():
    assert kw.make("CartPole-v1", num_envs=1).backend == "compiled"
    assert kw.make("CartPole-v1", num_envs=1, backend="sync").backend == "sync"
    assert kw.make(lambda: gymnasium.make("CartPole-v1"), num_envs=1).backend == "sync"
    assert kw.make(CartPole(), num_envs=1).backend == "compiled"


class WaitingEnv(gymnasium.Env):
    """Takes 5 ms for a step."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        time.sleep(0.005)
        return np.zeros(2, np.float32), 1.0, False, False, {}


class CannotBeTried(WaitingEnv):
    """Fails in its first step."""

    def step(self, action):
        raise ValueError("no world to step")


@pytest.mark.parametrize(
    ("env", "parameters", "num_envs", "backend"),
    [
        (lambda: WaitingEnv(), {}, 2, "process"),
        ([lambda: WaitingEnv()] * 4, {}, 4, "process"),
        (lambda: gymnasium.make("CartPole-v1"), {}, 2, "sync"),
        ("LunarLander-v3", {"gravity": -8.0}, 2, "sync"),  # no native engine takes it
        (lambda: CannotBeTried(), {}, 2, "process"),
        (lambda: WaitingEnv(), {}, 1, "sync"),
        (lambda: gymnasium.make("CartPole-v1"), {"num_workers": 1}, 2, "process"),
    ],
)
def test_auto_takes_workers_where_they_pay(env, parameters, num_envs, backend):
    with kw.make(env, num_envs=num_envs, **parameters) as envs:
        assert envs.backend == backend
        envs.reset(seed=0)


def test_many_environments_go_to_workers_even_if_they_are_fast():
    assert host_backend(4096, lambda: gymnasium.make("CartPole-v1")) == "process"


def test_settings_of_the_pool_belong_to_it():
    with pytest.raises(InvalidValueError, match="batch_size: settings of backend='process'"):
        kw.make("CartPole-v1", 4, batch_size=2)
    with pytest.raises(InvalidValueError, match="2 functions for num_envs=3"):
        kw.make([CartPole, CartPole], 3)


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, "many", True, None])
def test_num_envs_must_be_a_positive_whole_number(num_envs):
    with pytest.raises(InvalidValueError, match=r"num_envs=.*1 or more"):
        kw.make("CartPole-v1", num_envs=num_envs)


def test_unknown_ids_suggest_near_ones():
    with pytest.raises(UnknownNameError, match=r"Unknown environment 'CartPol-v1'.*CartPole-v1"):
        kw.make("CartPol-v1", num_envs=1)
    with pytest.raises(UnknownNameError, match="LunarLander-v3"):
        kw.make("LunarLandr-v3", num_envs=1)
    with pytest.raises(UnknownNameError, match="compiled environment"):
        kw.make("LunarLander-v3", num_envs=1, backend="compiled")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "compield"}, "'compield' is not one of.*Did you mean 'compiled'"),
        ({"autoreset_mode": "never"}, "'same_step'.*'disabled'|'next_step'"),
        ({"output": "torch"}, "'numpy' or 'jax'"),
        ({"devices": 99}, "devices=99.*JAX sees"),
        ({"lenght": 1.0}, "lenght"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InvalidValueError, match=message):
        kw.make("CartPole-v1", num_envs=2, **options)


def test_devices_must_divide_the_environments():
    with pytest.raises(InvalidValueError, match=r"num_envs=3.*2 or 4"):
        kw.make("CartPole-v1", num_envs=3, devices=2)


@pytest.mark.parametrize("env", [None, CartPole])
def test_a_class_or_nothing_shows_what_to_give(env):
    with pytest.raises(InvalidValueError, match=r"lambda: MyEnv\(\)"):
        kw.make(env, num_envs=1)


def test_parameters_beside_a_built_environment_are_refused():
    with pytest.raises(InvalidValueError, match="gravity"):
        kw.make(CartPole(), num_envs=1, gravity=2.0)
    with pytest.raises(InvalidValueError, match="gravity"):
        kw.make(lambda: gymnasium.make("CartPole-v1"), num_envs=1, gravity=2.0)


def test_sync_refuses_settings_of_compiled_environments():
    with pytest.raises(InvalidValueError, match="compiled"):
        kw.make("CartPole-v1", num_envs=2, backend="sync", devices=2)


def test_a_missing_simulator_names_the_package(monkeypatch):
    def missing(*arguments, **options):
        raise gymnasium.error.DependencyNotInstalled('run `pip install "gymnasium[box2d]"`')

    monkeypatch.setattr(gymnasium, "make", missing)
    with pytest.raises(MissingDependencyError, match=r"LunarLander-v3.*kiloworlds\[box2d\]"):
        kw.make("LunarLander-v3", num_envs=1, backend="sync")


def test_sync_runs_a_real_simulator():
    envs = kw.make("LunarLander-v3", num_envs=3, seed=4, backend="sync")
    first, _ = envs.reset()
    again, _ = envs.reset(seed=4)
    np.testing.assert_array_equal(first, again)
    lengths = []
    for _ in range(200):
        infos = envs.step(np.zeros(3, int))[4]
        if "episode" in infos:
            lengths.extend(infos["episode"]["l"][infos["_episode"]])
    assert lengths
    assert min(lengths) > 30
    envs.close()


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_sync_statistics_equal_gymnasiums(mode):
    ours = kw.make("CartPole-v1", num_envs=3, backend="sync", autoreset_mode=mode)
    plain = kw.make(
        "CartPole-v1", num_envs=3, backend="sync", autoreset_mode=mode, episode_statistics=False
    )
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(plain)
    ours.reset(seed=0)
    wrapped.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        actions = rng.integers(0, 2, 3)
        infos, expected = ours.step(actions)[4], wrapped.step(actions)[4]
        assert ("episode" in infos) == ("episode" in expected)
        if "episode" in infos:
            np.testing.assert_allclose(infos["episode"]["r"], expected["episode"]["r"])
            np.testing.assert_array_equal(infos["episode"]["l"], expected["episode"]["l"])


def test_sync_disabled_needs_a_reset():
    envs = kw.make("CartPole-v1", num_envs=2, backend="sync", autoreset_mode="disabled")
    envs.reset(seed=0)
    finished = np.zeros(2, bool)
    while not finished.any():
        _, _, terminated, truncated, _ = envs.step(np.ones(2, int))
        finished = terminated | truncated
    with pytest.raises(RuntimeError, match="reset_mask"):
        envs.step(np.ones(2, int))
    envs.reset(options={"reset_mask": finished})
    envs.step(np.ones(2, int))


def test_render_mode_may_be_given():
    assert kw.make("CartPole-v1", render_mode="rgb_array").render_mode == "rgb_array"
    with pytest.raises(InvalidValueError, match=r"render_mode='human'.*renders as 'rgb_array'"):
        kw.make("CartPole-v1", render_mode="human")


def test_a_parameter_that_is_no_number():
    with pytest.raises(InvalidValueError, match="length='abc' must be a finite number"):
        kw.make("CartPole-v1", length="abc")


def test_lists_of_numbers_are_one_value_each():
    envs = kw.make("CartPole-v1", 2, length=[0.2, 0.7])
    assert [float(envs.environment(index).env.length) for index in (0, 1)] == pytest.approx(
        [0.2, 0.7]
    )


def test_arrays_for_environments_that_are_not_compiled():
    with pytest.raises(InvalidValueError, match="gravity is an array"):
        kw.make("LunarLander-v3", 2, gravity=np.array([-5.0, -6.0]))


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize(
    ("env_id", "parameter"), [("Pendulum-v1", "g"), ("FrozenLake-v1", "success_rate")]
)
def test_batched_parameters_with_another_time_limit(env_id, limit, parameter):
    values = {parameter: np.array([0.1, 0.5, 0.9])}
    envs = kw.make(env_id, 3, max_episode_steps=limit, **values)
    usual = kw.make(env_id, 3, **values)
    for vector in (envs, usual):
        vector.reset(seed=0)
        vector.action_space.seed(0)
    for _ in range(10):
        for left, right in zip(
            envs.step(envs.action_space.sample())[:2],
            usual.step(usual.action_space.sample())[:2],
            strict=True,
        ):
            np.testing.assert_array_equal(left, right)


def test_threads_on_request():
    envs = kw.make("LunarLander-v3", num_envs=3, backend="thread", num_workers=2, seed=0)
    assert envs.backend == "thread"
    assert len(envs.reset()[0]) == 3
    envs.close()


def test_preprocessing_wraps_each_environment_or_is_refused():
    pytest.importorskip("cv2")
    envs = kw.make("CarRacing-v3", 2, backend="sync", preprocessing={"size": 42, "frame_stack": 3})
    assert envs.reset(seed=0)[0].shape == (2, 3, 42, 42)
    envs.close()
    with pytest.raises(InvalidValueError, match="preprocessing is for images"):
        kw.make("CartPole-v1", 2, preprocessing={"size": 42})


def test_pettingzoo_by_function_and_by_id():
    simple_spread = pytest.importorskip("mpe2.simple_spread_v3")
    for env in (lambda: simple_spread.parallel_env(N=2), "pettingzoo:mpe2.simple_spread_v3"):
        parameters = {"N": 2} if isinstance(env, str) else {}
        envs = kw.make(env, 3, backend="sync", seed=1, **parameters)
        assert type(envs).__name__ == "PettingZooVectorEnv"
        assert envs.reset()[0].shape[:2] == (3, 2)
        envs.close()


@pytest.mark.parametrize(
    ("env_id", "parameters", "message"),
    [
        ("LunarLander-v3", {"num_worker": 2}, "has no parameter 'num_worker'.*Did you mean 'num_w"),
        ("LunarLander-v3", {"gravty": -5}, "Did you mean 'gravity'.*Its parameters: .*enable_wind"),
        ("HalfCheetah-v5", {"step_timout": 3}, "Did you mean 'step_timeout'"),
        ("ALE/Pong-v5", {"diffculty": 1}, "Did you mean 'difficulty'"),
    ],
)
def test_misspelt_parameters_are_refused_before_anything_starts(env_id, parameters, message):
    with pytest.raises(InvalidValueError, match=message):
        kw.make(env_id, 2, backend="process", **parameters)


def test_mujoco_writes_no_log_file(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for options in ({}, {"backend": "sync"}, {"backend": "process", "num_workers": 1}):
        with kw.make("HalfCheetah-v5", 2, **options) as envs:
            envs.reset(seed=0)
    assert not list(tmp_path.iterdir())
    assert "WARNING" not in "".join(capfd.readouterr())
