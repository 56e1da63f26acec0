"""Trains presets with several seeds, plays what they learnt, and keeps both in results/learning.json.

    python benchmarks/learning.py [--only "mappo smax/3m" ...] [--seeds N] [--peers-python PATH]

Only the trainings made are replaced, so that one preset can be measured again after a change. Each is
made in a process of its own, one after the other. `scripts/results` writes docs/results from it.
"""

import argparse
import datetime
import difflib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, SOURCE, Competitor, commit, compare, log, machine, versions
from learning_tasks import BY_NAME, PEER, PEER_ENVS, TASKS, Task

sys.path.insert(0, str(SOURCE))

import kiloworlds as kw
from kiloworlds.evaluation.clock import without_compilation
from kiloworlds.training.config import build_config
from kiloworlds.training.evaluate import EVALUATION_SEED, evaluate_all
from kiloworlds.training.presets import preset
from kiloworlds.training.report import Row
from kiloworlds.training.run import Run
from kiloworlds.training.train import train_config

POINTS = 50
"""Of a curve: each is the mean over a fiftieth of the training."""
PATH = RESULTS / "learning.json"
PACKAGES = ["kiloworlds", "jax", "numpy", "gymnasium"]
_CURVES = ("rollout/ep_rew_mean", "rollout/win_rate")


# ------------------------------------------------------------------------------------------- ours


def measure(task: Task, num_seeds: int, share: float = 1.0) -> dict[str, Any]:
    """Trains with the preset and plays each seed's most likely actions.

    Args:
        share: of the training, after which it stops; then nothing is played.
    """
    batches = [(seed, 1) for seed in range(num_seeds)] if task.apart else [(0, num_seeds)]
    played: list[dict[str, Any]] = []
    curves, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed, count in batches:
            began = time.perf_counter()
            run = train(task, seed, count, share, Path(folder) / str(seed))
            seconds += time.perf_counter() - began
            curves.append(curves_of(run, share))
            if share == 1.0:
                played.append(play(task, run))
    record: dict[str, Any] = {
        "settings": preset(task.algorithm, task.env) | task.settings,
        "seeds": num_seeds,
        "steps": curves[0]["step"][-1],
        "seconds_all_seeds": round(seconds, 1),
        "curves": side_by_side(curves),
    }
    if played:
        record["greedy"] = together(played)
        record["greedy_episodes"] = task.episodes
    return record | facts(PACKAGES)


def train(task: Task, seed: int, count: int, share: float, path: Path) -> Run:
    """One run of `count` seeds, which ends after a share of its steps."""
    settings = preset(task.algorithm, task.env) | task.settings | {"seed": seed, "num_seeds": count}
    config = build_config(task.algorithm, task.env, settings)
    done = 0.0

    def follow(row: Row) -> None:
        nonlocal done
        done = row["step"] / config.total_steps

    return train_config(
        config, run_dir=path, on_metrics=follow, on_progress=follow, stop=lambda: done >= share
    )


def play(task: Task, run: Run) -> dict[str, Any]:
    """The returns of each seed's final policy, and what else tells how it plays; a value per seed."""
    seeds = range(run.policy.num_seeds)
    policies = [run.policy.select_seed(index) for index in seeds]
    played = evaluate_all(run, task.episodes, EVALUATION_SEED, policies)
    told: dict[str, Any] = {
        "return": [round(one.mean_return, 4) for one in played],
        "return_error": [round(_error(one.returns), 4) for one in played],
    }
    won = [one.won for one in played if one.won is not None]
    if won:
        told["win_rate"] = [float(each.mean()) for each in won]
        told["win_rate_error"] = [round(_error(each), 4) for each in won]
    by_agent = [one.agent_returns for one in played if one.agent_returns is not None]
    if by_agent:
        means = np.concatenate(by_agent).mean(axis=0)
        told["agents"] = dict(zip(played[0].agents, means.round(4).tolist(), strict=True))
    if task.env == "coin_game":
        told["own_coins_share"] = [own_coins(run, index, task.episodes) for index in seeds]
    return told


def _error(values: np.ndarray) -> float:
    """The standard error of a mean."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def own_coins(run: Run, seed_index: int, episodes: int) -> float:
    """The share of the coins picked up that were of the player's own colour: 0.5 where players do not
    care, 1 where they leave each other's."""
    envs = kw.make("coin_game", episodes, **run.config.get("env_kwargs", {}))
    policy = run.policy.select_seed(seed_index)
    observations, infos = envs.reset(seed=10_000)
    for _ in range(99):  # the last step of an episode starts the next
        actions = policy.act(observations, infos=infos)
        observations, _, _, _, infos = envs.step(actions)
    own, others = infos["own_coins"].sum(), infos["other_coins"].sum()
    return round(float(own / (own + others)), 4)


def curves_of(run: Run, share: float) -> dict[str, Any]:
    """A run's metrics in POINTS parts of the whole training, as many as were trained: the last `step` of
    each, its `seconds` without compilation, and by name the means over its rows, one per seed."""
    metrics = run.metrics
    steps = np.asarray(metrics["step"], float)
    seconds = np.asarray(metrics["seconds"], float)
    clock = without_compilation(steps, seconds)
    whole = steps[-1] if share == 1.0 else run.config["total_steps"]
    part_of = np.minimum(np.ceil(steps / whole * POINTS).astype(int), POINTS)
    # Of a training that was ended the last part may not be whole.
    parts = [part for part in np.unique(part_of) if share == 1.0 or part <= round(share * POINTS)]
    last = [np.flatnonzero(part_of == part)[-1] for part in parts]
    found: dict[str, Any] = {
        "step": [int(steps[row]) for row in last],
        "seconds": [round(float((seconds if clock is None else clock)[row]), 2) for row in last],
    }
    for name in metrics:
        if name.startswith(_CURVES):
            rows = np.asarray(metrics[name], float).reshape(len(steps), -1)
            found[name.removeprefix("rollout/")] = [_means(rows[part_of == part]) for part in parts]
    return found


def _means(rows: np.ndarray) -> list[float | None]:
    """Of each column, over what is known of it; None where nothing is."""
    known = np.isfinite(rows)
    totals, counts = np.where(known, rows, 0).sum(axis=0), known.sum(axis=0)
    return [
        round(float(total / count), 4) if count else None
        for total, count in zip(totals, counts, strict=True)
    ]


def side_by_side(curves: list[dict[str, Any]]) -> dict[str, Any]:
    """Curves of several runs of the same length as one of all their seeds; seconds are their mean."""
    first, *_ = curves
    found: dict[str, Any] = {
        "step": first["step"],
        "seconds": [
            round(statistics.fmean(row), 2)
            for row in zip(*(one["seconds"] for one in curves), strict=True)
        ],
    }
    for name in first:
        if name not in found:
            rows = zip(*(one[name] for one in curves), strict=True)
            found[name] = [[value for part in row for value in part] for row in rows]
    return found


def together(played: list[dict[str, Any]]) -> dict[str, Any]:
    """What several runs' policies reached, as that of one run with all their seeds."""
    return {
        name: [value for one in played for value in one[name]]
        if isinstance(played[0][name], list)
        else {
            agent: statistics.fmean(one[name][agent] for one in played) for agent in played[0][name]
        }
        for name in played[0]
    }


# -------------------------------------------------------------------------------------- the peer's


def measure_peer(env: str, num_seeds: int, python: str) -> dict[str, Any] | None:
    """JaxMARL's IPPO in its published settings, for as many steps as ours; None where it is absent."""
    ours = [known()[name]["steps"] for name in (f"ippo {env}", f"mappo {env}") if name in known()]
    settings = {"env": env, "total_steps": max(ours, default=2**20)}
    (record,) = compare([Competitor(PEER, "peers/jaxmarl_ippo.py", settings, python)], num_seeds)
    if "absent" in record:
        return None
    rounds = record["rounds"]
    own = [curve for one in rounds for curve in one["curves"]]
    seconds = statistics.fmean(one["seconds"] for one in rounds)
    steps = own[0]["steps"]
    found: dict[str, Any] = {
        "step": steps,
        "seconds": [round(seconds * step / steps[-1], 2) for step in steps],
    }
    for ours_is, theirs in (("ep_rew_mean", "returns"), ("win_rate", "win_rate")):
        if theirs == "returns" or env.startswith("smax/"):
            found[ours_is] = [list(row) for row in zip(*(c[theirs] for c in own), strict=True)]
    return {
        "settings": {},
        "seeds": num_seeds,
        "steps": rounds[0]["steps"],
        "seconds_all_seeds": round(sum(one["seconds"] for one in rounds), 1),
        "curves": found,
        "versions": record["versions"],
    } | facts([])


# --------------------------------------------------------------------------------------- keeping


def facts(packages: list[str]) -> dict[str, Any]:
    """Where and with what it was measured."""
    found: dict[str, Any] = {
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": machine() | {"threads": os.environ.get("PJRT_NPROC", "all")},
    }
    return found | ({"versions": versions(packages)} if packages else {})


def known() -> dict[str, Any]:
    """The trainings measured by now."""
    return json.loads(PATH.read_text())["trainings"] if PATH.exists() else {}


def keep(name: str, record: dict[str, Any]) -> None:
    """Adds one to them, or replaces it."""
    trainings = known() | {name: record}
    ordered = {one: trainings[one] for one in NAMES if one in trainings}
    RESULTS.mkdir(exist_ok=True)
    content = {"question": "learning", "trainings": ordered}
    PATH.write_text(json.dumps(content, indent=1) + "\n")


PEER_NAMES = {f"{PEER} {env}": env for env in PEER_ENVS}
NAMES = [*BY_NAME, *PEER_NAMES]


def one(name: str, num_seeds: int | None, peers_python: str) -> None:
    """Measures and keeps one of NAMES."""
    if name in PEER_NAMES:
        record = measure_peer(PEER_NAMES[name], num_seeds or 3, peers_python)
    else:
        record = measure(BY_NAME[name], num_seeds or BY_NAME[name].seeds)
    if record is None:
        log(f"{name}: {PEER} is not installed")
        return
    keep(name, record)
    log(f"{name}: {record.get('greedy', '')}, {record['seconds_all_seeds']} s")


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[t.name for t in TASKS], metavar="NAME")
    parser.add_argument("--seeds", type=int, help="seeds of each training")
    parser.add_argument("--peers-python", default=sys.executable, help="has jaxmarl installed")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in NAMES]
    if unknown:
        near = difflib.get_close_matches(unknown[0], NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        parser.exit(2, f"{unknown[0]!r} is not among what is trained: {'; '.join(NAMES)}{hint}\n")
    if len(options.only) == 1:
        one(options.only[0], options.seeds, options.peers_python)
        return 0
    failed = []
    for name in options.only:
        arguments = ["--only", name, "--peers-python", options.peers_python]
        arguments += ["--seeds", str(options.seeds)] if options.seeds else []
        if subprocess.run([sys.executable, __file__, *arguments]).returncode:
            failed.append(name)
    if failed:
        log(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
