"""The whole report, and the process in which an environment may crash or hang."""

import os
import threading
from pathlib import Path

import broken_envs as broken
import gymnasium
import pytest

from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.envs.classic.cartpole import CartPole
from kiloworlds.testing import check_environment


def check(env, env_kwargs=None, **options):
    return check_environment(env, env_kwargs, **{"steps": 60, "timeout": 30.0, **options})


def results(report, row):
    return [finding.result for finding in report.of(row)]


def test_sound_environment_passes_every_check():
    begun = []
    report = check(broken.Fine, {"length": 7}, on_check=begun.append)
    assert report.ok, report
    assert (report.name, report.kind) == ("Fine", "gymnasium")
    assert report.warnings == []
    assert "of 7 steps" in report.of("episode end")[0].seen
    assert begun[0] == "constructor"
    assert begun[-1] == "speed"
    assert report.as_dict()["ok"] is True


def test_chosen_checks_only():
    report = check(broken.Fine, only=["seeding", "copies"])
    assert [finding.check for finding in report.findings] == ["seeding", "copies"]
    with pytest.raises(InvalidValueError, match=r"no check 'seding'.* Did you mean 'seeding'"):
        check(broken.Fine, only=["seding"])


@pytest.mark.parametrize(
    ("env", "seen"),
    [
        (broken.Segfaults, "the process died of SIGSEGV, in step (broken_envs.py, line"),
        (broken.Exits, "the process ended itself with exit code 3"),
    ],
)
def test_crash_is_a_finding_and_checks_after_it_run(env, seen):
    report = check(env, only=["interface", "rollout", "closing"])
    (rollout,) = report.of("rollout")
    assert rollout.result == "failed"
    assert seen in rollout.seen
    assert results(report, "interface") == ["ok"]
    assert results(report, "closing") == ["ok"]


def test_after_three_crashes_it_is_enough():
    report = check(broken.Exits, only=["rollout", "seeding", "copies", "closing"])
    assert [finding.check for finding in report.failures] == [
        "rollout", "seeding", "copies", "further checks"
    ]  # fmt: skip
    assert report.of("closing") == []


def test_hang_is_a_finding():
    report = check(broken.Hangs, timeout=3.0, only=["rollout"])
    (rollout,) = report.of("rollout")
    assert rollout.result == "failed"
    assert "no answer for 3 s, in step (broken_envs.py, line" in rollout.seen


def test_constructor_that_crashes():
    report = check(broken.SegfaultsInConstructor)
    (finding,) = report.findings
    assert (finding.check, finding.result) == ("constructor", "failed")
    assert "SIGSEGV, in __init__ (broken_envs.py" in finding.seen
    assert report.kind == "unknown"


@pytest.mark.parametrize(
    ("env", "seen"),
    [
        (broken.RaisesInConstructor, "raised ValueError: no map (broken_envs.py, line"),
        (broken.builds_nothing, "it builds NoneType, which is no environment"),
    ],
)
def test_constructor_that_fails(env, seen):
    report = check(env)
    (finding,) = report.findings
    assert (finding.check, finding.result) == ("constructor", "failed")
    assert seen in finding.seen


def test_wrong_interface_stops_what_steps_but_nothing_else():
    report = check(broken.OldGym)
    assert "migration_guide" in report.of("interface")[0].mend
    assert results(report, "further checks") == ["warning"]
    assert results(report, "gymnasium check_env") == ["failed"]
    assert report.of("rollout") == []


def test_function_that_cannot_be_pickled_is_checked_here():
    lock = threading.Lock()
    processes = set()

    def make():
        with lock:
            processes.add(os.getpid())
            return broken.Fine()

    report = check(make, only=["pickling", "seeding"])
    assert results(report, "pickling") == ["failed"]
    assert results(report, "seeding") == ["ok"]
    assert processes == {os.getpid()}


def test_environment_that_is_built_is_copied():
    env = broken.Fine(length=4)
    env.reset(seed=3)
    before = env.start
    report = check(env, only=["rollout"])
    assert "of 4 steps" in report.of("episode end")[0].seen
    assert (env.start, env.steps) == (before, 0)


def test_output_of_the_environment_is_shown_on_request(capfd):
    check(broken.Prints, only=["rollout"])
    assert "xxx" not in capfd.readouterr().err
    check(broken.Prints, only=["rollout"], show_output=True)
    captured = capfd.readouterr()
    assert "xxx" in captured.err
    assert "xxx" not in captured.out


def test_gymnasium_id():
    report = check("LunarLander-v3", {"gravity": -5.0}, only=["constructor", "gymnasium check_env"])
    assert report.ok, report
    assert report.of("constructor")[0].seen.startswith("builds LunarLander in")


def test_compiled_environment_is_held_to_its_contract():
    report = check("CliffWalking-v1")
    assert report.ok, report
    assert results(report, "contract: batching") == ["ok"]
    assert report.of("speed")[0].measured["steps_per_second"] > 1000


@pytest.mark.parametrize("env", [CartPole, CartPole()], ids=["class", "instance"])
def test_compiled_environment_in_other_forms(env):
    report = check(env, only=["constructor", "contract: types"])
    assert report.kind == "compiled"
    assert results(report, "contract: types") == ["ok"]


def test_compiled_environment_that_breaks_its_contract():
    def make():
        class Broken(CartPole):
            def step(self, key, state, action):
                state, step = super().step(key, state, action)
                return state, step._replace(reward=step.reward * float("nan"))

        return Broken()

    report = check(make, only=["contract: types", "contract: long rollout"])
    assert [finding.check for finding in report.failures] == ["contract: long rollout"]
    assert "NaN after step 1" in report.failures[0].seen


@pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning")
def test_pettingzoo_environment():
    pytest.importorskip("pettingzoo")
    name = "pettingzoo.test.example_envs.generated_agents_parallel_v0:parallel_env"
    report = check(name, only=["pettingzoo tests", "rollout", "seeding"])
    assert report.kind == "parallel"
    assert results(report, "observations") == ["ok"]
    assert "reset() without a seed draws a new seed" in report.of("seeding")[0].seen
    assert report.ok, report


def test_pettingzoo_id():
    pytest.importorskip("mpe2")
    name = "pettingzoo:mpe2.simple_spread_v3"
    report = check(name, {"N": 2}, only=["constructor", "rollout", "rendering"])
    assert (report.name, report.kind) == (name, "parallel")
    assert results(report, "observations") == ["ok"]
    assert "pictures of 700 x 700" in report.of("rendering")[0].seen


def test_atari_id():
    pytest.importorskip("ale_py")
    report = check("ALE/Pong-v5", only=["rollout", "seeding"], steps=30)
    assert report.ok, report


def test_id_that_a_module_registers(tmp_path, monkeypatch):
    (tmp_path / "registers_an_env.py").write_text(
        "import broken_envs, gymnasium\n"
        "gymnasium.register('Registered-v0', broken_envs.Fine, max_episode_steps=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(broken.__file__).parent)
    try:
        report = check("registers_an_env:Registered-v0", only=["constructor", "rollout"])
    finally:
        gymnasium.registry.pop("Registered-v0", None)
    assert report.ok, report
    assert "0 terminated" in report.of("episode end")[0].seen


@pytest.mark.parametrize(
    ("env", "env_kwargs", "error", "words"),
    [
        ("CartPoole-v1", {}, UnknownNameError, "Did you mean 'CartPole-v1'"),
        ("broken_envs.py", {}, UnknownNameError, "named broken_envs.py:MyEnv"),
        ("broken_envs:Fien", {}, UnknownNameError, "Did you mean 'Fine'"),
        (None, {}, InvalidValueError, "None is no environment"),
        (
            broken.Fine,
            {"lenth": 3},
            InvalidValueError,
            "no parameter 'lenth'. Did you mean 'length'",
        ),
        (broken.OnlyInThisProcess, {}, InvalidValueError, "needs the parameter 'process_id'"),
        ("CliffWalking-v1", {"slippery": 1}, InvalidValueError, "slippery"),
        (broken.Fine(), {"length": 3}, InvalidValueError, "already built"),
    ],
)
def test_wrong_use(env, env_kwargs, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        check(env, env_kwargs)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": 1.5}, {"timeout": 0}, {"timeout": "x"}]
)
def test_values_out_of_range(options):
    (name,) = options
    with pytest.raises(InvalidValueError, match=f"{name}="):
        check(broken.Fine, **options)
