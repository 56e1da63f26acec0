"""Worker: kiloworlds, as a compiled rollout or driven from outside."""

import time
from typing import Literal

import jax
from harness import AbsentError, repeat_with_seeds, serve
from peers.driving import action_batches, drive

import kiloworlds
from kiloworlds.core.devices import configure
from kiloworlds.core.registry import find_spec
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.random_rollout import random_rollout


def make(
    env: str,
    num_envs: int,
    mode: str,
    seconds: float,
    steps: int = 0,
    backend: Literal["compiled", "sync"] = "compiled",
    devices: int = 1,
):
    """`mode` is "rollout" (`random_rollout` of `steps` steps) or "step" (numpy actions)."""
    if backend == "compiled" and find_spec(env) is None:
        raise AbsentError(f"kiloworlds has no {env}")
    if devices > 1:
        configure(cpu_devices=devices)
        envs = kiloworlds.make(env, num_envs=num_envs, backend=backend, devices=devices)
    else:
        envs = kiloworlds.make(env, num_envs=num_envs, backend=backend)
    if mode == "step":
        envs.reset(seed=0)
        batches = action_batches(envs.single_action_space, num_envs)
        start = time.perf_counter()
        envs.step(batches[0])
        facts = {"first_step_seconds": time.perf_counter() - start}
        return drive(envs.step, batches, reset_steps_return=False, seconds=seconds), facts

    assert isinstance(envs, CompiledVectorEnv)
    start = time.perf_counter()
    rollout = random_rollout(envs, steps)
    jax.block_until_ready(rollout(0))
    first = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(rollout(1))
    facts = {"compile_seconds": first - (time.perf_counter() - start)}

    def run(seed: int) -> None:
        jax.block_until_ready(rollout(seed))

    return repeat_with_seeds(seconds, run, steps * num_envs), facts


if __name__ == "__main__":
    serve(make, ["jax", "jaxlib", "equinox", "gymnasium", "numpy"])
