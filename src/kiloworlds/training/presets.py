"""Settings that solve each environment, by algorithm and id."""

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "ppo": {
        "CartPole-v1": {
            "total_steps": 200_000,
            "num_envs": 32,
            "num_steps": 32,
            "learning_rate": 2e-3,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "clip_range_value": None,
        },
        "Pendulum-v1": {
            "total_steps": 1_000_000,
            "num_envs": 64,
            "num_steps": 64,
            "num_epochs": 8,
            "learning_rate": 1e-3,
            "gamma": 0.95,
            "entropy_coefficient": 0.0,
            "normalize_rewards": True,
            "clip_range_value": None,
        },
        "Acrobot-v1": {
            "total_steps": 500_000,
            "num_envs": 64,
            "num_steps": 32,
            "learning_rate": 2e-3,
        },
        "Taxi-v3": {
            "total_steps": 2_000_000,
            "num_envs": 512,
            "num_steps": 32,
            "learning_rate": 3e-2,
            "gamma": 0.98,
            "gae_lambda": 0.9,
            "entropy_coefficient": 0.03,
            "hidden_sizes": (),
            "normalize_rewards": True,
            "clip_range_value": None,
        },
    }
}


def preset(algorithm: str, env_id: str) -> dict[str, Any]:
    """The overrides of the defaults for an environment; {} where the defaults serve."""
    return dict(PRESETS.get(algorithm, {}).get(env_id, {}))
