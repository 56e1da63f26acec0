"""Worker: a pool whose processes never sleep, as PufferLib's multiprocessing back end is built.

Workers fork, share memory with the caller, and spin on a flag each. PufferLib itself does not install
on every platform; this has its structure and none of its code.
"""

import multiprocessing
import time

import gymnasium
import numpy as np
from harness import serve
from peers.driving import action_batches, drive

IDLE, WORK, PAUSE = 0, 1, 2


def _work(flag, index, env, rows, arrays):
    envs = [gymnasium.make(env) for _ in rows]
    observations, rewards, terminated, truncated, actions = arrays
    for row, one in zip(rows, envs, strict=True):
        observations[row], _ = one.reset(seed=row)
    flag[index] = IDLE
    while True:
        while flag[index] != WORK:
            # Gives the core away if another wants it, but sleeps only while others are timed.
            time.sleep(0 if flag[index] == IDLE else 0.01)
        for row, one in zip(rows, envs, strict=True):
            observation, rewards[row], over, cut, _ = one.step(actions[row])
            terminated[row], truncated[row] = over, cut
            if over or cut:
                observation, _ = one.reset()
            observations[row] = observation
        flag[index] = IDLE


def make(env: str, num_envs: int, workers: int, seconds: float):
    space = gymnasium.make(env).observation_space
    shared = multiprocessing.RawArray

    def array(kind, shape, dtype):
        return np.frombuffer(shared(kind, int(np.prod(shape))), dtype).reshape(shape)

    arrays = (
        array("f", (num_envs, *space.shape), np.float32),
        array("d", (num_envs,), np.float64),
        array("b", (num_envs,), np.bool_),
        array("b", (num_envs,), np.bool_),
        array("q", (num_envs,), np.int64),
    )
    flag = array("b", (workers,), np.int8)
    flag[:] = WORK
    context = multiprocessing.get_context("fork")
    for index, rows in enumerate(np.array_split(np.arange(num_envs), workers)):
        context.Process(
            target=_work, args=(flag, index, env, rows.tolist(), arrays), daemon=True
        ).start()

    def wait():
        while flag.any():
            time.sleep(0)

    wait()

    def step(actions):
        arrays[4][:] = actions
        flag[:] = WORK
        wait()
        return *(part.copy() for part in arrays[:4]), {}

    batches = action_batches(gymnasium.make(env).action_space, num_envs)
    one_round = drive(step, batches, reset_steps_return=False, seconds=seconds)
    flag[:] = PAUSE

    def awake_round():
        flag[:] = IDLE
        result = one_round()
        flag[:] = PAUSE
        return result

    return awake_round, {}


if __name__ == "__main__":
    serve(make, ["gymnasium", "numpy"])
