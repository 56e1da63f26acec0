"""Parts of PPO against plain computations of the same thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.algorithms.advantages import generalized_advantages
from kiloworlds.algorithms.ppo import PPO, PPOConfig, Rollout
from kiloworlds.core.spaces import Box, Discrete

STEPS, ENVS = 6, 3


@pytest.mark.parametrize(
    "truncations",
    [[], [(2, 0), (5, 1)], [(1, 0), (4, 0), (3, 2)]],
    ids=["none", "one per environment", "two in one environment"],
)
def test_the_value_of_what_each_step_led_to(truncations):
    ppo = PPO(PPOConfig(hidden_sizes=(4,)), Box(-1.0, 1.0, (2,)), Discrete(2))
    critic = ppo.critic(ppo.init(jax.random.key(0)))
    # Observation and what follows differ everywhere, so that a wrong row cannot pass for the right.
    seen, following = np.random.default_rng(0).uniform(-1, 1, (2, STEPS, ENVS, 2))
    truncated = np.zeros((STEPS, ENVS), bool)
    for place in truncations:
        truncated[place] = True
    terminated = np.zeros_like(truncated)
    terminated[0, 2] = True
    values = critic(jnp.asarray(seen, jnp.float32))
    rollout = Rollout(
        observation=jnp.asarray(seen, jnp.float32),
        raw_action=jnp.zeros((STEPS, ENVS), jnp.int32),
        log_prob=jnp.zeros((STEPS, ENVS)),
        reward=jnp.zeros((STEPS, ENVS)),
        terminated=jnp.asarray(terminated),
        finished=jnp.asarray(truncated | terminated),
        next_observation=jnp.asarray(following, jnp.float32),
    )
    expected = np.concatenate([values[1:], critic(rollout.next_observation[-1])[None]])
    for step, env in truncations:
        expected[step, env] = critic(rollout.next_observation[step, env])
    np.testing.assert_allclose(
        ppo._values(ppo.init(jax.random.key(0)), rollout)[1], expected, rtol=1e-5
    )


def test_advantages_far_from_zero_are_standardised():
    ppo = PPO(PPOConfig(), Box(-1.0, 1.0, (2,)), Discrete(2))
    advantage = np.random.default_rng(0).normal(-3000, 0.5, (4, 512)).astype(np.float32)
    standard = np.asarray(ppo.steps.standardize(jnp.asarray(advantage)))
    np.testing.assert_allclose(standard.mean(-1), 0, atol=1e-3)
    np.testing.assert_allclose(standard.std(-1), 1, rtol=1e-3)


def test_what_an_environment_was_lost_in_is_not_learnt_from():
    """Whatever stands in a lost step, and in steps cut out altogether, the update is the same."""
    rng = np.random.default_rng(0)
    ppo = PPO(
        PPOConfig(hidden_sizes=(4,), num_minibatches=1, num_epochs=2, gamma=0.9),
        Box(-1.0, 1.0, (2,)),
        Discrete(2),
    )
    state = ppo.init(jax.random.key(0))
    observation = rng.uniform(-1, 1, (STEPS + 1, ENVS, 2)).astype(np.float32)
    valid = np.ones((STEPS, ENVS), bool)
    valid[3, 1] = False
    finished = ~valid
    reward = rng.normal(size=(STEPS, ENVS)).astype(np.float32)

    def update(garbage):
        following = observation[1:].copy()
        following[3, 1] = observation[3, 1]  # the last good observation
        rollout = Rollout(
            observation=jnp.asarray(observation[:-1]),
            raw_action=jnp.where(valid, 1, garbage % 2).astype(jnp.int32),
            log_prob=jnp.where(valid, -0.7, -1.0 - garbage),
            reward=jnp.where(valid, reward, float(garbage)),
            terminated=jnp.zeros((STEPS, ENVS), bool),
            finished=jnp.asarray(finished),
            next_observation=jnp.asarray(following),
            valid=jnp.asarray(valid),
        )
        new, _, metrics = ppo.update(state, rollout, jnp.zeros(ENVS), jax.random.key(1), 1e-2)
        return np.asarray(new.parameters), metrics

    (first, losses), (second, others) = update(0), update(1)
    assert not np.allclose(first, state.parameters)
    np.testing.assert_array_equal(first, second)
    for name in losses.keys() - {"explained_variance"}:
        assert losses[name] == others[name]


def test_advantages_before_a_loss_are_those_before_a_truncation():
    values, rewards = np.random.default_rng(0).normal(size=(2, 4, 1)).astype(np.float32)
    finished, valid = np.zeros((2, 4, 1), bool)
    valid = ~valid
    finished[2], valid[2] = True, False  # lost in the third step
    ours = generalized_advantages(
        rewards, values, np.roll(values, -1, 0), np.zeros((4, 1), bool), finished, 0.9, 0.8, valid
    )
    short = np.array([[False], [True]])  # truncated after the second step
    theirs = generalized_advantages(
        rewards[:2], values[:2], values[1:3], np.zeros((2, 1), bool), short, 0.9, 0.8
    )
    np.testing.assert_allclose(ours[:2], theirs, rtol=1e-5)
    assert ours[2, 0] == 0
