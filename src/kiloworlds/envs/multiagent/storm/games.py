"""The matrix games of STORM by name, and the checks of a payoff matrix that users give."""

from typing import Any

import numpy as np
from jaxtyping import Float

from kiloworlds.core.checks import require_array
from kiloworlds.core.errors import unknown_name

Matrix = tuple[tuple[float, float], tuple[float, float]]


def _symmetric(row_player: Matrix) -> tuple[Matrix, Matrix]:
    """The payoffs of both players of a game in which they stand alike."""
    (a, b), (c, d) = row_player
    return row_player, ((a, c), (b, d))


GAMES: dict[str, tuple[Matrix, Matrix]] = {
    "prisoners-dilemma": _symmetric(((3, 0), (5, 1))),
    "chicken": _symmetric(((3, 2), (5, 0))),
    "stag-hunt": _symmetric(((4, 0), (2, 2))),
    "pure-coordination": _symmetric(((1, 0), (0, 1))),
    "bach-or-stravinsky": (((3, 0), (0, 2)), ((2, 0), (0, 3))),
    "matching-pennies": (((1, -1), (-1, 1)), ((-1, 1), (1, -1))),
}
"""Payoffs of the row player and of the column player. Row and column 0 stand for red coins (cooperate,
dove, stag), 1 for blue ones. The first five are those of Melting Pot 2.0's games "in the matrix"
(Agapiou et al. 2022); of pure coordination it has three resources, here are two."""


def as_payoffs(values: Any) -> Float[np.ndarray, "... 2 2 2"]:
    """Payoffs as an array `[2, 2, 2]`, or `[N, 2, 2, 2]` for N different environments.

    Args:
        values: the name of one of `GAMES`, or the payoffs of player 0 and of player 1: a row for each
            strategy of player 0, a column for each of player 1.

    Raises:
        UnknownNameError: there is no game of that name.
        InvalidValueError: payoffs of another shape.
    """
    if isinstance(values, str):
        if values not in GAMES:
            see = "kiloworlds.envs.multiagent.storm.games.GAMES"
            raise unknown_name("matrix game", values, GAMES, see)
        values = GAMES[values]
    what = "one matrix for each player, such as (((3, 0), (5, 1)), ((3, 5), (0, 1)))"
    return require_array("payoff_matrix", values, (2, 2, 2), what)
