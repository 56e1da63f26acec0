import gymnasium
import numpy as np
import pytest
from registered_ids import is_multi_agent

import kiloworlds as kw
from kiloworlds.core.registry import find_spec
from kiloworlds.evaluation.evaluate import evaluate_run
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.presets import PRESETS, preset

# What the greedy policy of every seed reaches over 256 episodes: a known level, less the deviation
# of such a mean.
LEVELS = {
    "CartPole-v0": 195.0,
    "CartPole-v1": 475.0,
    "MountainCar-v0": -112.0,
    "MountainCarContinuous-v0": 90.0,
    "Pendulum-v1": -190.0,
    "Acrobot-v1": -75.0,
    "FrozenLake-v1": 0.68,
    "FrozenLake8x8-v1": 0.83,
    "CliffWalking-v1": -13.0,
    "CliffWalkingSlippery-v1": -72.0,
    "Taxi-v3": 7.6,
    "Taxi-v4": 7.6,
    "Blackjack-v1": -0.055,
    "Catch-v0": 1.0,
    "NChain-v0": 3500.0,
}
EPISODES = {"Blackjack-v1": 102_400}
ALL = [(algorithm, env_id) for algorithm, presets in PRESETS.items() for env_id in presets]


@pytest.mark.parametrize(("algorithm", "env_id"), ALL)
def test_is_a_valid_configuration_of_a_known_environment(algorithm, env_id):
    config = build_config(algorithm, env_id, preset(algorithm, env_id))
    assert TrainConfig.from_dict(config.as_dict()) == config
    if env_id.startswith("ALE/"):
        pytest.importorskip("ale_py")  # registers the games
    assert find_spec(env_id) is not None or env_id in gymnasium.registry


def test_every_compiled_environment_of_ours_has_one_with_a_level():
    specs = [find_spec(env_id) for env_id in kw.list_envs()]
    ours = {spec.id for spec in specs if spec and spec.source == "kiloworlds"}
    ours = {env_id for env_id in ours if not is_multi_agent(env_id)}
    assert ours <= set(PRESETS["ppo"])
    assert ours <= set(LEVELS)


def test_changing_a_preset_handed_out_changes_no_other():
    preset("ppo", "CartPole-v1")["gamma"] = 0.5
    assert preset("ppo", "CartPole-v1")["gamma"] != 0.5


def test_an_environment_without_one_gets_the_defaults():
    assert preset("ppo", "no/such-environment") == {}


def test_atari_games_share_one_unless_they_have_their_own():
    config = build_config("ppo", "ALE/Breakout-v5", preset("ppo", "ALE/Breakout-v5"))
    assert (config.preprocessing, config.num_envs, config.settings.num_steps) == ("atari", 8, 128)
    assert (config.settings.clip_range, config.total_steps) == (0.1, 10_000_000)
    assert preset("ppo", "ALE/Pong-v5") == PRESETS["ppo"]["ALE/Pong-v5"]
    preset("ppo", "ALE/Qbert-v5")["num_envs"] = 1
    assert preset("ppo", "ALE/Qbert-v5")["num_envs"] == 8


def test_cartpole_learns_within_60_000_steps(tmp_path):
    run = kw.train("ppo", "CartPole-v1", total_steps=60_000, run_dir=tmp_path / "run")
    # A random policy holds the pole for about 22 steps.
    assert run.metrics["rollout/ep_rew_mean"][-1, 0] > 120


@pytest.mark.slow
@pytest.mark.parametrize("env_id", LEVELS)
def test_reaches_its_level_with_three_seeds(env_id, tmp_path):
    run = kw.train("ppo", env_id, num_seeds=3, run_dir=tmp_path / "run")
    returns = evaluate_run(run, episodes=EPISODES.get(env_id, 256)).returns
    np.testing.assert_array_less(LEVELS[env_id] - 1e-4, returns.mean(axis=1))
