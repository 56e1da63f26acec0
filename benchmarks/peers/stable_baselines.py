"""Worker: PPO of Stable-Baselines3 (PyTorch) or SBX (JAX) on its own vector of Gymnasium envs."""

import time
from typing import Any

from harness import serve
from peers.curves import summarise
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env


class EpisodeSums(BaseCallback):
    """Counts ended episodes and sums their returns, per rollout."""

    def __init__(self):
        super().__init__()
        self.episodes, self.sums = [0.0], [0.0]

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.episodes[-1] += 1
                self.sums[-1] += float(info["episode"]["r"])
        return True

    def _on_rollout_end(self) -> None:
        self.episodes.append(0.0)
        self.sums.append(0.0)


def make(library: str, env: str, num_envs: int, num_steps: int, total_steps: int):
    """`library` is "sb3" or "sbx"; the settings are those of the other competitors."""
    if library == "sbx":
        import flax.linen as nn
        from sbx import PPO

        activation = nn.tanh
    else:
        import torch
        from stable_baselines3 import PPO

        activation = torch.nn.Tanh

    def build(seed: int):
        return PPO(
            "MlpPolicy",
            make_vec_env(env, n_envs=num_envs, seed=seed),
            learning_rate=lambda remaining: 2.5e-4 * remaining,
            n_steps=num_steps,
            batch_size=num_envs * num_steps // 4,
            n_epochs=4,
            gamma=0.99,
            gae_lambda=0.95,
            clip_range=0.2,
            ent_coef=0.01,
            vf_coef=0.5,
            max_grad_norm=0.5,
            policy_kwargs={
                "net_arch": {"pi": [64, 64], "vf": [64, 64]},
                "activation_fn": activation,
            },
            seed=seed,
            device="cpu",
        )

    seed = 0
    start = time.perf_counter()
    build(seed).learn(num_envs * num_steps)
    facts = {"compile_seconds": time.perf_counter() - start}

    def one_round() -> dict[str, Any]:
        nonlocal seed
        seed += 1
        model, sums = build(seed), EpisodeSums()
        start = time.perf_counter()
        model.learn(total_steps, callback=sums)
        seconds = time.perf_counter() - start
        curve = summarise(sums.episodes[:-1], sums.sums[:-1], num_envs * num_steps)
        return {"steps": model.num_timesteps, "seconds": seconds, "curves": [curve]}

    return one_round, facts


if __name__ == "__main__":
    serve(make, ["stable-baselines3", "sbx-rl", "torch", "jax", "gymnasium", "numpy"])
