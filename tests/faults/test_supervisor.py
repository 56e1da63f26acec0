"""Trainers that crash and hang under a supervisor, and the memory that outlives them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.training.storage.checkpoint_writer import Snapshot
from kiloworlds.training.survival.lifeline import Lifeline
from kiloworlds.training.survival.supervisor import Limits, Supervisor

TINY = {
    "num_envs": 4,
    "num_steps": 16,
    "num_minibatches": 4,
    "total_steps": 64 * 40,
    "hidden_sizes": (8,),
}
ARRAYS = {"state/learner/weights": np.arange(6, dtype=np.float32).reshape(1, 6)}


@pytest.fixture
def lifeline():
    line = Lifeline.create()
    yield line
    line.close()


def test_the_newest_snapshot_that_is_whole_is_found(lifeline, monkeypatch):
    assert lifeline.newest() is None
    for step in (100, 200, 300):
        lifeline.keep(Snapshot(step, ARRAYS, {"seconds": step / 100}))
    monkeypatch.setenv(*next(iter(lifeline.environment.items())))
    other = Lifeline.given()
    newest = other.newest()
    assert (newest.step, newest.facts) == (300, {"seconds": 3.0})
    np.testing.assert_array_equal(newest.arrays["state/learner/weights"], np.arange(6)[None])
    slots = lifeline.descriptors[1:]
    torn = next(slot for slot in slots if lifeline._header(slot)[0] == 3)
    content = bytearray(os.pread(torn, 10**6, 0))
    for damaged in (content[:-1], content[:40], b"", content[:-9] + b"x" + content[-8:]):
        os.ftruncate(torn, 0)
        os.pwrite(torn, damaged, 0)
        assert other.newest().step == 200
    other.keep(Snapshot(400, ARRAYS, {}))  # the older of those that are whole stays
    assert lifeline.newest().step == 400


def test_signs_of_life_and_the_place_of_the_run(lifeline, tmp_path):
    assert lifeline.last_beat() is None
    assert lifeline.path is None
    lifeline.path = tmp_path / "a-long-name"
    lifeline.path = tmp_path
    lifeline.beat(7)
    assert lifeline.path == tmp_path
    assert lifeline.last_beat().updates == 7
    assert time.monotonic() - lifeline.last_beat().time < 10
    lifeline.forget_beat()
    assert lifeline.last_beat() is None
    assert lifeline.path == tmp_path


TRAIN = """
import os, signal, sys, time
from pathlib import Path
import kiloworlds as kw

path, resume = Path(sys.argv[1]), sys.argv[2] == "resume"

def listen(row):
    for name, at in (("crash", 12), ("hang", 25)):
        marker = path.with_name(name)
        if row["step"] >= 64 * at and not marker.exists():
            marker.touch()
            time.sleep(0.6)  # a snapshot in memory is due
            if name == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)

settings = {} if resume else SETTINGS
kw.train("ppo", "CartPole-v1", run_dir=path, resume=resume, on_metrics=listen, **settings)
"""


def children(pid=None):
    """The living children of a process, by default this one."""
    tasks = f"/proc/{pid or os.getpid()}/task"
    found = []
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/children") as file:
            found += map(int, file.read().split())
    return found


def test_a_trainer_that_crashes_and_hangs_ends_as_if_it_had_not(tmp_path):
    whole = kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "whole", **TINY)
    code = TRAIN.replace("SETTINGS", repr(TINY | {"checkpoint_seconds": None}))
    path, said = tmp_path / "run", []
    command = [sys.executable, "-c", code, str(path)]
    supervisor = Supervisor(
        [*command, "begin"],
        lambda found: [*command, "resume"],
        Limits(hang_seconds=3.0),
        said.append,
    )
    before = set(children())
    assert supervisor.run() == 0
    assert set(children()) <= before
    assert len(said) == 2
    assert "was killed by SIGKILL after update" in said[0]
    assert "gave no sign of life for 3 s and was killed" in said[1]
    run = kw.load(path)
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["trainer crashed", "resumed"] * 2
    # No checkpoint was on the disk: it went on from memory.
    assert [event["step"] > 0 for event in events if event["event"] == "resumed"] == [True, True]
    timed = ("seconds", "fps")
    rows = [
        [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]
        for lines in (
            (each.path / "metrics.jsonl").read_text().splitlines() for each in (whole, run)
        )
    ]
    assert rows[0] == rows[1]
    mine, theirs = run.load_checkpoint().arrays, whole.load_checkpoint().arrays
    for name, array in theirs.items():
        np.testing.assert_array_equal(mine[name], array, err_msg=name)


SLOW_TO_COME_BACK = """
import contextlib, os, signal, time
from pathlib import Path
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

died = Path(__file__).with_name("died")

class Mortal(CartPoleEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = 0
        if died.exists():
            time.sleep(3.5)

    def step(self, action):
        self.steps += 1
        if self.steps == 100 and not died.exists():
            with contextlib.suppress(FileExistsError):  # one of them dies, once
                died.open("x").close()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)
"""
TRAIN_IT = """
import sys
from pathlib import Path
import kiloworlds as kw

sys.path.insert(0, sys.argv[2])
settings = dict(num_envs=2, num_steps=32, num_minibatches=2, total_steps=512, hidden_sizes=(8,))
kw.train("ppo", "mortal:Mortal", run_dir=sys.argv[1], backend="process", num_workers=2, **settings)
"""


def test_a_trainer_that_waits_for_its_workers_does_not_hang(tmp_path):
    (tmp_path / "mortal.py").write_text(SLOW_TO_COME_BACK)
    run = str(tmp_path / "run")
    code, said = supervise(
        sys.executable, "-c", TRAIN_IT, run, str(tmp_path), start_seconds=120.0, hang_seconds=3.0
    )
    assert (code, said) == (0, [])
    assert (tmp_path / "died").exists()
    assert kw.load(run).metrics["environments/restarts"][-1] == 1


def supervise(*command, said=None, **limits):
    said = [] if said is None else said
    return Supervisor(command, lambda path: command, Limits(**limits), said.append).run(), said


@pytest.mark.parametrize("code", [0, 2, 130, 143])
def test_ends_that_are_meant_are_final(code):
    assert supervise("sh", "-c", f"exit {code}") == (code, [])


def test_a_trainer_that_gets_nowhere_is_given_up(tmp_path):
    began = time.monotonic()
    code, said = supervise(
        "sh", "-c", f"echo >> {tmp_path}/tries; exit 1", crashes_without_progress=2
    )
    assert code == 1
    assert (tmp_path / "tries").read_text().count("\n") == 3
    assert said[-1] == (
        "the trainer failed with exit code 1; that happened 3 times without getting further: giving up."
    )
    assert 3.0 <= time.monotonic() - began < 15  # it waits 1 s, then 2 s


def test_a_signal_is_handed_on_and_is_final(tmp_path):
    ready = tmp_path / "ready"
    script = f"trap 'exit 143' TERM; touch {ready}; while :; do sleep 0.05; done"

    def interrupt():
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert supervise("sh", "-c", script) == (143, [])
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


SUPERVISED = """
import sys
from kiloworlds.training.survival.supervisor import Limits, Supervisor
child = '''
import os, time
from kiloworlds.training.survival.lifeline import Lifeline
from kiloworlds.training.survival.supervisor import die_with
die_with(Lifeline.given().supervisor)
print(os.getpid(), flush=True)
time.sleep(3600)
'''
Supervisor([sys.executable, "-c", child], lambda path: [], Limits(), print).run()
"""


def test_no_trainer_outlives_its_supervisor():
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISED], stdout=subprocess.PIPE, text=True
    )
    trainer = int(process.stdout.readline())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{trainer}") and time.monotonic() < deadline:
        with open(f"/proc/{trainer}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":  # dead, and nobody has looked yet
                return
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{trainer}")
