"""Worker: training on a slow simulator, with and without actors that run ahead."""

import functools
from typing import Any

from harness import repeat_for, serve
from peers.dummy_envs import WaitingEnv

import kiloworlds
from kiloworlds.training.config import build_config
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.training.placement import configure_devices


def make(
    num_envs: int,
    wait: float,
    spread: float,
    size: int,
    settings: dict[str, Any],
    batch_size: int | None,
    max_staleness: int,
    seconds: float,
):
    config = build_config(
        "ppo",
        "waiting",
        settings
        | {
            "num_envs": num_envs,
            "batch_size": batch_size,
            "max_staleness": max_staleness,
            "total_steps": 10**9,
        },
    )
    configure_devices(config)
    envs = kiloworlds.make(
        functools.partial(WaitingEnv, wait, spread, size=size),
        num_envs,
        backend="process",
        num_workers=num_envs,
        batch_size=batch_size,
    )
    training = HostTraining(config, envs)
    state = training.init()

    def once() -> int:
        nonlocal state
        state, _ = training.run(state, 1)
        return config.steps_per_update

    timed = repeat_for(seconds, once)

    def one_round() -> dict[str, Any]:
        for _ in range(max_staleness + 2):  # uses up what was collected while others were timed
            once()
        training.host_metrics()
        return timed() | {"shares": training.host_metrics()}

    return one_round, {}


if __name__ == "__main__":
    serve(make, ["kiloworlds", "jax", "gymnasium", "numpy"])
