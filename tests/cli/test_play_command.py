import re
import shutil
import sys

import pytest
from PIL import Image


def test_gif_lands_in_the_run(json_of, trained):
    result = json_of("play", trained, "--max-steps", 20)
    assert result["video"].startswith(str(trained / "videos"))
    with Image.open(result["video"]) as gif:
        assert gif.format == "GIF"
        assert gif.size == (600, 440)  # the picture and its caption
        # Gymnasium asks for 50 frames per second. Equal frames in a row are stored as one.
        assert gif.info["duration"] % 20 == 0
        assert 1 < gif.n_frames <= result["steps"] + 1
    assert result["episode_return"] == result["steps"]


def test_enjoy_is_play(json_of, trained, tmp_path):
    path = tmp_path / "a.gif"
    result = json_of("enjoy", trained, "-o", path, "--max-steps", 3, "--seed-index", 1)
    assert result["video"] == str(path)
    assert path.exists()
    assert result["policy"] == "seed 1"


def test_text_in_the_terminal(command, trained):
    code, out, _ = command("play", trained, "--ascii", "--max-steps", 3)
    assert code == 0
    assert "step 0  return 0\n" in out
    assert re.search(r"step 3  action [01]  reward 1  return 3\n", out)
    assert "@" in out
    assert "video" not in out


def test_environment_with_text_and_gymnasium_backend(command, tmp_path):
    train = ("train", "ppo", "FrozenLake-v1", "-n", 64, "--num-envs", 2, "--num-steps", 16)
    for backend in ("compiled", "sync"):
        path = tmp_path / backend
        code, _, err = command(*train, "--backend", backend, "--run-dir", path)
        assert code == 0, err
    code, out, _ = command("play", tmp_path / "compiled", "--ascii", "--max-steps", 2)
    assert code == 0
    assert "step 2" in out
    assert "H  F  F  G" in out
    assert re.search(r"step 2  action (left|down|right|up)  reward", out)
    code, out, err = command("play", tmp_path / "sync", "--max-steps", 2)
    assert code == 0, err
    assert list((tmp_path / "sync" / "videos").glob("*.gif"))


@pytest.mark.parametrize("grid", [(), ("--grid", "2x2")])
def test_mp4_without_its_package_says_how_to_install(command, trained, monkeypatch, grid):
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = command("play", trained, "--format", "mp4", "--max-steps", 2, *grid)
    assert code == 1
    assert 'pip install "kiloworlds[video]"' in err
    assert "playing" not in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--output", "a.avi"], "must end in .gif or .mp4"),
        (["--fps", "0"], "--fps 0"),
        (["--grid", "0x3"], "the nearest is 1x3"),
        (["--grid", "eight"], "'eight' must be columns x rows, each from 1 to 16, such as 8x8"),
        (["--grid", "100x100"], "the nearest is 16x16"),
        (["--grid", "2x2", "--ascii"], "leave out --ascii"),
        (["--checkpoint", "last"], "--checkpoint last must be newest, best, or the number"),
        (["--checkpoint", "-5"], "number of steps"),
        (["--max-steps", "0"], "--max-steps=0 must be a whole number of 1 or more; the nearest"),
        (["--output", "a.gif", "--format", "mp4"], "says another format than --format mp4"),
        (["--output", "/dev/null/a.gif"], "'/dev/null' is a file; name a directory"),
        (["--seed-index", "5"], "numbered 0 to 1"),
        (["--format", "webm"], "webm"),
    ],
)
def test_wrong_use(command, trained, words, complaint):
    code, out, err = command("play", trained, *words)
    assert (code, out) == (2, "")
    assert complaint in err


def test_environment_without_picture_or_render_mode_plays_in_the_terminal(
    command, own_file, tmp_path
):
    path = tmp_path / "run"
    code, _, err = command(
        *("train", "ppo", f"{own_file}:Guess", "-n", 64, "--num-envs", 2, "--num-steps", 16),
        *("--num-workers", 1, "--run-dir", path),
    )
    assert code == 0, err
    for flags in ((), ("--ascii",)):
        code, out, err = command("play", path, "--import", own_file, *flags)
        assert code == 0, err
        assert "[0.25 0.5 ]\nstep 0  return 0\n" in out
        assert re.search(r"\[0.25 0.75\]\nstep 4  action [01]  reward 1  return 4\n", out)
    assert not (path / "videos").exists()


def test_grid_of_episodes(json_of, trained):
    result = json_of("play", trained, "--grid", "3x2", "--max-steps", 40, "--seed", 7)
    assert result["video"] == str(trained / "videos" / "CartPole-v1-grid3x2-seed7.gif")
    assert (result["grid"], result["episodes"], result["seeds"]) == ("3x2", 6, list(range(7, 13)))
    assert result["returns"] == result["lengths"]
    assert result["mean_return"] == pytest.approx(sum(result["returns"]) / 6)
    assert result["cut"] == result["lengths"].count(40)
    assert (result["frames_per_second"], result["steps_per_frame"]) == (25, 2)
    with Image.open(result["video"]) as gif:
        assert gif.n_frames > 2


def test_grid_in_words(command, trained, tmp_path):
    path = tmp_path / "a.gif"
    code, out, err = command("play", trained, "--grid", "2x1", "--max-steps", 3, "--output", path)
    assert code == 0
    assert err.startswith("playing\n")
    assert "mean return 3.000 over 2 episodes, worst 3.000, best 3.000\n" in out
    assert "seed 0 played, one of 2 seeds; choose with --seed-index 0 to 1\n" in out
    assert "2 never ended; what was earned up to --max-steps 3 counts\n" in out
    assert f"video {path}\n" in out


def test_checkpoints_play(json_of, command, trained, tmp_path):
    steps = [int(path.name) for path in (trained / "checkpoints").iterdir() if path.name.isdigit()]
    for checkpoint in (max(steps), "newest"):
        result = json_of("play", trained, "--checkpoint", checkpoint, "--max-steps", 2)
        assert ("checkpoint" in result["video"]) == (checkpoint != "newest")
    _, out, _ = command("play", trained, "--checkpoint", "best", "--max-steps", 2)
    assert f"there is no choice: the one checkpoint is of step {max(steps)}" in out
    other = shutil.copytree(trained, tmp_path / "run")
    (other / "checkpoints" / "100").mkdir()
    (other / "checkpoints" / "100" / "manifest.json").write_text('{"score": -1.0}')
    for verb in ("play", "eval"):
        _, out, _ = command(verb, other, "--checkpoint", "best")
        assert f"the best of 2 checkpoints is of step {max(steps)}" in out
    code, _, err = command("play", trained, "--checkpoint", "7")
    assert code != 0
    assert f"no checkpoint of step 7; those it has: {max(steps)}" in err
