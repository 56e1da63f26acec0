"""Checkpoints that cannot lie: flipped bits, missing files, a full disk, a kill while saving."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.checkpoint import (
    CheckpointStore,
    DamagedCheckpointError,
    NoCheckpointError,
    Retention,
)
from kiloworlds.training.storage.run_files import read_events

ARRAYS = {
    "state/learner/weights": np.linspace(0, 1, 300, dtype=np.float32).reshape(1, 300),
    "state/updates": np.array([7], np.int32),
    "state/nothing": np.zeros((1, 0), np.float32),
    "state/flags": np.array([[True, False]]),
}
FILES = ("state.safetensors", "manifest.json", "SHA256SUMS")


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (100, 200):
        store.save(step, ARRAYS, {"score": -step})
    return store


def damage(path: Path, draw: random.Random) -> str:
    """Flips a bit of a file, or cuts it off, or deletes it; tells what."""
    file = path / draw.choice(FILES)
    content = bytearray(file.read_bytes())
    place = draw.randrange(len(content))
    match draw.choice(("flip", "flip", "cut", "delete", "empty")):
        case "flip":
            content[place] ^= 1 << draw.randrange(8)
        case "cut":
            del content[place:]
        case "empty":
            content.clear()
        case _:
            file.unlink()
            return f"{file.name} deleted"
    file.write_bytes(content)
    return f"{file.name} changed at {place}"


def test_whatever_happens_to_its_files_is_noticed(store, tmp_path):
    draw = random.Random(0)
    whole = shutil.copytree(store.path(200), tmp_path / "whole")
    for _ in range(200):
        done, said = damage(store.path(200), draw), []
        with pytest.raises(DamagedCheckpointError, match=r"checkpoints/200' is damaged"):
            store.load(200)
        assert store.load_newest(said.append).step == 100, done
        assert len(said) == 1, done
        assert "Trying the one before it" in said[0]
        shutil.rmtree(store.path(200))
        shutil.copytree(whole, store.path(200))
    assert store.load_newest(pytest.fail).step == 200


def test_what_was_saved_comes_back(store):
    loaded = store.load(200)
    assert loaded.facts["score"] == -200
    assert loaded.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
        assert loaded.arrays[name].dtype == array.dtype
    assert store.load(200, only="state/learner/").arrays.keys() == {"state/learner/weights"}
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=store.path(200), check=False)
    assert sums.returncode == 0


def test_if_all_are_damaged_nothing_is_made_up(store):
    for step in (100, 200):
        (store.path(step) / "SHA256SUMS").write_text("")
    with pytest.raises(NoCheckpointError, match=r"all of \[200, 100\] are damaged"):
        store.load_newest(lambda words: None)


def test_what_is_none_of_ours_is_refused(store, tmp_path):
    path = store.path(200)
    (path / "weights.pkl").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(DamagedCheckpointError, match=r"it has weights\.pkl besides"):
        store.load(200)
    (path / "weights.pkl").unlink()
    other = tmp_path / "elsewhere"
    shutil.move(path / "state.safetensors", other)
    (path / "state.safetensors").symlink_to(other)
    with pytest.raises(DamagedCheckpointError, match=r"state\.safetensors is a link"):
        store.load(200)
    shutil.rmtree(path)
    path.mkdir()
    with zipfile.ZipFile(path / "policy.zip", "w") as file:
        file.writestr("policy.pth", b"")
    with pytest.raises(DamagedCheckpointError, match=r"lacks SHA256SUMS.*has policy\.zip besides"):
        store.load(200)


def test_a_checkpoint_under_another_name_is_none(store):
    shutil.copytree(store.path(200), store.path(99999))
    with pytest.raises(DamagedCheckpointError, match=r"of step 200, not of .* of step 99999"):
        store.load(99999)
    store.path(100).rename(store.folder / "0100")
    assert store.steps() == [200, 99999]
    said = []
    assert store.load_newest(said.append).step == 200
    assert len(said) == 1


@pytest.mark.parametrize("score", ['"high"', "[1]", "true", "NaN", "null", "[" * 20_000])
def test_an_odd_score_is_none(store, score):
    manifest = (store.path(200) / "manifest.json").read_text()
    rewrite(store.path(200), "manifest.json", manifest.replace("-200", score).encode())
    assert store.best_step() == 100
    store.prune(Retention(1, best=True))


def rewrite(path: Path, name: str, content: bytes) -> None:
    """Changes a file and makes the sums fit, as a forger would."""
    (path / name).write_bytes(content)
    sums = subprocess.run(
        ["sha256sum", "manifest.json", "state.safetensors"],
        cwd=path,
        check=True,
        capture_output=True,
    )
    (path / "SHA256SUMS").write_bytes(sums.stdout)


def test_a_newer_format_is_told_from_damage(store):
    manifest = json.loads((store.path(200) / "manifest.json").read_text()) | {"version": 99}
    rewrite(store.path(200), "manifest.json", json.dumps(manifest).encode())
    with pytest.raises(RunDirectoryError, match="has format 99, and this version") as caught:
        store.load_newest(pytest.fail)
    assert not isinstance(caught.value, DamagedCheckpointError)


@pytest.mark.parametrize(
    "content",
    [(2 << 30).to_bytes(8, "little") + b"{}", b"", b"\x02" + bytes(7) + b"{}x", b"PK\x03\x04"],
)
def test_forged_arrays_are_refused(store, content):
    rewrite(store.path(200), "state.safetensors", content)
    if content[8:] == b"{}x":
        with contextlib.suppress(DamagedCheckpointError):
            assert store.load(200).arrays == {}
        return
    with pytest.raises(DamagedCheckpointError, match="is damaged, or not of kiloworlds"):
        store.load(200)


def test_which_checkpoints_stay(tmp_path):
    store = CheckpointStore(tmp_path)
    scores = {100: 1.0, 200: 9.0, 300: None, 400: 3.0, 500: 4.0, 600: 5.0, 700: 2.0}
    for step, score in scores.items():
        store.save(step, ARRAYS, {"score": score})
        store.prune(Retention(last=2, best=True, every=250))
    assert store.steps() == [200, 300, 500, 600, 700]
    assert store.best_step() == 200
    store.prune(Retention(last=1, best=False))
    assert store.steps() == [700]
    assert [entry.name for entry in tmp_path.iterdir()] == ["700"]


def test_what_a_dead_process_left_is_swept_away(store):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f"tmp-300-{dead.pid}", f"tmp-200-{dead.pid}-old", f"tmp-300-{os.getpid()}"):
        (store.folder / name).mkdir()
    store.sweep()
    assert sorted(entry.name for entry in store.folder.iterdir()) == [
        "100",
        "200",
        f"tmp-300-{os.getpid()}",
    ]


SAVE = """
import sys
import numpy as np
from kiloworlds.training.storage.checkpoint import CheckpointStore, Retention
store = CheckpointStore(__import__("pathlib").Path(sys.argv[1]))
arrays = {"state/learner/weights": np.full((1, 300), 2.0, np.float32)}
print("ready", flush=True)
sys.stdin.readline()
store.save(int(sys.argv[2]), arrays, {"score": None})
store.prune(Retention(last=1, best=False))
print("saved", flush=True)
sys.stdin.readline()
"""


def saving_killed_at(folder: Path, step: int, calls: str, number: int) -> bool:
    """Saves a checkpoint in another process, which strace kills at the n-th of some system calls.

    Returns:
        Whether it was killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE, str(folder), str(step)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    inject = f"inject={calls}:signal=SIGKILL:when={number}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-e", f"trace={calls}", "-e", inject, "-p", str(process.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    while "attached" not in tracer.stderr.readline():
        assert tracer.poll() is None
    process.stdin.write("\n")
    process.stdin.flush()
    saved = process.stdout.readline() == "saved\n"
    process.kill()
    process.communicate()
    tracer.communicate()
    return not saved


CALLS = {
    "rename": "rename,renameat,renameat2",
    "fsync": "fsync",
    "write": "write,pwrite64",
    "mkdir": "mkdir,mkdirat",
    "unlink": "unlink,unlinkat,rmdir",
}
FEW = [("rename", 1), ("rename", 2), ("fsync", 2), ("unlink", 3)]
MANY = [(name, number) for name in CALLS for number in range(1, 13)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("call", "number"),
    [*FEW, *(pytest.param(*one, marks=pytest.mark.slow) for one in MANY if one not in FEW)],
)
@pytest.mark.parametrize("step", [300, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_while_saving_leaves_the_old_or_the_new(store, call, number, step):
    before = {step: store.load(step) for step in (100, 200)}
    killed = saving_killed_at(store.folder, step, CALLS[call], number)
    newest = store.load_newest(pytest.fail)
    assert newest.step in ((step,) if not killed else (100, 200, step))
    assert newest.step == 100 or newest.step in (200, 300)
    for found in store.steps():
        weights = store.load(found).arrays["state/learner/weights"]
        is_new = (weights == 2.0).all()
        is_old = found in before and np.array_equal(weights, ARRAYS["state/learner/weights"])
        assert is_new or is_old
    store.sweep()
    assert {entry.name for entry in store.folder.iterdir()} == set(map(str, store.steps()))


TRAIN = """
import os, pathlib, shutil, subprocess, sys
import kiloworlds as kw

path = pathlib.Path(sys.argv[1])
rows = []

def listen(row):
    rows.append(row)
    {listen}

run = kw.train(
    "ppo", "CartPole-v1", run_dir=path, on_metrics=listen, num_envs=4, num_steps=16,
    num_minibatches=4, total_steps=640, hidden_sizes=(8,), checkpoint_updates=1,
)
print(run.path, len(rows))
"""


def train(path: Path, listen: str, *around: str) -> subprocess.CompletedProcess:
    """A training in another process, into whose rows `listen` looks."""
    code = TRAIN.replace("{listen}", textwrap.indent(textwrap.dedent(listen), "    ").strip())
    return subprocess.run(
        [*around, sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check_whole(path: Path) -> None:
    """A run that has all it should have."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(64, 641, 64))
    store = CheckpointStore(path / "checkpoints")
    assert store.load_newest(pytest.fail).step == 640
    for step in store.steps():
        store.load(step)
    assert {"config.yaml", "environment.json"} <= {entry.name for entry in path.iterdir()}


def test_a_directory_that_vanishes_comes_back(tmp_path):
    path = tmp_path / "run"
    listen = """
    if len(rows) == 3:
        shutil.rmtree(path.rename(path.with_name("gone")))
    """
    done = train(path, listen)
    assert done.returncode == 0, done.stderr
    check_whole(path)


def in_namespace(size: str, path: Path) -> list[str]:
    """Runs a command where `path` is a small disk of its own; skips where that is not allowed."""
    mount = f'mount -t tmpfs -o size={size} none {path} && exec "$@"'
    around = ["unshare", "-Urm", "sh", "-c", mount, "sh"]
    probe = subprocess.run([*around, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no file systems of our own here: {probe.stderr!r}")
    return around


FILL = """
    ballast = path / "ballast"
    if len(rows) == 3:
        with open(ballast, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)): pass
            except OSError as error:
                print(error, file=sys.stderr)
"""


def test_a_full_disk_stops_nothing(tmp_path):
    path, kept = tmp_path / "run", tmp_path / "kept"
    path.mkdir()
    listen = f"""{FILL}
    if len(rows) == 7:
        ballast.unlink()
    if len(rows) == 6:
        shutil.copytree(path / "checkpoints", {str(kept)!r})
    if len(rows) == 10:
        import time
        time.sleep(1)
    """
    script = 'python="$1"; shift; "$python" "$@"; code=$?; cp -r {0} {1}; exit $code'
    around = [*in_namespace("600k", path), "sh", "-c", script.format(path, tmp_path / "copy"), "sh"]
    done = train(path, listen, *around)
    assert done.returncode == 0, done.stderr
    check_whole(tmp_path / "copy")
    told = [line for line in done.stderr.splitlines() if line.startswith("kiloworlds: ")]
    full = [line for line in told if "No space left on device" in line]
    assert 1 <= len(full) <= 2  # of metrics, of checkpoints
    assert any("are written to" in line for line in told)
    old = CheckpointStore(kept)
    for step in old.steps():  # what was there when the disk was full
        old.load(step)


def test_a_run_whose_disk_stays_full_is_rescued(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    event = """
    if len(rows) == 1:
        (path / "events.jsonl").write_text('{"event": "something happened"}\\n')
    """
    done = train(path, event + FILL, *in_namespace("600k", path))
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("kiloworlds: ")]
    assert len(told) <= 3
    rescued = Path(done.stdout.split()[0])
    assert rescued == tmp_path / "run_rescued"
    assert told[-1].endswith(f"the run with its newest checkpoint is in {str(rescued)!r}.")
    check_whole(rescued)
    assert read_events(rescued)[0] == {"event": "something happened"}


def test_half_a_rescued_run_is_not_left_behind(tmp_path):
    path, elsewhere = tmp_path / "runs" / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    event = """
    from kiloworlds.training.storage.checkpoint import CheckpointStore
    if len(rows) == 1:
        save = CheckpointStore.save

        def saved(self, *what):
            if path.parent in self.folder.parents:
                raise OSError(28, "No space left on device")
            save(self, *what)

        CheckpointStore.save = saved
    """
    done = train(path, event, "env", "-C", str(elsewhere))
    assert done.returncode == 0, done.stderr
    rescued = Path(done.stdout.split()[0])
    assert rescued == elsewhere / "run_rescued"
    check_whole(rescued)
    assert os.listdir(tmp_path / "runs") == ["run"]


def test_a_second_signal_ends_training_at_once(tmp_path):
    listen = """
    if len(rows) == 2:
        import signal
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    """
    done = train(tmp_path / "run", listen)
    assert done.returncode in (1, -signal.SIGINT)
    assert "KeyboardInterrupt" in done.stderr
