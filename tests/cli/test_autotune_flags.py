import json

import pytest

from kiloworlds.profiling.tuning.autotune import Tried, Tuned

TINY = ("-n", "512", "--num-envs", "4", "--num-steps", "64", "--hidden-sizes", "8")
TUNED = Tuned(
    settings={"threads_per_device": 1},
    speedup=1.5,
    why=["threads_per_device=1: training is 1.50 times as fast."],
    tried=[
        Tried({"threads_per_device": 1}, 3000.0, "", True),
        Tried({}, 2000.0),
        Tried({"devices": 2}, None, "there was no time left to try it."),
    ],
    seconds=12.0,
    measured="2026-01-02",
    file="somewhere.json",
)


@pytest.fixture
def asked(monkeypatch):
    """What autotuning was asked; it answers `TUNED`."""
    calls = []

    def tune(config, given, **options):
        calls.append((config, set(given), options))
        return TUNED

    monkeypatch.setattr("kiloworlds.cli.autotuning.tune", tune)
    return calls


def test_trains_with_what_was_chosen(command, asked, tmp_path):
    run = tmp_path / "run"
    words = ("train", "ppo", "CartPole-v1", *TINY, "--run-dir", run, "--json")
    code, out, err = command(*words, "--autotune", "--autotune-seconds", 20)
    assert code == 0, err
    ((_, given, options),) = asked
    assert given == {"total_steps", "num_envs", "num_steps", "hidden_sizes"}
    assert options["seconds"] == 20
    assert options["again"] is False
    assert "threads_per_device: 1" in (run / "config.yaml").read_text()
    assert json.loads(out)["autotune"]["speedup"] == 1.5
    for words in ("3,000", "as asked", "no time left", "1.50 times as fast", "somewhere.json"):
        assert words in err


def test_without_the_flag_nothing_is_measured(command, asked, tmp_path):
    words = ("train", "ppo", "CartPole-v1", *TINY, "--run-dir", tmp_path / "run", "--json")
    code, out, _ = command(*words)
    assert code == 0
    assert not asked
    assert json.loads(out)["autotune"] is None


def test_says_that_an_answer_was_kept(command, monkeypatch, tmp_path):
    kept = Tuned(**(vars(TUNED) | {"is_stored": True, "settings": {}}))
    monkeypatch.setattr("kiloworlds.cli.autotuning.tune", lambda *_, **__: kept)
    words = ("train", "ppo", "CartPole-v1", *TINY, "--run-dir", tmp_path / "run")
    code, out, _ = command(*words, "--autotune")
    assert code == 0
    said = " ".join(out.split())
    assert "as measured on 2026-01-02" in said
    assert "--autotune-again measures anew" in said


def test_a_run_that_goes_on_has_its_settings(command, trained):
    code, _, err = command("train", "--run-dir", trained, "--resume", "--autotune")
    assert code == 2
    assert "--autotune is for a training that begins" in err


def test_a_trainer_that_starts_again_does_not_choose_again(command, monkeypatch, tmp_path):
    commands = []

    class Watched:
        def __init__(self, first, again, limits, say):
            commands.extend([first, again(tmp_path)])

        def run(self):
            return 0

    monkeypatch.setattr("kiloworlds.training.survival.supervisor.Supervisor", Watched)
    flags = ("--autotune", "--autotune-again", "--autotune-seconds", "20", "--num-envs", "4")
    command("train", "ppo", "CartPole-v1", "--supervise", *flags)
    first, again = commands
    assert "--autotune" in first
    assert not [word for word in again if word.startswith("--autotune") or word == "20"]
    assert again[-5:-3] == ["--num-envs", "4"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--autotune-seconds", "20"], "--autotune-seconds is for --autotune: give both"),
        (
            ["--autotune", "--autotune-seconds", "1"],
            "--autotune-seconds=1.0 must be a number between",
        ),
    ],
)
def test_flags_that_do_not_fit(command, asked, flags, complaint):
    code, _, err = command("train", "ppo", "CartPole-v1", *TINY, *flags)
    assert code == 2
    assert complaint in err
    assert not asked


def test_without_time_training_goes_on_as_asked(command, monkeypatch, tmp_path):
    unmeasured = Tuned({}, 1.0, ["Nothing was measured in 5 s."], [], 5.0, "2026-01-02")
    monkeypatch.setattr("kiloworlds.cli.autotuning.tune", lambda *_, **__: unmeasured)
    words = ("train", "ppo", "CartPole-v1", *TINY, "--run-dir", tmp_path / "run")
    code, out, _ = command(*words, "--autotune")
    assert code == 0
    assert "Nothing was measured in 5 s." in out
    assert "ways measured" not in out
