import copy
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from compiled_multi_agent_envs import Hunt, Relay
from pettingzoo import ParallelEnv
from registered_ids import multi_agent_ids

import kiloworlds as kw
from kiloworlds.core.errors import (
    InvalidValueError,
    MissingDependencyError,
    UnknownNameError,
    WrongCallError,
)
from kiloworlds.core.time_limit import with_time_limit
from kiloworlds.vector.pettingzoo import is_pettingzoo

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of PettingZoo about itself
    from pettingzoo.test import parallel_api_test, parallel_seed_test


def hunt(**options):
    return kw.to_pettingzoo(with_time_limit(Hunt(), 4), **options)


@pytest.mark.parametrize("env_id", multi_agent_ids())
def test_every_environment_of_several_agents_passes_pettingzoos_tests(env_id):
    env = kw.to_pettingzoo(env_id)
    parallel_api_test(env, num_cycles=4)
    for _ in range(2):
        observations, infos = env.reset(seed=3)
        for agent in env.agents:
            assert env.observation_space(agent).contains(observations[agent])
            assert infos[agent].get("action_mask", np.ones(1)).any()
    parallel_seed_test(iter([env, _twin(env)]).__next__, num_cycles=4)


def _twin(env):
    """Another environment with the same compiled programs, to compile them once."""
    twin = copy.copy(env)
    twin._vector, twin.action_spaces = copy.copy(env._vector), copy.deepcopy(env.action_spaces)
    return twin


@pytest.mark.parametrize("masks_in", ["infos", "observations"])
@pytest.mark.parametrize("make_env", [Relay, Hunt], ids=["relay", "hunt"])
def test_pettingzoos_tests_with_masks_and_dying_agents(make_env, masks_in):
    def build():
        return kw.to_pettingzoo(with_time_limit(make_env(), 5), masks_in=masks_in)

    parallel_api_test(build(), num_cycles=12)
    parallel_seed_test(build, num_cycles=4)


def test_agents_vanish_when_they_end():
    env = kw.to_pettingzoo(Relay(bonus=2.0))
    assert isinstance(env, ParallelEnv)
    assert is_pettingzoo(env)
    observations, infos = env.reset(seed=5)
    start = observations["runner_0"][0]
    assert env.agents == env.possible_agents == ["runner_0", "runner_1", "runner_2"]
    assert infos["runner_1"]["action_mask"].tolist() == [1, 1, 0, 0]
    assert infos["runner_1"]["action_mask"].dtype == np.int8
    actions = {"runner_0": 0, "runner_1": 1, "runner_2": 2}
    observations, rewards, terminations, truncations, infos = env.step(actions)
    assert env.agents == ["runner_1", "runner_2"]
    assert rewards == {"runner_0": 0.0, "runner_1": 12.0, "runner_2": 24.0}
    assert all(type(reward) is float for reward in rewards.values())
    assert terminations == {"runner_0": True, "runner_1": False, "runner_2": False}
    assert truncations == dict.fromkeys(env.possible_agents, False)
    assert observations["runner_0"].tolist() == [0, 0]
    assert observations["runner_2"].tolist() == [start, 2]
    assert infos["runner_2"]["shaped_reward"] == 12.0
    assert infos["runner_2"]["won"] is False
    # Actions of those that are gone may be there; nobody reads them.
    observations, *_ = env.step({"runner_0": 3, "runner_1": 0, "runner_2": 0})
    assert list(observations) == ["runner_1", "runner_2"]
    *_, terminations, _, infos = env.step({"runner_2": 1})
    assert terminations == {"runner_2": True}
    assert infos["runner_2"]["won"] is True
    assert env.agents == []
    with pytest.raises(WrongCallError, match="has ended"):
        env.step({})
    env.reset()
    assert len(env.agents) == 3


def test_masks_in_observations_and_blocks_of_kinds():
    env = hunt(masks_in="observations")
    space = env.observation_space("prey")
    assert space is env.observation_space("prey")
    assert env.action_space("prey") is not env.action_space("hunter_0")
    observations, infos = env.reset(seed=0)
    assert space.contains(observations["prey"])
    assert observations["prey"]["observation"].shape == (1,)
    assert observations["hunter_1"]["action_mask"].tolist() == [1, 1, 0]
    place = observations["prey"]["observation"][0]
    assert infos["prey"] == infos["hunter_0"] == {"place": place}
    _, rewards, terminations, *_ = env.step({"hunter_0": 2, "hunter_1": 1, "prey": 2})
    assert rewards == {"hunter_0": 5.0, "hunter_1": 5.0, "prey": 2.0}
    assert terminations["prey"] is True
    assert env.agents == ["hunter_0", "hunter_1"]
    for step in range(3):
        _, rewards, _, truncations, _ = env.step({"hunter_0": 0, "hunter_1": 0})
        assert rewards == {"hunter_0": -0.5, "hunter_1": -0.5}
        assert truncations["hunter_1"] is (step == 2)


def test_seeds_give_the_episodes_of_vectors():
    env, envs = hunt(), kw.make(with_time_limit(Hunt(), 4), 3)
    batch, _ = envs.reset(seed=20)
    for index in range(3):
        observations, _ = env.reset(seed=20 + index)
        assert observations["prey"] == batch["prey"][index, 0]
    starts = {float(env.reset()[0]["prey"][0]) for _ in range(20)}
    assert len(starts) > 1


def test_state_and_render():
    env = hunt(render_mode="rgb_array")
    assert env.state_space.shape == (3, 2)
    with pytest.raises(WrongCallError, match="before reset"):
        env.state()
    env.reset(seed=0)
    assert env.state().shape == (3, 2)
    assert env.render().shape == (4, 6, 3)
    assert env.metadata["render_modes"] == ["rgb_array"]
    text = kw.to_pettingzoo(Relay(), render_mode="ansi")
    text.reset(seed=0)
    assert text.render().startswith("step 0 from ")
    silent = kw.to_pettingzoo(Relay())
    silent.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='ansi'"):
        assert silent.render() is None
    assert str(silent) == "Relay"
    env.close()
    with pytest.raises(WrongCallError, match="after close"):
        env.reset()


def test_wrong_actions_are_named():
    env = kw.to_pettingzoo(Relay(), check_legal=True)
    env.reset(seed=0)
    good = {"runner_0": 0, "runner_1": 0, "runner_2": 0}
    with pytest.raises(InvalidValueError, match="no action of agent 'runner_1', which lives"):
        env.step({"runner_0": 0, "runner_2": 0})
    with pytest.raises(InvalidValueError, match=r"'runer_1' is no agent of.*mean 'runner_1'"):
        env.step(good | {"runer_1": 0})
    for action in (4, -1, None, 0.5):
        message = rf"action of agent 'runner_2' is {action}, outside Discrete\(4\)"
        with pytest.raises(InvalidValueError, match=message):
            env.step(good | {"runner_2": action})
    with pytest.raises(InvalidValueError, match=r"agent 'runner_1': the action 2 is illegal now"):
        env.step(good | {"runner_1": 2})
    env.step(good)
    with pytest.raises(InvalidValueError, match="actions of type NoneType; give a dictionary"):
        env.step(None)


def test_continuous_actions_of_another_shape_are_refused():
    env = kw.to_pettingzoo("mpe/simple_spread_v3", continuous_actions=True)
    env.reset(seed=0)
    nan = np.full(5, np.nan, np.float32)
    for action in (np.zeros(3, np.float32), "x", None, [0, [1], 0, 0, 0], nan):
        with pytest.raises(InvalidValueError, match=r"agent 'agent_0' is .*, outside Box"):
            env.step(dict.fromkeys(env.agents, action))
    env.step(dict.fromkeys(env.agents, np.full(5, 7.0)))  # clipped
    with pytest.raises(InvalidValueError, match="'agent_7' is no agent of"):
        env.action_space("agent_7")


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("CartPole-v1", {}, "CartPole-v1 has a single agent"),
        (lambda: Relay(), {}, "got function; give an id or a compiled environment"),
        (Relay(), {"masks_in": "info"}, "masks_in='info' is not one of.*mean 'infos'"),
        (Relay(), {"render_mode": "rgb_array"}, "render_mode='rgb_array' is not one of 'ansi'"),
        (Relay(), {"check_legal": 1}, "check_legal=1 must be True or False"),
    ],
)
def test_what_it_does_not_take(env, options, message):
    with pytest.raises(InvalidValueError, match=message):
        kw.to_pettingzoo(env, **options)


def test_an_unknown_id_and_a_missing_package(monkeypatch):
    with pytest.raises(UnknownNameError, match="simple_spread_v3"):
        kw.to_pettingzoo("mpe/simple_spred_v3")
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    monkeypatch.delitem(sys.modules, "kiloworlds.compat.pettingzoo")
    with pytest.raises(MissingDependencyError, match="pip install pettingzoo"):
        kw.to_pettingzoo  # noqa: B018


def test_parameters_reach_the_environment():
    env = kw.to_pettingzoo("mpe/simple_spread_v3", N=4, max_episode_steps=2)
    assert env.possible_agents == [f"agent_{index}" for index in range(4)]
    assert str(env) == "simple_spread_v3"
    assert isinstance(env.action_space("agent_0"), gymnasium.spaces.Discrete)
    env.reset(seed=0)
    env.step(dict.fromkeys(env.agents, 1))
    *_, truncations, _ = env.step(dict.fromkeys(env.agents, 1))
    assert all(truncations.values())
