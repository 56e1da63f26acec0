import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.toy_text.nchain import NChain
from kiloworlds.testing.distributions import matches_probabilities

VARIANTS = [{}, {"n": 3, "slip": 0.4, "small": 1, "large": 5}]


@pytest.mark.parametrize("arguments", VARIANTS)
def test_every_transition_has_its_probability(arguments):
    env = NChain(**arguments)
    step = jax.jit(jax.vmap(env.step, (0, None, None)))
    p_values = []
    for place in range(env.n):
        forwards = (env.n - 1, env.large) if place == env.n - 1 else (place + 1, 0)
        backwards = (0, env.small)
        for action, (meant, other) in enumerate([(forwards, backwards), (backwards, forwards)]):
            keys = jax.random.split(fast_key(10 * place + action), 3000)
            state, result = step(keys, jnp.int32(place), jnp.int32(action))
            np.testing.assert_array_equal(state, result.observation)
            assert not (result.terminated | result.truncated).any()
            assert result.reward.dtype == jnp.float32
            rows = np.stack([result.observation, result.reward], axis=1)
            probabilities = {meant: 1 - env.slip, other: env.slip}
            p_values.append(matches_probabilities(rows, probabilities))
    assert min(p_values) * len(p_values) > 1e-3


def test_it_starts_at_the_beginning_and_lasts_a_thousand_steps():
    env = make_environment("NChain-v0")
    state, observation = env.reset(fast_key(0))
    assert observation == 0
    assert observation.dtype == jnp.int32
    assert env.max_episode_steps == 1000
    assert env.describe(state) == "[0]- 1 - 2 - 3 - 4 "


def test_parameters_can_differ_between_environments():
    slips = jnp.array([0.0, 1.0])
    _, step = jax.vmap(
        lambda slip: NChain(slip=slip).step(fast_key(0), jnp.int32(1), jnp.int32(0))
    )(slips)
    np.testing.assert_array_equal(step.observation, [2, 0])
    np.testing.assert_array_equal(step.reward, [0.0, 2.0])


def test_a_chain_of_one_place_is_refused():
    with pytest.raises(InvalidValueError, match="n=1"):
        NChain(n=1)


def test_a_picture_shows_the_place():
    pictures = [NChain(n=12).render(jnp.int32(place)) for place in (0, 11)]
    assert pictures[0].shape == (128, 640, 3)  # ten places in a row
    changed = (pictures[0] != pictures[1]).any(-1)
    assert changed[:64, :64].any()
    assert changed[64:, 64:128].any()
    assert not changed[:64, 64:].any()
