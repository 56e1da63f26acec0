"""How fast PPO learns CartPole-v1: steps per second, compilation, time to a return of 475.

    python benchmarks/training.py --peers-python PATH

Four questions: `speed` (one run, same settings as the peers), `loops` (against trainers whose
environments step in Python), `seeds` (32 seeds at once against one after another) and `process`
(`kiloworlds train` from the start of the process until solved, with and without compiled programs in
its cache).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import (
    HERE,
    SOURCE,
    Competitor,
    arguments,
    compare,
    log,
    median_interval,
    write_results,
)
from peers.curves import SOLVED

ENV = "CartPole-v1"
SHAPES = ((4, 128), (64, 32))
SEEDS = 32
OURS = "peers/kiloworlds_ppo.py"
PUREJAXRL = "peers/purejaxrl_style.py"


def shape_settings(num_envs: int, num_steps: int, total_steps: int) -> dict[str, int]:
    return {"num_envs": num_envs, "num_steps": num_steps, "total_steps": total_steps}


def speed(total_steps: int, rounds: int, peers: str) -> list[dict[str, Any]]:
    """Our fused loop and a PureJaxRL-style one with the same settings; our preset beside them."""
    cells = []
    for num_envs, num_steps in SHAPES:
        log(f"speed: {num_envs} x {num_steps}")
        shape = shape_settings(num_envs, num_steps, total_steps)
        ours = {"env": ENV, "settings": shape}
        entries = [
            Competitor("kiloworlds", OURS, ours),
            Competitor("kiloworlds, 1 device", OURS, ours | {"devices": 1}),
            Competitor(
                "kiloworlds, 1 device of 1 thread",
                OURS,
                ours | {"devices": 1},
                environment={"PJRT_NPROC": "1"},
            ),
            Competitor("PureJaxRL-style", PUREJAXRL, {"env": ENV, **shape}, peers),
            Competitor(
                "PureJaxRL-style, 1 thread",
                PUREJAXRL,
                {"env": ENV, **shape},
                peers,
                {"PJRT_NPROC": "1"},
            ),
        ]
        cells.append({**shape, "records": compare(entries, rounds)})
    log("speed: preset")
    ours = {"env": ENV, "settings": {"total_steps": total_steps}, "use_preset": True}
    entries = [
        Competitor("kiloworlds preset", OURS, ours),
        Competitor("kiloworlds preset, 1 device", OURS, ours | {"devices": 1}),
    ]
    cells.append({"preset": True, "records": compare(entries, rounds)})
    return cells


def loops(total_steps: int, rounds: int, peers: str) -> dict[str, Any]:
    """Against trainers that step Gymnasium's environments in Python, 8 of them."""
    log("loops: 8 x 128")
    shape = shape_settings(8, 128, total_steps)
    script = "peers/stable_baselines.py"
    one_thread = {"OMP_NUM_THREADS": "1"}
    sb3 = {"library": "sb3", "env": ENV, **shape}
    entries = [
        Competitor("kiloworlds", OURS, {"env": ENV, "settings": shape}),
        Competitor("SB3", script, sb3, peers),
        Competitor("SB3, 1 thread", script, sb3, peers, one_thread),
        Competitor("SBX", script, {"library": "sbx", "env": ENV, **shape}, peers),
    ]
    return {**shape, "records": compare(entries, rounds)}


def seeds(total_steps: int, rounds: int, peers: str) -> list[dict[str, Any]]:
    """Many seeds in one program against the same seeds one after another.

    Without the PureJaxRL-style trainer: its orthogonal weights under vmap are a batched QR, which
    sometimes never returns on two cores (XLA of JAX 0.10.2).
    """
    cells = []
    num_envs, num_steps = SHAPES[0]
    shape = shape_settings(num_envs, num_steps, total_steps)
    for title, settings, use_preset in (
        (f"{num_envs} x {num_steps}", shape, False),
        ("preset", {"total_steps": total_steps}, True),
    ):
        log(f"seeds: {title}")
        base = {"env": ENV, "use_preset": use_preset}
        at_once = {**base, "settings": settings | {"num_seeds": SEEDS}}
        entries = [
            Competitor("at once", OURS, at_once),
            Competitor("at once, 1 device", OURS, at_once | {"devices": 1}),
            Competitor("one after another", OURS, {**base, "settings": settings, "runs": SEEDS}),
        ]
        cells.append(
            {"shape": title, "total_steps": total_steps, "records": compare(entries, rounds)}
        )
    return cells


# -------------------------------------------------------------------------------- whole processes


def process(total_steps: int | None, rounds: int) -> dict[str, Any]:
    """`kiloworlds train` as a user starts it: empty cache ("cold") and filled one ("warm")."""
    log("process: cold and warm")
    timings: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for seed in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("cold", "warm"):
                one = train_process(Path(folder), kind, seed, total_steps)
                timings[kind].append(one)
                log(f"  {kind}: {one}")
    summary: dict[str, Any] = {"rounds": timings}
    for kind, runs in timings.items():
        for name in ("solved_seconds", "stays_solved_seconds", "total_seconds"):
            values = [run[name] for run in runs if run[name] is not None]
            if values:
                median, interval = median_interval(values)
                summary[f"{kind}_{name}"] = {
                    "median": median,
                    "interval": interval,
                    "of": len(runs),
                    "reached": len(values),
                }
    return summary


def train_process(folder: Path, kind: str, seed: int, total_steps: int | None) -> dict[str, Any]:
    """Seconds from the start of the process; watches the metrics file from outside."""
    run_dir = folder / kind
    command = [sys.executable, "-m", "kiloworlds.cli.main", "train", "ppo", ENV]
    command += ["--seed", str(seed), "--run-dir", str(run_dir), "--json"]
    if total_steps is not None:
        command += ["--total-steps", str(total_steps)]
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"KILOWORLDS_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": paths}
    errors = folder / f"{kind}.txt"
    start = time.perf_counter()
    rows: list[tuple[float, float]] = []  # seconds, mean return
    with errors.open("w") as sink:
        running = subprocess.Popen(
            command, env=environment, stdout=sink, stderr=sink, cwd=HERE.parent
        )
        position, rest, ended = 0, "", False
        while not ended:
            time.sleep(0.02)
            ended = running.poll() is not None
            now = time.perf_counter() - start
            if not (run_dir / "metrics.jsonl").exists():
                continue
            with (run_dir / "metrics.jsonl").open() as metrics:
                metrics.seek(position)
                *lines, rest = (rest + metrics.read()).split("\n")
                position = metrics.tell()
            for line in lines:
                value = json.loads(line)["rollout/ep_rew_mean"][0]
                rows.append((now, -float("inf") if value is None else value))
    total = time.perf_counter() - start
    if running.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{errors.read_text()}")
    solved = [value >= SOLVED for _, value in rows]
    stays = None
    if solved and solved[-1]:
        last_below = max((i for i, good in enumerate(solved) if not good), default=-1)
        stays = rows[last_below + 1][0]
    return {
        "seed": seed,
        "first_row_seconds": rows[0][0] if rows else None,
        "solved_seconds": rows[solved.index(True)][0] if any(solved) else None,
        "stays_solved_seconds": stays,
        "total_seconds": total,
    }


QUESTIONS = ("speed", "loops", "seeds", "process")


def main() -> None:
    assert __doc__ is not None
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=QUESTIONS)
    options = parser.parse_args()
    quick, peers = options.quick, options.peers_python
    rounds = options.rounds or (2 if quick else 7)
    content: dict[str, Any] = {"rounds": rounds, "env": ENV, "solved": SOLVED}
    if "speed" in options.questions:
        content["speed"] = speed(50_000 if quick else 500_000, rounds, peers)
    if "loops" in options.questions:
        # A run takes a minute there: five are enough.
        content["loops"] = loops(10_000 if quick else 500_000, min(rounds, 5), peers)
    if "seeds" in options.questions:
        content["seeds"] = seeds(5_000 if quick else 100_000, min(rounds, 5), peers)
    if "process" in options.questions:
        content["process"] = process(20_000 if quick else None, rounds)
    write_results("training", content, quick, options.update)


if __name__ == "__main__":
    main()
