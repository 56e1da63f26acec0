import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.taxi import TaxiEnv

from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.toy_text.taxi import Taxi, TaxiState
from kiloworlds.testing.distributions import matches_probabilities, same_distribution


def _decode(codes, is_fickle=False):
    codes = jnp.asarray(codes)
    parts = codes // 100, codes // 20 % 5, codes // 4 % 5, codes % 4
    return TaxiState(*parts, jnp.full(codes.shape, is_fickle))


STATES = _decode(jnp.arange(500))


def test_every_transition_equals_gymnasium(least_p_value):
    assert least_p_value(Taxi(), TaxiEnv().P, STATES) >= 1.0


@pytest.mark.parametrize("probability", [0.8, pytest.param(0.4, marks=pytest.mark.slow)])
def test_rainy_transitions_have_gymnasiums_probabilities(probability, least_p_value):
    env = Taxi(is_rainy=True, rainy_probability=probability)
    table = TaxiEnv(is_rainy=True, rainy_probability=probability).P
    assert least_p_value(env, table, STATES, draws=500) > 1e-3


def test_the_action_mask_equals_gymnasiums_in_every_state():
    reference = TaxiEnv()
    mask = jax.vmap(Taxi().reset_info)(STATES)["action_mask"]
    assert mask.dtype == jnp.int8
    np.testing.assert_array_equal(mask, [reference.action_mask(code) for code in range(500)])


def test_the_action_mask_of_a_step_is_that_of_the_new_state():
    env = Taxi()
    state, step = jax.vmap(env.step, (None, 0, None))(fast_key(0), STATES, jnp.int32(3))
    expected = jax.vmap(env.reset_info)(state)["action_mask"]
    np.testing.assert_array_equal(step.info["action_mask"], expected)


def test_initial_states_have_gymnasiums_distribution():
    state, observation = jax.vmap(Taxi().reset)(jax.random.split(fast_key(3), 30_000))
    expected = TaxiEnv().initial_state_distrib
    assert matches_probabilities(observation, dict(enumerate(expected))) > 1e-3
    assert not state.is_fickle.any()


@pytest.mark.parametrize("probability", [0.3, 0.9])
def test_a_passenger_is_fickle_as_often_as_asked(probability):
    env = Taxi(fickle_passenger=True, fickle_probability=probability)
    state, observation = jax.vmap(env.reset)(jax.random.split(fast_key(4), 20_000))
    rates = {False: 1 - probability, True: probability}
    assert matches_probabilities(state.is_fickle, rates) > 1e-3
    # Being fickle does not depend on where an episode starts.
    assert same_distribution(observation[state.is_fickle], observation[~state.is_fickle]) > 1e-3


@pytest.mark.parametrize("is_rainy", [False, True])
@pytest.mark.parametrize("code", [(2 * 5 + 2) * 20 + 4 * 4 + 1, (0 * 5 + 1) * 20 + 4 * 4 + 3, 102])
@pytest.mark.parametrize("action", [0, *(pytest.param(a, marks=pytest.mark.slow) for a in (2, 5))])
def test_a_fickle_ride_has_gymnasiums_distribution(code, action, is_rainy):
    reference = TaxiEnv(is_rainy=is_rainy, fickle_passenger=True)
    reference.reset(seed=0)
    expected = []
    for _ in range(1500):
        reference.s, reference.fickle_step = code, True
        observation, reward, terminated, _, info = reference.step(action)
        probability = round(info["prob"] * 1e4)
        expected.append((observation, reward, terminated, probability, reference.fickle_step))
    env = Taxi(is_rainy=is_rainy, fickle_passenger=True)
    keys = jax.random.split(fast_key(5), 1500)
    start = _decode(code, is_fickle=True)
    state, step = jax.vmap(env.step, (0, None, None))(keys, start, jnp.int32(action))
    probability = np.round(np.asarray(step.info["prob"]) * 1e4)
    parts = step.observation, step.reward, step.terminated, probability, state.is_fickle
    samples = np.stack([np.asarray(part) for part in parts], axis=1).astype(int)
    assert same_distribution(samples, np.array(expected, int)) > 1e-4


@pytest.mark.parametrize("id", ["Taxi-v3", "Taxi-v4"])
def test_registered_ids_match_gymnasium(id):
    env = make_environment(id)
    reference = gymnasium.make("Taxi-v4")
    assert env.observation_space.to_gymnasium() == reference.observation_space
    assert env.action_space.to_gymnasium() == reference.action_space
    assert env.max_episode_steps == reference.spec.max_episode_steps


def test_taxi_and_passenger_are_shown_in_text_and_picture():
    env = Taxi()
    waiting = _decode((1 * 5 + 2) * 20 + 3 * 4 + 0)
    assert env.describe(waiting).splitlines()[2] == "| : |#: : |"
    assert env.describe(waiting).splitlines()[-1] == "Passenger in B, destination R"
    riding = waiting._replace(passenger=jnp.int32(4))
    assert env.describe(riding).splitlines()[-1] == "Passenger in the taxi, destination R"
    picture = env.render(waiting)
    assert picture.shape[1:] == (320, 3)
    assert picture.shape[0] > 320  # the town and its legend
    town, legend = (picture != env.render(riding)).any(-1).nonzero()[0] < 320, picture[320:]
    assert set(town) == {True, False}  # both say that the passenger rides
    elsewhere = env.render(waiting._replace(destination=jnp.int32(1)))
    assert (legend != elsewhere[320:]).any()
    # The taxi on the passenger's place hides neither.
    there = env.render(waiting._replace(row=jnp.int32(4), column=jnp.int32(3)))
    assert ((there[256:320, 192:256] == (124, 58, 237)).all(-1)).sum() > 50
