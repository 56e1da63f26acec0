"""Environments of several agents, and training on them, against JaxMARL.

    python benchmarks/multiagent.py --peers-python PATH [--questions envs training] [--envs ...]

Two questions: `envs`, environment steps per second with fresh random legal actions in a compiled
rollout, and `training`, whole trainings with independent PPO in JaxMARL's published settings.
"""

from typing import Any, NamedTuple

from harness import Competitor, arguments, compare, log, write_results

OURS = "peers/kiloworlds_envs.py"
JAXMARL = "peers/jaxmarl_envs.py"
OUR_TRAINING = "peers/kiloworlds_marl.py"
JAXMARL_TRAINING = "peers/jaxmarl_ippo.py"
ONE_THREAD = {"PJRT_NPROC": "1"}


class Task(NamedTuple):
    """Numbers of environments, and how many steps jaxmarl makes per call: some episodes, where that
    takes no longer than seconds."""

    sizes: tuple[int, ...]
    steps: int


TASKS = {
    "mpe/simple_spread_v3": Task((256, 1024, 4096), 100),
    "overcooked/cramped_room": Task((256, 1024, 4096), 500),
    "hanabi/full-2p": Task((64, 256, 1024), 100),
    "coin_game": Task((256, 1024, 4096), 200),
    "switch_riddle": Task((1024, 4096, 16384), 100),
    "smax/3m": Task((64, 256, 1024), 100),
    "smax/27m_vs_30m": Task((16, 64, 256), 40),
}
OUR_STEPS = 5
"""How many times as many steps ours makes per call, which lasts about as long then."""


def environments(env: str, num_envs: int, seconds: float, peers: str) -> list[Competitor]:
    """Everyone who takes part for one environment and size."""
    steps = TASKS[env].steps
    common: dict[str, Any] = {"env": env, "num_envs": num_envs, "seconds": seconds}
    ours = common | {"mode": "rollout", "steps": OUR_STEPS * steps}
    theirs = common | {"steps": steps}
    two = ours | {"devices": 2}
    return [
        Competitor("kiloworlds", OURS, ours),
        Competitor("kiloworlds, 2 devices", OURS, two),
        Competitor("kiloworlds, 1 thread", OURS, ours, environment=ONE_THREAD),
        Competitor("kiloworlds, 2 devices of 1 thread", OURS, two, environment=ONE_THREAD),
        Competitor("JaxMARL", JAXMARL, theirs, peers),
        Competitor("JaxMARL, 1 thread", JAXMARL, theirs, peers, ONE_THREAD),
    ]


# JaxMARL's settings in our names; where ours has the same default it is not repeated.
FEEDFORWARD = {"num_envs": 16, "num_steps": 128}
RECURRENT = {
    "num_envs": 128,
    "num_steps": 128,
    "network": "gru",
    "recurrent_size": 128,
    "activation": "relu",
    "learning_rate": 0.004,
    "clip_range": 0.05,
    "clip_range_value": 0.05,
    "max_grad_norm": 0.25,
}
TRAININGS = {"mpe/simple_spread_v3": FEEDFORWARD, "smax/3m": RECURRENT}
TOTAL_STEPS = 2**20  # whole updates of both


def training(env: str, rounds: int, peers: str, total_steps: int) -> dict[str, Any]:
    """IPPO in the same settings; a round is a whole training with the next seed."""
    log(f"training: {env}, {total_steps:,} steps")
    ours = {"env": env, "settings": TRAININGS[env] | {"total_steps": total_steps}}
    theirs = {"env": env, "total_steps": total_steps}
    single = ours | {"devices": 1}
    entries = [
        Competitor("kiloworlds", OUR_TRAINING, ours),
        Competitor("kiloworlds, 2 devices", OUR_TRAINING, ours | {"devices": 2}),
        Competitor("kiloworlds, 1 device", OUR_TRAINING, single),
        Competitor(
            "kiloworlds, 1 device of 1 thread", OUR_TRAINING, single, environment=ONE_THREAD
        ),
        Competitor("JaxMARL's IPPO", JAXMARL_TRAINING, theirs, peers),
        Competitor("JaxMARL's IPPO, 1 thread", JAXMARL_TRAINING, theirs, peers, ONE_THREAD),
    ]
    return {
        "question": "training",
        "env": env,
        "total_steps": total_steps,
        "records": compare(entries, rounds),
    }


QUESTIONS = ("envs", "training")


def main() -> None:
    assert __doc__ is not None
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=QUESTIONS)
    parser.add_argument("--envs", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of environments")
    parser.add_argument("--total-steps", type=int, help="of each training")
    options = parser.parse_args()
    quick, peers = options.quick, options.peers_python
    rounds = options.rounds or (2 if quick else 7)
    cells = []
    if "envs" in options.questions:
        for env in options.envs:
            sizes = TASKS[env].sizes
            for num_envs in options.sizes or (sizes[:1] if quick else sizes):
                log(f"{env} x {num_envs}")
                entries = environments(env, num_envs, 0.1 if quick else 0.5, peers)
                cells.append(
                    {
                        "question": "envs",
                        "env": env,
                        "num_envs": num_envs,
                        "records": compare(entries, rounds),
                    }
                )
    if "training" in options.questions:
        steps = options.total_steps or (2**16 if quick else TOTAL_STEPS)
        for env in options.envs:
            if env in TRAININGS:
                # A training takes minutes: three seeds are enough.
                cells.append(training(env, min(rounds, 3), peers, steps))
    write_results("multiagent", {"rounds": rounds, "cells": cells}, quick, options.update)


if __name__ == "__main__":
    main()
