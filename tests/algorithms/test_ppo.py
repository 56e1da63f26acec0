"""Parts of PPO against plain computations of the same thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    np.testing.assert_allclose(ppo._next_values(critic, rollout, values), expected, rtol=1e-5)


def test_advantages_far_from_zero_are_standardised():
    ppo = PPO(PPOConfig(), Box(-1.0, 1.0, (2,)), Discrete(2))
    advantage = np.random.default_rng(0).normal(-3000, 0.5, (4, 512)).astype(np.float32)
    standard = np.asarray(ppo._standardize(jnp.asarray(advantage)))
    np.testing.assert_allclose(standard.mean(-1), 0, atol=1e-3)
    np.testing.assert_allclose(standard.std(-1), 1, rtol=1e-3)
