"""Playing whole episodes with a trained policy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.statistics import bootstrap_interval

if TYPE_CHECKING:
    from kiloworlds.training.policy import Policy
    from kiloworlds.training.run import Run


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy.

    Attributes:
        returns, lengths: one entry per episode.
        mean_return: their mean.
        interval: its 95% bootstrap interval.
    """

    returns: np.ndarray
    lengths: np.ndarray

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
) -> Evaluation:
    """Plays `episodes` whole episodes with a policy of the run, by default that of its first seed.

    Each environment counts only its first episodes, the same number for all (the last round is cut):
    counting whichever ends first would favour short ones.
    """
    if not isinstance(episodes, int) or episodes < 1:
        raise InvalidValueError(f"episodes={episodes!r} must be a whole number of 1 or more.")
    num_envs = min(episodes, 256 if run.environment["backend"] == "compiled" else 8)
    envs = run.make_envs(num_envs)
    wanted = np.full(num_envs, episodes // num_envs)
    wanted[: episodes % num_envs] += 1
    seen = np.zeros(num_envs, int)
    returns: list[float] = []
    lengths: list[int] = []
    policy = policy or run.policy
    observations, _ = envs.reset(seed=seed)
    while (seen < wanted).any():
        actions = policy.act(observations, deterministic=deterministic)
        observations, _, terminated, truncated, infos = envs.step(actions)
        finished = (terminated | truncated) & (seen < wanted)
        if finished.any():
            returns.extend(infos["episode"]["r"][finished].tolist())
            lengths.extend(infos["episode"]["l"][finished].tolist())
            seen += finished
    envs.close()
    return Evaluation(np.asarray(returns), np.asarray(lengths))
