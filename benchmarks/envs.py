"""How many environment steps per second, against the number of environments.

    python benchmarks/envs.py --peers-python PATH

Two questions with two groups of competitors: the whole rollout compiled (`rollout`: random actions
drawn inside the program), and driven from outside (`step`: the caller hands over a batch of numpy
actions and reads the whole batch that comes back).
"""

from typing import Any

from harness import Competitor, arguments, compare, log, write_results

ENVS = (
    "CartPole-v1",
    "Pendulum-v1",
    "MountainCar-v0",
    "Acrobot-v1",
    "FrozenLake-v1",
    "Taxi-v3",
)
SIZES = (16, 128, 1024, 8192)
# Gymnasium 1.4 renamed Taxi and deprecated the old name; the rules are the same.
GYMNASIUM_NAMES = {"Taxi-v3": "Taxi-v4"}
# Beyond these sizes a round would take minutes, or a process per environment too much memory.
LARGEST_SYNC = 1024
LARGEST_ASYNC = 16


def competitors(env: str, num_envs: int, seconds: float, peers: str) -> list[Competitor]:
    """Everyone who takes part for one environment and size."""
    steps = max(64, min(10_000, 2**22 // num_envs))
    common: dict[str, Any] = {"env": env, "num_envs": num_envs, "seconds": seconds}
    rollout = common | {"mode": "rollout", "steps": steps}
    ours = "peers/kiloworlds_envs.py"
    one_thread = {"PJRT_NPROC": "1"}
    entries = [
        Competitor("kiloworlds", ours, rollout, group="rollout"),
        Competitor("kiloworlds, 2 devices", ours, rollout | {"devices": 2}, group="rollout"),
        Competitor("kiloworlds, 1 thread", ours, rollout, environment=one_thread, group="rollout"),
        Competitor(
            "kiloworlds, 2 devices of 1 thread",
            ours,
            rollout | {"devices": 2},
            environment=one_thread,
            group="rollout",
        ),
        Competitor(
            "gymnax", "peers/gymnax_envs.py", common | {"steps": steps}, peers, group="rollout"
        ),
        Competitor("kiloworlds step()", ours, common | {"mode": "step"}, group="step"),
        Competitor(
            "EnvPool", "peers/envpool_envs.py", common | {"threads": 2}, peers, group="step"
        ),
    ]
    name = GYMNASIUM_NAMES.get(env, env)
    gymnasium = "peers/gymnasium_envs.py"

    def theirs(title: str, mode: str) -> Competitor:
        settings = common | {"env": name, "mode": mode}
        return Competitor(title, gymnasium, settings, peers, group="step")

    if num_envs <= LARGEST_SYNC:
        sync = common | {"env": name, "mode": "step", "backend": "sync"}
        entries.append(Competitor("kiloworlds sync", ours, sync, group="step"))
        entries.append(theirs("Gymnasium sync", "sync"))
    if num_envs <= LARGEST_ASYNC:
        entries.append(theirs("Gymnasium async", "async"))
    if env == "CartPole-v1":
        entries.append(theirs("Gymnasium vectorised", "vector_entry_point"))
        for threads in (1, 2):
            entries.append(
                Competitor(
                    f"C loop, {threads} thread{'s'[: threads - 1]}",
                    "peers/c_loop.py",
                    {"num_envs": num_envs, "threads": threads, "seconds": seconds},
                    group="rollout",
                )
            )
    return entries


def main() -> None:
    assert __doc__ is not None
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=list(ENVS), choices=ENVS)
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of environments")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 7)
    seconds = 0.1 if options.quick else 0.5
    sizes = options.sizes or ((16, 1024) if options.quick else SIZES)
    cells = []
    for env in options.envs:
        for num_envs in sizes:
            log(f"{env} x {num_envs}")
            entries = competitors(env, num_envs, seconds, options.peers_python)
            cells.append({"env": env, "num_envs": num_envs, "records": compare(entries, rounds)})
    write_results("envs", {"rounds": rounds, "cells": cells}, options.quick, options.update)


if __name__ == "__main__":
    main()
