"""Learning curves in one form for all: episodes that ended and their summed returns, per update."""

from collections.abc import Sequence
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
        `steps`, `returns`: the curve, mean return of the episodes of each of POINTS equal parts (None
        where none ended).
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
    edges = np.linspace(0, len(counts), min(POINTS, len(counts)) + 1).astype(int)
    part_counts = np.diff(total_counts[edges])
    part_sums = np.diff(total_sums[edges])
    return {
        "first_solved": None if first is None else first * steps_per_update,
        "stays_solved": None if stays is None else stays * steps_per_update,
        "steps": [int(edge) * steps_per_update for edge in edges[1:]],
        "returns": [
            round(float(total / count), 2) if count else None
            for total, count in zip(part_sums, part_counts, strict=True)
        ],
    }
