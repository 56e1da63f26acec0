import gymnasium
import pytest

import kiloworlds
from kiloworlds.evaluation.task import frames_per_second, gymnasium_render_mode, reward_threshold


@pytest.mark.parametrize(
    ("env_id", "threshold"),
    [("CartPole-v1", 475.0), ("LunarLander-v3", 200), ("Pendulum-v1", None), ("unknown", None)],
)
def test_thresholds(env_id, threshold):
    assert reward_threshold(env_id) == threshold


def test_threshold_of_a_compiled_environment_of_ones_own():
    from kiloworlds.envs.classic.cartpole import CartPole

    kiloworlds.register("TaskTest-v0", CartPole, reward_threshold=12.5)
    assert reward_threshold("TaskTest-v0") == 12.5


@pytest.mark.parametrize(
    ("env_id", "rate"), [("CartPole-v1", 50), ("FrozenLake-v1", 4), ("unknown", 30.0)]
)
def test_frame_rates_are_gymnasiums(env_id, rate):
    assert frames_per_second(env_id) == rate


def test_simulator_that_is_not_installed_has_the_default_rate():
    gymnasium.register("TaskTestMissing-v0", entry_point="no_such_package.envs:Env")
    assert frames_per_second("TaskTestMissing-v0") == 30.0


def test_render_modes():
    assert gymnasium_render_mode("LunarLander-v3") == "rgb_array"
    assert gymnasium_render_mode("Blackjack-v1") == "rgb_array"

    class Textual(gymnasium.Env):
        metadata = {"render_modes": ["human", "ansi"]}  # noqa: RUF012

    gymnasium.register("TaskTestText-v0", entry_point=Textual)
    assert gymnasium_render_mode("TaskTestText-v0") == "ansi"
