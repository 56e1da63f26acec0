import pytest

from kiloworlds.profiling.ceilings import Ceilings

TINY = ("-n", "512", "--num-envs", "4", "--num-steps", "64", "--hidden-sizes", "8")


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch, tmp_path):
    """Measuring them takes seconds."""
    known = Ceilings(100e9, 50e9, 60e9, 40e9, "cpu")
    monkeypatch.setattr("kiloworlds.profiling.run.ceilings", lambda again: known)
    monkeypatch.chdir(tmp_path)


def test_tells_numbers_as_json(json_of, tmp_path):
    result = json_of("profile", "ppo", "CartPole-v1", *TINY, "--seconds", 0.1)
    assert result["steps_per_second"] > 0
    assert {part["name"] for part in result["parts"]} >= {"environment", "policy", "learning"}
    assert result["ceilings"]["flops"] == 100e9
    assert result["advice"]
    assert (tmp_path / result["picture"]).exists()


def test_tells_people_in_a_table(command, tmp_path):
    file = tmp_path / "mine.png"
    code, out, _ = command(
        "profile", "ppo", "CartPole-v1", *TINY, "--seconds", 0.1, "--picture", file
    )
    assert code == 0
    for words in (
        "environment",
        "learning",
        "advice",
        "kiloworlds train ppo CartPole-v1 --autotune",
    ):
        assert words in out
    assert file.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["ppo"], "profile needs an algorithm and an environment"),
        (["ppo", "CartPole-v1", "--seconds", "0"], "seconds=0.0 must be a number between 0.1"),
        (["ppo", "CartPole-v1", "--picture", "mine.pdf"], "must end in .png"),
        (["ppo", "CartPole-v7"], "Did you mean"),
    ],
)
def test_wrong_use_in_a_sentence(command, words, complaint):
    code, _, err = command("profile", *words)
    assert code == 2
    assert complaint in err
