"""How fast evidence is gathered: evaluations, sweeps, statistics.

    python benchmarks/evidence.py [--questions eval sweep bootstrap profile]

`eval`: 1,000 episodes of CartPole by a trained policy, beside stable-baselines3's `evaluate_policy` with
a policy of the same size. `sweep`: 16 learning rates with 4 seeds as one population, beside as many
single runs: of the command, and in one process whose programs are compiled already. `bootstrap`:
aggregates of 10 algorithms on 20 tasks with 10 seeds, 50,000 resamples. `profile`: steps per second of a
training that is not profiled, in pairs of processes: one in which the profiler is loaded, and one in
which no module of it is.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import arguments, log, write_results

import kiloworlds as kw
from kiloworlds.evaluation.statistics import aggregate

PEER = """
import json, sys, time
import gymnasium, torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
envs = make_vec_env("CartPole-v1", n_envs=8)
model = PPO("MlpPolicy", envs, seed=0, n_steps=128, batch_size=256, learning_rate=1e-3, device="cpu")
model.learn(150_000)
episodes = int(sys.argv[1])
evaluate_policy(model, envs, n_eval_episodes=8)
began = time.perf_counter()
returns, lengths = evaluate_policy(model, envs, n_eval_episodes=episodes, return_episode_rewards=True)
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "steps": sum(lengths), "mean_return": sum(returns) / episodes}))
"""


def evaluations(folder: Path, rounds: int, episodes: int, peer: str | None) -> list[dict[str, Any]]:
    """Both policies last about as long, so that steps are compared, and so are episodes."""
    kw.train("ppo", "CartPole-v1", run_dir=folder / "eval", total_steps=200_000)
    run = kw.load(folder / "eval")
    run.evaluate(episodes=episodes)
    seconds, steps = [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        told = run.evaluate(episodes=episodes)
        seconds.append(time.perf_counter() - began)
        steps = int(told.lengths.sum())
    facts: dict[str, Any] = {"episodes": episodes, "seconds": seconds, "steps": steps}
    log(f"  ours: {statistics.median(seconds):.2f} s for {steps:,} steps")
    if peer is not None:
        few = max(8, episodes // 10)
        asked = subprocess.run(
            [peer, "-c", PEER, str(few)], capture_output=True, text=True, check=True
        )
        theirs = json.loads(asked.stdout.splitlines()[-1])
        ours = steps / statistics.median(seconds)
        facts |= {"peer": theirs | {"episodes": few}}
        facts["times_the_peers_steps_per_second"] = ours / (theirs["steps"] / theirs["seconds"])
        log(f"  stable-baselines3: {theirs}; {facts['times_the_peers_steps_per_second']:.0f} times")
    return [{"question": "eval", "records": facts}]


RATES = [float(rate) for rate in np.geomspace(1e-4, 1e-2, 16)]
SEEDS = 4
_TIMED = 8
"""Single runs that are timed, of the 64: the others take as long."""


def sweep(folder: Path, steps: int) -> list[dict[str, Any]]:
    """The same 64 trainings, together and one by one."""
    command = [sys.executable, "-m", "kiloworlds.cli.main", "train", "ppo", "CartPole-v1"]
    common = ["--total-steps", str(steps)]
    population = json.dumps({"learning_rate": RATES})

    def timed(path: Path, *flags: str) -> float:
        began = time.perf_counter()
        subprocess.run(
            [*command, *common, *flags, "--run-dir", str(path)], check=True, capture_output=True
        )
        return time.perf_counter() - began

    flags = ["--population", population, "--num-seeds", str(SEEDS)]
    first = timed(folder / "compiles", *flags)
    together = timed(folder / "together", *flags)
    timed(folder / "compiles-one", "--learning-rate", "0.001")
    chosen = [RATES[index] for index in np.linspace(0, len(RATES) - 1, _TIMED).round().astype(int)]
    single = [
        timed(
            folder / f"single-{index}", "--learning-rate", str(rate), "--seed", str(index % SEEDS)
        )
        for index, rate in enumerate(chosen)
    ]
    in_process = []
    for index, rate in enumerate(chosen):
        began = time.perf_counter()
        kw.train(
            "ppo",
            "CartPole-v1",
            run_dir=folder / f"in-process-{index}",
            total_steps=steps,
            learning_rate=rate,
        )
        in_process.append(time.perf_counter() - began)
    count = len(RATES) * SEEDS
    facts = {
        "steps": steps,
        "together_first_seconds": first,
        "together_seconds": together,
        "single_seconds": single,
        "in_process_seconds": in_process,
        "times_as_fast_as_commands": count * statistics.median(single) / together,
        "times_as_fast_as_in_one_process": count * statistics.median(in_process[1:]) / together,
    }
    log(f"  {together:.1f} s together, {first:.1f} s with compiling")
    for name in ("times_as_fast_as_commands", "times_as_fast_as_in_one_process"):
        log(f"  {name}: {facts[name]:.1f}")
    return [{"question": "sweep", "records": facts}]


def bootstrap(rounds: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    scores = {f"a{name}": [random.gamma(2.0, 0.4, 10) for _ in range(20)] for name in range(10)}
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        aggregate(scores, resamples=50_000)
        seconds.append(time.perf_counter() - began)
    log(f"  {statistics.median(seconds):.2f} s")
    return [{"question": "bootstrap", "records": {"seconds": seconds}}]


UNPROFILED = """
import sys
import kiloworlds as kw
folder, steps, is_loaded = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "loaded"
if is_loaded:
    import kiloworlds.profiling.run, kiloworlds.profiling.fused, kiloworlds.profiling.trace
metrics = kw.train("ppo", "CartPole-v1", run_dir=folder, total_steps=steps).metrics
if not is_loaded:
    assert not [name for name in sys.modules if name.startswith("kiloworlds.profiling")]
first, last = min(4, len(metrics["step"]) - 2), -1  # what is compiled comes before
passed = metrics["seconds"][last] - metrics["seconds"][first]
print((metrics["step"][last] - metrics["step"][first]) / passed)
"""


def unprofiled(folder: Path, rounds: int, steps: int) -> list[dict[str, Any]]:
    """Pairs in turn, as the machine has other things to do too."""

    def rate(name: str, round: int) -> float:
        words = [
            sys.executable,
            "-c",
            UNPROFILED,
            str(folder / f"{name}-{round}"),
            str(steps),
            name,
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1])

    rates: dict[str, list[float]] = {"loaded": [], "absent": []}
    for round in range(rounds):
        for name in list(rates)[:: 1 if round % 2 else -1]:
            rates[name].append(rate(name, round))
    pairs = zip(rates["loaded"], rates["absent"], strict=True)
    ratios = [loaded / absent for loaded, absent in pairs]
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    log(f"  {middle:.3f} of the steps per second without it; pairs from {low:.3f} to {high:.3f}")
    return [{"question": "profile", "records": {"steps": steps, "rates": rates, "ratios": ratios}}]


def main() -> None:
    parser = arguments(__doc__ or "")
    names = ("eval", "sweep", "bootstrap", "profile")
    parser.add_argument("--questions", nargs="+", default=names, choices=names)
    parser.add_argument("--peer-python", help="an interpreter with stable-baselines3")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds or 5
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = 20_000 if options.quick else 200_000
        asked = {
            "eval": lambda: evaluations(folder, rounds, 1000, options.peer_python),
            "sweep": lambda: sweep(folder, steps),
            "bootstrap": lambda: bootstrap(rounds),
            "profile": lambda: unprofiled(folder, 2 * rounds, 5 * steps),
        }
        for question in options.questions:
            log(question)
            cells += asked[question]()
    write_results("evidence", {"rounds": rounds, "cells": cells}, options.quick, options.update)


if __name__ == "__main__":
    main()
