import sys
import types

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

        def __init__(self, render_mode: str | None = None):
            self.render_mode = render_mode

    gymnasium.register("TaskTestText-v0", entry_point=Textual)
    assert gymnasium_render_mode("TaskTestText-v0") == "ansi"


def test_what_takes_no_render_mode_is_given_none(monkeypatch):
    module = types.ModuleType("task_test_module")

    class Plain(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        def __init__(self, length: int = 3):
            self.length = length

    class Drawn(Plain):
        def __init__(self, render_mode: str | None = None):
            self.render_mode = render_mode

    for thing in (Plain, Drawn):
        setattr(module, thing.__name__, thing)
    gymnasium.register("TaskTestPlain-v0", entry_point=Plain)
    gymnasium.register("TaskTestDrawn-v0", entry_point=lambda **kwargs: Drawn(**kwargs))
    assert gymnasium_render_mode("task_test_module:Plain") == "rgb_array"  # not imported: unknown
    monkeypatch.setitem(sys.modules, "task_test_module", module)
    assert gymnasium_render_mode("task_test_module:Plain") is None
    assert gymnasium_render_mode("task_test_module:Drawn") == "rgb_array"
    assert gymnasium_render_mode("TaskTestPlain-v0") is None
    assert gymnasium_render_mode("TaskTestDrawn-v0") == "rgb_array"
