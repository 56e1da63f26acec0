"""Which engine runs what."""

import dataclasses

import gymnasium
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.vector.native import engines
from kiloworlds.vector.native.engines import Wanted, choose_engine, engine_by_name, find_engine


@pytest.fixture
def installed(monkeypatch):
    """Makes exactly the named packages look installed to the table of engines."""

    def only(*modules):
        found = {name: object() for name in modules}
        monkeypatch.setattr(engines.importlib.util, "find_spec", found.get)
        monkeypatch.setattr(engines, "_load_error", lambda module: None)

    return only


def test_the_first_installed_engine_is_found(installed):
    installed("mujoco", "envpool")
    assert find_engine(Wanted("Ant-v5")).name == "mujoco"
    assert find_engine(Wanted("LunarLander-v3")).name == "envpool"
    assert find_engine(Wanted("Ant-v4")) is None
    installed("envpool")
    assert find_engine(Wanted("Ant-v5")).name == "envpool"
    installed()
    assert find_engine(Wanted("Ant-v5")) is None


def test_parameters_and_options_decide_too(installed):
    installed("mujoco", "envpool")
    assert find_engine(Wanted("Ant-v5", {"ctrl_cost_weight": 0.1})).name == "mujoco"
    assert find_engine(Wanted("Ant-v5", {"render_mode": "rgb_array"})) is None
    assert find_engine(Wanted("LunarLander-v3", {"gravity": -5.0})) is None
    assert find_engine(Wanted("LunarLander-v3", {"max_episode_steps": 5})).name == "envpool"
    assert find_engine(Wanted("Ant-v5", options={"batch_size": 2})).name == "mujoco"
    assert find_engine(Wanted("Ant-v5", options={"step_timeout": 2.0})) is None


def test_refusals_say_why(installed):
    installed("mujoco", "envpool")
    with pytest.raises(InvalidValueError, match="engine='envpool': ctrl_cost_weight"):
        choose_engine(Wanted("Ant-v5", {"ctrl_cost_weight": 0.1}), "envpool")
    with pytest.raises(InvalidValueError, match=r"mujoco: render_mode.*envpool: render_mode"):
        choose_engine(Wanted("Ant-v5", {"render_mode": "rgb_array"}), None)
    with pytest.raises(InvalidValueError, match="no native engine runs 'Ant-v4'"):
        choose_engine(Wanted("Ant-v4"), None)
    with pytest.raises(InvalidValueError, match=r"'envpol'.*Did you mean 'envpool'"):
        engine_by_name("envpol")


def test_a_missing_engine_names_its_package(installed):
    installed()
    engine = choose_engine(Wanted("Ant-v5"), None)
    with pytest.raises(MissingDependencyError, match=r"kiloworlds\[mujoco\]"):
        engine.make(Wanted("Ant-v5"), 2)


def test_an_engine_that_cannot_be_loaded_is_passed_over(monkeypatch, tmp_path, caplog):
    (tmp_path / "broken_engine.py").write_text(
        "raise ImportError('libOpenGL.so.0: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    broken = dataclasses.replace(
        engine_by_name("mujoco"), name="broken", module="broken_engine", ids=lambda: ["Ant-v5"]
    )
    monkeypatch.setattr(engines, "ENGINES", (broken,))
    wanted = Wanted("Ant-v5")
    assert find_engine(wanted) is None
    assert find_engine(wanted) is None
    assert caplog.text.count("broken_engine is installed, but cannot be loaded: libOpenGL") == 1
    with pytest.raises(MissingDependencyError, match=r"cannot be loaded: libOpenGL.*'process'"):
        choose_engine(wanted, None).make(wanted, 2)


def test_an_id_registered_anew_is_left_to_python(monkeypatch, installed):
    installed("mujoco", "envpool")
    other = gymnasium.envs.registration.EnvSpec("Ant-v5", entry_point="my_package:MyAnt")
    monkeypatch.setitem(gymnasium.registry, "Ant-v5", other)
    assert find_engine(Wanted("Ant-v5")) is None


def test_make_refuses_engines_where_they_do_not_belong():
    with pytest.raises(InvalidValueError, match="engine='mujoco' is a setting of backend='native'"):
        kw.make("Ant-v5", 2, backend="process", engine="mujoco")
    with pytest.raises(InvalidValueError, match="backend='native' needs an id"):
        kw.make(lambda: gymnasium.make("CartPole-v1"), 2, backend="native")
    with pytest.raises(InvalidValueError, match="no native engine runs 'Taxi-v4'"):
        kw.make("Taxi-v4", 2, backend="native")


def test_an_engine_may_be_named_where_a_compiled_environment_exists():
    pytest.importorskip("envpool", exc_type=ImportError)
    envs = kw.make("CartPole-v1", 3, engine="envpool", max_episode_steps=12)
    assert (envs.backend, envs.engine) == ("native", "envpool")
    assert repr(envs).startswith("EnvPoolExecutor(CartPole-v1, num_envs=3")
    envs.close()
