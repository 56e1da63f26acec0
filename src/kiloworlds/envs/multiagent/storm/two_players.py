"""STORM for two players: collect coins, then meet and play a matrix game with what was collected."""

import itertools
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

from kiloworlds.core.checks import require_count, require_flag, require_numbers
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Box, Dict, Discrete
from kiloworlds.envs.multiagent.storm import board, picture
from kiloworlds.envs.multiagent.storm.board import Board
from kiloworlds.envs.multiagent.storm.fusion import computed_once
from kiloworlds.envs.multiagent.storm.games import as_payoffs
from kiloworlds.envs.multiagent.storm.geometry import ahead, from_player, window

# y = 7 above. s: players start here; r, b: coins when their places are fixed; R: both.
_MAP = (
    "sss..sss",
    "srb..Rrs",
    ".r....b.",
    "........",
    "........",
    ".r....b.",
    "sbB..rbs",
    "sss..sss",
)
_SIZE = len(_MAP)
_WORDS = board.num_words(_SIZE)
_COINS = 6  # of each colour
_CLOCKWISE, _COUNTERCLOCKWISE, _FORWARD, _INTERACT, _STAY = range(5)
_BEAM = ((1, 0), (2, 0), (1, 1), (1, -1))  # steps ahead and to the right
_VIEW = 5
_FORWARD_OF_CELL, _RIGHTWARD_OF_CELL = window(_VIEW)
_CHANNELS = 10
_DIRECTIONS = 3  # players never start facing left


def _cells(letters: str) -> list[int]:
    return [x * _SIZE + y for x, y in np.ndindex(_SIZE, _SIZE) if _MAP[_SIZE - 1 - y][x] in letters]


_STARTS = _cells("sRB")
_COIN_CELLS = _cells("rRbB")
_RED_CELLS = _cells("rR")
_ALL_COINS = board.of_cells(_COIN_CELLS, _SIZE)
_LAYOUTS = np.array(
    [board.of_cells(red, _SIZE) for red in itertools.combinations(_COIN_CELLS, _COINS)], np.uint32
)
"""The red coins `[layouts, words]` of every way to colour the coins."""

Two = tuple[Int[Array, ""], Int[Array, ""]]


class Players(NamedTuple):
    """Where the two players are and where they look (see `geometry`)."""

    x: Two
    y: Two
    direction: Two

    def cell(self, player: int) -> Int[Array, ""]:
        return self.x[player] * _SIZE + self.y[player]


class TwoPlayerStormState(NamedTuple):
    """Players, what they have collected (red coins, blue coins), and what lies in the grid.

    `red` and `blue` are the cells of coins not yet taken; `red_home` those where coins that come back
    are red, the rest of the coins' cells being blue. `beams` are the empty cells that an interaction
    swept over in the last step. `freeze` counts down the steps that are left of a meeting, and is -1
    when there is none. `round_step` counts the steps of a round.
    """

    players: Players
    inventories: tuple[Two, Two]
    red: Board
    blue: Board
    red_home: Board
    beams: Board
    freeze: Int[Array, ""]
    round_step: Int[Array, ""]


class TwoPlayerStorm(MultiAgentEnvironment):
    """STORM for two players, as the jaxmarl package's `storm_2p` plays it.

    On a grid of 8 by 8 lie six red and six blue coins. When a player interacts and the other is in its
    beam (the two cells ahead of it, and the two beside the nearer one), and both have coins, they play
    the matrix game once: what a player does is the mix of coins it has. Then both are frozen for
    `freeze_penalty` steps, in which they see what the other had; after that they lose their coins,
    start elsewhere, and all coins are back.

    Observation: a dictionary. "observation", flags `[5, 5, 10]`, uint8, the window ahead: entry
    `[i, j]` is the cell j steps ahead and i - 2 to the right; the flags are the player itself, the
    other, red coin, blue coin, wall, beam, and one for the direction of the other as seen from the
    player (the same, clockwise of it, opposite, counter-clockwise). "inventory", `[6]`, uint8: one's red
    and blue coins, whether oneself and the other have any, the other's red and blue coins (0 unless
    frozen).
    Action: 0 turns clockwise, 1 counter-clockwise (jaxmarl calls them left and right), 2 goes ahead,
    3 interacts, 4 stays. Who is frozen stays. Of two that go to one cell either gets there; nobody
    pushes a player away.
    Reward: at a meeting p^T M q for M = `payoff_matrix[player]`, with p and q the shares of red and blue
    coins of players 0 and 1; else 0.
    Episode end: never terminates; the registered limit is 152 steps. With `num_inner_steps` everything
    starts over whenever so many steps have passed; such a step pays nothing.
    Info: `interacted`, whether they met in this step, and `red_share` `[2]`, the share of red coins
    (cooperation, in the prisoner's dilemma) each has, 0 without any.

    Differences: jaxmarl's `num_outer_steps` is here `max_episode_steps` (rounds times steps), its end a
    truncation. It plays rounds of 152 steps by default, so that the last step of an episode pays nothing
    and shows a fresh start; here rounds are only played where asked for.

    Args:
        payoff_matrix: the name of one of `games.GAMES`; or `[2, 2, 2]`, a matrix for each player, or
            `[N, 2, 2, 2]` for N different environments.
        freeze_penalty: steps, 1 or more; scalar or `[N]`.
        num_inner_steps: steps of a round; None for an episode without rounds.
        fixed_coin_location: whether the coins' colours are always those of one layout; else they are
            drawn at every start.

    Raises:
        UnknownNameError: there is no matrix game of that name.
        InvalidValueError: payoffs of another shape, a freeze or a round without steps.

    Reference: A. Khan et al., "Scaling Opponent Shaping to High Dimensional Games" (2023),
    arXiv:2312.12568; after the games "in the matrix" of J. Leibo et al. (2021).
    """

    payoff_matrix: Float[ArrayLike, "2 2 2"] = eqx.field(
        converter=as_payoffs, default="prisoners-dilemma"
    )
    freeze_penalty: int | Int[ArrayLike, ""] = 5
    num_inner_steps: int | None = eqx.field(static=True, default=None)
    fixed_coin_location: bool = eqx.field(static=True, default=True)

    cheap_reset: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = (
        "turn clockwise",
        "turn counter-clockwise",
        "forward",
        "interact",
        "stay",
    )

    def __check_init__(self):
        require_numbers("freeze_penalty", self.freeze_penalty, 1, whole=True)
        if self.num_inner_steps is not None:
            require_count("num_inner_steps", self.num_inner_steps)
        require_flag("fixed_coin_location", self.fixed_coin_location)

    def reset(self, key: Key[Array, ""]) -> tuple[TwoPlayerStormState, dict[str, Array]]:
        state = self._start(key, _draw_players(random_index(key, _NUM_STARTS)))
        return state, self.observe(state)

    def _start(self, key: Key[Array, ""], players: Players) -> TwoPlayerStormState:
        red = board.of_cells(_RED_CELLS, _SIZE)
        if not self.fixed_coin_location:
            draw = random_index(jax.random.fold_in(key, 1), len(_LAYOUTS))
            red = tuple(jnp.asarray(_LAYOUTS)[draw])
        none, zero = (jnp.int32(0), jnp.int32(0)), jnp.int32(0)
        # A coin where a player starts hides it: the player takes it by staying, or treads it down.
        blue = board.without(_ALL_COINS, red)
        nothing = board.empty(_SIZE)
        state = TwoPlayerStormState(
            players, (none, none), red, blue, red, nothing, jnp.int32(-1), zero
        )
        return jax.tree.map(jnp.asarray, state)

    def step(
        self, key: Key[Array, ""], state: TwoPlayerStormState, action: Int[Array, "2"]
    ) -> tuple[TwoPlayerStormState, Step]:
        draw = random_index(key, _NUM_STARTS)
        actions = [jnp.where(state.freeze > 0, _STAY, action[i]) for i in (0, 1)]
        # One draw serves both uses: players that start elsewhere in this step were frozen.
        players = computed_once(_move(state.players, actions, first_gets_there=(draw & 1) == 1))
        inventories = tuple(
            (
                state.inventories[i][0] + board.has(state.red, players.cell(i)),
                state.inventories[i][1] + board.has(state.blue, players.cell(i)),
            )
            for i in (0, 1)
        )
        feet = [where.cell(i) for where in (state.players, players) for i in (0, 1)]
        trodden = board.union(*(board.of_cell(cell, _WORDS) for cell in feet))
        red, blue = board.without(state.red, trodden), board.without(state.blue, trodden)
        zaps = [actions[i] == _INTERACT for i in (0, 1)]
        have_coins = [red + blue > 0 for red, blue in inventories]
        meet = (zaps[0] & _faces(players, 0)) | (zaps[1] & _faces(players, 1))
        meet = computed_once(meet & have_coins[0] & have_coins[1])
        rewards = jnp.where(meet, self._payoffs(inventories), 0.0)
        occupied = board.union(red, blue, *(board.of_cell(players.cell(i), _WORDS) for i in (0, 1)))
        freeze = jnp.where(meet, self.freeze_penalty, state.freeze)
        freeze = freeze - (freeze > 0)
        state = TwoPlayerStormState(
            players,
            inventories,  # type: ignore[arg-type]
            red,
            blue,
            state.red_home,
            board.without(_beams(players, zaps), occupied),
            freeze,
            state.round_step + 1,
        )
        elsewhere = _draw_players(draw)
        state = _select(freeze == 0, _parted(state, elsewhere), state)
        state = state._replace(freeze=jnp.where(meet, self.freeze_penalty, state.freeze))
        if self.num_inner_steps is not None:
            is_over = state.round_step >= self.num_inner_steps
            state = _select(is_over, self._start(key, elsewhere), state)
            rewards = jnp.where(is_over, 0.0, rewards)
        never = jnp.zeros((), bool)
        step = Step(self.observe(state), rewards, never, never, _info(state, meet))
        return state, step

    def _payoffs(self, inventories: Any) -> Float[Array, "2"]:
        payoff = jnp.asarray(self.payoff_matrix)
        shares = [_shares(inventory) for inventory in inventories]
        return jnp.stack(
            [
                sum(shares[0][i] * payoff[player, i, j] * shares[1][j] for i, j in np.ndindex(2, 2))
                for player in (0, 1)
            ]
        )

    def reset_info(self, state: TwoPlayerStormState) -> dict[str, Any]:
        return _info(state, jnp.zeros((), bool))

    def observe(self, state: TwoPlayerStormState) -> dict[str, UInt8[Array, "2 ..."]]:
        """What both players observe."""
        has_coins = [red + blue > 0 for red, blue in state.inventories]
        shown = [
            [jnp.where(state.freeze >= 0, count, 0) for count in inventory]
            for inventory in state.inventories
        ]
        seen = [
            (*state.inventories[me], has_coins[me], has_coins[1 - me], *shown[1 - me])
            for me in (0, 1)
        ]
        inventory = jnp.stack([entry.astype(jnp.uint8) for row in seen for entry in row])
        flags = computed_once(jnp.stack([_flags(state, me) for me in (0, 1)]))
        windows = (flags[..., None] >> np.arange(_CHANNELS, dtype=np.int32)) & 1
        return {
            "inventory": inventory.reshape(2, 6),
            "observation": windows.astype(jnp.uint8).reshape(2, _VIEW, _VIEW, _CHANNELS),
        }

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        space = Dict(
            {
                "observation": Box(0, 1, (_VIEW, _VIEW, _CHANNELS), np.uint8),
                "inventory": Box(0, _COINS, (6,), np.uint8),
            }
        )
        return (AgentKind.numbered("player", 2, space, Discrete(5)),)

    def render(self, state: TwoPlayerStormState) -> np.ndarray:
        """The grid with coins, beams and players, and below it what each has collected."""
        return picture.draw(_scene(state))

    def describe(self, state: TwoPlayerStormState) -> str:
        """The grid, and what each player has collected."""
        return picture.describe(_scene(state))


_NUM_STARTS = len(_STARTS) * _DIRECTIONS**2


def _draw_players(draw: Int[Array, ""]) -> Players:
    """One of `_NUM_STARTS` places and directions: the players start point-symmetric to each other."""
    draw = draw.astype(jnp.uint32)  # unsigned divides faster
    place = draw // _DIRECTIONS**2
    # Five cells of six bits to a word.
    word = jnp.uint32(0)
    for index, first in enumerate(range(0, len(_STARTS), 5)):
        packed = sum(cell << 6 * i for i, cell in enumerate(_STARTS[first : first + 5]))
        word = jnp.where(place // 5 == index, jnp.uint32(packed), word)
    cell = (word >> (place % 5 * 6) & 63).astype(jnp.int32)
    x, y = cell >> 3, cell & 7
    directions = draw // _DIRECTIONS % _DIRECTIONS, draw % _DIRECTIONS
    last = _SIZE - 1
    one, other = (direction.astype(jnp.int32) for direction in directions)
    return Players((x, last - x), (y, last - y), (one, other))


def _move(
    players: Players, actions: list[Int[Array, ""]], first_gets_there: Bool[Array, ""]
) -> Players:
    """The players after turning and going ahead; those that cannot stay where they are."""
    xs, ys, directions, moved = [], [], [], []
    for x, y, direction, action in zip(*players, actions, strict=True):
        step_x, step_y = ahead(direction)
        goes = action == _FORWARD
        xs.append(jnp.clip(x + jnp.where(goes, step_x, 0), 0, _SIZE - 1))
        ys.append(jnp.clip(y + jnp.where(goes, step_y, 0), 0, _SIZE - 1))
        turn = (action == _CLOCKWISE).astype(jnp.int32) - (action == _COUNTERCLOCKWISE)
        directions.append((direction + turn) & 3)
        moved.append((xs[-1] != x) | (ys[-1] != y))
    clash = (xs[0] == xs[1]) & (ys[0] == ys[1])
    # Who was there already keeps the cell.
    back = (
        clash & moved[0] & ~(moved[1] & first_gets_there),
        clash & moved[1] & ~(moved[0] & ~first_gets_there),
    )
    return Players(
        tuple(jnp.where(back[i], players.x[i], xs[i]) for i in (0, 1)),  # type: ignore[arg-type]
        tuple(jnp.where(back[i], players.y[i], ys[i]) for i in (0, 1)),  # type: ignore[arg-type]
        tuple(directions),  # type: ignore[arg-type]
    )


def _faces(players: Players, me: int) -> Bool[Array, ""]:
    """Whether the other player is where a player's beam reaches."""
    x, y = players.x[1 - me] - players.x[me], players.y[1 - me] - players.y[me]
    ahead_x, ahead_y = ahead(players.direction[me])
    forward, rightward = x * ahead_x + y * ahead_y, x * ahead_y - y * ahead_x
    straight = (rightward == 0) & ((forward == 1) | (forward == 2))
    return straight | ((forward == 1) & (jnp.abs(rightward) == 1))


def _beams(players: Players, zaps: list[Bool[Array, ""]]) -> Board:
    """The cells of the grid that the beams of interacting players reach."""
    swept = board.empty(_SIZE)
    for x, y, direction, zap in zip(*players, zaps, strict=True):
        for forward, rightward in _BEAM:
            cell_x, cell_y = from_player(x, y, direction, forward, rightward)
            lit = zap & _is_inside(cell_x, cell_y)
            cell = board.of_cell(cell_x * _SIZE + cell_y, _WORDS)
            swept = board.union(swept, board.where(lit, cell, board.empty(_SIZE)))
    return swept


def _is_inside(x: Int[Array, "..."], y: Int[Array, "..."]) -> Bool[Array, "..."]:
    return ((x | y) & ~(_SIZE - 1)) == 0  # the size is a power of two


def _parted(state: TwoPlayerStormState, players: Players) -> TwoPlayerStormState:
    """The state after a meeting: all coins are back, but where the players now stand."""
    under = board.union(*(board.of_cell(players.cell(i), _WORDS) for i in (0, 1)))
    none = (jnp.int32(0), jnp.int32(0))
    return state._replace(
        players=players,
        inventories=(none, none),
        red=board.without(state.red_home, under),
        blue=board.without(_ALL_COINS, board.union(state.red_home, under)),
        beams=board.empty(_SIZE),
        freeze=jnp.int32(-1),
    )


def _select(
    condition: Bool[Array, ""], state: TwoPlayerStormState, other: TwoPlayerStormState
) -> TwoPlayerStormState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), state, other)


def _shares(inventory: Two) -> tuple[Float[Array, ""], Float[Array, ""]]:
    red, blue = inventory
    total = jnp.maximum(red + blue, 1)
    return red / total, blue / total


def _info(state: TwoPlayerStormState, meet: Bool[Array, ""]) -> dict[str, Any]:
    shares = [_shares(inventory)[0] for inventory in state.inventories]
    return {"interacted": meet, "red_share": jnp.stack(shares)}


def _flags(state: TwoPlayerStormState, me: int) -> Int[Array, " cells"]:
    """What a player sees in each cell of its window, a bit for each channel."""
    players, other = state.players, 1 - me
    direction = players.direction[me]
    x, y = from_player(
        players.x[me], players.y[me], direction, _FORWARD_OF_CELL, _RIGHTWARD_OF_CELL
    )
    inside = _is_inside(x, y)
    cell = x * _SIZE + y
    red, blue, beam = (
        inside & board.has(cells, cell) for cells in (state.red, state.blue, state.beams)
    )
    no_coin = ~(red | blue)
    itself = no_coin & ((_FORWARD_OF_CELL == 0) & (_RIGHTWARD_OF_CELL == 0))
    is_other = (x == players.x[other]) & (y == players.y[other]) & no_coin
    turned = (players.direction[other] - direction) & 3
    flags = [itself, is_other, red, blue, ~inside, beam]
    bits = sum(flag.astype(jnp.int32) << channel for channel, flag in enumerate(flags))
    return bits | is_other.astype(jnp.int32) << (len(flags) + turned)


def _scene(state: TwoPlayerStormState) -> picture.Scene:
    players = [
        picture.Player(
            int(state.players.x[i]),
            int(state.players.y[i]),
            int(state.players.direction[i]),
            int(state.inventories[i][0]),
            int(state.inventories[i][1]),
            max(int(state.freeze), 0),
        )
        for i in (0, 1)
    ]
    return picture.Scene(
        board.unpack(state.red, _SIZE),
        board.unpack(state.blue, _SIZE),
        board.unpack(state.beams, _SIZE),
        players,
    )
