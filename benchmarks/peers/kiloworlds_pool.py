"""Worker: kiloworlds' executors for existing simulators."""

import functools
from typing import Any

import gymnasium
import numpy as np
from harness import Round, repeat_for, serve
from peers import dummy_envs
from peers.driving import action_batches, drive

import kiloworlds

# Under the name CartPole-v1 "auto" would take the compiled one.
gymnasium.register(
    "PythonCartPole-v1",
    entry_point="gymnasium.envs.classic_control:CartPoleEnv",
    max_episode_steps=500,
)


def uneven(kind: str, short: float, long: float, num_envs: int) -> list[Any]:
    """One environment in eight takes `long` for a step, the others `short` (seconds)."""
    make = getattr(dummy_envs, kind)
    return [functools.partial(make, long if i % 8 == 0 else short) for i in range(num_envs)]


def make(env: Any, num_envs: int, seconds: float, mode: str = "step", **options: Any):
    """`env` is an id, or ["uneven", kind, short, long], or ["frames"]."""
    made = env
    if isinstance(env, list):
        made = uneven(*env[1:], num_envs) if env[0] == "uneven" else dummy_envs.FrameEnv
        made = made if isinstance(made, list) else functools.partial(made)
    envs = kiloworlds.make(made, num_envs, **options)
    facts = {"executor": repr(envs), "backend": envs.backend}
    if mode == "async":
        return _drive_async(envs, seconds), facts
    envs.reset(seed=0)
    batches = action_batches(envs.single_action_space, num_envs)
    if env == ["frames"]:  # summing would take longer than delivering
        position = iter(range(10**9))

        def once() -> int:
            envs.step(batches[next(position) % len(batches)])
            return num_envs

        return repeat_for(seconds, once), facts
    return drive(envs.step, batches, reset_steps_return=False, seconds=seconds), facts


def _drive_async(envs: Any, seconds: float) -> Round:
    envs.async_reset(seed=0)
    generator = np.random.default_rng(0)

    def once() -> int:
        *_, infos = envs.recv()
        rows = infos["env_id"]
        envs.send(generator.integers(0, envs.single_action_space.n, len(rows)), rows)
        return len(rows)

    return repeat_for(seconds, once)


if __name__ == "__main__":
    serve(make, ["kiloworlds", "gymnasium", "numpy", "mujoco", "ale-py"])
