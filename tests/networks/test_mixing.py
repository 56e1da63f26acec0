"""The mixing network is monotonic in every agent's value, and depends on the state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.networks.mixing import MonotonicMixer

AGENTS, STATE = 3, 4


@pytest.fixture(params=range(5))
def mixer(request):
    return MonotonicMixer(jax.random.key(request.param), AGENTS, STATE, 8, 16)


def test_no_agent_s_value_lowers_the_team_s(mixer):
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(256, AGENTS)) * 10, jnp.float32)
    states = jnp.asarray(rng.normal(size=(256, STATE)), jnp.float32)
    slopes = jax.vmap(jax.grad(mixer))(values, states)
    assert slopes.shape == (256, AGENTS)
    assert float(slopes.min()) >= 0
    assert float(slopes.max()) > 1e-6


def test_the_best_joint_action_is_each_agent_s_best(mixer):
    rng = np.random.default_rng(1)
    own = rng.normal(size=(AGENTS, 3)).astype(np.float32)
    state = jnp.asarray(rng.normal(size=STATE), jnp.float32)
    joint = [(a, b, c) for a in range(3) for b in range(3) for c in range(3)]
    values = jnp.stack([jnp.asarray(own[range(AGENTS), choice]) for choice in joint])
    best = joint[int(jnp.argmax(mixer(values, jnp.broadcast_to(state, (27, STATE)))))]
    assert best == tuple(own.argmax(axis=1).tolist())


def test_the_state_changes_how_values_are_mixed(mixer):
    values = jnp.ones(AGENTS)
    # It starts as a plain sum; learning makes these weights as large as those of other layers.
    learnt = eqx.tree_at(lambda one: one.first_weight.weight, mixer, replace_fn=lambda w: 100 * w)
    slope = jax.grad(learnt)
    first, second = slope(values, jnp.ones(STATE)), slope(values, -jnp.ones(STATE))
    assert not np.allclose(first, second, rtol=1e-2)


def test_it_starts_as_the_sum_of_the_values(mixer):
    slopes = jax.grad(mixer)(jnp.zeros(AGENTS), jnp.ones(STATE))
    np.testing.assert_allclose(slopes, 1.0, atol=0.1)
