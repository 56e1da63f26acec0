"""Comparison of a compiled environment with the transition table of Gymnasium's tabular ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.random import fast_key
from kiloworlds.testing.distributions import matches_probabilities


def _code(observation, reward, terminated, probability):
    """One integer per distinct outcome; exact for whole rewards and probabilities to 1e-4."""
    parts = (
        observation,
        np.asarray(reward) + 500,
        terminated,
        np.round(np.asarray(probability) * 1e4),
    )
    code = np.int64(0)
    for part, size in zip(parts, (1_000, 1_001, 2, 10_001), strict=True):
        code = code * size + np.asarray(part, np.int64)
    return code


def _least_p_value(env, table, states, draws=1):
    """The least p-value over all states and actions, times their number (Bonferroni).

    `states` holds one state of `env` for each entry of `table`, in its order.
    """
    num_actions = len(table[0])
    step = jax.vmap(env.step, (0, None, None))  # over keys
    step = jax.vmap(jax.vmap(step, (0, None, 0)), (0, 0, None))  # over states, and actions
    keys = jax.random.split(fast_key(0), (len(table), num_actions, draws))
    _, result = jax.jit(step)(keys, states, jnp.arange(num_actions))
    assert result.observation.dtype == jnp.int32
    assert result.reward.dtype == result.info["prob"].dtype == jnp.float32
    assert not result.truncated.any()
    codes = _code(result.observation, result.reward, result.terminated, result.info["prob"])
    p_values = []
    for state, actions in table.items():
        for action, outcomes in actions.items():
            expected = {}
            for probability, *outcome in outcomes:
                code = int(_code(*outcome, probability))
                expected[code] = expected.get(code, 0.0) + probability
            p_values.append(matches_probabilities(codes[state, action], expected))
    return min(p_values) * len(p_values)


@pytest.fixture(scope="session")
def least_p_value():
    return _least_p_value
