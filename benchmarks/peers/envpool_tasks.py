"""Worker: EnvPool on its simulators: MuJoCo and Atari."""

import envpool
from harness import AbsentError, serve
from peers.driving import action_batches, drive


def make(env: str, num_envs: int, threads: int, seconds: float, **options):
    if env not in envpool.list_all_envs():
        raise AbsentError(f"EnvPool has no {env}")
    envs = envpool.make_gymnasium(env, num_envs=num_envs, num_threads=threads, **options)
    envs.reset()
    batches = action_batches(envs.action_space, num_envs)
    return drive(envs.step, batches, reset_steps_return=True, seconds=seconds), {}


if __name__ == "__main__":
    serve(make, ["envpool", "gymnasium", "numpy"])
