import importlib.util

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
