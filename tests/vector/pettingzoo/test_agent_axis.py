import numpy as np
import pettingzoo
import pytest
from gymnasium import spaces
from mpe2 import simple_spread_v3, simple_tag_v3
from multi_agent_envs import CountdownEnv, RelayEnv

from kiloworlds.vector.pettingzoo.adapters import Adapting

BACKENDS = ("sync", "process", "thread")


class ByHand:
    """One parallel environment, stepped as PettingZoo's documentation has it; starts over by itself."""

    def __init__(self, make_env, seed):
        self.env = make_env()
        self.observations, _ = self.env.reset(seed=seed)

    def step(self, actions):
        """Results by agent; the observations, and the last ones where the episode ended."""
        given = {agent: actions[agent] for agent in self.env.agents}
        observations, rewards, terminations, truncations, _ = self.env.step(given)
        last = None
        if not self.env.agents:
            last = observations
            observations, _ = self.env.reset()
        return observations, rewards, terminations, truncations, last


def stacked(by_agent, agents):
    return np.stack([by_agent[agent] for agent in agents])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("continuous", [False, True])
def test_a_parallel_environment_equals_stepping_it_by_hand(make, backend, continuous):
    def make_env():
        return simple_spread_v3.parallel_env(N=4, max_cycles=6, continuous_actions=continuous)

    envs = make(make_env, 3, backend=backend)
    agents = envs.possible_agents
    assert agents == ("agent_0", "agent_1", "agent_2", "agent_3")
    assert envs.backend == backend
    assert envs.single_observation_space.shape == (4, 24)
    hands = [ByHand(make_env, 20 + index) for index in range(3)]
    observations, infos = envs.reset(seed=20)
    for index, hand in enumerate(hands):
        np.testing.assert_array_equal(observations[index], stacked(hand.observations, agents))
    envs.action_space.seed(1)
    returns = np.zeros((3, 4))
    for step in range(1, 15):
        actions = envs.action_space.sample()
        assert actions.shape == ((3, 4, 5) if continuous else (3, 4))
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        assert observations.dtype == np.float32
        assert rewards.dtype == np.float64
        for index, hand in enumerate(hands):
            theirs = hand.step(dict(zip(agents, actions[index], strict=True)))
            np.testing.assert_array_equal(observations[index], stacked(theirs[0], agents))
            np.testing.assert_array_equal(rewards[index], stacked(theirs[1], agents))
            np.testing.assert_array_equal(terminated[index], stacked(theirs[2], agents))
            np.testing.assert_array_equal(truncated[index], stacked(theirs[3], agents))
            if theirs[4] is not None:
                np.testing.assert_array_equal(infos["final_obs"][index], stacked(theirs[4], agents))
        returns += rewards
        assert ("episode" in infos) == (step % 6 == 0) == truncated.all()
        assert infos["alive"].all()
        assert infos["acting"].all()
        if "episode" in infos:
            np.testing.assert_array_equal(infos["episode"]["r"], returns)
            assert infos["episode"]["l"].tolist() == [6, 6, 6]
            assert infos["_episode"].all()
            assert (infos["episode"]["t"] > 0).all()
            returns[:] = 0
    assert "action_mask" not in infos


@pytest.mark.parametrize("backend", BACKENDS)
def test_agents_of_different_kinds_lie_in_blocks(make, backend):
    def make_env():
        return simple_tag_v3.parallel_env(num_good=2, num_adversaries=3, max_cycles=5)

    envs = make(make_env, 2, backend=backend)
    kinds = envs.kinds
    assert list(kinds) == ["adversary", "agent"]
    assert kinds["agent"].agents == ("agent_0", "agent_1")
    assert kinds["agent"].indices == (3, 4)
    assert kinds["agent"].action_space == spaces.Discrete(5)
    hands = [ByHand(make_env, 7 + index) for index in range(2)]
    observations, _ = envs.reset(seed=7)
    assert {name: block.shape for name, block in observations.items()} == {
        "adversary": (2, 3, kinds["adversary"].observation_space.shape[0]),
        "agent": (2, 2, kinds["agent"].observation_space.shape[0]),
    }
    envs.action_space.seed(2)
    for _ in range(7):
        actions = envs.action_space.sample()
        observations, rewards, *_, infos = envs.step(actions)
        for index, hand in enumerate(hands):
            given = {
                agent: action
                for name, kind in kinds.items()
                for agent, action in zip(kind.agents, actions[name][index], strict=True)
            }
            theirs = hand.step(given)
            np.testing.assert_array_equal(rewards[index], stacked(theirs[1], envs.possible_agents))
            for name, kind in kinds.items():
                block = observations[name][index]
                np.testing.assert_array_equal(block, stacked(theirs[0], kind.agents))
                if theirs[4] is not None:
                    final = infos["final_obs"][index][name]
                    np.testing.assert_array_equal(final, stacked(theirs[4], kind.agents))


def legal(mask, random):
    return int(random.choice(np.flatnonzero(mask)))


def test_random_actions_of_an_adapter_are_legal():
    game = Adapting(lambda: pettingzoo.make("aec", "classic/tictactoe_v3"), None)()
    record, _ = game.reset(seed=0)
    for _ in range(50):
        actions = game.sample_legal(record)
        masks = record["action_mask"]["player"]
        assert masks[np.arange(2), actions].all()
        record, _, over, *_ = game.step(actions)
        if over:
            record, _ = game.reset()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("game", ["tictactoe_v3", "connect_four_v3"])
def test_a_turn_based_game_equals_playing_it_by_hand(make, backend, game):
    envs = make(lambda: pettingzoo.make("aec", f"classic/{game}"), 2, backend=backend)
    assert envs.is_turn_based
    random = np.random.default_rng(3)
    theirs = [pettingzoo.make("aec", f"classic/{game}") for _ in range(2)]
    for env in theirs:
        env.reset(seed=0)
    observations, infos = envs.reset(seed=0)
    due = np.zeros((2, 2))  # rewards since an agent's last turn
    ends = 0
    for _ in range(60):
        actions = np.zeros((2, 2), int)
        for index, env in enumerate(theirs):
            place = infos["agent_selection"][index]
            assert envs.possible_agents[place] == env.agent_selection
            assert infos["acting"][index].tolist() == [place == 0, place == 1]
            seen, reward, _, _, _ = env.last()
            np.testing.assert_array_equal(observations[index, place], seen["observation"])
            np.testing.assert_array_equal(infos["action_mask"][index, place], seen["action_mask"])
            assert infos["action_mask"][index, 1 - place].all()
            assert due[index, place] == reward
            due[index, place] = 0.0
            actions[index, place] = legal(seen["action_mask"], random)
            env.step(actions[index, place])
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        due += rewards
        for index, env in enumerate(theirs):
            over = all(env.terminations.values())
            assert terminated[index].tolist() == [over, over]
            if not over:
                continue
            ends += 1
            for place, agent in enumerate(envs.possible_agents):
                final = env.observe(agent)["observation"]
                np.testing.assert_array_equal(infos["final_obs"][index][place], final)
            while env.agents:
                place = envs.possible_agents.index(env.agent_selection)
                assert due[index, place] == env.last()[1]
                env.step(None)
            assert infos["episode"]["r"][index].tolist() == rewards[index].tolist()
            due[index] = 0.0
            env.reset()
    assert ends >= 2
    assert not truncated.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_players_of_a_turn_based_game_drop_out(make, backend):
    """Held against PettingZoo's own loop, `agent_iter` and `last`."""
    envs = make(lambda: CountdownEnv(players=4, start=16), 2, backend=backend)
    observations, infos = envs.reset(seed=0)
    turns = [[], []]
    due, over = np.zeros((2, 4)), np.zeros(2, bool)
    ends = [{}, {}]
    step = 0
    while not over.all():
        step += 1
        actions = np.full((2, 4), step % 2)
        for index in np.flatnonzero(~over):
            place = infos["agent_selection"][index]
            turns[index].append(
                (place, observations[index, place].tolist(), due[index, place], step % 2)
            )
            due[index, place] = 0.0
        was_alive = infos["alive"]
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        due += rewards
        for index in np.flatnonzero(~over):
            flags = terminated[index] | truncated[index]
            final = infos["final_obs"][index] if flags.all() else observations[index]
            for place in np.flatnonzero(flags & was_alive[index]):
                ends[index][place] = (final[place].tolist(), due[index, place])
            over[index] = flags.all()
    for index in range(2):
        env = CountdownEnv(players=4, start=16)
        env.reset(seed=index)
        theirs, their_ends, step = [], {}, 0
        for agent in env.agent_iter():
            observation, reward, terminated_, truncated_, _ = env.last()
            place = env.possible_agents.index(agent)
            if terminated_ or truncated_:
                their_ends[place] = (observation.tolist(), reward)
                env.step(None)
                continue
            step += 1
            theirs.append((place, observation.tolist(), reward, step % 2))
            env.step(step % 2)
        assert turns[index] == theirs
        assert ends[index] == their_ends
    assert [turn[0] for turn in turns[0]] != [turn[0] for turn in turns[1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_agents_that_have_ended_are_masked(make, backend):
    envs = make(lambda: RelayEnv(runners=3), 2, backend=backend)
    assert list(envs.kinds) == ["runner"]
    observations, infos = envs.reset(seed=5)
    start = observations[:, :, 0].copy()
    assert infos["alive"].all()
    expected = [  # alive, terminated, truncated, rewards after each step, of actions 1, 2, 3
        ([0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 12, 23]),
        ([0, 0, 1], [1, 1, 0], [0, 0, 0], [0, 12, 23]),
        ([1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 23]),  # over: the next episode has begun
    ]
    for step, (alive, ended, cut, reward) in enumerate(expected, start=1):
        lived = infos["alive"]
        observations, rewards, terminated, truncated, infos = envs.step(np.array([[1, 2, 3]] * 2))
        assert infos["alive"].tolist() == infos["acting"].tolist() == [alive, alive]
        assert terminated.tolist() == [ended, ended]
        assert truncated.tolist() == [cut, cut]
        assert rewards.tolist() == [reward, reward]
        seen = observations if step < 3 else np.stack(list(infos["final_obs"]))
        for agent in range(3):
            if lived[0, agent]:  # also the last observation of one that ended now
                assert seen[:, agent, 0].tolist() == start[:, agent].tolist()
                assert seen[0, agent, 1:].tolist() == [step + 1, agent + 1]
            else:
                assert not seen[:, agent].any()
    assert infos["episode"]["r"].tolist() == [[1, 24, 69]] * 2
    assert infos["episode"]["l"].tolist() == [3, 3]
    assert observations[:, 0, 1].tolist() == [1, 1]


def test_only_the_actions_of_living_agents_are_given(make):
    envs = make(lambda: RelayEnv(runners=3), 1)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.array([[3, 2, 1]]))
    (seen,) = envs.get_attr("seen_actions")
    assert seen == [{"runner_0": 3, "runner_1": 2, "runner_2": 1}, {"runner_1": 2, "runner_2": 1}]


def test_agents_that_come_late_are_masked_until_then(make):
    envs = make(lambda: RelayEnv(runners=3, late={"runner_2": 2, "runner_0": 9}), 1)
    _, infos = envs.reset(seed=0)
    assert infos["alive"].tolist() == [[False, True, False]]
    _, rewards, *_, infos = envs.step(np.array([[1, 1, 1]]))
    assert infos["alive"].tolist() == [[False, True, False]]
    assert rewards.tolist() == [[0, 11, 0]]
    observations, _, terminated, _, infos = envs.step(np.array([[1, 1, 1]]))
    assert infos["alive"].tolist() == [[False, False, True]]
    assert observations[0, 2, 1:].tolist() == [3, 3]
    assert terminated.tolist() == [[False, True, False]]
    _, rewards, terminated, truncated, infos = envs.step(np.array([[1, 1, 1]]))
    assert rewards.tolist() == [[0, 0, 21]]
    # The one that never came has ended with the episode.
    assert terminated.tolist() == [[True, True, False]]
    assert truncated.tolist() == [[False, False, True]]
    assert infos["_episode"].all()
