"""Worker: how fast this machine copies the frames of 64 environments within one process."""

import numpy as np
from harness import repeat_for, serve


def make(num_envs: int, seconds: float):
    source = np.random.default_rng(0).integers(0, 255, (num_envs, 4, 84, 84), np.uint8)
    target = np.empty_like(source)

    def once() -> int:
        np.copyto(target, source)
        return num_envs

    return repeat_for(seconds, once), {}


if __name__ == "__main__":
    serve(make, ["numpy"])
