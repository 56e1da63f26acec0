"""What is told of the episodes of several agents.

Letters in shapes: T steps, N environments, A agents.
"""

import jax.numpy as jnp

from kiloworlds.algorithms.experience import KindLayout
from kiloworlds.training.loops.fused_loop import Episodes
from kiloworlds.vector.functional import VectorStep


def sum_episodes(layout: KindLayout, steps: VectorStep) -> Episodes:
    """Sums over the episodes that ended in a rollout `[T, N, ...]`.

    The return of an episode is the mean over its agents. Of agents of several kinds each kind's mean is
    told too ("ep_rew_mean/adversary"), and how many episodes were won ("win_rate") where the
    environment says so.
    """
    finished = steps.finished.astype(jnp.float32)

    def total(values):
        return (finished * values).sum()

    others = {}
    if len(layout.kinds) > 1:
        for name, returns in layout.split(steps.episode_return, 2).items():
            others[f"ep_rew_mean/{name}"] = total(returns.mean(-1))
    if "won" in steps.final_info:
        others["win_rate"] = total(steps.final_info["won"])
    return Episodes(
        finished.sum(),
        total(steps.episode_return.mean(-1)),
        total(steps.episode_length),
        others,
    )
