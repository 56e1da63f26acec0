import importlib.util
import io

import pytest
from rich.console import Console

import kiloworlds
from kiloworlds.cli import list as list_command
from kiloworlds.cli.list import environments


def test_lists_compiled_and_gymnasium_environments():
    listed = environments()
    kinds = {entry["id"]: entry["kind"] for entry in listed}
    assert len(kinds) == len(listed)
    assert {id for id, kind in kinds.items() if kind == "compiled"} == set(kiloworlds.list_envs())
    assert kinds["LunarLander-v3"] == "gymnasium"


def test_tells_limit_and_threshold(json_of):
    (entry,) = [entry for entry in json_of("list", "cartpole-v1") if entry["id"] == "CartPole-v1"]
    assert entry["max_episode_steps"] == 500
    assert entry["reward_threshold"] == 475.0


def test_filter_shows_only_what_matches(command):
    code, out, _ = command("list", "frozenlake")
    assert code == 0
    assert "FrozenLake8x8-v1" in out
    assert "CartPole" not in out


def test_of_several_agents_an_algorithm_for_several_is_named(json_of, command):
    numbers = {entry["id"]: entry["num_agents"] for entry in json_of("list")}
    assert (numbers["mpe/simple_tag_v3"], numbers["CartPole-v1"], numbers["Ant-v5"]) == (4, 1, 1)
    for filter, words in (
        ("simple_tag", "train ippo mpe/simple_tag_v3"),
        ("2p-chicken", "train ippo storm/2p-chicken"),
        ("cartpole-v1", "train ppo CartPole-v1"),
    ):
        assert f"Try: kiloworlds {words}" in command("list", filter)[1]


def test_filter_without_match_suggests(command):
    code, _, err = command("list", "CartPoole-v1")
    assert code == 2
    assert "'CartPole-v1'" in err


def test_marks_what_cannot_run_here(json_of, command, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        list_command.importlib.util,
        "find_spec",
        lambda name: None if name == "Box2D" else real(name),
    )
    missing = {entry["id"]: entry["missing"] for entry in json_of("list")}
    assert missing["LunarLander-v3"] == 'pip install "kiloworlds[box2d]"'
    assert missing["CartPole-v1"] is None
    assert missing["Ant-v3"] == "moved to another package"
    _, out, _ = command("list", "BipedalWalker-v3")
    assert "1 cannot run here." in out


def test_backends_and_engines(json_of, command):
    entries = json_of("list", "--backends")["backends"]
    names = [(entry["backend"], entry["engine"]) for entry in entries]
    assert names[:2] == [("compiled", None), ("native", "mujoco")]
    assert {"process", "thread", "sync"} <= {backend for backend, _ in names}
    for entry in entries:
        assert entry["installed"] == (entry["install"] is None)
        assert entry["runs"]
    code, out, _ = command("list", "--backends")
    assert code == 0
    assert "envpool" in out


def test_tells_which_backend_runs_an_id(json_of, command):
    found = json_of("list", "--backends", "CartPole-v1")
    assert (found["backend"], found["engine"]) == ("compiled", None)
    found = json_of("list", "--backends", "Ant-v4")
    assert found["engine"] is None
    refusals = {entry["engine"]: entry["refusal"] for entry in found["backends"] if entry["engine"]}
    assert refusals["mujoco"] == "it does not run 'Ant-v4'"
    assert sum(entry["chosen"] for entry in found["backends"]) == 1
    found = json_of("list", "--backends", "Ant-v3")
    assert found["backend"] is None
    code, _, err = command("list", "--backends", "CartPoole-v1")
    assert code == 2
    assert "'CartPole-v1'" in err


def test_install_commands_are_shown_whole(command, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        list_command.importlib.util,
        "find_spec",
        lambda name: None if name in ("Box2D", "mujoco") else real(name),
    )
    _, out, _ = command("list", "BipedalWalker-v3")
    assert 'pip install "kiloworlds[box2d]"' in out
    monkeypatch.setattr(list_command.Engine, "is_installed", False)
    _, out, _ = command("list", "--backends")
    assert 'pip install "kiloworlds[mujoco]"' in out


def test_marks_the_backend_that_make_takes(command):
    _, out, _ = command("list", "--backends", "CartPole-v1")
    marked = [line for line in out.splitlines() if line.startswith("*")]
    assert marked[0].split()[:2] == ["*", "compiled"]
    assert marked[1:] == ["* kiloworlds.make('CartPole-v1', 64) takes this one."]


def test_nothing_is_cut_in_a_pipe(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = command("list")
    assert "…" not in out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    for entry in environments():
        assert f"{entry['kind']} " in lines[entry["id"]]
        assert lines[entry["id"]].rstrip().endswith(entry["missing"] or "")
    _, out, _ = command("list", "--backends")
    assert "kiloworlds' own environments, as one XLA program" in out


@pytest.mark.parametrize("width", [40, 80, 120])
def test_columns_fold_in_a_terminal(monkeypatch, width):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(list_command.options, "console", lambda as_json: console)
    list_command.run([])
    shown = text.getvalue().split("compiled,")[0]
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines()[:-1]) <= width
    if width >= 80:
        assert "MountainCarContinuous-v0 " in shown
