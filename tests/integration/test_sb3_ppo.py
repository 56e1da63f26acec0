"""Stable-Baselines3's own PPO learns on our vectors."""

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("torch")

import torch
from stable_baselines3 import PPO

from kiloworlds.compat.sb3 import make_vec_env


@pytest.mark.parametrize("backend", ["compiled", "process"])
def test_ppo_learns_cartpole(backend):
    torch.set_num_threads(1)
    envs = make_vec_env("CartPole-v1", 16, seed=0, vec_env_kwargs={"backend": backend})
    model = PPO(
        "MlpPolicy",
        envs,
        # The settings of RL Baselines3 Zoo for CartPole-v1, with twice the environments.
        n_steps=32,
        batch_size=256,
        n_epochs=10,
        gae_lambda=0.8,
        gamma=0.98,
        learning_rate=lambda remaining: 1e-3 * remaining,
        clip_range=lambda remaining: 0.2 * remaining,
        seed=1,
        device="cpu",
    )
    model.learn(30_000)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    lengths = [episode["l"] for episode in model.ep_info_buffer]
    assert len(returns) == 100
    assert returns == lengths
    assert np.mean(returns) > 120, np.mean(returns)  # 22 without learning
    envs.close()
