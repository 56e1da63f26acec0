import re

import pytest


def test_result_as_json(json_of, trained):
    result = json_of("eval", trained, "--episodes", 6)
    assert result["episodes"] == 12  # six of each seed
    assert len(result["seed_returns"]) == 2
    assert result["mean_return"] == pytest.approx(sum(result["seed_returns"]) / 2)
    low, high = result["interval"]
    assert low <= result["mean_return"] <= high
    assert result["reward_threshold"] == 475.0


def test_one_policy(json_of, trained):
    both = json_of("eval", trained, "-n", 6)
    second = json_of("eval", trained, "-n", 6, "--seed-index", 1)
    assert second["episodes"] == 6
    assert second["mean_return"] == pytest.approx(both["seed_returns"][1])


def test_checkpoints(json_of, command, trained):
    newest = json_of("eval", trained, "-n", 4)
    step = max(int(path.name) for path in (trained / "checkpoints").iterdir())
    for checkpoint in ("newest", step, f"{step}.0"):
        assert json_of("eval", trained, "-n", 4, "--checkpoint", checkpoint) == newest
    code, _, err = command("eval", trained, "--checkpoint", "first")
    assert code == 2
    assert "--checkpoint first must be newest, best, or the number of steps of one" in err


def test_seed_decides_the_episodes(json_of, trained):
    first, again, other = (json_of("eval", trained, "-n", 5, "--seed", seed) for seed in (3, 3, 4))
    assert first == again
    assert first["mean_return"] != other["mean_return"]


def test_words(command, trained):
    code, out, _ = command("eval", trained, "-n", 2)
    assert code == 0
    assert "95% interval" in out
    assert f"kiloworlds play {trained}" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["--episodes", "0"],
            "--episodes=0 must be a whole number of 1 or more; the nearest valid value is 1",
        ),
        (["--seed-index", "2"], "numbered 0 to 1"),
        (["--episods", "3"], "--episodes"),
    ],
)
def test_wrong_use(command, trained, words, complaint):
    code, out, err = command("eval", trained, *words)
    assert (code, out) == (2, "")
    assert complaint in err


@pytest.mark.parametrize("verb", ["eval", "play"])
def test_path_that_is_no_run(command, trained, verb):
    code, out, err = command(verb, trained.parent)
    assert (code, out) == (2, "")
    assert "is not a run directory" in err
    assert str(trained) in err  # the run beneath it is named


def test_path_that_does_not_exist(command, tmp_path):
    code, _, err = command("eval", tmp_path / "none")
    assert code == 2
    assert "there is no run directory" in err


def test_one_episode_has_no_interval(command, json_of, trained):
    one = ("eval", trained, "--episodes", 1)
    code, out, _ = command(*one, "--seed-index", 0)
    assert code == 0
    assert "interval" not in out
    assert "over 1 episode\n" in out
    assert json_of(*one, "--seed-index", 0)["interval"] is None
    _, out, _ = command(*one)  # of each seed: those make an interval
    assert "95% interval" in out
    assert "over 1 episode of each of 2 seeds\n" in out


def test_a_population_is_told_entry_by_entry(command, json_of, population):
    result = json_of("eval", population, "-n", 2)
    assert result["policies"][4:] == ["learning_rate=0.02, seed 0", "learning_rate=0.02, seed 1"]
    code, out, _ = command("eval", population, "-n", 2)
    assert code == 0
    assert "over 2 episodes of each of 3 x 2 trainings\n" in out
    third = result["seed_returns"][4:]
    line = "learning_rate=0.02   #  95% interval # to #  by seed #  #\n".replace("#", r"([\d.]+)")
    shown = re.search(line, out)
    assert shown is not None
    told = [float(value) for value in shown.groups()]
    assert told == pytest.approx([sum(third) / 2, min(third), max(third), *third], abs=0.01)
    assert [entry["seed_returns"] for entry in result["entries"]][2] == third
    best = max(result["entries"], key=lambda entry: entry["mean_return"])
    told = re.match(rf"return ([\d.]+)  of {best['name']}, the best  over 2 episodes of each", out)
    assert told is not None
    assert float(told[1]) == pytest.approx(best["mean_return"], abs=0.01)
    assert (result["of"], result["mean_return"]) == (best["name"], best["mean_return"])
    assert result["interval"] == best["interval"]  # over all there is none: settings are chosen
    assert result["mean_length"] == best["mean_return"]  # of CartPole
    first = 2 * result["entries"].index(best)
    assert f"kiloworlds play {population} --seed-index {first}\n" in out
    assert "not solved" in out
    _, out, _ = command("eval", population, "-n", 2, "--seed-index", 3)
    assert "of learning_rate=0.002, seed 1\n" in out
    assert "not solved" in out
