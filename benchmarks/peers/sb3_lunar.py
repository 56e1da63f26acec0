"""PPO of Stable-Baselines3 on LunarLander, with the settings of RL Baselines3 Zoo, until it is solved.

    python benchmarks/peers/sb3_lunar.py SEED VECTOR

Prints one JSON object: the curve of the mean return of the last 100 episodes. VECTOR is "dummy" (one
process, what the zoo uses) or "subprocess".
"""

import json
import sys
import time

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

SOLVED, LIMIT = 200.0, 1_000_000


class Curve(BaseCallback):
    """Notes the mean return after every rollout; ends training when it is SOLVED."""

    def __init__(self):
        super().__init__()
        self.steps, self.seconds, self.returns = [], [], []
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        episodes = self.model.ep_info_buffer or []
        mean = float(np.mean([episode["r"] for episode in episodes])) if episodes else None
        self.steps.append(self.num_timesteps)
        self.seconds.append(round(time.perf_counter() - self._began, 2))
        self.returns.append(mean)


class Solved(Curve):
    def _on_step(self) -> bool:
        full = len(self.model.ep_info_buffer or []) == 100
        return not (full and self.returns and (self.returns[-1] or -1e9) >= SOLVED)


def main() -> None:
    seed, vector = int(sys.argv[1]), sys.argv[2]
    cls = {"dummy": DummyVecEnv, "subprocess": SubprocVecEnv}[vector]
    envs = make_vec_env("LunarLander-v3", n_envs=16, seed=seed, vec_env_cls=cls)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=1024,
        batch_size=64,
        gae_lambda=0.98,
        gamma=0.999,
        n_epochs=4,
        ent_coef=0.01,
        seed=seed,
        device="cpu",
    )
    curve = Solved()
    model.learn(LIMIT, callback=curve)
    print(json.dumps({"step": curve.steps, "seconds": curve.seconds, "return": curve.returns}))


if __name__ == "__main__":
    main()
