"""Worker: one process that steps Gymnasium environments one after the other, and keeps nothing."""

import gymnasium
from harness import repeat_for, serve
from peers.driving import action_batches


def make(env: str, num_envs: int, seconds: float):
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

    return repeat_for(seconds, once), {}


if __name__ == "__main__":
    serve(make, ["gymnasium", "numpy"])
