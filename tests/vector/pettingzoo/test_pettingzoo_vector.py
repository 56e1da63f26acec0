import os
import signal

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium import spaces
from mpe2 import simple_spread_v3
from multi_agent_envs import CountdownEnv, RelayEnv

from kiloworlds.core.errors import (
    InvalidValueError,
    WrongCallError,
)
from kiloworlds.vector.pettingzoo import (
    PettingZooVectorEnv,
    builds_pettingzoo,
    is_pettingzoo,
    pettingzoo_factory,
)

BACKENDS = ("sync", "process", "thread")


@pytest.mark.parametrize("backend", BACKENDS)
def test_next_step_autoreset(make, backend):
    envs = make(lambda: RelayEnv(runners=2), 2, backend=backend, autoreset_mode="next_step")
    envs.reset(seed=0)
    envs.step(np.ones((2, 2), int))
    observations, _, terminated, truncated, infos = envs.step(np.ones((2, 2), int))
    assert observations[:, 1, 1].tolist() == [3, 3]
    assert (terminated | truncated).all()
    assert not infos["alive"].any()
    assert infos["episode"]["r"].tolist() == [[1, 22], [1, 22]]
    observations, rewards, terminated, truncated, infos = envs.step(np.ones((2, 2), int))
    assert observations[:, 1, 1].tolist() == [1, 1]
    assert not rewards.any()
    assert not (terminated | truncated).any()
    assert infos["alive"].all()
    envs.step(np.full((2, 2), 2))
    *_, infos = envs.step(np.full((2, 2), 2))
    assert infos["episode"]["r"].tolist() == [[2, 24], [2, 24]]
    assert infos["episode"]["l"].tolist() == [2, 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_disabled_autoreset(make, backend):
    builders = [lambda: CountdownEnv(2, start=2), lambda: CountdownEnv(2, start=6)]
    envs = make(builders, 2, backend=backend, autoreset_mode="disabled")
    envs.reset(seed=[0, 2])
    *_, terminated, _, infos = envs.step(np.ones((2, 2), int))
    assert terminated.tolist() == [[True, True], [False, False]]
    assert infos["agent_selection"].tolist() == [-1, 1]
    assert infos["episode"]["r"].tolist() == [[0, 2], [0, 0]]
    with pytest.raises(WrongCallError, match="environment 0 has ended"):
        envs.step(np.ones((2, 2), int))
    observations, infos = envs.reset(options={"reset_mask": np.array([True, False])})
    assert observations[:, 0, 0].tolist() == [2, 4]
    assert infos["agent_selection"].tolist() == [0, 1]


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_a_killed_worker_loses_its_episodes_only(make, mode):
    envs = make(lambda: RelayEnv(runners=3), 2, backend="process", autoreset_mode=mode)
    envs.reset(seed=11)
    before, *_ = envs.step(np.full((2, 3), 2))
    os.kill(envs.executor.worker_pids[0], signal.SIGKILL)
    _, rewards, terminated, truncated, infos = envs.step(np.full((2, 3), 2))
    assert infos["lost"].tolist() == [True, False]
    assert rewards.tolist() == [[0, 0, 0], [0, 12, 22]]
    assert terminated.tolist() == [[False, False, False], [True, True, False]]
    assert truncated.tolist() == [[True, True, True], [False, False, False]]
    np.testing.assert_array_equal(infos["final_obs"][0], before[0])
    assert infos["alive"].tolist() == [[mode == "same_step"] * 3, [False, False, True]]
    assert "episode" not in infos
    assert envs.executor.lost_episodes == 1
    for _ in range(3 if mode == "same_step" else 4):
        *_, infos = envs.step(np.full((2, 3), 1))
    assert infos["episode"]["r"][0].tolist() == [1, 22, 63]


def test_asynchronous_use(make):
    envs = make(lambda: RelayEnv(runners=2), 4, backend="process", batch_size=2, seed=1)
    assert envs.executor.batch_size == 2
    envs.async_reset()
    returns = {}
    while len(returns) < 4:  # first finished, first served: how many rounds it takes is open
        observations, rewards, _, _, infos = envs.recv()
        assert observations.shape == (2, 2, 3)
        assert rewards.shape == infos["alive"].shape == (2, 2)
        rows = infos["env_id"]
        for place in np.flatnonzero(infos.get("_episode", np.zeros(2, bool))):
            returns[int(rows[place])] = infos["episode"]["r"][place].tolist()
        envs.send(np.stack([rows, rows], axis=1) % 4, rows)
    assert returns == {row: [row, 2 * row + 20] for row in range(4)}


def test_asynchronous_calls_need_the_pool(make):
    envs = make(RelayEnv, 1)
    for call in (envs.async_reset, envs.recv):
        with pytest.raises(WrongCallError, match=r"needs backend='process'; .* on 'sync'"):
            call()


@pytest.mark.parametrize("backend", BACKENDS)
def test_infos_have_the_agent_axis(make, backend):
    envs = make(lambda: RelayEnv(runners=3, masks=True), 2, backend=backend)
    _, infos = envs.reset(seed=0)
    *_, infos = envs.step(np.zeros((2, 3), int))
    assert infos["agent_infos"]["left"].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert infos["agent_infos"]["_left"].tolist() == [[True, True, True]] * 2
    assert infos["_agent_infos"].tolist() == [True, True]
    *_, infos = envs.step(np.zeros((2, 3), int))
    assert infos["agent_infos"]["_left"].tolist() == [[False, True, True]] * 2
    assert infos["agent_infos"]["name"][1, 2] == "Runner_2"
    assert infos["agent_infos"]["_name"].tolist() == [[False, False, True]] * 2
    assert infos["shared_infos"]["weather"]["rain"].tolist() == [1, 1]
    assert infos["action_mask"].shape == (2, 3, 4)
    assert infos["action_mask"].dtype == bool
    np.testing.assert_array_equal(infos["action_mask"][0], [[1] * 4] * 3)
    *_, infos = envs.step(np.zeros((2, 3), int))
    np.testing.assert_array_equal(
        infos["action_mask"][1], [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    )
    assert infos["final_info"]["agent_infos"]["left"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert infos["final_info"]["agent_infos"]["_left"].tolist() == [[False, False, True]] * 2
    assert infos["agent_infos"]["left"].tolist() == [[1, 2, 3], [1, 2, 3]]


def test_chosen_kinds(make):
    kinds = {"even": ["runner_2", "runner_0"], "odd": ["runner_1"]}
    envs = make(lambda: RelayEnv(runners=3, masks=True), 2, kinds=kinds)
    assert envs.kinds["even"].indices == (2, 0)
    observations, infos = envs.reset(seed=0)
    assert observations["even"][0, :, 2].tolist() == [3, 1]
    assert infos["action_mask"]["odd"].tolist() == [[[True, True, False, False]]] * 2
    actions = {"even": np.array([[3, 1], [3, 1]]), "odd": np.array([[2], [2]])}
    _, rewards, *_ = envs.step(actions)
    assert rewards.tolist() == [[1, 12, 23]] * 2


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"all": ["runner_0", "runer_1"]}, "'runer_1', which is no agent.*mean 'runner_1'"),
        ({"all": ["runner_0"]}, "names 'runner_1' 0 times"),
        ({"a": ["runner_0", "runner_1"], "b": ["runner_0"]}, "names 'runner_0' 2 times"),
    ],
)
def test_wrong_kinds(kinds, message):
    with pytest.raises(InvalidValueError, match=message):
        PettingZooVectorEnv(lambda: RelayEnv(runners=2), 1, backend="sync", kinds=kinds)


def test_an_illegal_move_ends_the_game(make, capfd):
    envs = make(lambda: pettingzoo.make("aec", "classic/tictactoe_v3"), 1)
    envs.reset(seed=0)
    envs.step(np.array([[4, 0]]))
    _, rewards, terminated, truncated, _ = envs.step(np.array([[0, 4]]))
    assert rewards.tolist() == [[0, -1]]
    assert terminated.all()
    assert truncated.all()


def test_options_calls_and_rendering(make):
    envs = make(lambda: RelayEnv(runners=2), 2, backend="process")
    observations, _ = envs.reset(seed=3, options={"k": 4})
    assert (observations[:, :, 0] > 4000).all()
    assert envs.call("double", 21) == (42, 42)
    envs.set_attr("start", [5.0, 6.0])
    assert envs.get_attr("start") == (5.0, 6.0)
    assert "relay_v0, num_envs=2, num_agents=2, backend='process'" in repr(envs)
    pictures = make(lambda: simple_spread_v3.parallel_env(render_mode="rgb_array"), 2)
    pictures.reset(seed=0)
    assert pictures.render_mode == "rgb_array"
    assert pictures.render()[0].shape == (700, 700, 3)
    (second,) = pictures.render([1])
    np.testing.assert_array_equal(second, pictures.render()[1])


def test_views_without_copies(make):
    envs = make(lambda: RelayEnv(runners=2), 2, backend="process", copy=False)
    envs.reset(seed=0)
    first, rewards, *_ = envs.step(np.zeros((2, 2), int))
    assert not first.flags.owndata
    kept, kept_rewards = first.copy(), rewards.copy()
    envs.step(np.ones((2, 2), int))
    np.testing.assert_array_equal(first, kept)
    envs.step(np.ones((2, 2), int))
    np.testing.assert_array_equal(rewards, kept_rewards)


def test_no_episode_statistics(make):
    envs = make(lambda: RelayEnv(runners=1), 1, episode_statistics=False)
    envs.reset(seed=0)
    *_, truncated, infos = envs.step(np.zeros((1, 1), int))
    assert truncated.all()
    assert "episode" not in infos


def test_recognition():
    assert is_pettingzoo(RelayEnv())
    assert is_pettingzoo(CountdownEnv())
    assert not is_pettingzoo(gymnasium.make("CartPole-v1"))
    assert not is_pettingzoo(RelayEnv)
    assert builds_pettingzoo(CountdownEnv)
    assert not builds_pettingzoo(lambda: gymnasium.make("CartPole-v1"))


def test_ids(make):
    spread = make(pettingzoo_factory("pettingzoo:mpe2.simple_spread_v3", N=5), 2, backend="process")
    assert spread.num_agents == 5
    game = pettingzoo_factory("pettingzoo:classic/tictactoe_v3")()
    assert str(game) == "tictactoe_v3"
    assert game.metadata["is_parallelizable"] is False


class KeepingEnv(RelayEnv):
    """Keeps the actions it is given, as environments may."""

    def __init__(self):
        super().__init__(runners=3)
        self._action_spaces = {
            agent: spaces.Box(-1, 1, (2,), np.float32) for agent in self.possible_agents
        }

    def step(self, actions):
        results = super().step(dict.fromkeys(self.agents, 0))
        self.seen_actions[-1] = actions
        return results


def test_actions_are_the_environments_to_keep(make):
    envs = make(KeepingEnv, 1)
    envs.reset(seed=0)
    actions = np.full((1, 3, 2), 0.5, np.float32)
    envs.step(actions)
    actions[:] = -1.0
    (seen,) = envs.get_attr("seen_actions")
    assert seen[0]["runner_2"].tolist() == [0.5, 0.5]


class NamedEnv(CountdownEnv):
    def __init__(self):
        super().__init__()
        self.possible_agents = ["alice", "bob"]


def test_agents_with_like_spaces_are_of_one_kind(make):
    envs = make(NamedEnv, 1)
    assert list(envs.kinds) == ["agent"]
    observations, _ = envs.reset(seed=0)
    assert observations.tolist() == [[[14, 0], [14, 1]]]
