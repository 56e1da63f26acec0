"""`kiloworlds.compat.jaxmarl` against the package jaxmarl; runs where the extra "peers" is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.compat import jaxmarl as ours
from kiloworlds.compat.jaxmarl_names import NAMES, Entry

theirs = pytest.importorskip("jaxmarl")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)

KEY = jax.random.PRNGKey(0)
_STORM = ("storm_2p", "storm_np")  # of whose agents jaxmarl has no dictionaries
OFFERED = [name for name, entry in NAMES.items() if isinstance(entry, Entry)]


def test_the_names_are_those_of_the_package():
    assert ours.registered_envs == theirs.registered_envs


@pytest.mark.parametrize("name", [name for name in OFFERED if name not in _STORM])
def test_agents_observations_actions_and_results_are_laid_out_as_theirs(name):
    env, original = ours.make(name), theirs.make(name)
    assert env.agents == list(original.agents)
    assert env.num_agents == original.num_agents
    for agent in env.agents:
        space, expected = env.action_space(agent), original.action_space(agent)
        assert space.shape == expected.shape
        assert getattr(space, "n", None) == getattr(expected, "n", None)
    observations, state = jax.eval_shape(env.reset, KEY)
    expected, their_state = jax.eval_shape(original.reset, KEY)
    shapes = [
        {agent: seen.shape for agent, seen in each.items()} for each in (observations, expected)
    ]
    assert shapes[0] == shapes[1]
    actions = {agent: jax.eval_shape(env.action_space(agent).sample, KEY) for agent in env.agents}
    _, _, rewards, dones, _ = jax.eval_shape(env.step, KEY, state, actions)
    _, _, their_rewards, their_dones, _ = jax.eval_shape(original.step, KEY, their_state, actions)
    assert rewards.keys() == their_rewards.keys()
    assert dones.keys() == their_dones.keys()


def test_their_log_wrapper_counts_what_ours_gives():
    from jaxmarl.wrappers.baselines import LogWrapper

    env = ours.make("MPE_simple_tag_v3", max_steps=5)
    logged = LogWrapper(env)

    def rollout(key):
        _, state = logged.reset(key)

        def advance(state, key):
            actions = dict.fromkeys(env.agents, jnp.int32(3))
            _, state, rewards, _, infos = logged.step(key, state, actions)
            return state, (rewards, infos)

        return jax.lax.scan(advance, state, jax.random.split(key, 10))[1]

    rewards, infos = jax.jit(jax.vmap(rollout))(jax.random.split(KEY, 4))
    total = np.stack([rewards[agent][:, :5].sum(1) for agent in env.agents], -1)
    assert infos["returned_episode"][:, 4].all()
    assert infos["returned_episode_lengths"][:, 9].tolist() == [[5] * 4] * 4
    np.testing.assert_allclose(infos["returned_episode_returns"][:, 4], total, rtol=1e-4, atol=1e-4)


def test_their_scenarios_and_layouts_are_taken():
    from jaxmarl.environments.overcooked import overcooked_layouts
    from jaxmarl.environments.smax import map_name_to_scenario

    env = ours.make("HeuristicEnemySMAX", scenario=map_name_to_scenario("3s5z_vs_3s6z"))
    assert env.env.unwrapped.scenario == ours.map_name_to_scenario("3s5z_vs_3s6z")
    drawn = ours.make("SMAX", scenario=map_name_to_scenario("smacv2_5_units"))
    assert drawn.env.unwrapped.scenario == ours.map_name_to_scenario("smacv2_5_units")
    assert drawn.num_agents == 10
    for name, layout in overcooked_layouts.items():
        taken, named = (
            ours.make("overcooked", layout=each).env.unwrapped for each in (layout, name)
        )
        assert taken.layout == named.layout
