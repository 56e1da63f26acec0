import os
import signal

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium import spaces
from mpe2 import simple_speaker_listener_v4, simple_spread_v3, simple_tag_v3
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
    builds_pettingzoo,
    is_pettingzoo,
    pettingzoo_factory,
)

BACKENDS = {"sync": {}, "process": {"num_workers": 2}, "thread": {"num_workers": 2}}


@pytest.fixture
def make():
    """Makes vectors and closes them."""
    made = []

    def make(make_env, num_envs=1, *, backend="sync", **options):
        given = BACKENDS[backend] | options if num_envs > 1 else options
        made.append(PettingZooVectorEnv(make_env, num_envs, backend=backend, **given))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


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
    pictures = make(lambda: simple_spread_v3.parallel_env(render_mode="rgb_array"), 1)
    pictures.reset(seed=0)
    assert pictures.render_mode == "rgb_array"
    assert pictures.render()[0].shape == (700, 700, 3)


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


class NamedEnv(CountdownEnv):
    def __init__(self):
        super().__init__()
        self.possible_agents = ["alice", "bob"]


def test_agents_with_like_spaces_are_of_one_kind(make):
    envs = make(NamedEnv, 1)
    assert list(envs.kinds) == ["agent"]
    observations, _ = envs.reset(seed=0)
    assert observations.tolist() == [[[14, 0], [14, 1]]]
