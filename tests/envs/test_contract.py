"""Every registered environment meets the contract, and the contract notices what breaks it."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registered_ids import SLOW_UNCOMPILED, all_ids

import kiloworlds
from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.core.time_limit import TimeLimit
from kiloworlds.testing.contract import CHECKS, check_environment

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("id", all_ids())
def test_registered_environment(id):
    env = kiloworlds.make_environment(id)
    for name, check in CHECKS.items():
        if name != "determinism" or id not in SLOW_UNCOMPILED:
            check(env, fast_key(0))


@pytest.mark.parametrize("id", all_ids())
def test_registered_environment_has_a_picture_on_its_page(id):
    assert type(kiloworlds.make_environment(id).unwrapped).render is not Environment.render
    name = id.replace("/", "-")
    page = (DOCS / "environments" / f"{name}.md").read_text()
    assert f"(../images/env_{name}.png)" in page
    assert (DOCS / "images" / f"env_{name}.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("id", SLOW_UNCOMPILED)
def test_the_large_worlds_do_the_same_uncompiled(id):
    """The check that the test above leaves out; it raises AssertionError."""
    CHECKS["determinism"](kiloworlds.make_environment(id), fast_key(0))


class WalkState(NamedTuple):
    position: Any
    age: Any


class Walk(Environment):
    """A correct walk along a line, from which each broken one below differs in one point."""

    stride: Any = 0.1

    def reset(self, key):
        state = WalkState(jax.random.uniform(key), jnp.int32(0))
        return state, self.observe(state)

    def step(self, key, state, action):
        # The same key as reset's would draw the same number in both.
        noise = 0.01 * jax.random.uniform(jax.random.fold_in(key, 1))
        position = jnp.clip(state.position + self.stride * (action - 0.5) + noise, -1.0, 1.0)
        state = WalkState(position, state.age + 1)
        terminated = jnp.abs(position) >= 1.0
        step = Step(
            self.observe(state),
            position,
            terminated,
            jnp.zeros_like(terminated),
            {"age": state.age},
        )
        return state, step

    def observe(self, state):
        return state.position[None]

    def reset_info(self, state):
        return {"age": state.age}

    @property
    def observation_space(self):
        return Box(-1.0, 1.0, (1,))

    @property
    def action_space(self):
        return Discrete(2)

    def describe(self, state):
        return f"at {float(state.position):.2f}"


def test_a_correct_environment_passes():
    check_environment(Walk())
    check_environment(TimeLimit(Walk(), 7))


class BoundedReset(Walk):
    def reset(self, key):
        state, _ = super().reset(key)
        return state, jnp.full(1, 3.0)


class Outside(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        far = jnp.where(state.age >= 5, 3.0, step.observation)
        return state, step._replace(observation=far)


class WrongShape(Walk):
    @property
    def observation_space(self):
        return Box(-1.0, 1.0, (2,))


class WrongType(Walk):
    @property
    def observation_space(self):
        return Box(-1, 1, (1,), np.int32)


class NeedsTwoActions(Walk):
    def step(self, key, state, action):
        return super().step(key, state, action[0])


class OutsideItsOwnSpace(Discrete):
    def sample(self, key):
        return jnp.int32(self.n)


class BadSample(Walk):
    @property
    def action_space(self):
        return OutsideItsOwnSpace(2)


class OtherSpace(Walk):
    @property
    def action_space(self):
        return Discrete(2).to_gymnasium()


class PlainTuple(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, tuple(step)


_calls = itertools.count()


class Impure(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(reward=step.reward + next(_calls))


class OtherWhenCompiled(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        compiled = isinstance(state.position, jax.core.Tracer)
        return state, step._replace(reward=step.reward + compiled)


@jax.custom_batching.custom_vmap
def _reward(position):
    return position


@_reward.def_vmap
def _wrong_rule(axis_size, in_batched, position):
    return position + 1, True


class OtherWhenBatched(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(reward=_reward(state.position))


class GrowingType(Walk):
    def reset(self, key):
        state, observation = super().reset(key)
        return state._replace(age=jnp.int8(0)), observation

    def step(self, key, state, action):
        return super().step(key, state._replace(age=state.age.astype(jnp.int32)), action)


class WeakType(Walk):
    def reset(self, key):
        state, observation = super().reset(key)
        return state._replace(position=jnp.where(state.age > 0, 0.0, 1.0)), observation


class IntegerReward(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(reward=jnp.int32(1))


class VectorReward(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(reward=step.reward[None])


class FloatFlag(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(terminated=step.terminated.astype(jnp.float32))


class FloatTruncation(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(truncated=step.terminated.astype(jnp.float32))


class LateNaN(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(reward=jnp.where(state.age > 900, jnp.nan, step.reward))


class Endless(Walk):
    max_episode_steps: int = 20

    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        return state, step._replace(terminated=jnp.zeros_like(step.terminated))


class OtherInfoAtReset(Walk):
    def reset_info(self, state):
        return {"years": state.age}


class OtherInfoType(Walk):
    def reset_info(self, state):
        return {"age": state.age.astype(jnp.float32)}


class BranchesOnParameter(Walk):
    def step(self, key, state, action):
        assert self.stride > 0
        return super().step(key, state, action)


class IgnoresBatch(Walk):
    def step(self, key, state, action):
        state, step = super().step(key, state, action)
        single = isinstance(self.stride, float)
        return state, step._replace(reward=step.reward + single)


class Invisible(Walk):
    def describe(self, state):
        return None


class FloatPicture(Walk):
    def render(self, state):
        return np.zeros((4, 4, 3))


class GreyPicture(Walk):
    def render(self, state):
        return np.zeros((4, 4), np.uint8)


class NumberAsText(Walk):
    def describe(self, state):
        return 3


@pytest.mark.parametrize(
    ("point", "broken", "message"),
    [
        ("long rollout", BoundedReset, "observation_space does not contain reset's observation"),
        ("long rollout", Outside, "observation_space does not contain the observation of step 5"),
        ("types", WrongShape, "reset's observation and observation_space differ"),
        ("types", WrongType, "reset's observation and observation_space differ"),
        ("types", NeedsTwoActions, "step does not accept an action sampled from action_space"),
        ("long rollout", BadSample, "action_space does not contain an action sampled from it"),
        ("types", OtherSpace, "action_space is a Discrete, not a kiloworlds Space"),
        ("types", PlainTuple, "step returns tuple, not Step"),
        ("determinism", Impure, "two runs with equal keys differ"),
        ("determinism", OtherWhenCompiled, "results with jax.jit and without differ"),
        ("batching", OtherWhenBatched, "results with jax.vmap and in a loop differ"),
        ("types", GrowingType, "the state after a step and after reset differ"),
        ("determinism", WeakType, "step was compiled 2 times"),
        ("types", IntegerReward, "reward and its contract differ"),
        ("types", VectorReward, "reward and its contract differ"),
        ("types", FloatFlag, "terminated and its contract differ"),
        ("types", FloatTruncation, "truncated and its contract differ"),
        ("long rollout", LateNaN, "NaN after step 901 of random actions"),
        ("long rollout", Endless, "an episode goes on after max_episode_steps=20 steps"),
        ("types", OtherInfoAtReset, "reset_info and Step.info differ"),
        ("types", OtherInfoType, "reset_info and Step.info differ"),
        ("batching", BranchesOnParameter, "the parameters cannot be batched"),
        ("batching", IgnoresBatch, "results with batched parameters and with single ones differ"),
        ("pictures", Invisible, "render and describe both return None"),
        ("pictures", FloatPicture, "render must give uint8"),
        ("pictures", GreyPicture, "render must give uint8"),
        ("pictures", NumberAsText, "describe must give a string or None, not int"),
    ],
)
def test_a_broken_environment_is_noticed(point, broken, message):
    with pytest.raises(AssertionError, match=message):
        CHECKS[point](broken(), fast_key(0))


@pytest.mark.parametrize("broken", [WrongType, Invisible])
def test_the_first_point_and_the_last_are_checked(broken):
    with pytest.raises(AssertionError):
        check_environment(broken())
