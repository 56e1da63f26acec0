"""Times vector environments that are driven from outside: one batch of numpy actions per call."""

from collections.abc import Callable
from typing import Any

import numpy as np
from harness import Round, repeat_for


def action_batches(space: Any, num_envs: int) -> list[np.ndarray]:
    """Different random action batches, drawn before the clock starts.

    Up to 256 of them, fewer where they would not fit the processor's cache.
    """
    generator = np.random.default_rng(0)
    count = int(np.clip(2**20 // num_envs, 8, 256))
    if hasattr(space, "n"):
        return [generator.integers(0, space.n, num_envs, dtype=np.int32) for _ in range(count)]
    shape = (num_envs, *space.shape)
    return [
        generator.uniform(space.low, space.high, shape).astype(np.float32) for _ in range(count)
    ]


def drive(
    step: Callable[[np.ndarray], Any],
    batches: list[np.ndarray],
    *,
    reset_steps_return: bool,
    seconds: float,
) -> Round:
    """A round that steps, and reads every observation, reward and flag of the batch.

    Args:
        step: Gymnasium's vector `step`.
        batches: actions to cycle through.
        reset_steps_return: whether the call after an episode's end only resets (next-step
            autoreset), in which case that call is not counted as a step of that environment.
        seconds: about how long a round lasts.
    """
    position = 0
    waiting = 0  # environments whose next call only resets
    seen = 0.0

    def once() -> int:
        nonlocal position, waiting, seen
        actions = batches[position % len(batches)]
        position += 1
        observation, reward, terminated, truncated, _ = step(actions)
        seen += float(observation.sum()) + float(reward.sum())
        finished = int(np.count_nonzero(terminated | truncated))
        steps = len(actions)
        if reset_steps_return:
            steps -= waiting
            waiting = finished
        return steps

    return repeat_for(seconds, once)
