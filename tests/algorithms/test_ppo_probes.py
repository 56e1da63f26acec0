"""PPO meets each probe's known answer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.testing import probes
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.loops.fused import FusedTraining

GAMMA = 0.5
SETTINGS = {
    "num_envs": 32,
    "num_steps": 16,
    "learning_rate": 5e-3,
    "gamma": GAMMA,
    "gae_lambda": 0.95,
    "entropy_coefficient": 0.0,
    "clip_range_value": None,
    "hidden_sizes": (16,),
}


def learn(env, updates=120, **overrides):
    """Trains on a probe; returns the functions observation -> value and -> greedy action."""
    settings = SETTINGS | overrides
    total = updates * settings["num_envs"] * settings["num_steps"]
    config: TrainConfig = build_config("ppo", "probe", settings | {"total_steps": total})
    training = FusedTraining(config, env)
    state = training.init()
    state, _ = training.run(state, updates)
    learner = jax.tree.map(lambda leaf: leaf[0], training.learner(state))
    policy = training.algorithm.policy(learner)
    critic = training.algorithm.critic(learner)

    def value(seen: float) -> float:
        return float(critic(jnp.full((1, 1), seen))[0])

    def action(seen: float) -> np.ndarray:
        greedy = training.algorithm.act_greedily(policy, jnp.full((1, 1), seen))
        return np.asarray(training.algorithm.head.to_environment(greedy))[0]

    return value, action


@pytest.mark.slow
def test_predicts_a_constant_reward():
    value, _ = learn(probes.PredictReward())
    assert value(0.0) == pytest.approx(1.0, abs=0.02)


def test_predicts_the_reward_it_sees():
    value, _ = learn(probes.PredictSeenReward())
    assert value(1.0) == pytest.approx(1.0, abs=0.03)
    assert value(-1.0) == pytest.approx(-1.0, abs=0.03)


def test_discounts():
    value, _ = learn(probes.Discount())
    assert value(1.0) == pytest.approx(1.0, abs=0.03)
    assert value(0.0) == pytest.approx(GAMMA, abs=0.03)


@pytest.mark.slow
def test_chooses():
    value, action = learn(probes.Choose())
    assert action(0.0) == 1
    assert value(0.0) == pytest.approx(1.0, abs=0.05)


def test_acts_on_what_it_sees():
    _, action = learn(probes.ChooseAsSeen())
    assert action(1.0) == 1
    assert action(-1.0) == 0


def test_chooses_a_continuous_action():
    _, action = learn(probes.ChooseContinuous(), updates=200)
    assert action(0.0)[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("length", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_bootstraps_at_a_truncation(length):
    value, _ = learn(probes.BootstrapAtTruncation(length=length), updates=200)
    forever = 1 / (1 - GAMMA)
    assert value(1.0) == pytest.approx(forever, abs=0.06)
    assert value(-1.0) == pytest.approx(GAMMA * forever, abs=0.06)


@pytest.mark.parametrize(
    "mistake", ["as termination", pytest.param("from the next episode", marks=pytest.mark.slow)]
)
def test_the_truncation_probe_catches_wrong_bootstraps(mistake, monkeypatch):
    """The check above must be able to fail: with either usual mistake it does."""
    from kiloworlds.algorithms import ppo

    correct = ppo.PPO.update

    def wrong_update(self, state, rollout, *arguments):
        if mistake == "as termination":
            rollout = rollout._replace(terminated=rollout.finished)
        else:
            following = jnp.concatenate([rollout.observation[1:], rollout.observation[:1]])
            rollout = rollout._replace(next_observation=following)
        return correct(self, state, rollout, *arguments)

    monkeypatch.setattr(ppo.PPO, "update", wrong_update)
    value, _ = learn(probes.BootstrapAtTruncation(length=2), updates=200)
    assert abs(value(1.0) - 1 / (1 - GAMMA)) > 0.2


def test_normalization_leaves_the_choice_right():
    _, action = learn(probes.ChooseAsSeen(), normalize_observations=True, normalize_rewards=True)
    assert (action(1.0), action(-1.0)) == (1, 0)


@pytest.mark.slow
def test_every_probe_meets_the_environment_contract():
    from kiloworlds.testing.contract import check_environment

    for probe in probes.PROBES:
        check_environment(probe())


def test_probe_parameters_are_fields():
    assert dataclasses.fields(probes.BootstrapAtTruncation)[0].name == "length"
