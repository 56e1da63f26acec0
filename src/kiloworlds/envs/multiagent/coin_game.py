"""The Coin Game: two players, two coins of their colours, and whoever picks up the other's does harm."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

from kiloworlds.core.checks import require_array, require_flag, require_numbers
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.toy_text.grid import GridPicture

_SIZE = 3
_CELLS = _SIZE * _SIZE
_RIGHT, _LEFT, _UP, _DOWN = range(4)
_RED, _BLUE, _RED_COIN, _BLUE_COIN = range(4)
# As each player counts the things: itself, the other, its own coin, the other's.
_SEEN_BY = ((_RED, _BLUE, _RED_COIN, _BLUE_COIN), (_BLUE, _RED, _BLUE_COIN, _RED_COIN))
_FLAGS = np.arange(2 * _CELLS * 4)  # of both players: for each cell, for each thing
_THING_OF_FLAG = _FLAGS % 4 + _FLAGS // (_CELLS * 4) * 4
_CELL_OF_FLAG = (_FLAGS // 4 % _CELLS).astype(np.uint8)
_COLORS = ("#d55e00", "#0072b2")  # told apart by the colour-blind (Okabe & Ito 2008)
_LEGEND = 0.75  # cells

Four = tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""], Int[Array, ""]]
Two = tuple[Int[Array, ""], Int[Array, ""]]


class CoinGameState(NamedTuple):
    """Where the red player, the blue player, the red coin and the blue coin are, and what happened.

    `own_coins` and `other_coins` count what each player has picked up in this episode: coins of its own
    colour, and of the other's. `round_step` counts the steps of the round.
    """

    rows: Four
    columns: Four
    own_coins: Two
    other_coins: Two
    round_step: Int[Array, ""]


class CoinGame(MultiAgentEnvironment):
    """The Coin Game on a 3 by 3 torus, as the jaxmarl package plays it.

    A red and a blue player and a coin of each colour. A player that steps on a coin picks it up,
    whatever its colour, and the coin appears again in any cell. Taking the other's coin pays as much as
    taking one's own, but costs the other more than that: the social dilemma.

    Observation: flags `[36]`, uint8: for each cell, row by row, whether the player itself, the other
    player, the coin of its own colour and that of the other's are there. With `egocentric` the torus
    is turned so that the player is in the middle. With `cnn` the same as `[3, 3, 4]`.
    Action: 0 right, 1 left, 2 up (the next row), 3 down, 4 stays; the edges are joined.
    Reward: row i of `payoff_matrix` is what player i (0 red, 1 blue) gets for the red coin, for the
    blue coin, and when the other takes the coin of its colour. With `shared_rewards` both get the sum.
    Episode end: never terminates; the registered limit is 100 steps, ten rounds of `num_inner_steps`.
    At the end of a round all positions are drawn anew; that step pays nothing.
    Info: `own_coins` and `other_coins` `[2]`, what each player has picked up since the reset (selfish
    players have as much of one as of the other, cooperative ones none of the other), and
    `inner_episode_done`, whether a round ended in this step.

    Differences: jaxmarl's `num_outer_steps` is here `max_episode_steps` (rounds times steps), its end a
    truncation. Its counts of what follows on which convention are left out. Coins are counted over the
    episode, not for each round.

    Args:
        payoff_matrix: `[2, 3]`, or `[N, 2, 3]` for N different environments.
        num_inner_steps: steps of a round; more than the time limit for a single one.
        egocentric, cnn, shared_rewards: see above.

    Raises:
        InvalidValueError: a matrix of another shape, a round without steps.

    Reference: A. Lerer, A. Peysakhovich, "Maintaining cooperation in complex social dilemmas using deep
    reinforcement learning" (2017), arXiv:1707.01068; this size and these rounds after C. Lu et al.,
    "Model-Free Opponent Shaping" (2022).
    """

    payoff_matrix: Float[ArrayLike, "2 3"] | tuple[tuple[float, ...], ...] = (
        (1.0, 1.0, -2.0),
        (1.0, 1.0, -2.0),
    )
    num_inner_steps: int | Int[ArrayLike, ""] = 10
    egocentric: bool = eqx.field(static=True, default=False)
    cnn: bool = eqx.field(static=True, default=False)
    shared_rewards: bool = eqx.field(static=True, default=False)

    cheap_reset: ClassVar[bool] = True
    team_reward: ClassVar[Any] = property(lambda self: self.shared_rewards)
    action_names: ClassVar[tuple[str, ...]] = ("right", "left", "up", "down", "stay")

    def __post_init__(self):
        what = "three for each of the two players, such as ((1, 1, -2), (1, 1, -2))"
        self.payoff_matrix = require_array("payoff_matrix", self.payoff_matrix, (2, 3), what)

    def __check_init__(self):
        require_numbers("num_inner_steps", self.num_inner_steps, 1, whole=True)
        for name in ("egocentric", "cnn", "shared_rewards"):
            require_flag(name, getattr(self, name))

    def reset(self, key: Key[Array, ""]) -> tuple[CoinGameState, UInt8[Array, "2 ..."]]:
        zero = jnp.int32(0)
        state = CoinGameState(*_draw(key), (zero, zero), (zero, zero), zero)
        return state, self.observe(state)

    def step(
        self, key: Key[Array, ""], state: CoinGameState, action: Int[Array, "2"]
    ) -> tuple[CoinGameState, Step]:
        moved = [_move(state.rows[i], state.columns[i], action[i]) for i in (_RED, _BLUE)]

        def takes(player: int, coin: int) -> Bool[Array, ""]:
            row, column = moved[player]
            return (row == state.rows[coin]) & (column == state.columns[coin])

        taken = [[takes(player, coin) for coin in (_RED_COIN, _BLUE_COIN)] for player in (0, 1)]
        round_step = state.round_step + 1
        is_over = round_step >= self.num_inner_steps
        # One draw serves the coins that reappear and the positions of a new round: no step needs both.
        fresh_rows, fresh_columns = _draw(key)
        rows, columns = [], []
        for thing in range(4):
            if thing < _RED_COIN:
                drawn, (row, column) = is_over, moved[thing]
            else:
                colour = thing - _RED_COIN
                drawn = is_over | taken[0][colour] | taken[1][colour]
                row, column = state.rows[thing], state.columns[thing]
            rows.append(jnp.where(drawn, fresh_rows[thing], row))
            columns.append(jnp.where(drawn, fresh_columns[thing], column))
        state = CoinGameState(
            tuple(rows),
            tuple(columns),
            (state.own_coins[0] + taken[0][0], state.own_coins[1] + taken[1][1]),
            (state.other_coins[0] + taken[0][1], state.other_coins[1] + taken[1][0]),
            jnp.where(is_over, 0, round_step),
        )
        return state, Step(
            self.observe(state),
            jnp.where(is_over, 0.0, self._rewards(taken)),
            jnp.zeros((), bool),
            jnp.zeros((), bool),
            self._info(state, is_over),
        )

    def _rewards(self, taken: list[list[Bool[Array, ""]]]) -> Float[Array, "2"]:
        payoff = jnp.asarray(self.payoff_matrix)
        rewards = []
        for player in (0, 1):
            events = (*taken[player], taken[1 - player][player])
            rewards.append(sum(jnp.where(events[i], payoff[player, i], 0.0) for i in range(3)))
        if self.shared_rewards:
            rewards = [rewards[0] + rewards[1]] * 2
        return jnp.stack(rewards)

    def _info(self, state: CoinGameState, is_over: Bool[Array, ""]) -> dict[str, Any]:
        return {
            "own_coins": jnp.stack(state.own_coins),
            "other_coins": jnp.stack(state.other_coins),
            "inner_episode_done": is_over,
        }

    def reset_info(self, state: CoinGameState) -> dict[str, Any]:
        return self._info(state, jnp.zeros((), bool))

    def observe(self, state: CoinGameState) -> UInt8[Array, "2 ..."]:
        """The observations of both players."""
        cells = []
        for me, *others in _SEEN_BY:
            rows, columns = state.rows, state.columns
            if self.egocentric:
                rows = tuple(_wrap(row + 1 - rows[me]) for row in rows)
                columns = tuple(_wrap(column + 1 - columns[me]) for column in columns)
            cells += [rows[thing] * _SIZE + columns[thing] for thing in (me, *others)]
        # A chain of selects over bytes vectorises; spreading an axis of things over the flags does not.
        sought = cells[0].astype(jnp.uint8)
        for index, cell in enumerate(cells):
            sought = jnp.where(index == _THING_OF_FLAG, cell.astype(jnp.uint8), sought)
        return (sought == _CELL_OF_FLAG).astype(jnp.uint8).reshape(2, *self._shape)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (_SIZE, _SIZE, 4) if self.cnn else (_CELLS * 4,)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        space = Box(0, 1, self._shape, np.uint8)
        return (AgentKind("player", ("red", "blue"), space, Discrete(5)),)

    def render(self, state: CoinGameState) -> np.ndarray:
        """The torus, row 0 at the bottom, and below it the coins that each player has picked up."""
        picture = GridPicture(_SIZE, _SIZE, background="#cbd5e1", legend=_LEGEND)
        for row, column in np.ndindex(_SIZE, _SIZE):
            picture.cell(row, column, "#f8fafc")
        places = [
            (_SIZE - 1 - int(row), int(column))
            for row, column in zip(state.rows, state.columns, strict=True)
        ]
        # Players that share a cell stand side by side, coins too; a coin never hides a player.
        for first, radius, draw in ((_RED_COIN, 0.17, _draw_coin), (_RED, 0.2, _draw_player)):
            together = places[first] == places[first + 1]
            for index in (0, 1):
                row, column = places[first + index]
                offset = (0.5 - index) * -0.44 if together else 0.0
                height = 0.74 if first == _RED_COIN else 0.32
                draw(picture, row + height, column + 0.5 + offset, radius, _COLORS[index])
        corners = picture.point(_SIZE + _LEGEND, 0), picture.point(_SIZE, _SIZE)
        picture.canvas.rectangle(*corners, "#ffffff")
        for player in (0, 1):
            height, taken = _SIZE + 0.22 + 0.32 * player, (player, 1 - player)
            _draw_player(picture, height, 0.3, 0.1, _COLORS[player])
            counts = int(state.own_coins[player]), int(state.other_coins[player])
            for place, (colour, count) in enumerate(zip(taken, counts, strict=True)):
                left = 0.8 + 1.1 * place
                _draw_coin(picture, height, left, 0.1, _COLORS[colour])
                point = picture.point(height, left + 0.2)
                picture.canvas.text(point, str(count), "#1e293b", size=14, align="left")
        return picture.canvas.pixels()

    def describe(self, state: CoinGameState) -> str:
        """The torus, row 0 at the bottom: R and B the players, r and b the coins; and their counts."""
        cells = np.full((_SIZE, _SIZE), "", object)
        for letter, row, column in zip("RBrb", state.rows, state.columns, strict=True):
            cells[_SIZE - 1 - int(row), int(column)] += letter
        town = "\n".join(" ".join((cell or ".").ljust(4) for cell in row).rstrip() for row in cells)
        counts = [
            f"{name}: {int(state.own_coins[i])} own, {int(state.other_coins[i])} of the other's coins"
            for i, name in enumerate(("red", "blue"))
        ]
        return "\n".join([town, *counts])


def _draw(key: Key[Array, ""]) -> tuple[Four, Four]:
    """Rows and columns of four things, each in any cell, from one random word."""
    draw = random_index(key, _CELLS**4).astype(jnp.uint32)  # unsigned divides faster
    digits = [(draw // _SIZE**place % _SIZE).astype(jnp.int32) for place in range(8)]
    return tuple(digits[::2]), tuple(digits[1::2])  # type: ignore[return-value]


def _move(
    row: Int[Array, ""], column: Int[Array, ""], action: Int[Array, ""]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    up = (action == _UP).astype(jnp.int32) - (action == _DOWN)
    right = (action == _RIGHT).astype(jnp.int32) - (action == _LEFT)
    return _wrap(row + up), _wrap(column + right)


def _wrap(value: Int[Array, ""]) -> Int[Array, ""]:
    """`value` modulo 3, for -1 to 5 exclusive of 6: a remainder costs more on a CPU."""
    value = jnp.where(value < 0, value + _SIZE, value)
    return jnp.where(value >= _SIZE, value - _SIZE, value)


def _draw_player(
    picture: GridPicture, row: float, column: float, radius: float, color: str
) -> None:
    """A disc with two eyes, centred at (row, column)."""
    picture.canvas.circle(picture.point(row, column), radius, color)
    for side in (-0.36, 0.36):
        eye = picture.point(row - 0.2 * radius, column + side * radius)
        picture.canvas.circle(eye, 0.24 * radius, "#ffffff")


def _draw_coin(picture: GridPicture, row: float, column: float, radius: float, color: str) -> None:
    """A disc with a ring in it, which no player has."""
    for size, shade in ((1.0, color), (0.74, "#fde68a"), (0.5, color)):
        picture.canvas.circle(picture.point(row, column), size * radius, shade)
