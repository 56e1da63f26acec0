"""What the PPO presets reach: trains every environment with three seeds and plays the policies.

    python benchmarks/presets.py [--envs ID ...] [--seeds N]

Writes results/presets.json. Only the environments trained are replaced in it, so one preset can be
measured again after a change.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import RESULTS, commit, log, machine, versions

import kiloworlds as kw
from kiloworlds.core.registry import find_spec
from kiloworlds.evaluation.evaluate import evaluate_run
from kiloworlds.training.presets import PRESETS

EPISODES = 256
# One hand pays -1, 0 or 1: a mean over 256 of them is known to 0.12 only.
MORE_EPISODES = {"Blackjack-v1": 102_400}
PATH = RESULTS / "presets.json"


def measure(env_id: str, num_seeds: int) -> dict[str, Any]:
    """Trains with the preset and plays each seed's most likely actions."""
    settings = PRESETS["ppo"][env_id]
    # Environments outside XLA train one seed at a time.
    together = find_spec(env_id) is not None
    batches = [(0, num_seeds)] if together else [(seed, 1) for seed in range(num_seeds)]
    training, greedy, seconds, steps = [], [], 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for seed, count in batches:
            start = time.perf_counter()
            run = kw.train(
                "ppo", env_id, seed=seed, num_seeds=count, run_dir=Path(folder) / str(seed)
            )
            seconds += time.perf_counter() - start
            steps = int(run.metrics["step"][-1])
            training += [float(mean) for mean in run.metrics["rollout/ep_rew_mean"][-1]]
            episodes = MORE_EPISODES.get(env_id, EPISODES)
            returns = evaluate_run(run, episodes=episodes).returns
            greedy += [round(float(row.mean()), 4) for row in returns]
    return {
        "settings": settings,
        "seeds": list(range(num_seeds)),
        "steps_per_seed": steps,
        "seconds_all_seeds": round(seconds, 1),
        "training_return": training,
        "greedy_return": greedy,
        "greedy_episodes": MORE_EPISODES.get(env_id, EPISODES),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": machine() | {"threads": os.environ.get("PJRT_NPROC", "all")},
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=list(PRESETS["ppo"]), help="ids (default all)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds per environment")
    options = parser.parse_args()
    content = {"question": "presets", "environments": {}}
    if PATH.exists():
        content = json.loads(PATH.read_text())
    content["versions"] = versions(["kiloworlds", "jax", "numpy", "gymnasium"])
    RESULTS.mkdir(exist_ok=True)
    for env_id in options.envs:
        record = measure(env_id, options.seeds)
        content["environments"][env_id] = record
        PATH.write_text(json.dumps(content, indent=1) + "\n")
        log(f"{env_id}: greedy {record['greedy_return']}, {record['seconds_all_seeds']} s")


if __name__ == "__main__":
    main()
