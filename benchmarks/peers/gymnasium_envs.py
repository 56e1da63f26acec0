"""Worker: Gymnasium's own vector environments."""

import warnings

import gymnasium
from harness import AbsentError, serve
from peers.driving import action_batches, drive


def make(env: str, num_envs: int, mode: str, seconds: float):
    """`mode` is Gymnasium's `vectorization_mode`: "sync", "async" or "vector_entry_point"."""
    warnings.simplefilter("ignore")
    if mode == "vector_entry_point" and gymnasium.spec(env).vector_entry_point is None:
        raise AbsentError(f"Gymnasium has no vectorised {env}")
    envs = gymnasium.make_vec(env, num_envs=num_envs, vectorization_mode=mode)
    envs.reset(seed=0)
    batches = action_batches(envs.single_action_space, num_envs)
    return drive(envs.step, batches, reset_steps_return=True, seconds=seconds), {}


if __name__ == "__main__":
    serve(make, ["gymnasium", "numpy"])
