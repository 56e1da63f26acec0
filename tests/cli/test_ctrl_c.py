"""Ctrl-C in moments in which Python would lose it."""

import subprocess
import sys
import textwrap


def entry(code):
    """`kiloworlds list` in a process of its own that runs some code first."""
    code = f"""
    import importlib, signal, sys, time, weakref
    from kiloworlds.cli import main
    {textwrap.indent(textwrap.dedent(code), "    ").strip()}
    sys.argv = ["kiloworlds", "list"]
    main.entry()
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_interrupted(process):
    assert process.returncode == 130, process.stderr
    assert process.stderr == "\nInterrupted.\n"
    assert process.stdout == ""


IN_AN_IMPORT = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "kiloworlds.cli.list":
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:  # as the interpreter does now and then
                pass

sys.meta_path.insert(0, Finder())
"""

IN_A_CALLBACK = """
def run(arguments):
    class Thing:
        pass
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    time.sleep(60)
    return 0

importlib.import_module("kiloworlds.cli.list").run = run
"""


def test_in_the_middle_of_an_import():
    assert_interrupted(entry(IN_AN_IMPORT))


def test_in_a_callback_whose_errors_are_only_printed():
    assert_interrupted(entry(IN_A_CALLBACK))


def test_where_it_is_ignored_it_stays_so():
    process = entry("signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + IN_AN_IMPORT)
    assert process.returncode == 0, process.stderr
    assert "CartPole-v1" in process.stdout


def test_the_package_is_the_command_too():
    process = subprocess.run(
        [sys.executable, "-m", "kiloworlds", "--version"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert process.stdout.startswith("kiloworlds ")
