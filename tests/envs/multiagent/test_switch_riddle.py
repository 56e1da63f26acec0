"""The switch riddle: its rules worked out by hand, and step by step against the jaxmarl package."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.switch_riddle import SwitchRiddle, SwitchRiddleState
from kiloworlds.testing.distributions import matches_probabilities

NOTHING, SWITCH, TELL = range(3)
_step = eqx.filter_jit(lambda env, state, action: env.step(fast_key(0), state, action))


def _state(env, in_room, has_been=(), bulb=False, day=0):
    flags = np.isin(np.arange(env.num_agents), has_been)
    return SwitchRiddleState(
        jnp.bool_(bulb), jnp.int32(in_room), jnp.asarray(flags), jnp.int32(day)
    )


@pytest.mark.parametrize("bulb", [False, True])
def test_only_the_prisoner_in_the_room_acts(bulb):
    env = SwitchRiddle(num_agents=4)
    state = _state(env, in_room=2, bulb=bulb)
    after, step = _step(env, state, jnp.array([SWITCH, TELL, NOTHING, SWITCH]))
    assert bool(after.bulb) == bulb
    assert not step.terminated
    assert (step.reward == 0).all()
    after, _ = _step(env, state, jnp.array([NOTHING, TELL, SWITCH, NOTHING]))
    assert bool(after.bulb) != bulb


@pytest.mark.parametrize(
    ("has_been", "won", "reward"), [((0, 1, 2, 4), True, 3.0), ((0, 1, 2), False, -5.0)]
)
def test_telling_ends_the_riddle_for_good_or_bad(has_been, won, reward):
    env = SwitchRiddle(num_agents=5, reward_all_live=3.0, reward_all_die=-5.0)
    state = _state(env, in_room=3, has_been=has_been)  # who is in the room counts as having been
    _, step = _step(env, state, jnp.array([NOTHING, NOTHING, NOTHING, TELL, NOTHING]))
    assert step.terminated
    assert not step.truncated
    assert bool(step.info["won"]) == won
    np.testing.assert_array_equal(step.reward, [reward] * 5)


def test_the_room_is_remembered_for_all_of_a_hundred():
    env = SwitchRiddle(num_agents=100)
    state = _state(env, in_room=99, has_been=range(98))
    after, _ = _step(env, state, jnp.full(100, NOTHING))
    np.testing.assert_array_equal(np.flatnonzero(~after.has_been), [98])
    assert not _step(env, state, jnp.full(100, TELL))[1].info["won"]
    _, step = _step(env, after._replace(in_room=jnp.int32(98)), jnp.full(100, TELL))
    assert step.info["won"]


@pytest.mark.parametrize(
    ("settings", "last"), [({}, 6), ({"num_agents": 5}, 14), ({"last_day": 3}, 3)]
)
def test_the_riddle_is_over_on_its_last_day(settings, last):
    env = SwitchRiddle(**settings)
    quiet = jnp.full(env.num_agents, NOTHING)
    _, step = _step(env, _state(env, 0, day=last - 2), quiet)
    assert not step.terminated
    _, step = _step(env, _state(env, 0, day=last - 1), quiet)
    assert step.terminated
    assert not step.info["won"]
    assert (step.reward == 0).all()


def test_only_the_prisoner_in_the_room_sees_the_bulb():
    env = SwitchRiddle(num_agents=4)
    seen = env.observe(_state(env, in_room=1, bulb=True))
    np.testing.assert_array_equal(seen, [[0, 0], [1, 1], [0, 0], [0, 0]])
    seen = env.observe(_state(env, in_room=3, bulb=False))
    np.testing.assert_array_equal(seen, [[0, 0], [0, 0], [0, 0], [1, 0]])


def test_everyone_is_called_as_often_at_first_and_later():
    env = SwitchRiddle(num_agents=5)
    keys = jax.random.split(fast_key(2), 20_000)
    first, _ = jax.vmap(env.reset)(keys)
    later, _ = jax.vmap(env.step, (0, None, None))(keys, _state(env, 4), jnp.full(5, NOTHING))
    for state in (first, later):
        assert matches_probabilities(state.in_room, dict.fromkeys(range(5), 0.2)) > 1e-3
    assert not first.has_been.any()
    assert not first.bulb.any()
    assert SwitchRiddle(initial_bulb_state=True).reset(fast_key(0))[0].bulb


def test_rewards_may_differ_between_environments():
    envs = kiloworlds.make("switch_riddle", 3, reward_all_die=[-1.0, -2.0, -3.0])
    envs.reset(seed=0)
    _, rewards, terminated, _, _ = envs.step(np.full((3, 3), TELL))
    assert np.all(terminated)
    np.testing.assert_array_equal(rewards, [[-1.0] * 3, [-2.0] * 3, [-3.0] * 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_agents": 2}, "num_agents=2 must be a whole number between 3 and 65536; .* is 3"),
        ({"last_day": 0}, "last_day=0 must be a whole number of 1 or more"),
        ({"initial_bulb_state": "on"}, "initial_bulb_state='on' must be True or False"),
    ],
)
def test_bad_settings_are_refused_in_words(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        kiloworlds.make_environment("switch_riddle", **settings)


def test_pictures_tell_bulb_room_and_visitors():
    env = SwitchRiddle(num_agents=12)
    state = _state(env, in_room=7, has_been=(3, 11), bulb=True, day=9)
    assert env.describe(state) == (
        "Day 9 of 42. Prisoner 7 is in the room, the bulb is lit.\nHave been there before: 3, 11."
    )
    others = (
        state._replace(bulb=jnp.bool_(False)),
        state._replace(in_room=jnp.int32(8)),
        state._replace(has_been=jnp.zeros(12, bool)),
    )
    picture = env.render(state)
    for other in others:
        assert (env.render(other) != picture).any()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "num_agents": 40,
            "initial_bulb_state": True,
            "reward_all_live": 2.5,
            "reward_all_die": -0.5,
        },
    ],
)
def test_every_step_equals_jaxmarls(settings):
    jaxmarl = pytest.importorskip("jaxmarl")
    from jaxmarl.environments.switch_riddle.switch_riddle import State

    env, theirs = SwitchRiddle(**settings), jaxmarl.make("switch_riddle", **settings)
    agents = theirs.agents

    def converted(state):
        return State(
            bulb_state=state.bulb,
            agent_in_room=state.in_room,
            has_been=state.has_been.astype(jnp.int32),
            done=jnp.zeros((), bool),
            step=state.day,
        )

    def advance(state, key):
        kinds = jax.random.uniform(key, (env.num_agents,))
        action = jnp.where(kinds < 0.05, TELL, jnp.where(kinds < 0.5, SWITCH, NOTHING))
        following, step = env.step(jax.random.fold_in(key, 1), state, action)
        actions = {agent: action[index] for index, agent in enumerate(agents)}
        _, after, rewards, dones, _ = theirs.step_env(
            jax.random.PRNGKey(0), converted(state), actions
        )
        seen = theirs.get_obs(converted(following))  # theirs would draw another prisoner
        ours = {
            "reward": step.reward,
            "over": step.terminated,
            "observation": step.observation,
            "bulb": following.bulb,
            "has been": following.has_been,
            "day": following.day,
        }
        expected = {
            "reward": jnp.stack([rewards[agent] for agent in agents]),
            "over": dones["__all__"],
            "observation": jnp.stack([seen[agent] for agent in agents]),
            "bulb": after.bulb_state,
            "has been": after.has_been == 1,
            "day": after.step,
        }
        return following, (ours, expected)

    def rollout(key):
        state, _ = env.reset(key)
        keys = jax.random.split(jax.random.fold_in(key, 1), 200)
        return jax.lax.scan(advance, state, keys)[1]

    ours, expected = jax.jit(jax.vmap(rollout))(jax.random.split(fast_key(7), 100))
    for name, values in expected.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
    rewards = np.asarray(expected["reward"])
    assert (rewards > 0).any()
    assert (rewards < 0).any()
    first, _ = env.reset(fast_key(0))
    assert bool(first.bulb) == bool(theirs.reset(jax.random.PRNGKey(0))[1].bulb_state)
