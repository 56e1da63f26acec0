import jax
import numpy as np

import kiloworlds as kw


def test_jax_jit_takes_the_methods_of_an_environment_with_arrays():
    key = jax.random.key(0)
    env = kw.make_environment("coin_game")
    state, observation = jax.jit(env.reset)(key)
    np.testing.assert_array_equal(observation, env.reset(key)[1])
    _, step = jax.jit(env.step)(key, state, np.array([1, 2]))
    np.testing.assert_array_equal(step.reward, env.step(key, state, np.array([1, 2]))[1].reward)


def test_environments_with_other_arrays_are_not_confused():
    light, heavy = (kw.make_environment("CartPole-v1", masspole=np.array(m)) for m in (0.1, 5.0))
    key = jax.random.key(0)
    state, _ = light.reset(key)
    steps = [jax.jit(env.step)(key, state, 1)[1].observation for env in (light, heavy)]
    assert not np.allclose(*steps)
