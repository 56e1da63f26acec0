"""Training several agents, from settings to a run that acts: compiled, and on PettingZoo worlds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.evaluation.cross_play import CrossPlay, PairedPolicies, cross_play, plot_cross_play
from kiloworlds.evaluation.evaluate import evaluate_run
from kiloworlds.training.agents_policy import AgentsPolicy
from kiloworlds.training.algorithms import fused_training
from kiloworlds.training.config import build_config

TINY = {"num_envs": 4, "num_steps": 8, "total_steps": 4 * 8 * 4, "hidden_sizes": (8,)}
SELF_PLAY = TINY | {"num_envs": 16, "num_steps": 4, "snapshot_interval": 1, "num_minibatches": 1}
TAG, SPREAD = "mpe/simple_tag_v3", "mpe/simple_spread_v3"


class Unequal(kw.MultiAgentEnvironment):
    """Two steps in which x earns 1 and y nothing but a hint of 5."""

    @property
    def kinds(self):
        seen = Box(0.0, 2.0, (1,))
        return tuple(kw.AgentKind.numbered(name, 1, seen, Discrete(2)) for name in "xy")

    def observe(self, steps):
        return {name: jnp.full((1, 1), steps, jnp.float32) for name in "xy"}

    def reset(self, key):
        return jnp.int32(0), self.observe(0)

    def step(self, key, state, action):
        over, info = state == 1, {"shaped_reward": jnp.array([0.0, 5.0])}
        seen = self.observe(state + 1)
        return state + 1, kw.Step(seen, jnp.array([1.0, 0.0]), over, jnp.bool_(False), info)

    def describe(self, state):
        return f"step {state}"


@pytest.fixture(scope="module")
def tag_run(tmp_path_factory):
    """Two seeds of several kinds of agents, with a memory."""
    settings = TINY | {"num_seeds": 2, "network": "gru", "recurrent_size": 8, "num_minibatches": 2}
    return kw.train("mappo", TAG, run_dir=tmp_path_factory.mktemp("run") / "tag", **settings)


def test_a_run_tells_each_kind_s_return(tag_run):
    metrics = tag_run.metrics
    kinds = [metrics[f"rollout/ep_rew_mean/{name}"][-1] for name in ("adversary", "agent")]
    weighted = (3 * kinds[0] + kinds[1]) / 4
    np.testing.assert_allclose(metrics["rollout/ep_rew_mean"][-1], weighted, rtol=1e-4)
    assert np.isfinite(metrics["train/value_loss/adversary"]).all()
    assert metrics["train/value_loss/agent"].shape == (4, 2)


def test_a_loaded_run_acts_as_it_did(tag_run):
    envs = kw.make(TAG, 3)
    observations, infos = envs.reset(seed=0)
    loaded = kw.load(tag_run.path)
    assert isinstance(loaded.policy, AgentsPolicy)
    actions = [run.policy.act(observations, infos=infos) for run in (tag_run, loaded)]
    assert envs.action_space.contains(actions[0])
    jax.tree.map(np.testing.assert_array_equal, *actions)


def test_memory_goes_on_from_call_to_call_and_is_cleared_at_ends(tag_run):
    policy = tag_run.policy.select_seed(0)
    envs = kw.make(TAG, 3)
    observations, infos = envs.reset(seed=0)

    def memory_after(infos):
        policy.act(observations, infos=infos)
        return np.asarray(policy._memory["agent"])

    first, second = memory_after(infos), memory_after(infos)
    assert not np.allclose(first, second)
    ended = {**infos, "_final_obs": np.array([True, False, False])}
    third = memory_after(ended)
    np.testing.assert_allclose(third[0], first[0], rtol=1e-6)
    assert not np.allclose(third[1], first[1])
    policy.reset()
    np.testing.assert_allclose(memory_after(infos), first, rtol=1e-6)


def test_evaluation_tells_each_agent_s_return(tag_run):
    result = evaluate_run(tag_run, episodes=5)
    assert list(result.agent_returns) == ["adversary_0", "adversary_1", "adversary_2", "agent_0"]
    assert result.returns.shape == (2, 5)
    assert np.mean(list(result.agent_returns.values())) == pytest.approx(result.mean_return)
    assert result.win_rate is None
    assert (result.lengths == 25).all()


def test_policies_do_not_play_as_other_agents(tag_run):
    words = (
        "trained as 3 'adversary' that observe .16,. and choose among 5 actions.* play as 4 'adv"
    )
    with pytest.raises(InvalidValueError, match=words):
        evaluate_run(tag_run, episodes=2, env_kwargs={"num_adversaries": 4})


def test_seeds_play_with_each_other(tag_run):
    result = cross_play(tag_run, episodes=4)
    assert result.returns.shape == (2, 2)
    assert (result.own, result.others) == ("adversary", "agent")
    assert result.self_play == pytest.approx(np.diag(result.returns).mean())
    assert result.cross_play == pytest.approx((result.returns[0, 1] + result.returns[1, 0]) / 2)
    assert result.measured == "adversary"
    alone = evaluate_run(tag_run, episodes=4, seed_index=1).agent_returns
    adversaries = [alone[f"adversary_{index}"] for index in range(3)]
    assert result.returns[1, 1] == pytest.approx(np.mean(adversaries), rel=1e-5)
    figure = plot_cross_play(result, "title")
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert len(texts) == len(np.unique(result.returns))
    assert result.names == ("seed 0", "seed 1")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1"]


def test_members_of_a_population_play_under_their_names():
    names = ("gamma=0.9, seed 3", "gamma=0.8, seed 3")
    result = CrossPlay((3, 3), names, np.eye(2), "red", "the other agents", 4)
    axes = plot_cross_play(result, "title").axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["gamma=0.9\nseed 3", "gamma=0.8\nseed 3"]
    assert axes.get_ylabel() == "training of red"


def test_in_a_pair_the_first_kind_plays_by_the_first_policy(tag_run):
    first, second = (tag_run.policy.select_seed(index) for index in range(2))
    envs = kw.make(TAG, 8)
    observations, infos = envs.reset(seed=0)
    joined = PairedPolicies(first, second).act(observations, infos=infos)
    for policy in (first, second):
        policy.reset()
    ours, theirs = (policy.act(observations, infos=infos) for policy in (first, second))
    np.testing.assert_array_equal(joined["adversary"], ours["adversary"])
    np.testing.assert_array_equal(joined["agent"], theirs["agent"])


def test_hints_win_no_game_of_self_play():
    env = Unequal()
    config = build_config("self_play", "CartPole-v1", SELF_PLAY | {"shaping_hold_steps": 10**9})
    training = fused_training(config, env)
    _, metrics = training.run(training.init(), 2)
    assert (np.asarray(metrics.train["wins_against_pool/x"]) == 1.0).all()
    assert (np.asarray(metrics.train["elo/x"])[:, -1] > 1000).all()


@pytest.mark.slow
def test_a_run_of_self_play_keeps_its_pool(tmp_path):
    own_id = f"{__file__}:Unequal"
    run = kw.train("self_play", own_id, run_dir=tmp_path / "run", **SELF_PLAY)
    envs = kw.make(own_id, 3)
    observations, infos = envs.reset(seed=0)
    loaded = kw.load(run.path).policy
    assert envs.action_space.contains(loaded.act(observations, infos=infos))
    pool = jax.tree.leaves(loaded._states.pool)
    assert any(leaf.size == 0 for leaf in pool)
    first = next(leaf for leaf in pool if leaf.ndim > 2)
    assert not np.allclose(first[0, 0], first[0, 1])  # a past self and the next


@pytest.mark.parametrize("algorithm", ["ippo", pytest.param("vdn", marks=pytest.mark.slow)])
def test_pettingzoo_worlds_train_with_the_same_words(algorithm, tmp_path):
    pytest.importorskip("mpe2")
    settings = TINY | ({"replay_batch": 4, "learning_starts": 4} if algorithm == "vdn" else {})
    world = "pettingzoo:mpe2.simple_spread_v3"
    run = kw.train(algorithm, world, run_dir=tmp_path / "run", **settings)
    assert run.environment["backend"] in ("sync", "process")
    assert run.metrics["step"][-1] == TINY["total_steps"]
    assert np.isfinite(run.metrics["rollout/ep_rew_mean"][-1])
    result = kw.load(run.path).evaluate(episodes=3)
    assert result.agents == ("agent_0", "agent_1", "agent_2")
    assert np.isfinite(result.mean_return)


def test_a_turn_based_world_trains(tmp_path):
    pytest.importorskip("pettingzoo")
    run = kw.train(
        "ippo",
        "pettingzoo:pettingzoo.classic.tictactoe_v3",
        run_dir=tmp_path / "run",
        **TINY,
        num_minibatches=2,
    )
    assert run.metrics["rollout/episodes"].sum() > 4
    lengths = run.metrics["rollout/ep_len_mean"][-1]
    assert 5 <= lengths <= 9  # no illegal move ends a game early


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"shaping_steps": 64}, (5.0, 3.0, 1.0, 1.0, 1.0)),
        ({"shaping_steps": 64, "shaping_hold_steps": 64}, (5.0, 5.0, 5.0, 3.0, 1.0)),
        ({"shaping_hold_steps": 64}, (5.0, 5.0, 1.0, 1.0, 1.0)),
        ({}, (1.0, 1.0, 1.0, 1.0, 1.0)),
    ],
)
def test_shaped_rewards_fade_out(settings, expected):
    config = build_config("ippo", SPREAD, TINY | settings)
    training = fused_training(config, kw.make_environment(SPREAD))
    reward, hint = np.ones((2, 3)), {"shaped_reward": np.full((2, 3), 4.0)}
    for update, value in enumerate(expected):
        np.testing.assert_allclose(training._shape(reward, hint, np.int32(update)), value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_sizes": ()}, "hidden_sizes=.. has no layer"),
        ({"activation": 3}, "activation=3 must be a name"),
        ({"replay_size": 3}, "replay_size=3 cannot hold the 4 sequences.*nearest valid value is 4"),
    ],
)
def test_bad_settings_of_value_learners_are_refused_in_words(settings, words, tmp_path):
    with pytest.raises(InvalidValueError, match=words):
        kw.train("vdn", SPREAD, run_dir=tmp_path / "run", **(TINY | settings))


def test_one_algorithm_s_agents_are_not_another_s():
    with pytest.raises(InvalidValueError, match="ppo trains a single one"):
        kw.train("ppo", SPREAD)
    with pytest.raises(InvalidValueError, match="'ppo' trains one"):
        kw.train("qmix", "CartPole-v1")
    with pytest.raises(InvalidValueError, match=r"vdn needs Discrete actions.*'agent'"):
        kw.train("vdn", SPREAD, env_kwargs={"continuous_actions": True})
