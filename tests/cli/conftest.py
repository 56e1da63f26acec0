"""A run small enough to train in a test, shared by the tests of what reads runs."""

import json

import pytest

from kiloworlds.cli.main import main

TINY = ("-n", "512", "--num-envs", "4", "--num-steps", "64", "--hidden-sizes", "8")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The directory of a run of two seeds on CartPole-v1."""
    path = tmp_path_factory.mktemp("trained") / "run"
    assert (
        main(["train", "ppo", "CartPole-v1", *TINY, "--num-seeds", "2", f"--run-dir={path}"]) == 0
    )
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
