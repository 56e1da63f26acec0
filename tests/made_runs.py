"""Run directories with metrics made up, for what only reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import kiloworlds
from kiloworlds.training.config import build_config
from kiloworlds.training.presets import preset
from kiloworlds.training.run import Run
from kiloworlds.training.storage.run_directory import versions


def make_run(
    path: Path,
    returns: Any,
    algorithm: str = "ppo",
    env_id: str = "CartPole-v1",
    *,
    rate: float = 1000.0,
    facts: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """A run that ended with these returns, `[rows, seeds]`; a row each 1,000 steps, `rate` steps a
    second after a second of compiling."""
    returns = np.atleast_2d(np.asarray(returns, float))
    rows, seeds = returns.shape
    settings = {"num_seeds": seeds, "total_steps": 1000 * rows, **settings}
    config = build_config(algorithm, env_id, {**preset(algorithm, env_id), **settings})
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config.as_dict()))
    environment = {**versions(), "backend": "compiled", "seed": config.seed, **(facts or {})}
    (path / "environment.json").write_text(json.dumps(environment))
    lines = [
        {
            "step": 1000 * (row + 1),
            "seconds": 1.0 + 1000 * (row + 1) / rate,
            "fps": rate,
            "rollout/ep_rew_mean": [None if np.isnan(value) else value for value in returns[row]],
        }
        for row in range(rows)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return kiloworlds.load(path)


def rising(rows: int, *ends: float) -> np.ndarray:
    """Returns that rise evenly to an end for each seed, and stay there for the second half."""
    return np.minimum(1.0, np.arange(1, rows + 1) / (rows / 2))[:, None] * np.array(ends)
