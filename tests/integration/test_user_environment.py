"""An environment in a plain file: checked, trained in parallel, evaluated."""

import json
import subprocess
import sys

import pytest

MY_ENV = '''
import gymnasium
import numpy as np


class Guess(gymnasium.Env):
    """Shows a number; the action that equals it is rewarded."""

    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int = 10):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length
        return self._draw(), {}

    def step(self, action):
        reward = float(self.shown[action])
        self.left -= 1
        return self._draw(), reward, False, self.left == 0, {}

    def _draw(self):
        self.shown = np.eye(2, dtype=np.float32)[self.np_random.integers(2)]
        return self.shown.copy()
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_file.py").write_text(MY_ENV)
    return tmp_path


def command(folder, *words):
    """Runs `kiloworlds` in the folder; returns what it prints as JSON."""
    program = "import sys; from kiloworlds.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_train_and_evaluate(folder):
    run = command(
        folder, "train", "ppo", "my_file:Guess", "--total-steps", "8192", "--num-envs", "8",
        "--num-workers", "2", "--learning-rate", "3e-3", "--env.length", "8",
    )  # fmt: skip
    assert run["final_return"] > 6  # 4 by chance, 8 at most
    assert (
        json.loads((folder / run["path"] / "environment.json").read_text())["backend"] == "process"
    )
    result = command(folder, "eval", run["path"], "--import", "my_file.py", "--episodes", "20")
    assert result["mean_return"] == 8.0


def test_a_name_that_is_not_there(folder):
    program = "import sys; from kiloworlds.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "ppo", "my_file:Gess"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "my_file has no 'Gess'" in done.stderr
    assert "Guess" in done.stderr
