"""Whether trainings survive, and what that costs.

    python benchmarks/survival.py [--questions kill damage cost resume signals guard]

`kill`: trainings killed (kill -9) at random moments, resumed, and compared bit by bit with one that was
never stopped. `damage`: checkpoints with a flipped bit or cut off. `cost`: throughput with and
without checkpoints. `resume`: how long it takes until a training that was killed goes on. `signals`: how
long training takes to end after Ctrl-C and SIGTERM. `guard`: throughput with and without looking for
numbers that are not finite.
"""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import arguments, log, median_interval, write_results

from kiloworlds.training.storage.checkpoint import CheckpointStore, DamagedCheckpointError

TRAIN = """
import json, sys
import kiloworlds as kw
algorithm, env, path, settings = sys.argv[1:]
kw.train(algorithm, env, run_dir=path, on_metrics=lambda row: print(row["step"], flush=True),
         **json.loads(settings))
"""

KILLED = [
    ("ppo", "CartPole-v1", {"total_steps": 200_000, "checkpoint_updates": 3}),
    (
        "mappo",
        "mpe/simple_spread_v3",
        {
            "total_steps": 49_152,
            "num_envs": 16,
            "num_steps": 64,
            "network": "gru",
            "checkpoint_updates": 2,
        },
    ),
]


def start(algorithm: str, env: str, path: Path, settings: dict[str, Any]) -> subprocess.Popen:
    """A training in a process of its own, which prints a line for each row."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, algorithm, env, str(path), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen) -> str:
    """Waits for a training; returns what it said.

    Raises:
        RuntimeError: it failed.
    """
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a training ended with {process.returncode}: {said}")
    return said


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a run without what the clock says."""
    rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [{key: row[key] for key in row if key not in ("seconds", "fps")} for row in rows]


def state_of(path: Path) -> tuple[int, dict[str, bytes]]:
    """All arrays of the last checkpoint of a run, and its step."""
    store = CheckpointStore(path / "checkpoints")
    checkpoint = store.load(store.steps()[-1])
    return checkpoint.step, {name: array.tobytes() for name, array in checkpoint.arrays.items()}


def kill(folder: Path, kills: int, wanted: list[str]) -> list[dict[str, Any]]:
    """Kills trainings at random moments and compares how they end."""
    cells = []
    for algorithm, env, settings in KILLED:
        if algorithm not in wanted:
            continue
        whole = folder / "whole"
        process = start(algorithm, env, whole, settings)
        process.stdout.readline()
        began = time.perf_counter()
        finished(process)
        lasts = time.perf_counter() - began
        wanted = state_of(whole), rows_of(whole)
        draw = random.Random(0)
        outcomes, wrong_rows, unreadable, in_save = [], 0, 0, 0
        for number in range(kills):
            path = folder / f"killed-{number}"
            process = start(algorithm, env, path, settings)
            while not list((path / "checkpoints").glob("[0-9]*")):
                if process.poll() is not None:
                    raise RuntimeError("a training ended before its first checkpoint")
                time.sleep(0.005)
            time.sleep(draw.uniform(0, lasts))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            in_save += any((path / "checkpoints").glob("tmp-*"))
            store = CheckpointStore(path / "checkpoints")
            for step in store.steps():
                try:
                    store.load(step)
                except DamagedCheckpointError:
                    unreadable += 1
            if store.steps()[-1] < wanted[0][0]:
                finished(start(algorithm, env, path, settings | {"resume": True}))
            outcomes.append(state_of(path) == wanted[0])
            wrong_rows += rows_of(path) != wanted[1]
            shutil.rmtree(path)
        shutil.rmtree(whole)
        cells.append(
            {
                "question": "kill",
                "training": f"{algorithm} {env}",
                "settings": settings,
                "records": {
                    "kills": kills,
                    "bit_equal": sum(outcomes),
                    "with_other_rows": wrong_rows,
                    "unreadable_checkpoints": unreadable,
                    "killed_while_saving": in_save,
                },
            }
        )
        log(
            f"  {algorithm} {env}: {sum(outcomes)} of {kills} bit-equal, {in_save} killed in a save"
        )
    return cells


def damage(folder: Path, cases: int) -> list[dict[str, Any]]:
    """Flips bits of a real checkpoint, cuts its files off, deletes them."""
    path = folder / "damaged"
    settings = {"total_steps": 20_000, "checkpoint_updates": 5, "keep_checkpoints": 2}
    finished(start("ppo", "CartPole-v1", path, settings))
    store = CheckpointStore(path / "checkpoints")
    *_, older, newest = store.steps()
    whole = shutil.copytree(store.path(newest), folder / "kept")
    draw, detected, fell_back = random.Random(0), 0, 0
    for _ in range(cases):
        file = store.path(newest) / draw.choice(sorted(os.listdir(whole)))
        content = bytearray(file.read_bytes())
        place = draw.randrange(len(content))
        if draw.random() < 0.5:
            content[place] ^= 1 << draw.randrange(8)
        else:
            del content[place:]
        file.write_bytes(content)
        said: list[str] = []
        fell_back += store.load_newest(said.append).step == older
        detected += len(said) == 1
        shutil.rmtree(store.path(newest))
        shutil.copytree(whole, store.path(newest))
    log(f"  {detected} of {cases} detected, {fell_back} times the one before was taken")
    facts = {"cases": cases, "detected": detected, "fell_back": fell_back}
    return [{"question": "damage", "records": facts}]


COST = """
import json, os, sys, time
import kiloworlds as kw
from kiloworlds.training import trainer
algorithm, env, path, settings = sys.argv[1:]
stops = []
offer = trainer.Trainer._offer
def timed(self):
    began = time.perf_counter()
    offer(self)
    stops.append(time.perf_counter() - began)
trainer.Trainer._offer = timed
rows = []
def listen(row):
    rows.append((row["step"], time.perf_counter()))
for line in sys.stdin:
    del rows[:], stops[:]
    kw.train(algorithm, env, run_dir=path, on_metrics=listen, **json.loads(settings))
    (first, began), (last, ended) = rows[len(rows) // 10], rows[-1]
    print(json.dumps({"rate": (last - first) / (ended - began), "stops": stops}), flush=True)
"""

LARGE = {
    "total_steps": 20 * 1024,
    "num_envs": 32,
    "num_steps": 32,
    "num_epochs": 1,
    "num_minibatches": 4,
    "hidden_sizes": [5000, 5000],
}
"""Two networks of 25 M parameters each."""

COSTS = [
    ("default interval", "ppo", "CartPole-v1", {"total_steps": 25_000_000}, {}),
    (
        "every 10th update",
        "ppo",
        "CartPole-v1",
        {"total_steps": 1_000_000},
        {"checkpoint_updates": 10},
    ),
    (
        "every 10th update, 50 M parameters",
        "ppo",
        "CartPole-v1",
        LARGE,
        {"checkpoint_updates": 10},
    ),
]


def cost(folder: Path, rounds: int, wanted: list[str]) -> list[dict[str, Any]]:
    """Trains with and without checkpoints, in turn."""
    cells = []
    for name, algorithm, env, settings, checkpoints in COSTS:
        if name not in wanted:
            continue
        none = {"checkpoint_seconds": None}
        with (
            _worker(algorithm, env, folder / "with", settings | checkpoints) as saving,
            _worker(algorithm, env, folder / "without", settings | none) as plain,
        ):
            pairs = []
            for number in range(rounds + 1):
                order = (saving, plain) if number % 2 else (plain, saving)
                told = {id(worker): _ask(worker) for worker in order}
                if number:  # the first compiles
                    pairs.append((told[id(saving)], told[id(plain)]))
        ratios = [with_["rate"] / without["rate"] for with_, without in pairs]
        stops = [stop for with_, _ in pairs for stop in with_["stops"]]
        middle, interval = median_interval(ratios)
        facts = {
            "rate_without": statistics.median(without["rate"] for _, without in pairs),
            "ratio": middle,
            "interval": interval,
            "saves": len(stops),
            "stop_median_ms": 1e3 * statistics.median(stops) if stops else None,
            "stop_most_ms": 1e3 * max(stops) if stops else None,
        }
        case = {"question": "cost", "case": name, "settings": settings | checkpoints}
        cells.append(case | {"records": facts})
        log(
            f"  {name}: {middle:.3f} of the speed {interval}, "
            f"stops of {facts['stop_median_ms']} ms, at most {facts['stop_most_ms']}"
        )
    return cells


@contextmanager
def _worker(algorithm: str, env: str, path: Path, settings: dict[str, Any]) -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, "-c", COST, algorithm, env, str(path), json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def _ask(worker: Any) -> dict[str, Any]:
    worker.stdin.write("\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


def resume(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """From the start of the command to the first row after a kill, compiled programs being cached."""
    path = folder / "resumed"
    settings = {"total_steps": 2_000_000, "checkpoint_seconds": 1.0}  # a row each tenth of a second
    process = start("ppo", "CartPole-v1", path, settings)
    while not list((path / "checkpoints").glob("[0-9]*")):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        process = start("ppo", "CartPole-v1", path, settings | {"resume": True})
        process.stdout.readline()
        seconds.append(time.perf_counter() - began)
        process.kill()
        process.communicate()
    log(f"  {statistics.median(seconds):.2f} s to the first row")
    facts = {"seconds": seconds, "median": statistics.median(seconds)}
    return [{"question": "resume", "records": facts}]


def signals(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """From the signal to the end of the process."""
    cells = []
    for number in (signal.SIGINT, signal.SIGTERM):
        seconds = []
        for index in range(rounds):
            path = folder / f"signal-{number}-{index}"
            process = start("ppo", "CartPole-v1", path, {"total_steps": 200_000_000})
            process.stdout.readline()
            began = time.perf_counter()
            process.send_signal(number)
            finished(process)
            seconds.append(time.perf_counter() - began)
            CheckpointStore(path / "checkpoints").load_newest(log)
        log(f"  {number.name}: at most {max(seconds):.2f} s")
        cells.append({"question": "signals", "signal": number.name, "records": seconds})
    return cells


GUARD = """
import json, sys, time
import jax, jax.numpy as jnp
import kiloworlds as kw
from kiloworlds.training.loops import guard
algorithm, env, guarded = sys.argv[1:]
if guarded == "0":
    nothing = guard.Fault(jnp.int32(0), jnp.int32(0), jnp.int32(0))
    guard.find = lambda seen: (nothing, jnp.zeros(seen["reward"].shape[1], bool))
    guard.all_finite = lambda tree: jnp.bool_(True)
    guard.keep = lambda is_fault, old, new: new
from kiloworlds.training.config import build_config
from kiloworlds.training.make_training import make_training
from kiloworlds.training.placement import configure_devices
from kiloworlds.training.presets import preset
config = build_config(algorithm, env, preset(algorithm, env) | {"total_steps": 10**9})
configure_devices(config)
training = make_training(config)
state = training.init()
state, _ = training.run(state, 1)
began = time.perf_counter()
state, _ = training.run(state, 1)
count = max(1, min(256, int(2 / (time.perf_counter() - began))))
for line in sys.stdin:
    began = time.perf_counter()
    state, _ = training.run(state, count)
    rate = count * config.steps_per_update / (time.perf_counter() - began)
    print(json.dumps({"rate": rate}), flush=True)
"""


def watch(rounds: int) -> list[dict[str, Any]]:
    """Throughput with the guard over that without."""
    cells = []
    for algorithm, env in (("ppo", "CartPole-v1"), ("ippo", "mpe/simple_spread_v3")):
        workers = {
            guarded: subprocess.Popen(
                [sys.executable, "-c", GUARD, algorithm, env, guarded],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for guarded in ("1", "0")
        }
        ratios = []
        for number in range(rounds):
            order = ("1", "0") if number % 2 else ("0", "1")
            told = {guarded: _ask(workers[guarded])["rate"] for guarded in order}
            ratios.append(told["1"] / told["0"])
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
        middle, interval = median_interval(ratios)
        log(f"  {algorithm} {env}: {middle:.3f} of the speed without, {interval}")
        cells.append(
            {
                "question": "guard",
                "training": f"{algorithm} {env}",
                "records": {"ratio": middle, "interval": interval},
            }
        )
    return cells


def main() -> None:
    parser = arguments(__doc__ or "")
    names = ("kill", "damage", "cost", "resume", "signals", "guard")
    parser.add_argument("--questions", nargs="+", default=names, choices=names)
    parser.add_argument("--kills", type=int, default=50, help="of each training")
    killed = [algorithm for algorithm, *_ in KILLED]
    parser.add_argument("--killed", nargs="+", default=killed, choices=killed)
    cases = [case for case, *_ in COSTS]
    parser.add_argument("--costs", nargs="+", default=cases, choices=cases, metavar="CASE")
    options = parser.parse_args()
    quick = options.quick
    rounds = 2 if quick else options.rounds or 7
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = {
            "kill": lambda: kill(folder, 2 if quick else options.kills, options.killed),
            "damage": lambda: damage(folder, 20 if quick else 200),
            "cost": lambda: cost(folder, rounds, options.costs),
            "resume": lambda: resume(folder, rounds),
            "signals": lambda: signals(folder, rounds),
            "guard": lambda: watch(rounds),
        }
        for question in options.questions:
            log(question)
            cells += asked[question]()
    write_results("survival", {"rounds": rounds, "cells": cells}, quick, options.update)


if __name__ == "__main__":
    main()
