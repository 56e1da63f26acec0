import subprocess
import sys

import pytest

import kiloworlds
from kiloworlds.cli.main import VERBS


def test_help_names_every_command(command):
    code, out, _ = command("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)


def test_no_command_is_wrong_use(command):
    code, out, err = command()
    assert (code, out) == (2, "")
    assert "usage" in err


def test_version(command):
    assert command("--version") == (0, f"kiloworlds {kiloworlds.__version__}\n", "")


@pytest.mark.parametrize(
    ("given", "meant"), [("trian", "train"), ("evel", "eval"), ("--verison", "--version")]
)
def test_unknown_command_suggests(command, given, meant):
    code, out, err = command(given)
    assert (code, out) == (2, "")
    assert f"{given!r}. Did you mean {meant!r}" in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_explains_itself(command, verb):
    code, out, _ = command(verb, "--help")
    assert code == 0
    assert "--json" in out
    assert f"kiloworlds {verb}" in out


@pytest.mark.parametrize("verb", ["train", "eval", "play", "bench"])
def test_missing_arguments_are_wrong_use(command, verb):
    code, out, _ = command(verb)
    assert (code, out) == (2, "")


def test_debug_shows_the_traceback(command):
    with pytest.raises(kiloworlds.core.errors.UnknownNameError, match="CartPole-v1"):
        command("bench", "CartPole-v11", "--debug")


def test_help_is_fast_because_it_imports_no_jax():
    program = (
        "import sys; from kiloworlds.cli.main import main; code = main(['--help']); "
        "heavy = {'jax', 'numpy', 'gymnasium', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else code)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_installed_command_writes_json_alone_to_standard_output():
    result = subprocess.run(
        [sys.executable, "-m", "kiloworlds.cli.main", "list", "CartPole-v1", "--json"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[")
    assert '"id": "CartPole-v1"' in result.stdout


def test_reader_that_leaves_is_no_error():
    """As in `kiloworlds list | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kiloworlds.cli.main", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() in (0, 1)


def test_traceback_of_a_worker_is_shown_only_with_debug(command, own_file, caplog):
    words = (
        *("train", "ppo", f"{own_file}:Broken", "-n", 64, "--num-envs", 2, "--num-steps", 16),
        *("--num-workers", 1, "--max-restarts", 1),
    )
    code, _, err = command(*words)
    assert code == 1
    assert "the road is closed (--debug shows its traceback)" in err
    assert "Traceback" not in err + caplog.text
    with pytest.raises(kiloworlds.core.errors.KiloworldsError, match="Its own traceback:"):
        command(*words, "--debug")


def test_error_of_an_environment_is_one_sentence(command, monkeypatch):
    from kiloworlds.vector.faults import EnvironmentFailedError

    def fail(arguments):
        raise EnvironmentFailedError(3, "reset", "", "ValueError: no road", "Traceback: here")

    monkeypatch.setattr("kiloworlds.cli.list.run", fail)
    code, out, err = command("list")
    assert (code, out) == (1, "")
    assert err == (
        "kiloworlds: environment 3 failed in reset: ValueError: no road (--debug shows its "
        "traceback)\n"
    )


def test_top_level_shows_the_public_names_only():
    assert set(dir(kiloworlds)) == {*kiloworlds.__all__, "__version__"}
    assert all(hasattr(kiloworlds, name) for name in kiloworlds.__all__)
    assert kiloworlds.PixelOptions(size=42).size == 42
