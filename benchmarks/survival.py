"""Whether trainings survive, and what that costs.

    python benchmarks/survival.py [--questions kill damage cost large resume signals guard]

`kill`: trainings killed (kill -9) at random moments, resumed, and compared bit by bit with one that was
never stopped. `damage`: checkpoints with a flipped bit or cut off. `cost`: throughput with and
without checkpoints. `large`: the same of a policy of 50 M parameters. `resume`: how long it takes
until a training that was killed goes on. `signals`: how long training takes to end after Ctrl-C and
SIGTERM. `guard`: throughput with and without looking for numbers that are not finite.
"""

import itertools
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
    rate = (last - first) / (ended - began)
    times = [when for _, when in rows]
    print(json.dumps({"rate": rate, "stops": stops, "times": times}), flush=True)
"""

COSTS = [
    ("default interval", "ppo", "CartPole-v1", {"total_steps": 25_000_000}, {}),
    (
        "every 10th update",
        "ppo",
        "CartPole-v1",
        {"total_steps": 1_000_000},
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
        with_path, without_path = str(folder / "with"), str(folder / "without")
        with (
            _worker(COST, algorithm, env, with_path, json.dumps(settings | checkpoints)) as saving,
            _worker(COST, algorithm, env, without_path, json.dumps(settings | none)) as plain,
        ):
            pairs = []
            for number in range(rounds + 1):
                order = (saving, plain) if number % 2 else (plain, saving)
                told = {id(worker): _ask(worker) for worker in order}
                pair = told[id(saving)], told[id(plain)]
                rates = " and ".join(f"{one['rate']:.0f}" for one in pair)
                log(f"    {name}: {rates} steps/s with and without checkpoints")
                if number:  # the first compiles
                    pairs.append(pair)
        ratios = [with_["rate"] / without["rate"] for with_, without in pairs]
        stops = [stop for with_, _ in pairs for stop in with_["stops"]]
        middle, interval = median_interval(ratios)
        facts = {
            "rate_without": statistics.median(without["rate"] for _, without in pairs),
            "ratio": middle,
            "interval": interval,
            "saves": len(stops),
            "seconds_between_saves": _seconds_between_saves(settings, pairs) if stops else None,
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


def _seconds_between_saves(settings: dict[str, Any], pairs: list[tuple[dict, dict]]) -> float:
    times = [settings["total_steps"] / with_["rate"] / len(with_["stops"]) for with_, _ in pairs]
    return statistics.median(times)


LARGE = {
    "total_steps": 61 * 1024,
    "num_envs": 32,
    "num_steps": 32,
    "num_epochs": 1,
    "num_minibatches": 4,
    "hidden_sizes": [5000, 5000],
    "checkpoint_updates": 10,
}
"""Two networks of 25 M parameters each."""


def large(folder: Path) -> list[dict[str, Any]]:
    """What checkpoints of a policy of 50 M parameters cost, within one training.

    An update takes seconds, and the machine's speed differs by more between two trainings than
    checkpoints cost. A save is over within five updates; the five after them are what the ten
    between two saves are compared with.
    """
    with _worker(COST, "ppo", "CartPole-v1", str(folder / "large"), json.dumps(LARGE)) as worker:
        told = _ask(worker)
    times = told["times"][10:]  # a row for each update; the first save follows the tenth
    seconds = [ended - began for began, ended in itertools.pairwise(times)]
    between = [seconds[start : start + 10] for start in range(0, len(seconds) - 9, 10)]
    shares = [10 * statistics.median(ten[5:]) / sum(ten) for ten in between]
    middle, interval = median_interval(shares)
    stops = [1e3 * stop for stop in told["stops"]]
    log(f"  50 M parameters: {middle:.3f} of the speed {interval}, stops of {stops} ms")
    facts = {
        "ratio": middle,
        "interval": interval,
        "update_seconds": between,
        "stops_ms": stops,
    }
    return [{"question": "large", "settings": LARGE, "records": facts}]


@contextmanager
def _worker(script: str, *words: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def _ask(worker: subprocess.Popen, question: str = "") -> Any:
    worker.stdin.write(question + "\n")
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
from kiloworlds.training.config import build_config
from kiloworlds.training.loops import guard
from kiloworlds.training.make_training import make_training
from kiloworlds.training.placement import configure_devices
from kiloworlds.training.presets import preset
algorithm, env = sys.argv[1:]
config = build_config(algorithm, env, preset(algorithm, env) | {"total_steps": 10**9})
configure_devices(config)
count = 1

def timed(training, state):
    began = time.perf_counter()
    state, _ = training.run(state, count)
    return time.perf_counter() - began, state

guarded = make_training(config)
with_guard = timed(guarded, guarded.init())[1]
nothing = guard.Fault(jnp.int32(0), jnp.int32(0), jnp.int32(0))
guard.find = lambda seen: (nothing, jnp.zeros(seen["reward"].shape[1], bool))
guard.all_finite = lambda tree: jnp.bool_(True)
guard.keep = lambda is_fault, old, new: new
unguarded = make_training(config)
without = timed(unguarded, unguarded.init())[1]
seconds, with_guard = timed(guarded, with_guard)
count = max(1, round(0.2 / seconds))
timed(guarded, with_guard); timed(unguarded, without)
with_guard, without = guarded.init(), unguarded.init()
for line in sys.stdin:
    pair = {}
    for name in ("with", "without") if int(line) % 2 else ("without", "with"):
        if name == "with":
            pair[name], with_guard = timed(guarded, with_guard)
        else:
            pair[name], without = timed(unguarded, without)
    print(json.dumps(pair["without"] / pair["with"]), flush=True)
"""


def watch(rounds: int) -> list[dict[str, Any]]:
    """Throughput with the guard over that without.

    Both programs are in one process and take turns of a fifth of a second, since processes differ
    by more than the guard costs; several processes, since a process has its luck.
    """
    cells = []
    for algorithm, env in (("ppo", "CartPole-v1"), ("ippo", "mpe/simple_spread_v3")):
        processes = []
        for _ in range(rounds):
            with _worker(GUARD, algorithm, env) as worker:
                turns = [_ask(worker, str(turn)) for turn in range(50)]
            processes.append(statistics.median(turns))
        middle, interval = median_interval(processes)
        log(f"  {algorithm} {env}: {middle:.3f} of the speed without, {interval}")
        facts = {"ratio": middle, "interval": interval, "processes": processes}
        cells.append({"question": "guard", "training": f"{algorithm} {env}", "records": facts})
    return cells


def main() -> None:
    parser = arguments(__doc__ or "")
    names = ("kill", "damage", "cost", "large", "resume", "signals", "guard")
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
            "large": lambda: large(folder),
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
