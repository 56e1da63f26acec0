import json
import re
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a file of environments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "kw_envs.py").write_text((_TESTS / "broken_envs.py").read_text())
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("kw_")]:
        del sys.modules[name]


QUICK = ("--steps", "30", "--only", "interface", "rollout", "seeding")


def test_sound_environment(folder, command):
    code, out, _ = command("check", "kw_envs.py:Fine", "--env.length", "3", *QUICK)
    assert code == 0
    assert "✓ no failure" in out
    assert "of 3 steps" in out
    assert "kw_envs.py:Fine (gymnasium)" in out


def test_faulty_environment(folder, command):
    code, out, _ = command("check", "kw_envs:OutOfBounds", *QUICK)
    assert code == 1
    words = re.sub(r"\s+", " ", out)
    assert "observations ✗ failed step 3: observation[1] = 2.5 lies outside -1 to 1" in words
    assert "→ mend the observation" in words
    assert "✗ 1 failed" in words


def test_compiled_environment_of_several_agents(command):
    path = _TESTS / "compiled_multi_agent_envs.py"
    code, out, _ = command(
        "check", f"{path}:Relay", "--env.runners", "4", "--only", "contract: agents"
    )
    assert code == 0
    assert re.search("contract: agents +✓ ok +holds", out)
    assert "Relay (compiled)" in out


def test_json(folder, command):
    code, out, _ = command("check", "kw_envs:ArrayReward", "--json", *QUICK)
    report = json.loads(out)
    assert code == 1
    assert (report["env"], report["kind"], report["ok"]) == (
        "kw_envs:ArrayReward",
        "gymnasium",
        False,
    )
    rows = {finding["check"]: finding for finding in report["findings"]}
    assert rows["rewards"]["result"] == "failed"
    assert rows["rewards"]["mend"] == "return float(reward)"
    assert rows["seeding"]["result"] == "ok"
    assert report["failed"] == sum(f["result"] == "failed" for f in report["findings"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["kw_envs:Fien"], "kw_envs has no 'Fien'. Did you mean 'Fine'"),
        (["kw_env:Fine"], "There is no module 'kw_env'"),
        (["kw_envs.py"], "One in a file is named kw_envs.py:MyEnv"),
        (["kw_envs:Fine", "--env.lenth", "3"], "no parameter 'lenth'. Did you mean 'length'"),
        (["CartPoole-v1"], "Did you mean 'CartPole-v1'"),
        (["kw_envs:Fine", "--steps", "0"], "--steps 0 must be 1 or more"),
        (["kw_envs:Fine", "--timeout", "0"], "--timeout 0"),
        (["kw_envs:Fine", "--only", "seding"], "no check 'seding' of this kind"),
    ],
)
def test_wrong_use(folder, command, words, complaint):
    code, out, err = command("check", *words)
    assert (code, out) == (2, "")
    assert complaint in err


def test_module_that_fails_is_told_without_traceback(folder, command):
    (folder / "kw_broken.py").write_text("1 / 0\n")
    code, out, err = command("check", "kw_broken:MyEnv")
    assert (code, out) == (1, "")
    assert "importing kw_broken failed: ZeroDivisionError" in err
    assert "Traceback" not in err
