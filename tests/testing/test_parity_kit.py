import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.registry import make_environment
from kiloworlds.envs.classic.cartpole import CartPole
from kiloworlds.testing.parity import ParityError, parity


def set_state(slow, state):
    slow.state = np.array(state, np.float64)


def slow_cartpole(wrapper=lambda env: env, **kwargs):
    return lambda: wrapper(gymnasium.make("CartPole-v1", disable_env_checker=True, **kwargs))


def check(fast=None, slow=None, **kwargs):
    fast = make_environment("CartPole-v1") if fast is None else fast
    return parity(fast, slow or slow_cartpole(), set_state=set_state, **kwargs)


class Changed(gymnasium.Wrapper):
    """Changes one part of step's result, from the third step of an episode on."""

    def __init__(self, env, part, change):
        super().__init__(env)
        self.part, self.change = part, change

    def reset(self, **kwargs):
        self.steps = 0
        return super().reset(**kwargs)

    def step(self, action):
        result = list(super().step(action))
        self.steps += 1
        if self.steps >= 3:
            result[self.part] = self.change(result[self.part])
        return tuple(result)


def test_report_counts_episodes_steps_and_endings():
    report = check(episodes=4, steps=5)
    assert (report.episodes, report.steps, report.terminated, report.truncated) == (4, 20, 0, 0)
    assert set(report.largest_difference) == {"observation", "reward", "terminated", "truncated"}
    assert 0 < report.largest_difference["observation"] < 1e-5
    assert report.largest_difference["reward"] == 0


def test_equal_seeds_give_equal_reports():
    assert check(seed=3) == check(seed=3)
    assert check(seed=3).largest_difference != check(seed=6).largest_difference


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        (0, lambda observation: observation + np.float32([0, 0, 1e-3, 0]), "observation[2]"),
        (0, lambda observation: observation * np.nan, "observation[0]"),
        (0, lambda observation: observation[:2], "the shape of observation"),
        (1, lambda reward: reward + 0.1, "reward"),
        (2, lambda terminated: not terminated, "terminated"),
        (3, lambda truncated: not truncated, "truncated"),
        (4, lambda info: {"lives": 3}, "the structure of info, at [\"info['lives']\"],"),
    ],
)
def test_names_the_field_the_step_and_the_values_that_differ(part, change, field):
    with pytest.raises(ParityError) as caught:
        check(slow=slow_cartpole(lambda env: Changed(env, part, change)), episodes=1)
    error = caught.value
    assert (error.field, error.episode, error.step) == (field, 0, 3)
    assert f"step 3, action {error.action}: fast {error.fast}, slow {error.slow}" in str(error)
    assert isinstance(error, AssertionError)
    assert error.action in (0, 1)


def test_reports_the_difference_itself():
    slow = slow_cartpole(lambda env: Changed(env, 1, lambda reward: reward + 0.25))
    with pytest.raises(ParityError, match="reward differs") as caught:
        check(slow=slow)
    assert caught.value.difference == 0.25


def test_tolerance_decides():
    slow = slow_cartpole(lambda env: Changed(env, 1, lambda reward: reward + 1e-3))
    assert check(slow=slow, atol=1e-2, episodes=1).largest_difference["reward"] > 0
    with pytest.raises(ParityError):
        check(slow=slow, episodes=1)


def test_another_parameter_is_noticed():
    with pytest.raises(ParityError, match="observation"):
        check(make_environment("CartPole-v1", gravity=9.9))


def test_another_space_is_noticed():
    with pytest.raises(ParityError, match="observation_space differs"):
        check(make_environment("CartPole-v1", x_threshold=2.5))
    with pytest.raises(ParityError, match="action_space differs"):
        check(slow=slow_cartpole(Mirrored))


class Mirrored(gymnasium.ActionWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.action_space = gymnasium.spaces.Discrete(2, start=1)

    def action(self, action):
        return action - 1


def test_a_missing_time_limit_is_noticed():
    def balance(observation, taken):
        return int(observation @ [0.1, 0.3, 3.0, 1.0] > 0)

    assert check(actions=balance, episodes=1).truncated == 1
    with pytest.raises(ParityError) as caught:
        check(CartPole(), actions=balance, episodes=1)
    assert (caught.value.field, caught.value.step) == ("truncated", 500)


def test_resynchronising_hides_drift_and_running_freely_shows_it():
    def drift(resynchronise):
        report = check(resynchronise=resynchronise, rtol=1e-3, atol=1e-3)
        return report.largest_difference["observation"]

    assert drift(True) < drift(False)


def test_the_observation_of_the_first_state_is_compared_if_set_state_gives_it():
    def set_and_observe(slow, state):
        set_state(slow, state)
        return np.array(slow.state, np.float32) + np.float32([0, 0, 0, 0.5])

    with pytest.raises(ParityError) as caught:
        parity(make_environment("CartPole-v1"), slow_cartpole(), set_state=set_and_observe)
    assert (caught.value.field, caught.value.step) == ("observation[3]", 0)


def test_an_environment_it_was_given_stays_open_and_one_it_made_is_closed():
    closed = []

    class Noted(gymnasium.Wrapper):
        def close(self):
            closed.append(self)
            super().close()

    given = slow_cartpole(Noted)()
    check(slow=given, episodes=1)
    assert not closed
    check(slow=slow_cartpole(Noted), episodes=1)
    assert len(closed) == 1


def test_the_policy_sees_the_observation_and_the_steps_taken():
    seen = []

    def policy(observation, taken):
        seen.append((observation.copy(), taken))
        return jnp.int32(taken % 2)

    check(actions=policy, episodes=1, steps=3)
    assert [taken for _, taken in seen] == [0, 1, 2]
    assert all(observation.shape == (4,) for observation, _ in seen)
