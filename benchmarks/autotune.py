"""Does --autotune find settings within 10% of the best, within a minute?

For each task it chooses, with nothing compiled before; then all settings that it could have chosen are
built and measured in turn, for longer, and its choice is compared with the fastest of them.

    python benchmarks/autotune.py [--quick] [--rounds N] [--tasks cartpole pendulum ...]
"""

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from harness import SOURCE, arguments, log, median_interval, write_results

sys.path.insert(0, str(SOURCE))

from kiloworlds.profiling.tuning.arena import Processes
from kiloworlds.profiling.tuning.autotune import tune
from kiloworlds.profiling.tuning.candidates import Candidate, first, variations
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.presets import preset

BUDGET, MOST = 45.0, 60.0
"""Seconds it is given, and may take."""
NEAR = 0.9
"""Of the fastest grid point's speed, which its choice must reach."""
FOREVER = 3600.0


@dataclass(frozen=True)
class Task:
    """What is tuned; `given` are settings that stay."""

    algorithm: str
    env_id: str
    given: dict[str, Any] = field(default_factory=dict)


TASKS = {
    "cartpole": Task("ppo", "CartPole-v1"),
    "pendulum": Task("ppo", "Pendulum-v1"),
    "spread": Task("ippo", "mpe/simple_spread_v3"),
    "lander": Task("ppo", "LunarLander-v3"),
    # Gymnasium's own, in Python: neither compiled nor in a native engine.
    "acrobot": Task("ppo", "gymnasium.envs.classic_control.acrobot:AcrobotEnv"),
}


def grid(processes: Processes, config: TrainConfig, given: dict[str, Any]) -> list[Candidate]:
    """All that could be chosen: every place to run with every variation of it."""
    kind = processes.describe()
    places = first(config, kind, given)
    return list(dict.fromkeys([*places, *variations(config, kind, given, places)]))


def measure(task: Task, rounds: int, seconds: float) -> dict[str, Any]:
    """One task: what was chosen, in what time, and how it compares."""
    settings = preset(task.algorithm, task.env_id) | task.given
    config = build_config(task.algorithm, task.env_id, settings)
    module = [task.env_id.rpartition(":")[0]] if ":" in task.env_id else []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["KILOWORLDS_CACHE_DIR"] = cache
        began = time.perf_counter()
        tuned = tune(config, task.given, seconds=BUDGET, again=True, imports=module)
        taken = time.perf_counter() - began
        log(f"  chose {tuned.settings or 'no change'} in {taken:.1f} s")
        processes = Processes(config, module, None, time.monotonic() + FOREVER)
        try:
            candidates = grid(processes, config, task.given)
            entrants = processes.open(candidates, time.monotonic() + FOREVER)
            failed = {str(one.candidate.settings): one.failure for one in entrants if one.failure}
            ready = [one.candidate for one in entrants if not one.failure]
            rates: dict[Candidate, list[float]] = {candidate: [] for candidate in ready}
            for number in range(rounds):
                for candidate in ready[:: 1 if number % 2 == 0 else -1]:
                    rates[candidate].append(processes.measure(candidate, seconds))
        finally:
            processes.close_all()
    chosen = next(one for one in ready if one.settings == tuned.settings)
    best = max(ready, key=lambda one: statistics.median(rates[one]))
    ratio, interval = median_interval(
        [a / b for a, b in zip(rates[chosen], rates[best], strict=True)]
    )
    over_base, base_interval = median_interval(
        [a / b for a, b in zip(rates[chosen], rates[Candidate()], strict=True)]
    )
    log(f"  {ratio:.2f} of the best, {best.settings}; {over_base:.2f} of what was asked")
    return {
        "algorithm": task.algorithm,
        "env_id": task.env_id,
        "given": task.given,
        "seconds": taken,
        "in_time": taken <= MOST,
        "chosen": tuned.settings,
        "why": tuned.why,
        "best": best.settings,
        "of_the_best": {"median": ratio, "interval": interval},
        "is_near": ratio >= NEAR,
        "over_what_was_asked": {"median": over_base, "interval": base_interval},
        "grid": [
            {"settings": one.settings, "rate": statistics.median(rates[one]), "rates": rates[one]}
            for one in sorted(ready, key=lambda one: -statistics.median(rates[one]))
        ],
        "failed": failed,
    }


def main() -> int:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    chosen = parser.parse_args()
    rounds = chosen.rounds or (3 if chosen.quick else 7)
    seconds = 0.2 if chosen.quick else 0.5
    cells = []
    for name in chosen.tasks:
        log(name)
        cells.append({"task": name, **measure(TASKS[name], rounds, seconds)})
    write_results("autotune", {"budget": BUDGET, "cells": cells}, chosen.quick, chosen.update)
    return 0 if all(cell["in_time"] and cell["is_near"] for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
