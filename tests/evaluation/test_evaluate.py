import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.evaluate import RunEvaluation, evaluate_run
from kiloworlds.training.evaluate import _Episodes


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
