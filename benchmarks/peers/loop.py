"""Worker: processes that step Gymnasium environments one after the other, and keep nothing.

One process is the baseline. Several, which exchange nothing, are what the cores can do at most.
"""

import multiprocessing
from typing import Any

import gymnasium
from harness import repeat_for, serve
from peers.driving import action_batches


def _make_once(env: str, num_envs: int) -> Any:
    envs = [gymnasium.make(env) for _ in range(num_envs)]
    for seed, one in enumerate(envs):
        one.reset(seed=seed)
    batches = action_batches(envs[0].action_space, num_envs)
    position = 0

    def once() -> int:
        nonlocal position
        actions = batches[position % len(batches)]
        position += 1
        for one, action in zip(envs, actions, strict=True):
            _, _, terminated, truncated, _ = one.step(action)
            if terminated or truncated:
                one.reset()
        return num_envs

    return once


def _serve_rounds(connection: Any, env: str, num_envs: int, seconds: float) -> None:
    one_round = repeat_for(seconds, _make_once(env, num_envs))
    while True:
        connection.send(one_round())
        connection.recv()


def make(env: str, num_envs: int, seconds: float, processes: int = 1):
    if processes == 1:
        return repeat_for(seconds, _make_once(env, num_envs)), {}
    context = multiprocessing.get_context("fork")
    pipes = []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        share = num_envs // processes
        context.Process(
            target=_serve_rounds, args=(theirs, env, share, seconds), daemon=True
        ).start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()

    def one_round() -> dict[str, Any]:
        for pipe in pipes:
            pipe.send("round")
        results = [pipe.recv() for pipe in pipes]
        return {
            "steps": sum(result["steps"] for result in results),
            "seconds": max(result["seconds"] for result in results),
        }

    return one_round, {}


if __name__ == "__main__":
    serve(make, ["gymnasium", "numpy"])
