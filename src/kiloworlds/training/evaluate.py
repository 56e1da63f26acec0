"""Playing whole episodes with a trained policy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kiloworlds.core.checks import require_count
from kiloworlds.core.statistics import bootstrap_interval

if TYPE_CHECKING:
    from kiloworlds.training.policy import Policy
    from kiloworlds.training.run import Run


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy.

    Attributes:
        returns, lengths: one entry per episode.
        cut: how many episodes did not end within `max_steps` and count as far as they went.
        mean_return: their mean.
        interval: its 95% bootstrap interval.
    """

    returns: np.ndarray
    lengths: np.ndarray
    cut: int = 0

    @property
    def episodes(self) -> int:
        return len(self.returns)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        interval = bootstrap_interval(self.returns)
        return interval.low, interval.high


def evaluate(
    run: "Run",
    episodes: int,
    seed: int,
    deterministic: bool = True,
    policy: "Policy | None" = None,
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int = 10_000,
) -> Evaluation:
    """Plays `episodes` whole episodes with a policy of the run, by default that of its first seed.

    `env_kwargs` change parameters of the environment, to see how the policy generalises. Episodes
    are cut after `max_steps`, since a policy may never end one in an environment without a limit.

    Each environment counts only its first episodes, the same number for all (the last round is cut):
    counting whichever ends first would favour short ones.
    """
    episodes = require_count("episodes", episodes)
    num_envs = min(episodes, 256 if run.environment["backend"] == "compiled" else 8)
    envs = run.make_envs(num_envs, **(env_kwargs or {}))
    wanted = np.full(num_envs, episodes // num_envs)
    wanted[: episodes % num_envs] += 1
    seen = np.zeros(num_envs, int)
    returns: list[float] = []
    lengths: list[int] = []
    policy = policy or run.policy
    running_returns, running_lengths = np.zeros(num_envs), np.zeros(num_envs, int)
    observations, _ = envs.reset(seed=seed)
    cut = 0
    while (seen < wanted).any():
        actions = policy.act(observations, deterministic=deterministic)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        running_returns += rewards
        running_lengths += 1
        ended = terminated | truncated
        too_long = ~ended & (running_lengths >= max_steps)
        if too_long.any():
            observations, _ = envs.reset(options={"reset_mask": too_long})
        over = ended | too_long
        counted = over & (seen < wanted)
        returns.extend(running_returns[counted].tolist())
        lengths.extend(running_lengths[counted].tolist())
        cut += int((too_long & counted).sum())
        seen += counted
        running_returns[over], running_lengths[over] = 0.0, 0
    envs.close()
    return Evaluation(np.asarray(returns), np.asarray(lengths), cut)
