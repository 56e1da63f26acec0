import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from mpe2 import simple_speaker_listener_v4
from multi_agent_envs import CountdownEnv, RelayEnv, SpoiltRelayEnv

from kiloworlds.core.errors import (
    InvalidValueError,
    MissingDependencyError,
    UnknownNameError,
    WrongCallError,
)
from kiloworlds.vector.faults import EnvironmentFailedError
from kiloworlds.vector.pettingzoo import (
    PettingZooVectorEnv,
    pettingzoo_factory,
)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 3), int), r"shape \(2, 3\).*\(2, 2\)"),
        (np.array([[0, 0], [0, 4]]), r"environment 1 is \[0 4\], outside.*\[0 3\]"),
        (np.zeros((2, 2)), "float64"),
    ],
)
def test_wrong_actions(make, actions, message):
    envs = make(lambda: RelayEnv(runners=2), 2)
    with pytest.raises(WrongCallError, match="before reset"):
        envs.step(actions)
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match=message):
        envs.step(actions)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((1, 2), int), r"are of type ndarray.*\['listener', 'speaker'\]"),
        ({"speaker": np.zeros((1, 1), int)}, "lack 'listener'"),
        ({"speakers": 0, "listener": 0}, "hold 'speakers'.*Did you mean 'speaker'"),
        (
            {"speaker": np.array([[3]]), "listener": np.array([[0]])},
            r"the action of environment 0 at \['speaker'\] is \[3\].*valid one is \[2\]",
        ),
    ],
)
def test_wrong_blocks_of_actions(make, actions, message):
    envs = make(simple_speaker_listener_v4.parallel_env, 1)
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match=message):
        envs.step(actions)


def drop(position, agent="runner_1"):
    """Takes an agent out of one of the dictionaries that step gives."""

    def spoil(env, results):
        if len(results) == 5:
            results[position].pop(agent, None)
        return results

    return spoil


def vanish(env, results):
    env.agents = [agent for agent in env.agents if agent != "runner_2" or env.steps == 0]
    return results


def come_back(env, results):
    if len(results) == 5 and env.steps == 2:
        env.agents = ["runner_0", *env.agents]
        for by_agent, value in zip(results, (np.zeros(3), 0.0, False, False, {}), strict=True):
            by_agent["runner_0"] = value
    return results


def stranger(env, results):
    env.agents = [*env.agents, "goalkeeper"]
    return results


def nobody(env, results):
    env.agents = []
    return results


def narrow(env, results):
    return ({agent: value[:2] for agent, value in results[0].items()}, *results[1:])


def old_step(env, results):
    return results if len(results) == 2 else (*results[:2], results[2], results[4])


def other_spaces(env, results):
    env._observation_space = spaces.Box(0, 1, (3,), np.float64)
    return results


def short_masks(env, results):
    for agent in env.agents:
        results[-1][agent]["action_mask"] = np.ones(3, bool)
    return results


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop(0), "observations has no entry for agent 'runner_1' in step 1"),
        (drop(1), "rewards has no entry for agent 'runner_1' in step 1; it holds"),
        (drop(2), "terminations has no entry for agent 'runner_1' in step 1"),
        (drop(3), "truncations has no entry for agent 'runner_1' in step 1"),
        (vanish, "agent 'runner_2' vanished from agents in step 1"),
        (come_back, "agent 'runner_0' came back in step 2 although it ended in step 1"),
        (
            stranger,
            r"agent 'goalkeeper' appeared in step 0 .*\['runner_0', 'runner_1', 'runner_2'\]",
        ),
        (nobody, r"reset\(\) left the environment without agents"),
        (narrow, r"in reset\(\) agent 'runner_0': the observation is float64 of shape \(2,\)"),
        (old_step, r"step\(\) gave 4 values; .* tuple of 5"),
        (lambda env, results: results[0], r"reset\(\) gave dict; .* tuple of 2"),
        (other_spaces, r"after reset\(\) agent 'runner_0' has the space Box\(0.0, 1.0"),
        (short_masks, r"mask of agent 'runner_0' has shape \(3,\); its Discrete\(4\) needs \(4,\)"),
    ],
)
def test_broken_rules_are_named(make, spoil, message):
    envs = make(lambda: SpoiltRelayEnv(spoil, runners=3), 1)
    with pytest.raises(InvalidValueError, match=message):  # noqa: PT012
        envs.reset(seed=0)
        for _ in range(3):
            envs.step(np.zeros((1, 3), int))


def test_broken_rules_in_a_worker_are_named(make):
    envs = make(lambda: SpoiltRelayEnv(drop(1), runners=3), 2, backend="process")
    envs.reset(seed=0)
    with pytest.raises(EnvironmentFailedError, match="rewards has no entry for agent 'runner_1'"):
        envs.step(np.zeros((2, 3), int))


class NewSpacesEnv(RelayEnv):
    def observation_space(self, agent):
        return spaces.Box(0, 1, (3,))


class NamelessEnv(RelayEnv):
    def __init__(self):
        super().__init__()
        self.possible_agents = []


class UnequalEnv(RelayEnv):
    def __init__(self, what: str):
        super().__init__()
        self.what = what
        self.sizes = {
            agent: (spaces.Box(0, 1, (number + 1,)), spaces.Discrete(number + 2))
            for number, agent in enumerate(self.possible_agents)
        }

    def observation_space(self, agent):
        return self.sizes[agent if self.what == "observation" else "runner_0"][0]

    def action_space(self, agent):
        return self.sizes[agent if self.what == "action" else "runner_0"][1]


class SequenceEnv(RelayEnv):
    def __init__(self):
        super().__init__()
        self._observation_space = spaces.Sequence(spaces.Discrete(2))


@pytest.mark.parametrize(
    ("make_env", "message"),
    [
        (
            NewSpacesEnv,
            r"observation_space\('runner_0'\) is another object at each call.*lru_cache",
        ),
        (NamelessEnv, "relay_v0 has no possible_agents"),
        (lambda: UnequalEnv("observation"), "both of the kind 'runner'.*pad_observations_v0"),
        (lambda: UnequalEnv("action"), r"action spaces differ: Discrete\(2\).*pad_action"),
        (SequenceEnv, "'runner', Sequence.* has values of no fixed size"),
        (lambda: gymnasium.make("CartPole-v1"), "neither a ParallelEnv nor an AECEnv.*Gymnasium"),
    ],
)
def test_environments_that_cannot_have_an_agent_axis(make_env, message):
    with pytest.raises(InvalidValueError, match=message):
        PettingZooVectorEnv(make_env, 1, backend="sync")


class RenamedEnv(RelayEnv):
    def __init__(self):
        super().__init__(runners=2)
        self.possible_agents = ["runner_1", "runner_0"]


def test_copies_must_have_the_same_agents():
    make_envs = [lambda: RelayEnv(runners=2), RenamedEnv]
    with pytest.raises(InvalidValueError, match=r"environment 1 has the agents \['runner_1', "):
        PettingZooVectorEnv(make_envs, 2, backend="sync")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "proces"}, "backend='proces' does not run.*Did you mean 'process'"),
        ({"backend": "sync", "num_workers": 1}, "num_workers is no option of backend='sync'"),
        ({"num_worker": 1}, "num_worker is no option.*Did you mean 'num_workers'"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(InvalidValueError, match=message):
        PettingZooVectorEnv(RelayEnv, 2, **options)


@pytest.mark.parametrize(
    ("env_id", "error", "message"),
    [
        (
            "pettingzoo:classic/tictacto_v3",
            UnknownNameError,
            "mean 'pettingzoo:classic/tictactoe_v3'",
        ),
        ("pettingzoo:mpe2.simple_spred_v3", UnknownNameError, "'pettingzoo:mpe2.simple_spread_v3'"),
        ("pettingzoo:nowhere9.game_v1", MissingDependencyError, "pip install nowhere9"),
        ("pettingzoo:chess", InvalidValueError, "'pettingzoo:family/name_vN' or"),
        ("classic/chess_v6", InvalidValueError, "no id of a PettingZoo environment"),
    ],
)
def test_wrong_ids(env_id, error, message):
    with pytest.raises(error, match=message):
        pettingzoo_factory(env_id)


def test_ids_whose_environment_cannot_be_built():
    with pytest.raises(
        InvalidValueError, match=r"tictactoe_v3: .*unexpected keyword argument 'size'"
    ):
        pettingzoo_factory("pettingzoo:classic/tictactoe_v3", size=4)()
    with pytest.raises(InvalidValueError, match="neither parallel_env"):
        pettingzoo_factory("pettingzoo:pettingzoo.utils")()


class ForgetfulEnv(CountdownEnv):
    def step(self, action):
        super().step(action)
        del self.rewards["player_1"]


class ClingingEnv(CountdownEnv):
    def step(self, action):
        if action is not None:
            super().step(action)


@pytest.mark.parametrize(
    ("make_env", "message"),
    [
        (ForgetfulEnv, "rewards has no entry for agent 'player_1' in step 1"),
        (
            ClingingEnv,
            r"'player_0' ended in step 1 and got its last step, step\(None\), but is still",
        ),
    ],
)
def test_broken_rules_of_turn_based_environments_are_named(make, make_env, message):
    envs = make(lambda: make_env(3, start=4), 1)
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match=message):
        envs.step(np.zeros((1, 3), int))
