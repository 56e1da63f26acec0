"""STORM for many players: collect coins, then zap others and play a matrix game with each."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8, UInt32

from kiloworlds.core.checks import require_count, require_number, require_numbers
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.multiagent.storm import board, picture
from kiloworlds.envs.multiagent.storm.board import Board
from kiloworlds.envs.multiagent.storm.fusion import computed_once
from kiloworlds.envs.multiagent.storm.games import as_payoffs
from kiloworlds.envs.multiagent.storm.geometry import ahead, from_player, window

_CLOCKWISE, _COUNTERCLOCKWISE, _FORWARD, _STAY, _ZAP_NEAR, _ZAP_FAR, _ZAP_RIGHT, _ZAP_LEFT = range(
    8
)
_BEAM_FORWARD, _BEAM_RIGHTWARD = np.array([[1, 2, 1, 1], [0, 0, 1, -1]], np.int32)
_DIRECTIONS = 3  # players never start facing left
_MOST_PLAYERS = 32
_LARGEST_GRID = 32
_MOST_SHOWN = 255  # coins of an inventory
# Where the channels of an observation lie in the bits of one number, and how many values they have.
_SHIFTS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 20, 11], np.int32)
_MASKS = np.array([1] * 11 + [_MOST_SHOWN] * 2 + [1], np.int32)
_WALL, _BEAM, _RED, _BLUE, _SELF, _OTHER, _TURNED, _HAS_COINS, _RED_COINS, _BLUE_COINS, _FROZEN = (
    _SHIFTS[[0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13]]
)


class Players(NamedTuple):
    """Where the players are and where they look (see `geometry`)."""

    x: Int[Array, " A"]
    y: Int[Array, " A"]
    direction: Int[Array, " A"]


class ManyPlayerStormState(NamedTuple):
    """Players, what they have collected (red coins, blue coins), and what lies in the grid.

    `red` and `blue` are the cells of coins not yet taken, `beams` the empty cells that a zap swept over
    in the last step. `freeze` counts down the steps each player still is frozen for, `partners` tells
    with whom it met before. `round_step` counts the steps of a round.
    """

    players: Players
    inventories: Int[Array, "A 2"]
    red: Board
    blue: Board
    beams: Board
    freeze: Int[Array, " A"]
    partners: Bool[Array, "A A"]
    round_step: Int[Array, ""]


class ManyPlayerStorm(MultiAgentEnvironment):
    """STORM for many players: the rules that the jaxmarl package's `storm_np` sets out.

    On a grid lie red and blue coins, `num_coins` of each colour, in random places. A player zaps one of
    four cells: ahead, two ahead, or beside the cell ahead. If both it and the one it hits have coins and
    neither is frozen, they play the matrix game once, each with the mix of coins it has. Both are then
    frozen for `freeze_penalty` steps, in which they see what the other had; after that they lose their
    coins and start elsewhere, and all coins that were taken are back in random free cells.

    Observation: `[size, size, 14]`, uint8, the window ahead: entry `[i, j]` is the cell j steps ahead
    and i - size // 2 to the right. Flags for wall, beam, red coin, blue coin, the player itself,
    another, four for the direction of the other as seen from the player (the same, clockwise of it,
    opposite, counter-clockwise), and whether who is there has coins; the red and the blue coins of who
    is there (of others only when frozen with them; 255 at most); and a flag for another that is frozen.
    Action: 0 turns clockwise, 1 counter-clockwise (jaxmarl calls them left and right), 2 goes ahead,
    3 stays; 4 to 7 zap the cell ahead, two ahead, ahead and right, ahead and left. A zap two cells ahead
    beyond the edge hits the edge, one aside the cell ahead. Who is frozen stays. Of those that go to
    one cell any may get there, unless somebody stays in it.
    Reward: for every meeting p^T M q for M = `payoff_matrix[0]` for the player of the lower number,
    whose shares of red and blue coins are p, and M = `payoff_matrix[1]` for the other.
    Episode end: never terminates; the registered limit is 152 steps. With `num_inner_steps` everything
    starts over whenever so many steps have passed; such a step pays nothing.
    Info: `interacted` `[A]`, who met somebody in this step, and `red_share` `[A]`, the share of red
    coins (cooperation, in the prisoner's dilemma) each has, 0 without any.

    Of several who zap one player the one with the cell ahead wins, else any. A player may zap one and
    be zapped by others in one step, and is paid for each; two who zap each other meet once.

    Differences: jaxmarl 0.2.0 does not do all it says. There the zapped gets the zapper's payoff and
    the zapper none (but for player 0), the zapped being the row player; a zap to the left asks who is
    on the right; nearer zaps do not win; what the player itself is shows in the wrong channel for all
    but the last; the coins shown in a cell, and whether frozen, are those of the player before the one
    there, also of those never met; who is pushed back may share a cell with
    another, and coins and players come back in occupied cells; a bystander may put out a beam.
    `num_outer_steps` is here `max_episode_steps` (rounds times steps), its end a truncation, and rounds
    are only played where asked for.

    Args:
        num_agents: players, 2 to 32.
        payoff_matrix: the name of one of `games.GAMES`; or `[2, 2, 2]`, a matrix for each player, or
            `[N, 2, 2, 2]` for N different environments.
        freeze_penalty: steps, 1 or more; scalar or `[N]`.
        grid_size: cells along a side, 4 to 32.
        obs_size: cells along a side of the window, odd.
        num_coins: coins of each colour.
        num_inner_steps: steps of a round; None for an episode without rounds.

    Raises:
        UnknownNameError: there is no matrix game of that name.
        InvalidValueError: payoffs of another shape, a number outside these, or more things than cells.

    Reference: A. Khan et al., "Scaling Opponent Shaping to High Dimensional Games" (2023),
    arXiv:2312.12568; after the games "in the matrix" of J. Leibo et al. (2021).
    """

    payoff_matrix: Float[ArrayLike, "2 2 2"]
    freeze_penalty: int | Int[ArrayLike, ""]
    num_players: int = eqx.field(static=True)
    grid_size: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True)
    num_coins: int = eqx.field(static=True)
    num_inner_steps: int | None = eqx.field(static=True)

    action_names: ClassVar[tuple[str, ...]] = (
        "turn clockwise",
        "turn counter-clockwise",
        "forward",
        "stay",
        "zap ahead",
        "zap two ahead",
        "zap right",
        "zap left",
    )

    def __init__(
        self,
        num_agents: int = 4,
        payoff_matrix: Any = "prisoners-dilemma",
        freeze_penalty: int | Int[ArrayLike, ""] = 5,
        grid_size: int = 8,
        obs_size: int = 5,
        num_coins: int = 6,
        num_inner_steps: int | None = None,
    ):
        require_number("num_agents", num_agents, 2, _MOST_PLAYERS, whole=True)
        require_number("grid_size", grid_size, 4, _LARGEST_GRID, whole=True)
        require_number("obs_size", obs_size, 1, 2 * _LARGEST_GRID + 1, whole=True)
        require_count("num_coins", num_coins)
        if obs_size % 2 == 0:
            raise InvalidValueError(
                f"obs_size={obs_size} must be odd, so that a player is in the middle of its window; the "
                f"nearest valid value is {obs_size + 1}."
            )
        things = num_agents + 2 * num_coins
        if things > grid_size**2:
            raise InvalidValueError(
                f"num_agents={num_agents} and num_coins={num_coins} of each colour need {things} cells; "
                f"grid_size={grid_size} has {grid_size**2}. The smallest that holds them is "
                f"{int(np.ceil(np.sqrt(things)))}."
            )
        require_numbers("freeze_penalty", freeze_penalty, 1, whole=True)
        if num_inner_steps is not None:
            require_count("num_inner_steps", num_inner_steps)
        self.payoff_matrix = as_payoffs(payoff_matrix)
        self.freeze_penalty = freeze_penalty
        self.num_players, self.grid_size = int(num_agents), int(grid_size)
        self.obs_size, self.num_coins = int(obs_size), int(num_coins)
        self.num_inner_steps = num_inner_steps

    def reset(self, key: Key[Array, ""]) -> tuple[ManyPlayerStormState, UInt8[Array, "A ..."]]:
        state = self._start(key)
        return state, self.observe(state)

    def _start(self, key: Key[Array, ""]) -> ManyPlayerStormState:
        count = self.num_players
        none = board.empty(self.grid_size)
        nobody = jnp.zeros(count, jnp.int32)
        state = ManyPlayerStormState(
            Players(nobody, nobody, nobody),
            jnp.zeros((count, 2), jnp.int32),
            none,
            none,
            none,
            nobody,
            jnp.zeros((count, count), bool),
            jnp.int32(0),
        )
        return jax.tree.map(jnp.asarray, self._bring_back(key, state, jnp.ones(count, bool)))

    def step(
        self, key: Key[Array, ""], state: ManyPlayerStormState, action: Int[Array, " A"]
    ) -> tuple[ManyPlayerStormState, Step]:
        size = self.grid_size
        action = jnp.where(state.freeze > 0, _STAY, action)
        words = jax.random.bits(key, (2, self.num_players))
        # No two are equal: the lowest bits are those of the player's number.
        order = words & ~np.uint32(_MOST_PLAYERS - 1) | np.arange(self.num_players, dtype=np.uint32)
        players = computed_once(self._move(state.players, action, order[0]))
        cells = players.x * size + players.y
        takes = jnp.stack([board.has(state.red, cells), board.has(state.blue, cells)], axis=-1)
        inventories = state.inventories + takes
        standing = _union_of_cells(cells, size)
        red, blue = (board.without(coins, standing) for coins in (state.red, state.blue))
        ready = (inventories.sum(-1) > 0) & (state.freeze <= 0)
        zaps = (action >= _ZAP_NEAR) & ready
        meets = computed_once(self._meetings(players, action, zaps, ready, order[1]))
        interacted = meets.any(1)
        rewards = self._rewards(inventories, meets)
        occupied = board.union(red, blue, standing)
        freeze = jnp.where(interacted, self.freeze_penalty, jnp.maximum(state.freeze - 1, 0))
        freed = state.freeze == 1
        state = ManyPlayerStormState(
            players,
            inventories,
            red,
            blue,
            board.without(self._beams(players, zaps), occupied),
            freeze,
            (state.partners | meets) & (freeze > 0)[:, None],
            state.round_step + 1,
        )
        state = self._bring_back(jax.random.fold_in(key, 1), state, freed)
        if self.num_inner_steps is not None:
            is_over = state.round_step >= self.num_inner_steps
            fresh = self._start(jax.random.fold_in(key, 2))
            state = jax.tree.map(lambda new, old: jnp.where(is_over, new, old), fresh, state)
            rewards = jnp.where(is_over, 0.0, rewards)
        never = jnp.zeros((), bool)
        step = Step(self.observe(state), rewards, never, never, _info(state, interacted))
        return state, step

    def _move(
        self, players: Players, action: Int[Array, " A"], order: UInt32[Array, " A"]
    ) -> Players:
        """The players after turning and going ahead; those that cannot stay where they are."""
        step_x, step_y = ahead(players.direction)
        goes, last = action == _FORWARD, self.grid_size - 1
        x = jnp.clip(players.x + jnp.where(goes, step_x, 0), 0, last)
        y = jnp.clip(players.y + jnp.where(goes, step_y, 0), 0, last)
        moved = (x != players.x) | (y != players.y)
        # Row i, column j: whether i wants the cell that j wants, or that j is in now.
        clash = _equal(x, x) & _equal(y, y)
        enters = _equal(x, players.x) & _equal(y, players.y) & ~np.eye(self.num_players, dtype=bool)
        loses = ~moved | (order[None, :] > order[:, None])
        back = moved & (clash & loses).any(1)
        for _ in range(self.num_players - 1):  # who stays keeps out who follows
            back = back | (moved & (enters & back).any(1))
        turn = (action == _CLOCKWISE).astype(jnp.int32) - (action == _COUNTERCLOCKWISE)
        return Players(
            jnp.where(back, players.x, x),
            jnp.where(back, players.y, y),
            (players.direction + turn) & 3,
        )

    def _meetings(
        self,
        players: Players,
        action: Int[Array, " A"],
        zaps: Bool[Array, " A"],
        ready: Bool[Array, " A"],
        order: UInt32[Array, " A"],
    ) -> Bool[Array, "A A"]:
        """Who meets whom in this step."""
        last = self.grid_size - 1
        forward = jnp.where(action == _ZAP_FAR, 2, 1)
        rightward = (action == _ZAP_RIGHT).astype(jnp.int32) - (action == _ZAP_LEFT)
        x, y = from_player(*players, forward, rightward)
        beyond = ~self._is_inside(x, y) & (rightward != 0)
        near_x, near_y = from_player(*players, 1, 0)
        x = jnp.clip(jnp.where(beyond, near_x, x), 0, last)
        y = jnp.clip(jnp.where(beyond, near_y, y), 0, last)
        others = ~np.eye(self.num_players, dtype=bool)
        hits = _equal(x, players.x) & _equal(y, players.y) & others & zaps[:, None] & ready
        near = (action == _ZAP_NEAR).astype(jnp.uint32) << 31
        order = near | order >> 1
        # Row i, column k: whether k is preferred to i.
        preferred = order[None, :] > order[:, None]
        beaten = (preferred[:, :, None] & hits[None, :, :]).any(1)
        wins = hits & ~beaten
        return wins | wins.T

    def _rewards(
        self, inventories: Int[Array, "A 2"], meets: Bool[Array, "A A"]
    ) -> Float[Array, " A"]:
        payoff, shares = jnp.asarray(self.payoff_matrix), _shares(inventories)
        # Row i, column j: what i gets from j.
        as_row, as_column = (
            sum(
                shares[:, None, mine] * entry(mine, other) * shares[None, :, other]
                for mine, other in np.ndindex(2, 2)
            )
            for entry in (lambda i, j: payoff[0, i, j], lambda i, j: payoff[1, j, i])
        )
        is_row = np.triu(np.ones((self.num_players, self.num_players), bool))
        return jnp.where(meets, jnp.where(is_row, as_row, as_column), 0.0).sum(1)

    def _beams(self, players: Players, zaps: Bool[Array, " A"]) -> Board:
        """The cells of the grid near players that zap."""
        x, y = from_player(*_columns(players), _BEAM_FORWARD, _BEAM_RIGHTWARD)
        lit = zaps[:, None] & self._is_inside(x, y)
        return _union_of_cells(x * self.grid_size + y, self.grid_size, lit)

    def _is_inside(self, x: Int[Array, "..."], y: Int[Array, "..."]) -> Bool[Array, "..."]:
        size = self.grid_size
        return (x >= 0) & (x < size) & (y >= 0) & (y < size)

    def _bring_back(
        self, key: Key[Array, ""], state: ManyPlayerStormState, freed: Bool[Array, " A"]
    ) -> ManyPlayerStormState:
        """Puts the freed players, and all coins taken if there are any, in random free cells."""
        size, count = self.grid_size, self.num_players
        x, y, direction = state.players
        kept = _union_of_cells(x * size + y, size, ~freed)
        free = board.without(board.full(size), board.union(state.red, state.blue, kept))
        number = jnp.arange(self.num_coins)
        missing = [
            freed.any() & (number < self.num_coins - board.count(coins))
            for coins in (state.red, state.blue)
        ]
        wanted = jnp.concatenate([freed, *missing])
        draw_key, turn_key = jax.random.split(key)
        cells = _draw_cells(draw_key, free, wanted)
        place_x, place_y = (
            part.astype(jnp.int32) for part in jnp.divmod(cells[:count].astype(jnp.uint32), size)
        )
        turned = random_index(turn_key, _DIRECTIONS, (count,))
        coins = jnp.split(cells[count:], 2)
        back = [_union_of_cells(coins[i], size, missing[i]) for i in (0, 1)]
        return state._replace(
            players=Players(
                jnp.where(freed, place_x, x),
                jnp.where(freed, place_y, y),
                jnp.where(freed, turned, direction),
            ),
            inventories=jnp.where(freed[:, None], 0, state.inventories),
            red=board.union(state.red, back[0]),
            blue=board.union(state.blue, back[1]),
            beams=board.without(state.beams, _union_of_cells(cells, size, wanted)),
        )

    def reset_info(self, state: ManyPlayerStormState) -> dict[str, Any]:
        return _info(state, jnp.zeros(self.num_players, bool))

    def observe(self, state: ManyPlayerStormState) -> UInt8[Array, "A size size 14"]:
        """What all players observe."""
        codes = computed_once(self._codes(state))
        channels = (codes[..., None] >> _SHIFTS) & _MASKS
        return channels.astype(jnp.uint8).reshape(self.num_players, *self._shape)

    def _codes(self, state: ManyPlayerStormState) -> Int[Array, "A cells"]:
        """What each player sees in each cell of its window, all channels in the bits of one number."""
        players, size = state.players, self.grid_size
        forward, rightward = window(self.obs_size)
        x, y = from_player(*_columns(players), forward, rightward)
        inside = self._is_inside(x, y)
        cell = jnp.where(inside, x * size + y, 0)
        codes = (~inside).astype(jnp.int32) << _WALL
        for shift, cells in ((_BEAM, state.beams), (_RED, state.red), (_BLUE, state.blue)):
            codes = codes | (inside & board.has(cells, cell)).astype(jnp.int32) << shift
        # Row i, column j: what i sees of j where it sees it.
        itself = np.eye(self.num_players, dtype=bool)
        turned = (players.direction[None, :] - players.direction[:, None]) & 3
        frozen = (state.freeze > 0).astype(jnp.int32) << _FROZEN
        seen = jnp.where(itself, 1 << _SELF, 1 << _OTHER | 1 << (_TURNED + turned) | frozen)
        shown = jnp.minimum(state.inventories, _MOST_SHOWN)
        inventory = shown[:, 0] << _RED_COINS | shown[:, 1] << _BLUE_COINS
        seen = seen | (state.inventories.sum(-1) > 0).astype(jnp.int32) << _HAS_COINS
        seen = seen | jnp.where(itself | state.partners, inventory, 0)
        there = (x[..., None] == players.x) & (y[..., None] == players.y)
        return codes | jnp.where(there, seen[:, None, :], 0).sum(-1)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.obs_size, self.obs_size, len(_SHIFTS))

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        space = Box(0, np.broadcast_to(_MASKS, self._shape), dtype=np.uint8)
        return (AgentKind.numbered("player", self.num_players, space, Discrete(8)),)

    def render(self, state: ManyPlayerStormState) -> np.ndarray:
        """The grid with coins, beams and players, and below it what each has collected."""
        return picture.draw(self._scene(state))

    def describe(self, state: ManyPlayerStormState) -> str:
        """The grid, and what each player has collected."""
        return picture.describe(self._scene(state))

    def _scene(self, state: ManyPlayerStormState) -> picture.Scene:
        columns = (*state.players, *jnp.unstack(state.inventories, axis=1), state.freeze)
        return picture.Scene(
            board.unpack(state.red, self.grid_size),
            board.unpack(state.blue, self.grid_size),
            board.unpack(state.beams, self.grid_size),
            [picture.Player(*map(int, row)) for row in zip(*columns, strict=True)],
        )


def _columns(players: Players) -> Players:
    """The same with an axis for what each player sees."""
    return Players(players.x[:, None], players.y[:, None], players.direction[:, None])


def _equal(first: Int[Array, " A"], second: Int[Array, " A"]) -> Bool[Array, "A A"]:
    """Row i, column j: whether entry i of the first is entry j of the second."""
    return first[:, None] == second[None, :]


def _union_of_cells(
    cells: Int[Array, "..."], size: int, counts: Bool[Array, "..."] | None = None
) -> Board:
    """The set of those cells that count."""
    parts = board.of_cell(cells, board.num_words(size))
    if counts is not None:
        parts = tuple(jnp.where(counts, part, jnp.uint32(0)) for part in parts)
    return tuple(jnp.bitwise_or.reduce(part, axis=None) for part in parts)


def _draw_cells(
    key: Key[Array, ""], free: Board, wanted: Bool[Array, " things"]
) -> Int[Array, " things"]:
    """A random free cell for each thing, no cell twice; of things not wanted the cell means nothing."""

    def draw(free: Board, thing: tuple[Array, Array]) -> tuple[Board, Array]:
        word, is_wanted = thing
        # At most 1024 cells: the product of their number with 16 random bits fits.
        rank = (word >> 16) * board.count(free).astype(jnp.uint32) >> 16
        cell = board.nth(free, rank.astype(jnp.int32))
        taken = board.of_cell(cell, len(free))
        return board.where(is_wanted, board.without(free, taken), free), cell

    words = jax.random.bits(key, wanted.shape)
    return jax.lax.scan(draw, free, (words, wanted))[1]


def _shares(inventories: Int[Array, "A 2"]) -> Float[Array, "A 2"]:
    return inventories / jnp.maximum(inventories.sum(-1, keepdims=True), 1)


def _info(state: ManyPlayerStormState, interacted: Bool[Array, " A"]) -> dict[str, Any]:
    return {"interacted": interacted, "red_share": _shares(state.inventories)[:, 0]}
