import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

import kiloworlds
from kiloworlds.cli import options, training_flags
from kiloworlds.cli import train as train_command
from kiloworlds.cli.settings import settings_of
from kiloworlds.training.config import ALGORITHMS, setting_names

TINY = ("-n", "512", "--num-envs", "4", "--num-steps", "64", "--hidden-sizes", "8")


def test_result_as_json(json_of, tmp_path):
    path = tmp_path / "run"
    result = json_of("train", "ppo", "CartPole-v1", *TINY, "--num-seeds", 2, "--run-dir", path)
    run = kiloworlds.load(path)
    assert result["path"] == str(path)
    assert result["steps"] == 512
    assert result["seconds"] > 0
    assert result["interrupted"] is False
    final = run.metrics["rollout/ep_rew_mean"][-1]
    assert result["final_return"] == pytest.approx(final.mean())
    assert result["final_return_std"] == pytest.approx(final.std())
    assert (path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_words_say_what_next(command, tmp_path):
    path = tmp_path / "run"
    code, out, _ = command("train", "ppo", "CartPole-v1", *TINY, "--run-dir", path)
    assert code == 0
    assert f"kiloworlds eval {path}" in out
    assert f"kiloworlds play {path}" in out
    assert "final return" in out


def test_a_population_is_no_run_of_seeds(command, tmp_path):
    path = tmp_path / "run"
    rates = '{"learning_rate": [0.001, 0.002, 0.02]}'
    words = ("train", "ppo", "CartPole-v1", *TINY, "--num-seeds", 2, "--population", rates)
    code, out, err = command(*words, "--run-dir", path)
    assert code == 0, err
    assert "ppo · CartPole-v1 · 3 x 2 trainings\n" in out
    assert re.search(r" of learning_rate=[\d.]+, the best, mean and deviation over 2 seeds", out)
    assert (path / "learning_curve.png").exists()


def test_flags_reach_the_run(command, tmp_path):
    path = tmp_path / "run"
    flags = ("--seed", 7, "--learning-rate", "1e-3", "--no-anneal-learning-rate")
    environment = ("--env.length", 0.7, "--env-kwargs", '{"gravity": 5.0}')
    words = ("--algo", "ppo", "--env", "CartPole-v1", *TINY, *flags, *environment)
    code, _, err = command("train", *words, "--run-dir", path)
    assert code == 0, err
    config = kiloworlds.load(path).config
    assert config["seed"] == 7
    assert config["learning_rate"] == 0.001
    assert config["anneal_learning_rate"] is False
    assert config["hidden_sizes"] == [8]
    assert config["env_kwargs"] == {"gravity": 5.0, "length": 0.7}


def test_loggers_are_chosen_and_stay(command, tmp_path):
    path = tmp_path / "run"
    words = ("train", "ppo", "CartPole-v1", *TINY, "--run-dir", path)
    code, out, err = command(*words, "--log", "tensorboard")
    assert code == 0, err
    assert f"logs to tensorboard: tensorboard --logdir {path}" in out
    code, out, _ = command("train", "--run-dir", path, "--resume", "-n", 1024)
    assert code == 0
    assert "logs to tensorboard" in out
    code, out, _ = command("train", "--run-dir", path, "--resume", "-n", 1536, "--log")
    assert code == 0
    assert "logs to tensorboard" not in out
    code, _, err = command(*words, "--log", "tensorbord")
    assert code == 2
    assert "Did you mean 'tensorboard'" in err


def test_flags_win_over_the_file(command, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "num_envs: 4\nnum_steps: 64\ntotal_steps: 512\ngamma: 0.9\nlearning_rate: 1e-3\n"
    )
    path = tmp_path / "run"
    code, _, err = command(
        "train", "ppo", "CartPole-v1", "--config", settings, "--gamma", 0.8, "--run-dir", path
    )
    assert code == 0, err
    config = kiloworlds.load(path).config
    assert (config["gamma"], config["learning_rate"], config["num_envs"]) == (0.8, 0.001, 4)


def test_config_of_a_run_repeats_it(command, trained, tmp_path):
    path = tmp_path / "again"
    code, _, err = command("train", "--config", trained / "config.yaml", "--run-dir", path)
    assert code == 0, err
    first, second = kiloworlds.load(trained), kiloworlds.load(path)
    assert first.config == second.config
    name = "rollout/ep_rew_mean"
    np.testing.assert_array_equal(first.metrics[name], second.metrics[name])


def test_taken_directory_is_left_alone_and_the_new_name_said(command, trained):
    before = (trained / "config.yaml").read_bytes()
    code, out, _ = command("train", "ppo", "CartPole-v1", *TINY, "--run-dir", trained)
    assert code == 0
    assert f"{trained} holds a run already; this one goes to {trained}_1." in out
    assert (trained / "config.yaml").read_bytes() == before
    assert kiloworlds.load(f"{trained}_1").config["num_seeds"] == 1


def test_directory_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = command(
        "train", "ppo", "CartPole-v1", *TINY, "--run-dir", tmp_path / "file" / "run"
    )
    assert code == 1
    assert "cannot be written" in err


def test_run_too_short_for_an_episode_still_succeeds(command, tmp_path):
    code, out, err = command(
        "train",
        *("ppo", "MountainCar-v0", "-n", "8", "--num-envs", "2", "--num-steps", "4"),
        *("--run-dir", tmp_path / "run"),
    )
    assert code == 0, err
    assert "No picture of the learning curve" in out


def test_gymnasium_environment(json_of, tmp_path):
    result = json_of(
        "train", "ppo", "CartPole-v1", *TINY, "--backend", "sync", "--run-dir", tmp_path / "run"
    )
    assert result["steps"] == 512
    assert kiloworlds.load(result["path"]).environment["backend"] == "sync"


def test_help_shows_every_setting_with_its_default(command):
    code, out, _ = command("train", "ppo", "CartPole-v1", "--help")
    assert code == 0
    for name in setting_names("ppo"):
        assert f"--{name.replace('_', '-')}" in out
    assert "Discount per step" in out


def test_every_setting_has_a_meaning():
    for algorithm in ALGORITHMS:
        settings = settings_of(algorithm)
        assert [name for name, setting in settings.items() if not setting.meaning] == [], algorithm


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["ppo"], "needs an algorithm and an environment"),
        (["pppo", "CartPole-v1"], "Did you mean 'ppo'"),
        (["ppo", "CartPoel-v1"], "Did you mean 'CartPole-v1'"),
        (["ppo", "CartPole-v1", "--totl-steps", "3"], "--total-steps"),
        (["ppo", "CartPole-v1", "--learning-rate", "fast"], "--learning-rate"),
        (["ppo", "CartPole-v1", "--total-steps", "1.5"], "not a whole number"),
        (["ppo", "CartPole-v1", "--total-steps", "0"], "total_steps=0"),
        (["ppo", "CartPole-v1", "--gamma", "1.5"], "gamma=1.5"),
        (["ppo", "CartPole-v1", "--backend", "fast"], "--backend"),
        (["ppo", "CartPole-v1", "--env.lenth", "0.7"], "lenth"),
        (["ppo", "CartPole-v1", "--config"], "--config needs a value"),
        (["ppo", "CartPole-v1", "--config", "/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        (["ppo", "CartPole-v1", "extra"], "extra"),
    ],
)
def test_wrong_use(command, tmp_path, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("train", *words)
    assert (code, out) == (2, "")
    assert complaint in err
    assert not (tmp_path / "runs").exists()


def test_bad_setting_in_a_file_names_both(command, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"learning_rat": 0.1}))
    code, _, err = command("train", "ppo", "CartPole-v1", "--config", path)
    assert code == 2
    assert f"{path}: unknown setting 'learning_rat'. Did you mean 'learning_rate'" in err


def test_interrupt_leaves_a_usable_run(tmp_path):
    path = tmp_path / "run"
    words = ["ppo", "CartPole-v1", "-n", "1e9", "--num-envs", "4", "--num-steps", "64", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kiloworlds.cli.main", "train", *words, "--run-dir", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = [process.stderr.readline() for _ in range(3)]  # the title, a word, the first metrics
    assert "step" in first[2]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    result = json.loads(out)
    assert result["interrupted"] is True
    assert 0 < result["steps"] < 1e9
    observations = np.zeros((3, 4), np.float32)
    assert kiloworlds.load(path).policy.act(observations).shape == (3,)


def test_a_setting_and_a_population_of_it_are_one_too_many(command):
    words = ("--learning-rate", "0.1", "--population", '{"learning_rate": [0.01, 0.02]}')
    code, _, err = command("train", "ppo", "CartPole-v1", *words)
    assert code == 2
    assert "--learning-rate is given beside a population that holds values of it" in err


def test_next_commands_import_the_file_of_the_environment(command, own_file, tmp_path):
    path = tmp_path / "run"
    own = ("--num-workers", 1, "--run-dir", path)
    code, out, err = command("train", "ppo", f"{own_file}:Guess", *TINY, *own)
    assert code == 0, err
    assert f"kiloworlds eval {path} --import {own_file}\n" in out
    assert f"kiloworlds play {path} --import {own_file}\n" in out
    del sys.modules[own_file]
    code, out, err = command("eval", path, "--episodes", 1, "--import", own_file)
    assert code == 0, err
    assert f"kiloworlds play {path} --import {own_file}\n" in out


@pytest.mark.parametrize(
    ("env_id", "imports", "words"),
    [
        ("CartPole-v1", (), "a"),
        ("ALE/Pong-v5", ("one", "two"), "a --import one two"),
        ("my_file:MyEnv", ("my_file",), "a --import my_file"),
        ("my files/b.py:MyEnv", (), "a --import 'my files/b.py'"),
        ("pettingzoo:mpe2.simple_spread_v3", (), "a"),
        ("pettingzoo:classic/connect_four_v3", (), "a"),
        ("pettingzoo:my_package.world", (), "a --import my_package.world"),
    ],
)
def test_words_that_load_a_run(env_id, imports, words):
    assert options.run_words("a", env_id, imports) == words


def test_several_agents_are_refused_before_there_is_a_run(command, own_file, tmp_path):
    for env_id in ("pettingzoo:mpe2.simple_spread_v3", f"{own_file}:several_agents"):
        code, out, err = command("train", "ppo", env_id, *TINY)
        assert (code, out) == (2, "")
        assert "ppo trains a single one" in err
        assert not (tmp_path / "runs").exists()


def test_says_that_steps_are_rounded_up(command, tmp_path):
    few = ("--num-envs", 4, "--num-steps", 64, "--hidden-sizes", 8, "--run-dir", tmp_path / "run")
    code, out, _ = command("train", "ppo", "CartPole-v1", "-n", 300, *few)
    assert code == 0
    assert "512 steps instead of 300: training takes whole rollouts of 256" in out
    code, out, _ = command("train", "ppo", "CartPole-v1", "-n", 510, *few)
    assert code == 0
    assert "instead of" not in out
    _, out, _ = command("train", "ppo", "CartPole-v1", "--help")
    assert "Rounded up to whole rollouts" in " ".join(out.replace("│", " ").split())


def test_flags_win_over_the_preset_of_atari():
    def preprocessing(*flags, old=None):
        words = ("ppo", "ALE/Breakout-v5", *flags)
        asked = training_flags.read("train", words, train_command.Options, "", old)
        return asked.settings["preprocessing"]

    assert preprocessing() == "atari"
    assert preprocessing("--preprocessing", '{"size": 42}') == {"size": 42}
    assert preprocessing("--preprocessing", "None") is None
    assert preprocessing(old={"preprocessing": {"size": 42}}) == {"size": 42}


def test_knows_which_settings_were_given(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("gamma: 0.9\n")
    words = ("ppo", "CartPole-v1", "-n", "512", "--num-envs=4", "--config", str(file), "--json")
    asked = training_flags.read("train", words, train_command.Options, "")
    assert asked.given == {"total_steps", "num_envs", "gamma"}
    assert asked.settings["num_envs"] == 4


def test_a_trainer_that_starts_again_has_the_same_flags(command, tmp_path, monkeypatch):
    commands = []

    class Watched:
        def __init__(self, first, again, limits, say):
            commands.extend([first, again(tmp_path / "run")])

        def run(self):
            return 0

    monkeypatch.setattr("kiloworlds.training.survival.supervisor.Supervisor", Watched)
    flags = ["--num-envs", "4", "--run_dir", "x", "--override"]
    code, *_ = command("train", "ppo", "CartPole-v1", *flags, "--supervise")
    assert code == 0
    first, again = (words[words.index("train") + 1 :] for words in commands)
    assert first == ["ppo", "CartPole-v1", *flags]
    kept = ["ppo", "CartPole-v1", "--num-envs", "4", "--override"]
    assert again == [*kept, "--run-dir", str(tmp_path / "run"), "--resume"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_programs_compile_ends_it_cleanly(number, tmp_path):
    # What compiles for many times as long as is waited here.
    command = [sys.executable, "-m", "kiloworlds.cli.main", "train", "mappo", "smax/3m"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(tmp_path / "run")],
        env=os.environ | {"XLA_FLAGS": "", "KILOWORLDS_CACHE_DIR": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if "compiling" in line:
            break
    time.sleep(4)  # the compiler itself is at work, not the tracing before it
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number, rest
    assert rest == "Interrupted before anything was learnt.\n"
