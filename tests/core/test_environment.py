import gymnasium
import jax
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.environment import check_kinds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Discrete


def test_jax_jit_takes_the_methods_of_an_environment_with_arrays():
    key = jax.random.key(0)
    env = kw.make_environment("coin_game")
    state, observation = jax.jit(env.reset)(key)
    np.testing.assert_array_equal(observation, env.reset(key)[1])
    _, step = jax.jit(env.step)(key, state, np.array([1, 2]))
    np.testing.assert_array_equal(step.reward, env.step(key, state, np.array([1, 2]))[1].reward)


def test_kinds_of_agents_have_names_and_members():
    space = Discrete(2)
    with pytest.raises(InvalidValueError, match="the kind 'ghost' has no agents"):
        kw.AgentKind("ghost", (), space, space)
    for wrong, message in (
        ({"name": ""}, "a kind of agents needs a name, not ''"),
        ({"agents": "xy"}, "the agents of the kind 'a' are 'xy'; give their names"),
        (
            {"action_space": gymnasium.spaces.Discrete(2)},
            r"action_space .*Discrete\(2\); give one of",
        ),
        ({"observation_space": None}, "observation_space of the kind 'a' is None"),
    ):
        right = {"name": "a", "agents": ("x",), "observation_space": space, "action_space": space}
        with pytest.raises(InvalidValueError, match=message):
            kw.AgentKind(**(right | wrong))
    for count in (10**9, 1.5, "2"):
        with pytest.raises(InvalidValueError, match=r"count=.* must be a whole number"):
            kw.AgentKind.numbered("a", count, space, space)
    one, other = (kw.AgentKind("a", (agent,), space, space) for agent in ("x", "y"))
    with pytest.raises(InvalidValueError, match="two kinds of the environment are called 'a'"):
        check_kinds((one, other))
    third = kw.AgentKind("b", ("x",), space, space)
    with pytest.raises(InvalidValueError, match="two agents of the environment are called 'x'"):
        check_kinds((one, third))
    check_kinds((other, third))


def test_environments_with_other_arrays_are_not_confused():
    light, heavy = (kw.make_environment("CartPole-v1", masspole=np.array(m)) for m in (0.1, 5.0))
    key = jax.random.key(0)
    state, _ = light.reset(key)
    steps = [jax.jit(env.step)(key, state, 1)[1].observation for env in (light, heavy)]
    assert not np.allclose(*steps)
