"""What training on existing simulators reaches, and how soon.

    python benchmarks/simulators.py [--tasks HalfCheetah-v5 LunarLander-v3 ALE/Pong-v5] [--seeds 3]
        --peers-python PATH

Trains with the presets and keeps the curves. LunarLander is also learnt by Stable-Baselines3 with the
settings of RL Baselines3 Zoo, in turn with ours, until the mean return of 100 episodes reaches 200.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from harness import HERE, arguments, log, write_results

TASKS = ("HalfCheetah-v5", "LunarLander-v3", "ALE/Pong-v5")
SOLVED = {"LunarLander-v3": 200.0, "HalfCheetah-v5": 1443.0, "ALE/Pong-v5": 0.0}
EPISODES = 30

_TRAIN = """
import json, sys
import kiloworlds as kw
env_id, seed, folder, overrides, episodes = json.loads(sys.argv[1])
run = kw.train("ppo", env_id, seed=seed, run_dir=folder, **overrides)
metrics = run.metrics
print(json.dumps({
    "step": metrics["step"].tolist(),
    "seconds": metrics["seconds"].tolist(),
    "return": [row[0] for row in metrics["rollout/ep_rew_mean"].tolist()],
    "fps": metrics["fps"][-1].item(),
    "backend": run.environment["backend"],
    "greedy_return": run.evaluate(episodes=episodes).mean_return,
}))
"""


def train(env_id: str, seed: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """One training by the preset in a process of its own."""
    import sys

    with tempfile.TemporaryDirectory() as folder:
        argument = json.dumps([env_id, seed, str(Path(folder) / "run"), overrides, EPISODES])
        return _run([sys.executable, "-c", _TRAIN, argument])


def train_sb3(seed: int, vector: str, python: str) -> dict[str, Any]:
    """One training of Stable-Baselines3 on LunarLander."""
    return _run([python, str(HERE / "peers" / "sb3_lunar.py"), str(seed), vector])


def _run(command: list[str]) -> dict[str, Any]:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    curve = json.loads(done.stdout.strip().splitlines()[-1])
    return curve | {"whole_process_seconds": round(time.perf_counter() - began, 1)}


def reached(curve: dict[str, Any], level: float) -> dict[str, Any] | None:
    """Steps and seconds until the mean return was first `level`; None if it never was."""
    for step, seconds, value in zip(curve["step"], curve["seconds"], curve["return"], strict=True):
        if value is not None and value >= level:
            return {"step": step, "seconds": seconds}
    return None


def plot(found: dict[str, Any]) -> None:
    """Draws the curves of all tasks to docs/images/benchmark_simulators.png."""
    figure, axes = plt.subplots(1, len(found), figsize=(4.2 * len(found), 3.2), squeeze=False)
    for axis, (env_id, task) in zip(axes[0], found.items(), strict=True):
        for name, colour in (("SB3", "#E69F00"), ("kiloworlds", "#0072B2")):
            for index, curve in enumerate(c for c in task["curves"] if c["name"] == name):
                axis.plot(
                    [second / 60 for second in curve["seconds"]],
                    [float("nan") if v is None else v for v in curve["return"]],
                    color=colour,
                    label=name if index == 0 else None,
                )
        axis.axhline(SOLVED[env_id], color="#666666", linestyle=":", linewidth=1)
        axis.set(title=env_id, xlabel="minutes", ylabel="mean return")
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(HERE.parent / "docs" / "images" / "benchmark_simulators.png", dpi=140)


def main() -> None:
    assert __doc__ is not None
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    update = options.update
    for env_id in options.tasks:
        curves = []
        seeds = 1 if env_id.startswith("ALE/") else options.seeds
        for seed in range(seeds):
            overrides = {"total_steps": 20_000} if options.quick else {}
            curves.append({"name": "kiloworlds", "seed": seed} | train(env_id, seed, overrides))
            if env_id == "LunarLander-v3" and not options.quick:
                theirs = train_sb3(seed, "dummy", options.peers_python)
                curves.append({"name": "SB3", "seed": seed} | theirs)
        for curve in curves:
            curve["reached"] = reached(curve, SOLVED[env_id])
            log(
                f"{env_id} {curve['name']} seed {curve['seed']}: last {curve['return'][-1]}, greedy "
                f"{curve.get('greedy_return')}, level reached {curve['reached']}"
            )
        found = {env_id: {"level": SOLVED[env_id], "curves": curves}}
        path = write_results("simulators", found, options.quick, update)
        update = True
    if not options.quick:
        results = json.loads(path.read_text())
        plot({env_id: results[env_id] for env_id in TASKS if env_id in results})


if __name__ == "__main__":
    main()
