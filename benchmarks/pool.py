"""How fast existing simulators run: workers, engines, uneven environments, large observations, actors.

python benchmarks/pool.py --peers-python PATH [--questions python uneven engines frames actors recovery]
"""

import functools
import logging
import os
import signal
import statistics
import time
from typing import Any

import numpy as np
from harness import Competitor, arguments, compare, log, write_results
from peers.dummy_envs import WaitingEnv

SIZES = (16, 64, 256, 1024)
# A process for each environment: at 256 they need minutes to start and most of the memory.
LARGEST_PER_PROCESS = 64
FRAME_BYTES = 4 * 84 * 84
OURS = "peers/kiloworlds_pool.py"


def python_envs(options: Any, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Gymnasium's Python CartPole, for which the pool is all there is."""
    cells = []
    for num_envs in (16, 64) if options.quick else SIZES:
        log(f"CartPole-v1 x {num_envs}")
        common = {"env": "CartPole-v1", "num_envs": num_envs, "seconds": seconds}
        pool = common | {"num_workers": 2}
        entries = [
            Competitor("kiloworlds", OURS, pool | {"backend": "process"}),
            Competitor("kiloworlds auto", OURS, common | {"env": "PythonCartPole-v1"}),
            Competitor("kiloworlds threads", OURS, pool | {"backend": "thread"}),
            Competitor("one process, a loop", "peers/loop.py", common),
            Competitor("two loops, no exchange", "peers/loop.py", common | {"processes": 2}),
            Competitor("Gymnasium sync", "peers/gymnasium_envs.py", common | {"mode": "sync"}),
            Competitor("busy waiting", "peers/busy_wait.py", common | {"workers": 2}),
        ]
        if num_envs <= LARGEST_PER_PROCESS:
            entries += [
                Competitor(
                    "Gymnasium async", "peers/gymnasium_envs.py", common | {"mode": "async"}
                ),
                Competitor(
                    "SB3 subprocesses", "peers/sb3_vectors.py", common, options.peers_python
                ),
            ]
        cells.append({"num_envs": num_envs, "records": compare(entries, rounds)})
    return cells


def uneven(options: Any, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One environment in eight takes twenty times as long."""
    cells = []
    for kind, short in (("WaitingEnv", 1e-3), ("BusyEnv", 2e-4)):
        log(f"uneven: {kind}")
        common = {
            "env": ["uneven", kind, short, 20 * short],
            "num_envs": 16,
            "num_workers": 16,
            "backend": "process",
            "seconds": max(seconds, 1.0),
        }
        entries = [
            Competitor("asynchronous", OURS, common | {"mode": "async", "batch_size": 4}),
            Competitor("synchronous", OURS, common),
        ]
        cells.append({"kind": kind, "records": compare(entries, rounds)})
    return cells


def engines(options: Any, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """What "auto" takes, against EnvPool on the same tasks."""
    tasks: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("HalfCheetah-v5", "HalfCheetah-v5", {}, {}),
        ("Ant-v5", "Ant-v5", {}, {}),
        (
            "ALE/Pong-v5",
            "Pong-v5",
            {"preprocessing": {"sticky_actions": 0.0, "clip_rewards": False}},
            {"use_fire_reset": True, "noop_max": 30, "repeat_action_probability": 0.0},
        ),
    ]
    cells = []
    for env, theirs, ours_options, their_options in tasks:
        for num_envs in (64,) if options.quick else (16, 64):
            log(f"{env} x {num_envs}")
            common = {"num_envs": num_envs, "seconds": max(seconds, 1.0)}
            ours = common | {"env": env} | ours_options
            pools = [
                Competitor(f"kiloworlds, {name}", OURS, ours | {"backend": backend})
                for name, backend in (("processes", "process"), ("threads", "thread"))
            ]
            entries = [
                Competitor("kiloworlds", OURS, ours),
                *(pools if num_envs == 64 else []),
                Competitor(
                    "EnvPool",
                    "peers/envpool_tasks.py",
                    common | {"env": theirs, "threads": 2} | their_options,
                    options.peers_python,
                ),
            ]
            cells.append({"env": env, "num_envs": num_envs, "records": compare(entries, rounds)})
    return cells


def frames(options: Any, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Stacked frames of 64 environments that compute nothing: bytes delivered, against copying."""
    common = {"num_envs": 64, "seconds": seconds}
    pool = common | {"env": ["frames"], "backend": "process", "num_workers": 2}
    entries = [
        Competitor("views (copy=False)", OURS, pool | {"copy": False}),
        Competitor("threads, views", OURS, pool | {"copy": False, "backend": "thread"}),
        Competitor("copies", OURS, pool),
        Competitor("memcpy", "peers/memcpy.py", common),
    ]
    records = compare(entries, rounds)
    for record in records:
        record["gigabytes_per_second"] = record["rate"] * FRAME_BYTES / 1e9
    return [{"records": records}]


def actors(options: Any, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """PPO on a simulator that takes 5 ms for a step."""
    cells = []
    large = {"hidden_sizes": (256, 256), "num_steps": 64, "num_epochs": 6, "num_minibatches": 8}
    small = {"num_steps": 64}
    cases = [
        ("even times, a large network", 0.0, 64, large, None),
        ("exponential times, a small network", 1.0, 8, small, 4),
        ("exponential times, a large network", 1.0, 64, large, 4),
    ]
    for name, spread, size, settings, batch_size in cases:
        log(f"actors: {name}")
        common = {
            "num_envs": 16,
            "wait": 5e-3,
            "spread": spread,
            "size": size,
            "settings": settings,
            "seconds": max(seconds, 2.0),
        }
        script = "peers/kiloworlds_actors.py"
        entries = [
            Competitor(
                "actor-learner", script, common | {"batch_size": batch_size, "max_staleness": 1}
            ),
            Competitor("synchronous", script, common | {"batch_size": None, "max_staleness": 0}),
        ]
        cells.append({"case": name, "records": compare(entries, rounds)})
    return cells


def recovery(options: Any, rounds: int, seconds: float) -> dict[str, Any]:
    """Seconds from the kill of one of two workers until its environments step again."""
    import kiloworlds

    logging.getLogger("kiloworlds.vector").setLevel(logging.ERROR)
    lasting, idle = [], []
    for _ in range(rounds):
        make = functools.partial(WaitingEnv, 1e-3)
        envs = kiloworlds.make(
            make, 8, backend="process", num_workers=2, batch_size=4, on_error="restart"
        )
        envs.async_reset(seed=0)
        actions, lost_at, others = np.zeros(4, int), None, []
        killed = time.perf_counter()
        for count in range(10**6):
            if count == 50:
                killed = time.perf_counter()
                os.kill(envs.worker_pids[0], signal.SIGKILL)
            *_, infos = envs.recv()
            now = time.perf_counter()
            if count > 50:
                others.append(now)
            if infos.get("lost", np.zeros(1)).any():
                lost_at = now
                break
            envs.send(actions, infos["env_id"])
        envs.close()
        assert lost_at is not None
        lasting.append(lost_at - killed)
        idle.append(float(np.diff([killed, *others]).max()))
    return {
        "seconds_until_back": statistics.median(lasting),
        "longest_pause_of_the_others": statistics.median(idle),
        "rounds": lasting,
    }


QUESTIONS = {
    "python": python_envs,
    "uneven": uneven,
    "engines": engines,
    "frames": frames,
    "actors": actors,
    "recovery": recovery,
}


def main() -> None:
    assert __doc__ is not None
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=QUESTIONS)
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 7)
    seconds = 0.2 if options.quick else 1.0
    update = options.update
    for name in options.questions:  # each is kept as soon as it is answered
        found = QUESTIONS[name](options, rounds, seconds)
        write_results("pool", {"rounds": rounds, name: found}, options.quick, update)
        update = True


if __name__ == "__main__":
    main()
