"""Learning curves in one form for all: episodes that ended and their summed returns, per update."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WINDOW = 100
SOLVED = 475.0  # Gymnasium's reward threshold of CartPole-v1
POINTS = 50


def summarise(
    episodes: Sequence[float], return_sums: Sequence[float], steps_per_update: int
) -> dict[str, Any]:
    """Reduces one training to what tables and figures need.

    The moving mean at an update is over the fewest last updates that together saw WINDOW episodes.

    Returns:
        `first_solved`: steps until the moving mean first reached SOLVED (None if never);
        `stays_solved`: steps after which it never fell below again (None if below at the end);
        `steps`, `returns`: the curve (see `means_by_part`).
    """
    counts, sums = np.asarray(episodes, float), np.asarray(return_sums, float)
    total_counts = np.concatenate([[0.0], np.cumsum(counts)])
    total_sums = np.concatenate([[0.0], np.cumsum(sums)])
    # For each end, the latest start that leaves WINDOW episodes in between.
    starts = np.searchsorted(total_counts, total_counts[1:] - WINDOW, side="right") - 1
    enough = total_counts[1:] >= WINDOW
    starts = np.maximum(starts, 0)
    window_counts = total_counts[1:] - total_counts[starts]
    means = (total_sums[1:] - total_sums[starts]) / np.maximum(window_counts, 1)
    solved = enough & (means >= SOLVED)
    first = int(np.argmax(solved)) + 1 if solved.any() else None
    below = np.nonzero(~solved)[0]
    stays = None
    if solved.any() and solved[-1]:
        stays = int(below[-1]) + 2 if below.size else 1
    return {
        "first_solved": None if first is None else first * steps_per_update,
        "stays_solved": None if stays is None else stays * steps_per_update,
        **means_by_part(episodes, {"returns": return_sums}, steps_per_update),
    }


def means_by_part(
    episodes: Sequence[float], sums: Mapping[str, Sequence[float]], steps_per_update: int
) -> dict[str, Any]:
    """Means over the episodes that ended in each of POINTS equal parts of a training.

    Args:
        episodes: how many ended, per update.
        sums: over those episodes, by name.

    Returns:
        By the same names the means (None where no episode ended), and `steps`, the end of each part.
    """
    count = np.asarray(episodes, float)
    edges = np.linspace(0, len(count), min(POINTS, len(count)) + 1).astype(int)
    count = np.add.reduceat(count, edges[:-1])
    curves: dict[str, Any] = {"steps": [int(edge) * steps_per_update for edge in edges[1:]]}
    for name, values in sums.items():
        totals = np.add.reduceat(np.asarray(values, float), edges[:-1])
        curves[name] = [
            round(float(total / n), 4) if n else None
            for total, n in zip(totals, count, strict=True)
        ]
    return curves
