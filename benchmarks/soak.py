"""A training that is hurt at random for twenty minutes: does it end, right, and is nothing left?

    python benchmarks/soak.py [--minutes 20] [--seed 0] [--faults "worker killed" NaN ...]

`kiloworlds train --supervise` trains PPO on LunarLander in worker processes; its run directory is on
a disk of its own (a small tmpfs, which needs `unshare`). Meanwhile, at seeded random times: workers
are killed or stopped, environments give NaN, the disk is filled, the trainer is killed or stopped.
Afterwards: were all steps trained, does any process, file handle or shared memory remain, did memory
grow?
"""

import contextlib
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from harness import HERE, SOURCE, arguments, log, write_results

import kiloworlds as kw
from kiloworlds.training.storage.run_files import read_events

ENV_ID = "soak_env:FlakyLander"
MARK = "KILOWORLDS_SOAK"
NUM_ENVS, NUM_STEPS = 8, 128
STEPS_PER_UPDATE = NUM_ENVS * NUM_STEPS
STEP_TIMEOUT, HANG_TIMEOUT = 3.0, 120.0
"""Seconds. Training stands still while it waits for workers, of which one that fails again and again
is started again after 30 s only; several of them, one after the other, look like a hanging trainer."""
FAULTS = {
    "worker killed": 8,
    "worker stopped": 5,
    "NaN": 8,
    "disk full": 3,
    "trainer killed": 0.6,
    "trainer stopped": 0.25,
}
"""How often each happens, compared with the others."""
PAUSE = (3.0, 15.0)
"""Seconds between two faults."""
FULL_SECONDS = 10.0
LOOK_SECONDS = 2.0
WARM_UP = 45.0
"""Seconds of a process's life after which its memory must not grow."""
SHORTEST = 60.0
"""Seconds after that, for a slope that means something."""


def start(run: Path, folder: Path, steps: int) -> subprocess.Popen:
    """The training, in a group of its own."""
    command = [sys.executable, "-m", "kiloworlds.cli.main", "train", "ppo", ENV_ID]
    settings = {
        "num-envs": NUM_ENVS,
        "num-steps": NUM_STEPS,
        "num-minibatches": 4,
        "backend": "process",
        "num-workers": 4,
        "step-timeout": STEP_TIMEOUT,
        "max-restarts": 100_000,
        "total-steps": steps,
        "checkpoint-seconds": 5,
        "run-dir": run,
        "hang-timeout": HANG_TIMEOUT,
        "env-kwargs": json.dumps({"folder": str(folder)}),
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    paths = [str(SOURCE), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [*command, *flags, "--supervise", "--import", "soak_env"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), MARK: str(folder)},
        stdout=(folder / "said").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class Processes:
    """The supervisor, the trainer and the workers that are there now."""

    def __init__(self, supervisor: int):
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    parent = int(
                        Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1]
                    )
                    children.setdefault(parent, []).append(int(entry))
        self.supervisor = supervisor
        trainers = children.get(supervisor, [])
        self.trainer = trainers[0] if trainers else None
        self.workers = [child for child in children.get(self.trainer or 0, []) if _is_worker(child)]


def _is_worker(process: int) -> bool:
    with contextlib.suppress(OSError):
        return b"vector.process.worker" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def private_megabytes(process: int) -> float:
    """Memory that is this process's alone."""
    told = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+:\s+(\d+)", told)) / 1024


def open_files(process: int) -> int:
    """File descriptors."""
    return len(os.listdir(f"/proc/{process}/fd"))


def hurt(kind: str, processes: Processes, folder: Path, disk: Path, draw: random.Random) -> bool:
    """Does one of the faults; False if it cannot be done just now."""
    if kind == "NaN":
        (folder / f"nan-{time.monotonic_ns()}").touch()
        return True
    if kind == "disk full":
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        time.sleep(FULL_SECONDS)
        filler.unlink()
        return True
    if kind.startswith("worker"):
        victims = processes.workers
    else:
        victims = [] if processes.trainer is None else [processes.trainer]
    if not victims:
        return False
    number = signal.SIGKILL if kind.endswith("killed") else signal.SIGSTOP
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(victims), number)
    return True


class Record:
    """What was seen of each process over its life."""

    def __init__(self):
        self.memory: dict[tuple[str, int], list[tuple[float, float]]] = {}
        self.files: dict[tuple[str, int], list[int]] = {}

    def look(self, processes: Processes) -> None:
        """Looks at all that are there."""
        now = time.monotonic()
        people = [("supervisor", processes.supervisor)]
        people += [("worker", worker) for worker in processes.workers]
        people += [("trainer", processes.trainer)] if processes.trainer else []
        for role, process in people:
            with contextlib.suppress(OSError):
                seen = (now, private_megabytes(process)), open_files(process)
                self.memory.setdefault((role, process), []).append(seen[0])
                self.files.setdefault((role, process), []).append(seen[1])

    def slopes(self) -> dict[str, list[tuple[float, float]]]:
        """By role: how long each process was watched once it was warm (minutes), and by how much its
        memory grew (megabytes per minute)."""
        told: dict[str, list[tuple[float, float]]] = {}
        for (role, _), points in self.memory.items():
            times, sizes = np.array(points).T
            warm = times > times[0] + WARM_UP
            if warm.any() and np.ptp(times[warm]) >= SHORTEST:
                minutes = (times[warm] - times[warm][0]) / 60
                slope = float(np.polyfit(minutes, sizes[warm], 1)[0])
                told.setdefault(role, []).append((float(minutes[-1]), slope))
        return told

    def most_files(self) -> dict[str, tuple[int, int]]:
        """By role: the median number of file descriptors, and the largest."""
        told = {}
        for wanted in ("supervisor", "trainer", "worker"):
            seen = [n for (role, _), many in self.files.items() if role == wanted for n in many]
            if seen:
                told[wanted] = (int(np.median(seen)), max(seen))
        return told


def soak(
    minutes: float, seed: int, steps: int | None, disk: Path, kinds: list[str]
) -> dict[str, Any]:
    """Trains and hurts in these ways; returns what was found."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    if steps is None:
        steps = calibrated(folder, disk, minutes)
    run = disk / "run"
    log(f"{steps:,} steps; faults drawn with seed {seed}; notes in {folder}")
    shared_before = set(os.listdir("/dev/shm"))
    process = start(run, folder, steps)
    began = time.monotonic()
    draw, done, record = random.Random(seed), Counter(), Record()
    next_fault, looked = began + 20.0, 0.0
    while process.poll() is None:
        now = time.monotonic()
        processes = Processes(process.pid)
        if now - looked > LOOK_SECONDS:
            record.look(processes)
            looked = now
        if now > next_fault:
            kind = draw.choices(kinds, [FAULTS[kind] for kind in kinds])[0]
            if hurt(kind, processes, folder, disk, draw):
                done[kind] += 1
                log(f"  {now - began:6.0f} s: {kind}")
            next_fault = time.monotonic() + draw.uniform(*PAUSE)
        time.sleep(0.2)
    seconds = time.monotonic() - began
    time.sleep(2.0)
    return {
        "seconds": seconds,
        "faults": dict(done),
        "exit_code": process.returncode,
        **_outcome(_rescued(folder) or run, steps),
        "memory_growth": {
            role: {
                "processes": len(told),
                "minutes": sum(minutes for minutes, _ in told),
                "mean": sum(m * slope for m, slope in told) / sum(m for m, _ in told),
                "most": max(slope for _, slope in told),
            }
            for role, told in record.slopes().items()
        },
        "files": record.most_files(),
        "processes_left": _left(str(folder)),
        "shared_memory_left": sorted(set(os.listdir("/dev/shm")) - shared_before),
        "said": (folder / "said").read_text()[-4000:],
    }


def _rescued(folder: Path) -> Path | None:
    """Where the run is if the disk was full when training ended."""
    told = re.search(
        r"the run with its newest checkpoint is in '(.+)'", (folder / "said").read_text()
    )
    return None if told is None else Path(told[1])


def _outcome(path: Path, steps: int) -> dict[str, Any]:
    run = kw.load(path)
    rows = run.metrics["step"]
    wanted = math.ceil(steps / STEPS_PER_UPDATE) * STEPS_PER_UPDATE
    arrays = run.load_checkpoint().arrays
    events = read_events(path)
    crashes = [event for event in events if event["event"] == "trainer crashed"]
    pairs = [
        (event["update"], after["step"] // STEPS_PER_UPDATE)
        for event, after in itertools.pairwise(events)
        if event["event"] == "trainer crashed" and after["event"] == "resumed" and event["update"]
    ]
    return {
        "steps": run.steps,
        "steps_wanted": wanted,
        "rows": len(rows),
        "rows_in_order": bool((np.diff(rows) > 0).all()),
        "largest_gap_between_rows": int(np.diff(rows).max()),
        "finite": all(
            bool(np.isfinite(array).all()) for array in arrays.values() if array.dtype.kind == "f"
        ),
        "trainer_crashes": len(crashes),
        "updates_lost_in_each": [reached - resumed for reached, resumed in pairs],
        "final_return": float(np.nanmean(run.metrics["rollout/ep_rew_mean"][-5:])),
    }


def _left(mark: str) -> list[int]:
    """Processes that the training started and that are still there."""
    wanted = f"{MARK}={mark}".encode()
    left = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    left.append(int(entry))
    return left


def calibrated(folder: Path, disk: Path, minutes: float) -> int:
    """How many steps take about so long, from a training that nobody hurts."""
    seconds = []
    for number, steps in enumerate((8_192, 40_960)):
        began = time.monotonic()
        process = start(disk / f"calibration-{number}", folder, steps)
        if process.wait():
            raise RuntimeError((folder / "said").read_text())
        seconds.append(time.monotonic() - began)
    rate = 32_768 / (seconds[1] - seconds[0])
    # Faults cost about a third of the time.
    return int(rate * minutes * 60 * 2 / 3)


def main() -> None:
    assert __doc__ is not None
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="about how long")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--steps", type=int, help="of the training, in place of minutes")
    faults_help = "which happen (default: all); without the trainer's it lives all the time"
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=[*FAULTS], help=faults_help)
    disk_help = "a small disk, which is filled now and then (default: a tmpfs of 8 MB)"
    parser.add_argument("--disk", type=Path, help=disk_help)
    options = parser.parse_args()
    if options.disk is None:  # again, where a small disk can be mounted
        disk = tempfile.mkdtemp(prefix="soak-disk-")
        mount = f'mount -t tmpfs -o size=8m none {disk} && exec "$@"'
        again = [sys.executable, __file__, *sys.argv[1:], "--disk", disk]
        sys.exit(subprocess.call(["unshare", "-Urm", "sh", "-c", mount, "sh", *again]))
    minutes = 2.0 if options.quick else options.minutes
    found = soak(minutes, options.seed, options.steps, options.disk, options.faults)
    for name, value in found.items():
        log(f"{name}: {value}")
    asked = {"question": "soak", "seed": options.seed, "kinds": options.faults}
    cell = asked | {"records": found}
    write_results("soak", {"rounds": 1, "cells": [cell]}, options.quick, options.update)


if __name__ == "__main__":
    main()
