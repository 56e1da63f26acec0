import json

import pytest
from made_runs import make_run, rising

import kiloworlds as kw
from kiloworlds.cli.main import main


def test_a_table_and_pictures(tmp_path, capsys):
    make_run(tmp_path / "a", rising(20, 480.0, 490.0, 500.0, 470.0, 495.0))
    make_run(tmp_path / "b", rising(20, 100.0, 110.0, 90.0, 95.0, 80.0), gamma=0.5)
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "CartPole-v1" in said
    sentence = "a seed of ppo does better than one of ppo gamma=0.5 with probability 1.00"
    assert f"{sentence} (1.00 to 1.00): better" in said
    assert main(["compare", str(tmp_path / "b"), str(tmp_path / "a"), *arguments[3:]]) == 0
    assert f"{sentence} (1.00 to 1.00): better" in capsys.readouterr().out  # of the likelier one
    assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "out" / "curves.svg").read_text()[:1000]


def test_a_pipe_gets_lines_that_are_not_wrapped(tmp_path, capsys):
    name = "ppo gamma=0.5 learning_rate=0.125 num_epochs=3 max_grad_norm=0.75"
    own = {"gamma": 0.5, "learning_rate": 0.125, "num_epochs": 3, "max_grad_norm": 0.75}
    make_run(tmp_path / "a", rising(20, 480.0, 490.0))
    make_run(tmp_path / "b", rising(20, 100.0, 110.0), **own)
    runs = [str(tmp_path / name) for name in "ab"]
    assert main(["compare", *runs, "-o", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.endswith("never  ")]
    assert sorted(line.split()[:5]) == sorted(name.split())
    assert len(line) > 100


def test_a_verdict_on_some_of_the_tasks_names_them(tmp_path, capsys):
    ends = (480.0, 490.0, 500.0, 470.0, 495.0)
    make_run(tmp_path / "a", rising(20, *ends))
    make_run(tmp_path / "b", rising(20, *ends), env_id="Catch-v0")
    make_run(tmp_path / "c", rising(20, *ends), gamma=0.5)
    runs = [str(tmp_path / name) for name in "abc"]
    assert main(["compare", *runs, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "on CartPole-v1 a seed of ppo does better than one of ppo gamma=0.5 with" in said
    assert "! aggregates.png and profiles.png need two tasks or more that every training" in said


def test_results_for_programs(tmp_path, capsys):
    make_run(tmp_path / "a", rising(20, 480.0, 490.0))
    assert main(["compare", str(tmp_path / "a"), "-o", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (training,) = told["trainings"]
    assert training["values"] == [480.0, 490.0]
    assert training["seeds"] == [0, 1]
    low, high = training["interval"]
    assert low < training["iqm"] < high
    assert training["steps_to_threshold"] == [10_000.0, 10_000.0]
    assert told["pictures"]["curves"].endswith("curves.png")


def test_wrong_use_ends_with_2(tmp_path, capsys):
    make_run(tmp_path / "a", rising(4, 1.0))
    assert main(["compare"]) == 2
    assert "there is nothing to compare" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), "--metric", "rollout/length"]) == 2
    assert "Unknown metric 'rollout/length'" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), "--episodes", "0"]) == 2
    assert "--episodes" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), "-o", "/dev/null"]) == 2
    assert "'/dev/null' is a file; name a directory" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two trainings on two tasks, hardly begun."""
    folder = tmp_path_factory.mktemp("trained")
    small = {"num_seeds": 2, "num_envs": 8, "num_steps": 16, "total_steps": 1024}
    for name, env_id, rate in (
        ("a", "CartPole-v1", 0.01),
        ("b", "CartPole-v1", 1e-9),
        ("c", "Catch-v0", 0.01),
        ("d", "Catch-v0", 1e-9),
    ):
        kw.train("ppo", env_id, run_dir=folder / name, learning_rate=rate, **small)
    return folder


def test_several_tasks_are_put_on_one_scale(trained, capsys):
    arguments = ["compare", *(str(trained / name) for name in "abcd"), "--episodes", "4", "--json"]
    assert main([*arguments, "-o", str(trained / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["scales"]) == {"CartPole-v1", "Catch-v0"}
    assert 8 < told["scales"]["CartPole-v1"]["zero"] < 40  # a policy that acts at random
    assert told["scales"]["CartPole-v1"]["one"] == 475.0
    (better, worse) = told["aggregates"]
    assert "0.01" in better
    assert told["aggregates"][worse]["optimality_gap"]["value"] > 0.5
    assert set(told["pictures"]) == {"curves", "aggregates", "profiles"}
    assert all(len(each["values"]) == 2 for each in told["trainings"])
    assert told["remarks"][-1] == (
        "curves.png shows returns during training, not those of the 4 episodes."
    )
    assert told["verdicts"][0]["env_ids"] == ["CartPole-v1", "Catch-v0"]
