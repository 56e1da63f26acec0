"""What several agents learn with our presets, and JaxMARL's IPPO beside them at equal steps.

    python benchmarks/learning.py [--only "mappo smax/3m" ...] [--seeds N] [--peers-python PATH]

Writes results/learning.json. Only the trainings made are replaced in it, so one preset can be
measured again after a change. Trainings run one at a time.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import RESULTS, Competitor, commit, compare, log, machine, versions

import kiloworlds as kw
from kiloworlds.evaluation.evaluate import evaluate_run
from kiloworlds.training.presets import preset

EPISODES = 512  # of every seed, with the most likely actions
POINTS = 50  # of a curve
PATH = RESULTS / "learning.json"
PEER = "JaxMARL's IPPO"


class Task(NamedTuple):
    """An algorithm on an environment; `settings` are those that make a task of its own (such as
    whether the players of a dilemma look after each other), beside the preset."""

    algorithm: str
    env: str
    settings: dict[str, Any] = {}  # noqa: RUF012
    label: str = ""

    @property
    def name(self) -> str:
        return f"{self.algorithm} {self.env}" + (f", {self.label}" if self.label else "")


_PARTICLES = ("mpe/simple_spread_v3", "mpe/simple_reference_v3", "mpe/simple_tag_v3")
TASKS = [
    *(Task(algorithm, env) for env in _PARTICLES for algorithm in ("ippo", "mappo")),
    *(Task(algorithm, _PARTICLES[0]) for algorithm in ("vdn", "qmix", "pqn_vdn")),
    *(Task(algorithm, _PARTICLES[1]) for algorithm in ("vdn", "qmix")),
    Task("mappo", "smax/3m"),
    Task("mappo", "smax/2s3z"),
    Task("ippo", "overcooked/cramped_room"),
    Task("ippo", "coin_game", {}, "selfish"),
    Task("ippo", "coin_game", {"env_kwargs": {"shared_rewards": True}}, "cooperative"),
    Task("vdn", "switch_riddle"),
    Task("mappo", "hanabi/small-2p"),
]
PEER_TASKS = (*_PARTICLES, "smax/3m")


def measure(task: Task, num_seeds: int) -> dict[str, Any]:
    """Trains with the preset and plays each seed's most likely actions."""
    base = preset(task.algorithm, task.env)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = kw.train(
            task.algorithm,
            task.env,
            num_seeds=num_seeds,
            run_dir=Path(folder) / "run",
            **task.settings,
        )
        seconds = time.perf_counter() - start
        metrics = run.metrics
        played = [
            evaluate_run(run, episodes=EPISODES, seed_index=index) for index in range(num_seeds)
        ]
        greedy: dict[str, Any] = {"return": [round(one.mean_return, 4) for one in played]}
        if played[0].win_rate is not None:
            greedy["win_rate"] = [one.win_rate for one in played]
        greedy["agents"] = {
            name: round(statistics.fmean(one.agent_returns[name] for one in played), 4)
            for name in played[0].agent_returns
        }
    if task.env == "coin_game":
        greedy["own_coins_share"] = [own_coins(run, index) for index in range(num_seeds)]
    return {
        "settings": base | task.settings,
        "seeds": num_seeds,
        "steps": int(metrics["step"][-1]),
        "seconds_all_seeds": round(seconds, 1),
        "curves": curves(metrics),
        "greedy": greedy,
        "greedy_episodes": EPISODES,
    } | facts(["kiloworlds", "jax", "numpy"])


def own_coins(run: Any, seed_index: int) -> float:
    """The share of the coins picked up that were of the player's own colour: 0.5 where players do not
    care, 1 where they leave each other's."""
    envs = kw.make("coin_game", EPISODES, **run.config.get("env_kwargs", {}))
    policy = run.policy.select_seed(seed_index)
    observations, infos = envs.reset(seed=10_000)
    for _ in range(99):  # the last step of an episode starts the next
        actions = policy.act(observations, infos=infos)
        observations, _, _, _, infos = envs.step(actions)
    own, others = infos["own_coins"].sum(), infos["other_coins"].sum()
    return round(float(own / (own + others)), 4)


def curves(metrics: dict[str, Any]) -> dict[str, Any]:
    """The rows of a run's metrics at about POINTS places: `step`, and by name a value per seed."""
    steps = np.asarray(metrics["step"], float)
    places = np.searchsorted(steps, np.linspace(0, steps[-1], POINTS + 1)[1:])
    places = np.unique(np.minimum(places, len(steps) - 1))
    found: dict[str, Any] = {"step": [int(steps[place]) for place in places]}
    for name in metrics:
        if name.startswith(("rollout/ep_rew_mean", "rollout/win_rate")):
            rows = [np.asarray(metrics[name][place], float) for place in places]
            found[name.removeprefix("rollout/")] = [
                [None if np.isnan(value) else round(float(value), 4) for value in np.ravel(row)]
                for row in rows
            ]
    return found


def measure_peer(env: str, num_seeds: int, steps: int, python: str) -> dict[str, Any] | None:
    """JaxMARL's IPPO in its published settings; None where it is not installed."""
    settings = {"env": env, "total_steps": steps}
    (record,) = compare([Competitor(PEER, "peers/jaxmarl_ippo.py", settings, python)], num_seeds)
    if "absent" in record:
        return None
    rounds = record["rounds"]
    own = [curve for one in rounds for curve in one["curves"]]
    found: dict[str, Any] = {"step": own[0]["steps"]}
    for ours, theirs in (("ep_rew_mean", "returns"), ("win_rate", "win_rate")):
        if theirs == "returns" or env.startswith("smax/"):
            found[ours] = [list(row) for row in zip(*(c[theirs] for c in own), strict=True)]
    return {
        "settings": {},
        "seeds": num_seeds,
        "steps": rounds[0]["steps"],
        "seconds_all_seeds": round(sum(one["seconds"] for one in rounds), 1),
        "curves": found,
        "versions": record["versions"],
    } | facts([])


def facts(packages: list[str]) -> dict[str, Any]:
    known: dict[str, Any] = {
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": machine() | {"threads": os.environ.get("PJRT_NPROC", "all")},
    }
    return known | ({"versions": versions(packages)} if packages else {})


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [task.name for task in TASKS] + [f"{PEER} {env}" for env in PEER_TASKS]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each training")
    parser.add_argument("--peers-python", default=sys.executable, help="has jaxmarl installed")
    options = parser.parse_args()

    def trainings() -> dict[str, Any]:
        """Those known by now: another process may have added its own."""
        return json.loads(PATH.read_text())["trainings"] if PATH.exists() else {}

    def keep(name: str, record: dict[str, Any]) -> None:
        known = trainings() | {name: record}
        ordered = {one: known[one] for one in names if one in known}
        content = {"question": "learning", "trainings": ordered}
        PATH.write_text(json.dumps(content, indent=1) + "\n")

    for task in TASKS:
        if task.name in options.only:
            record = measure(task, options.seeds)
            keep(task.name, record)
            log(f"{task.name}: {record['greedy']}, {record['seconds_all_seeds']} s")
    for env in PEER_TASKS:
        if f"{PEER} {env}" in options.only:
            same = [
                one["steps"]
                for name, one in trainings().items()
                if name in (f"ippo {env}", f"mappo {env}")
            ]
            record = measure_peer(
                env, options.seeds, max(same, default=2**20), options.peers_python
            )
            if record is not None:
                keep(f"{PEER} {env}", record)


if __name__ == "__main__":
    main()
