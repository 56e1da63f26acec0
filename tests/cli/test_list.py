import kiloworlds
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
