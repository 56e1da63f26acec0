"""Profiles of real trainings, tiny ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_settings import TINY

from kiloworlds.profiling import timing
from kiloworlds.profiling.fused import profile_fused
from kiloworlds.profiling.host import pool_facts, profile_host
from kiloworlds.profiling.profile import COPIES, ENVIRONMENT, LEARNING, POLICY, WAITING
from kiloworlds.training.config import build_config
from kiloworlds.training.make_training import make_training


def made(algorithm, env_id, **settings):
    config = build_config(algorithm, env_id, TINY | settings)
    return config, make_training(config)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_fused_loop(devices):
    config, training = made("ppo", "CartPole-v1", devices=devices)
    found = profile_fused(config, training, 0.1)
    names = [part.name for part in found.parts]
    assert names[:4] == [ENVIRONMENT, POLICY, LEARNING, COPIES]
    assert (WAITING in names) == (devices == 2)
    assert found.part(ENVIRONMENT).seconds > 0
    assert found.part(LEARNING).flops > found.part(ENVIRONMENT).flops > 0
    assert found.operations[0].seconds > 0
    assert sum(each.share for each in found.operations) == pytest.approx(1.0)
    assert found.steps_per_update == 64
    assert found.as_dict()["parts"][0]["share"] > 0


def test_several_agents_in_the_fused_loop():
    config, training = made("ippo", "mpe/simple_spread_v3", num_seeds=2)
    found = profile_fused(config, training, 0.1)
    assert found.steps_per_update == 2 * 64
    assert found.part(POLICY).flops > 0


def test_parts_are_those_of_a_rollout():
    _, training = made("ppo", "CartPole-v1", devices=1)
    key_data = jax.random.key_data
    state = training.init()
    actions = training.actions(state)
    stepped, _ = training.stepping(state, actions)(training.init(), jnp.int32(1), actions)
    collected, _ = training.collecting(state)(training.init(), jnp.int32(1))
    np.testing.assert_array_equal(stepped.observation, collected.observation)
    assert (key_data(stepped.environments.keys) == key_data(collected.environments.keys)).all()
    assert int(collected.updates[0]) == 1
    np.testing.assert_array_equal(collected.learner.parameters, training.init().learner.parameters)


@pytest.mark.parametrize("settings", [{}, {"max_staleness": 1}])
def test_the_loop_on_the_host(settings):
    config, training = made(
        "ppo", "Acrobot-v1", backend="process", num_workers=2, total_steps=64_000, **settings
    )
    try:
        found = profile_host(config, training, 0.1)
    finally:
        training.close()
    names = {part.name for part in found.parts}
    assert (WAITING in names) == bool(settings)
    assert found.part(LEARNING).flops > 0
    assert len(found.pool.idle) == 2
    assert found.updates >= 1
    if not settings:
        whole = sum(part.seconds for part in found.parts)
        assert whole == pytest.approx(found.seconds_per_update, rel=0.5)


def test_what_workers_did():
    found = pool_facts([np.array([1.0, 3.0]), np.array([1.0, 1.0])], 8.0)
    assert found.idle == [0.5, 0.75]
    assert found.handing_over == 0.5
    assert found.slowest[0] == (1, 0.5)


def test_times_are_taken_in_turn():
    order = []

    def call(name):
        return lambda count: order.append(name)

    medians, taken = timing.in_turn({"a": call("a"), "b": call("b")}, 0.0)
    assert order[4:10] == ["a", "b", "a", "b", "a", "b"]
    assert len(taken["a"]) == 5
    assert medians["a"].seconds >= 0
    assert timing.differences([1.0, 1.0], [2.0, 2.0]).seconds == 0.0
