"""What the loop on the host makes of PettingZoo's steps."""

import functools

import gymnasium
import numpy as np
import pytest

pettingzoo = pytest.importorskip("pettingzoo")

import kiloworlds as kw  # noqa: E402
from kiloworlds.core.errors import InvalidValueError  # noqa: E402
from kiloworlds.training.algorithms import host_training  # noqa: E402
from kiloworlds.training.config import build_config  # noqa: E402


class Shifts(pettingzoo.ParallelEnv):
    """Two agents earn 1 a step for two steps, then the episode is cut off; only the last agent goes home
    (terminates) after the first step. Each step allows other actions."""

    metadata = {"name": "shifts"}  # noqa: RUF012
    possible_agents = ["early", "late"]  # noqa: RUF012
    masks = ([1, 0, 0], [0, 1, 0], [0, 1, 1])

    @functools.cache  # noqa: B019
    def observation_space(self, agent):
        return gymnasium.spaces.Box(0.0, 9.0, (1,), np.float32)

    @functools.cache  # noqa: B019
    def action_space(self, agent):
        return gymnasium.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        return self._tell(self.agents)

    def _tell(self, agents):
        observations = {agent: np.full(1, self.time, np.float32) for agent in agents}
        mask = np.array(self.masks[self.time], np.int8)
        return observations, {agent: {"action_mask": mask} for agent in agents}

    def step(self, actions):
        self.time += 1
        agents, cut = self.agents, self.time == 2
        observations, infos = self._tell(agents)
        home = {agent: agent == "early" and self.time == 1 for agent in agents}
        self.agents = [agent for agent in agents if not home[agent] and not cut]
        rewards = dict.fromkeys(agents, 1.0)
        return observations, rewards, home, dict.fromkeys(agents, cut), infos


SETTINGS = {"num_envs": 2, "num_steps": 4, "total_steps": 16, "backend": "sync"}


def _collected(**settings):
    envs = kw.make(lambda: Shifts(), 2, backend="sync")
    config = build_config("iql", "pettingzoo:a/b_v0", SETTINGS | {"replay_batch": 4} | settings)
    training = host_training(config, envs)
    state = training.init()
    keys = training._keys(training._key, 0)
    experience, _ = training._collect(training.algorithm.policy(state.learner, 0.0), keys)
    training.close()
    return experience


def test_at_a_cut_what_the_step_led_to_is_told_not_the_next_start():
    experience = _collected()
    over = experience.episode_finished[:, 0]
    np.testing.assert_array_equal(over, [False, True, False, True])
    assert not experience.episode_terminated.any()
    # After the first step only the late one lives; it still does when the episode is cut off.
    np.testing.assert_array_equal(experience.next_alive[:, 0], [[False, True]] * 4)
    late = experience.next_observation[:, 0, 1, 0], experience.next_legal[:, 0, 1]
    np.testing.assert_array_equal(late[0], [1, 2, 1, 2])
    np.testing.assert_array_equal(late[1], np.array(Shifts.masks, bool)[[1, 2, 1, 2]])
    np.testing.assert_array_equal(experience.seen.legal[:, 0, 1].argmax(-1), [0, 1, 0, 1])


@pytest.mark.parametrize("name", ["num_seeds", "max_staleness"])
def test_what_the_loop_cannot_do_is_refused(name):
    with pytest.raises(InvalidValueError, match=f"{name}=2: several agents outside XLA"):
        _collected(**{name: 2})
