import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.evaluate import RunEvaluation, evaluate_run
from kiloworlds.training.evaluate import _Episodes, _step_by_step, evaluate
from kiloworlds.training.evaluate_compiled import CompiledEvaluation


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"total_steps": 256, "num_envs": 4, "num_steps": 64, "hidden_sizes": (8,)}
    path = tmp_path_factory.mktemp("evaluate") / "run"
    return kiloworlds.train("ppo", "CartPole-v1", num_seeds=3, run_dir=path, **settings)


def test_every_policy_plays(run):
    result = evaluate_run(run, episodes=4)
    assert result.seed_indices == (0, 1, 2)
    assert result.returns.shape == result.lengths.shape == (3, 4)
    np.testing.assert_array_equal(result.returns, result.lengths)  # CartPole pays 1 a step


def test_first_policy_is_the_one_run_evaluate_plays(run):
    alone = evaluate_run(run, episodes=4, seed_index=0)
    np.testing.assert_array_equal(alone.returns[0], run.evaluate(episodes=4).returns)


def test_unknown_seed_index(run):
    with pytest.raises(InvalidValueError, match="numbered 0 to 2"):
        evaluate_run(run, episodes=4, seed_index=3)


def test_interval_is_over_episodes_for_one_policy_and_over_policies_for_several():
    returns = np.array([[0.0, 10.0] * 50, [4.0, 6.0] * 50])
    one = RunEvaluation((0,), returns[:1], returns[:1])
    low, high = one.interval
    assert 3 < low < 5 < high < 7
    several = RunEvaluation((0, 1), returns, returns)
    assert several.mean_return == 5.0
    assert several.interval == (5.0, 5.0)  # both policies have the same mean


def test_an_episode_that_was_cut_is_not_won():
    episodes = _Episodes(num_envs=3, num_agents=2)
    episodes.add(np.ones((3, 2)))
    first = np.array([True, False, False])
    episodes.keep(first, {"final_info": {"won": np.array([True, False, False])}})
    episodes.restart(first)
    episodes.keep(~first, {})  # too long: nothing is said of an end
    result = episodes.evaluation(cut=2, agents=("a", "b"))
    np.testing.assert_array_equal(result.won, [True, False, False])
    assert result.win_rate == pytest.approx(1 / 3)


@pytest.mark.parametrize("deterministic", [True, False])
def test_one_program_plays_the_same_episodes_as_step_by_step(run, deterministic):
    policy = run.policy.select_seed(1)
    with run.make_envs(4) as envs:
        program = CompiledEvaluation(envs, 10, policy, deterministic, 10_000)
        ours = program.play(policy, seed=3)
        theirs = _step_by_step(envs, policy, 10, 3, deterministic, 10_000)
    assert ours is not None
    assert len(ours.returns) == 10
    if deterministic:  # random numbers differ
        assert sorted(ours.returns) == sorted(theirs.returns)
        assert sorted(ours.lengths) == sorted(theirs.lengths)
    else:
        assert ours.returns.mean() == pytest.approx(theirs.returns.mean(), rel=0.7)
    assert (ours.returns == ours.lengths).all()


def test_an_episode_without_end_is_cut(run):
    result = evaluate(run, 4, 10_000, max_steps=3)
    assert result.cut == 4
    assert result.lengths.tolist() == [3, 3, 3, 3]
