import gymnasium
import jax.numpy as jnp
import pytest
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv

from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.toy_text.cliff_walking import CliffWalking, CliffWalkingState

STATES = CliffWalkingState(*jnp.divmod(jnp.arange(48), 12))


def test_every_transition_equals_gymnasium(least_p_value):
    assert least_p_value(CliffWalking(), CliffWalkingEnv().P, STATES) >= 1.0


def test_slippery_transitions_have_gymnasiums_probabilities(least_p_value):
    table = CliffWalkingEnv(is_slippery=True).P
    assert least_p_value(CliffWalking(is_slippery=True), table, STATES, draws=2000) > 1e-3


def test_an_episode_starts_lower_left():
    state, observation = CliffWalking().reset(fast_key(0))
    assert observation == CliffWalkingEnv().initial_state_distrib.argmax() == 36
    assert CliffWalking().reset_info(state) == {"prob": 1.0}


@pytest.mark.parametrize("id", ["CliffWalking-v1", "CliffWalkingSlippery-v1"])
def test_registered_ids_match_gymnasium(id):
    env, reference = make_environment(id), gymnasium.make(id)
    assert env.observation_space.to_gymnasium() == reference.observation_space
    assert env.action_space.to_gymnasium() == reference.action_space
    assert env.is_slippery == reference.unwrapped.is_slippery


def test_the_walker_is_marked_in_text_and_picture():
    env = CliffWalking()
    state, _ = env.reset(fast_key(0))
    assert env.describe(state).splitlines()[3] == "[S]" + " C " * 10 + " G"
    picture = env.render(state)
    assert picture.shape == (256, 768, 3)
    assert (picture != env.render(state._replace(row=jnp.int32(0)))).any()
