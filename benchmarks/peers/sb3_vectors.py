"""Worker: the subprocess vector of Stable-Baselines3."""

import gymnasium
import numpy as np
from harness import serve
from peers.driving import action_batches, drive
from stable_baselines3.common.vec_env import SubprocVecEnv


def make(env: str, num_envs: int, seconds: float):
    functions = [lambda: gymnasium.make(env) for _ in range(num_envs)]
    envs = SubprocVecEnv(functions, start_method="fork")
    envs.reset()

    def step(actions):
        observations, rewards, done, infos = envs.step(actions)
        return observations, rewards, done, np.zeros_like(done), infos

    batches = action_batches(envs.action_space, num_envs)
    return drive(step, batches, reset_steps_return=False, seconds=seconds), {}


if __name__ == "__main__":
    serve(make, ["stable-baselines3", "torch", "gymnasium", "numpy"])
