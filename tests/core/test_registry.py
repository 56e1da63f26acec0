import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from kiloworlds.core import registry
from kiloworlds.core.errors import InvalidValueError, KiloworldsError, UnknownNameError
from kiloworlds.core.registry import find_spec, list_envs, make_environment, register
from kiloworlds.core.time_limit import TimeLimit
from kiloworlds.envs.classic.cartpole import CartPole


@pytest.fixture
def specs(monkeypatch):
    """A copy of the registry, so that tests leave nothing behind."""
    list_envs()
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))


def test_an_id_is_built_with_its_time_limit():
    env = make_environment("CartPole-v1")
    assert isinstance(env, TimeLimit)
    assert isinstance(env.unwrapped, CartPole)
    assert env.max_episode_steps == 500


@pytest.mark.parametrize("steps", [7, 500_000])
def test_the_time_limit_can_be_overridden(steps):
    assert make_environment("CartPole-v1", max_episode_steps=steps).max_episode_steps == steps
    assert make_environment("CliffWalking-v1", max_episode_steps=steps).max_episode_steps == steps


def test_the_time_limit_can_be_taken_away():
    assert isinstance(make_environment("CartPole-v1", max_episode_steps=None), CartPole)


def test_arguments_reach_the_environment():
    assert make_environment("CartPole-v1", gravity=1.5).unwrapped.gravity == 1.5


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("FrozenLake", "FrozenLake-v1"),
    ],
)
def test_an_unknown_id_names_its_neighbours(wrong, right):
    with pytest.raises(UnknownNameError) as caught:
        make_environment(wrong)
    sentence = str(caught.value)
    assert sentence.startswith(f"Unknown environment '{wrong}'. Did you mean ")
    assert repr(right) in sentence
    assert sentence.endswith("To see all: kiloworlds.list_envs().")
    assert isinstance(caught.value, KeyError | KiloworldsError)


def test_an_id_like_no_other_has_no_suggestion():
    with pytest.raises(UnknownNameError, match=r"'qqqqqq'\. To see all"):
        make_environment("qqqqqq")


def test_an_unknown_argument_is_named_with_the_nearest_and_all_others():
    with pytest.raises(InvalidValueError) as caught:
        make_environment("CartPole-v1", gravty=1.0)
    sentence = str(caught.value)
    assert "CartPole-v1 takes no argument 'gravty'. Did you mean 'gravity'?" in sentence
    assert "masscart" in sentence
    assert "max_episode_steps" in sentence


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 1j, {}, [], "9", None, [1.0, np.nan]]
)
def test_a_parameter_that_is_no_finite_number_is_refused(value):
    with pytest.raises(
        InvalidValueError, match=r"gravity=.* must be a finite number, or .* is 9\.8"
    ):
        make_environment("CartPole-v1", gravity=value)


def test_a_number_that_may_be_left_out_is_one_or_none():
    assert make_environment("navigation/random-1r", min_goal_distance=None)
    with pytest.raises(
        InvalidValueError, match="min_goal_distance='x' must be a finite number, or one for each"
    ):
        make_environment("navigation/random-1r", min_goal_distance="x")


@pytest.mark.parametrize("id", [None, 3, {}])
def test_an_id_that_is_no_string_is_refused(id):
    with pytest.raises(InvalidValueError, match="is no id of an environment"):
        make_environment(id)


def test_numbers_of_numpy_are_taken_as_python_s():
    env = make_environment("mpe/simple_spread_v3", N=np.int64(4))
    assert env.num_agents == 4
    assert type(env.unwrapped.N) is int


def test_an_error_inside_a_constructor_is_not_disguised(specs):
    def broken(length=1.0):
        raise TypeError("a bug of the constructor")

    register("Broken-v0", broken)
    with pytest.raises(TypeError, match="a bug of the constructor") as caught:
        make_environment("Broken-v0")
    assert not isinstance(caught.value, KiloworldsError)


def test_a_constructor_with_open_arguments_gets_them_all(specs):
    register("Open-v0", lambda **arguments: CartPole(**arguments), kwargs={"length": 2.0})
    env = make_environment("Open-v0", gravity=3.0)
    assert (env.length, env.gravity) == (2.0, 3.0)


def test_registered_arguments_can_be_overridden(specs):
    register("LongPole-v0", CartPole, kwargs={"length": 2.0}, max_episode_steps=50)
    assert "LongPole-v0" in list_envs()
    assert make_environment("LongPole-v0").unwrapped.length == 2.0
    assert make_environment("LongPole-v0", length=3.0).unwrapped.length == 3.0
    assert find_spec("LongPole-v0").source == "user"


def test_an_id_registered_again_is_replaced(specs):
    register("CartPole-v1", CartPole, max_episode_steps=3)
    assert make_environment("CartPole-v1").max_episode_steps == 3


def test_find_spec_answers_none_for_an_unknown_id():
    assert find_spec("Nowhere-v0") is None
    assert find_spec("CartPole-v1").source == "kiloworlds"


def test_ids_are_sorted_and_every_one_has_a_spec():
    ids = list_envs()
    assert ids == sorted(set(ids))
    assert all(find_spec(id).id == id for id in ids)


def _install(directory, name, module, source):
    """Lays out what a package manager would: a module, and its metadata with an entry point."""
    (directory / f"{module}.py").write_text(textwrap.dedent(source))
    metadata = directory / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[kiloworlds.environments]\n{module} = {module}\n")


def test_other_packages_add_environments_and_a_broken_one_is_named(tmp_path):
    _install(
        tmp_path,
        "good-worlds",
        "good_worlds",
        """
        import kiloworlds

        kiloworlds.register("good/Pole-v0", "kiloworlds.envs.classic.cartpole:CartPole",
                            max_episode_steps=9, source="good-worlds")
        """,
    )
    _install(tmp_path, "broken-worlds", "broken_worlds", "import a_module_that_is_not_there")
    program = """
    import json, warnings
    from kiloworlds.core.registry import find_spec, list_envs, make_environment
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids = list_envs()
        list_envs()  # the second time says nothing
    print(json.dumps({
        "warnings": [str(warning.message) for warning in caught],
        "ids": ids,
        "steps": make_environment("good/Pole-v0").max_episode_steps,
        "source": find_spec("good/Pole-v0").source,
    }))
    """
    search = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    (warning,) = (one for one in report["warnings"] if "broken" in one)
    assert "The environments of 'broken-worlds'" in warning
    assert "entry point 'broken_worlds'" in warning
    assert "No module named 'a_module_that_is_not_there'" in warning
    assert not any("good" in one for one in report["warnings"])
    assert {"good/Pole-v0", "CartPole-v1"} <= set(report["ids"])
    assert (report["steps"], report["source"]) == (9, "good-worlds")
