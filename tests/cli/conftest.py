"""A run small enough to train in a test, shared by the tests of what reads runs."""

import json
import sys

import pytest

from kiloworlds.cli.main import main

FILE_OF_ONES_OWN = '''
import gymnasium
import numpy as np


class Guess(gymnasium.Env):
    """Takes no render_mode, and looks like nothing."""

    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 4
        return np.array([0.25, 0.5], np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.array([0.25, 0.75], np.float32), 1.0, False, self.left == 0, {}


class Broken(Guess):
    """Fails at the first step."""

    def step(self, action):
        raise ValueError("the road is closed")


def several_agents():
    from mpe2 import simple_spread_v3

    return simple_spread_v3.parallel_env()
'''
TINY = ("-n", "512", "--num-envs", "4", "--num-steps", "64", "--hidden-sizes", "8")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The directory of a run of two seeds on CartPole-v1."""
    path = tmp_path_factory.mktemp("trained") / "run"
    assert (
        main(["train", "ppo", "CartPole-v1", *TINY, "--num-seeds", "2", f"--run-dir={path}"]) == 0
    )
    return path


@pytest.fixture(scope="session")
def population(tmp_path_factory):
    """The directory of a run of three learning rates and two seeds on CartPole-v1."""
    path = tmp_path_factory.mktemp("population") / "run"
    rates = '{"learning_rate": [0.001, 0.002, 0.02]}'
    words = ["train", "ppo", "CartPole-v1", *TINY, "--num-seeds", "2", "--population", rates]
    assert main([*words, f"--run-dir={path}"]) == 0
    return path


@pytest.fixture
def command(capsys):
    """Runs a command line; returns its exit code, standard output and standard error."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def json_of(command):
    """Runs a command line with --json; returns what it printed as objects."""

    def run(*words):
        code, out, err = command(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    """The current directory has a file with environments; returns the name of its module."""
    name = "kw_cli_own_file"
    (tmp_path / f"{name}.py").write_text(FILE_OF_ONES_OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)
