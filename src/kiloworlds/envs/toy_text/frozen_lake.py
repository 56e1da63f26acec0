"""FrozenLake: cross a frozen lake to the goal without falling into a hole."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt32

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.errors import InvalidValueError, unknown_name
from kiloworlds.core.spaces import Discrete
from kiloworlds.envs.toy_text.grid import GridPicture, slip, text_grid

MAPS = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
}

_LEFT, _DOWN, _RIGHT, _UP = range(4)
_MOST_MAPS_TRIED = 10_000
# Up to here, comparing the cell with every word of a map beats a gather on CPU.
_FEW_WORDS = 8


class FrozenLakeState(NamedTuple):
    """Where the player stands, row 0 at the top."""

    row: Int[Array, ""]
    column: Int[Array, ""]


class FrozenLake(Environment):
    """Gymnasium's FrozenLake-v1 and FrozenLake8x8-v1, state for state.

    Observation: `row * columns + column`, int32.
    Action: 0 left, 1 down, 2 right, 3 up.
    Reward: `reward_schedule` is what reaching the goal, a hole and ice pays.
    Episode end: terminates in a hole or at the goal, which are never left again.
    Info: `prob`, the probability of the transition taken.

    Args:
        desc: one map as a list of rows of S (start), F (ice), H (hole) and G (goal), or a list of N
            such maps of one size for N different environments; None for the map of `map_name`.
        map_name: "4x4" or "8x8"; None, with `desc` None, for a random 8 by 8 map.
        is_slippery: whether the player may move sideways instead of ahead.
        success_rate: the probability of moving ahead on slippery ice; scalar or `[N]`.
        reward_schedule: rewards for goal, hole and ice; `[3]` or `[N, 3]`.

    Raises:
        UnknownNameError: there is no map of that name.
        InvalidValueError: a map that is not rectangular, has an unknown letter or lacks S or G; a
            success rate outside 0 to 1.

    Reference: G. Brockman et al., "OpenAI Gym" (2016), arXiv:1606.01540.
    """

    holes: UInt32[ArrayLike, " words"]
    """One bit per cell, 32 to a word: a shift tests a tile faster than a table look-up."""
    goals: UInt32[ArrayLike, " words"]
    starts: Int[ArrayLike, " starts"]
    num_starts: Int[ArrayLike, ""]
    success_rate: Float[ArrayLike, ""]
    reward_schedule: Float[ArrayLike, "3"]
    shape: tuple[int, int] = eqx.field(static=True)
    is_slippery: bool = eqx.field(static=True)

    cheap_reset: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = ("left", "down", "right", "up")

    def __init__(
        self,
        desc: Sequence[str] | Sequence[Sequence[str]] | np.ndarray | None = None,
        map_name: str | None = "4x4",
        is_slippery: bool = True,
        success_rate: Float[ArrayLike, ""] = 1.0 / 3.0,
        reward_schedule: Float[ArrayLike, "3"] | tuple[float, float, float] = (1.0, 0.0, 0.0),
    ):
        if desc is None:
            desc = random_map() if map_name is None else _named_map(map_name)
        letters = _letters(desc)
        self.shape = letters.shape[-2:]
        self.holes, self.goals = _words(letters == "H"), _words(letters == "G")
        self.starts, self.num_starts = _starts(letters == "S")
        self.is_slippery = is_slippery
        self.success_rate = _checked_rate(success_rate)
        self.reward_schedule = jnp.asarray(reward_schedule, jnp.float32)
        if self.reward_schedule.shape[-1:] != (3,):
            raise InvalidValueError(
                f"reward_schedule={reward_schedule!r}: it takes three rewards, for goal, hole and "
                "ice, for example (1, 0, 0)."
            )

    @property
    def desc(self) -> np.ndarray:
        """The map as letters `[rows, columns]` (with a leading axis where maps are batched)."""
        holes, goals = (_unpack(words, self.shape) for words in (self.holes, self.goals))
        letters = np.where(holes, "H", np.where(goals, "G", "F"))
        cells = letters.reshape(-1, self.shape[0] * self.shape[1])
        np.put_along_axis(cells, np.atleast_2d(self.starts), "S", axis=1)
        return cells.reshape(letters.shape)

    def reset(self, key: Key[Array, ""]) -> tuple[FrozenLakeState, Int[Array, ""]]:
        starts = jnp.asarray(self.starts)
        cell = starts[0]
        if starts.shape[0] > 1:
            draw = jax.random.uniform(key) * self.num_starts
            cell = starts[draw.astype(jnp.int32)]
        row, column = jnp.divmod(cell, self.shape[1])
        return FrozenLakeState(row, column), cell

    def step(
        self, key: Key[Array, ""], state: FrozenLakeState, action: Int[Array, ""]
    ) -> tuple[FrozenLakeState, Step]:
        rows, columns = self.shape
        cell = state.row * columns + state.column
        stuck = _holds(self.holes, cell) | _holds(self.goals, cell)
        direction, probability = action, jnp.ones(())
        if self.is_slippery:
            direction, probability = slip(key, action, self.success_rate)
        down = (direction == _DOWN).astype(jnp.int32) - (direction == _UP)
        right = (direction == _RIGHT).astype(jnp.int32) - (direction == _LEFT)
        row = jnp.where(stuck, state.row, jnp.clip(state.row + down, 0, rows - 1))
        column = jnp.where(stuck, state.column, jnp.clip(state.column + right, 0, columns - 1))
        cell = row * columns + column
        in_hole, at_goal = _holds(self.holes, cell), _holds(self.goals, cell)
        goal_reward, hole_reward, ice_reward = jnp.asarray(self.reward_schedule)
        reward = jnp.where(at_goal, goal_reward, jnp.where(in_hole, hole_reward, ice_reward))
        terminated = in_hole | at_goal
        return FrozenLakeState(row, column), Step(
            cell,
            jnp.where(stuck, 0.0, reward),
            terminated,
            jnp.zeros_like(terminated),
            {"prob": jnp.where(stuck, 1.0, probability)},
        )

    def reset_info(self, state: FrozenLakeState) -> dict[str, Any]:
        return {"prob": jnp.ones(())}

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.shape[0] * self.shape[1])

    @property
    def action_space(self) -> Discrete:
        return Discrete(4)

    def render(self, state: FrozenLakeState) -> np.ndarray:
        """The lake, 64 pixels a cell: start, holes, goal flag and player."""
        picture = GridPicture(*self.shape, background="#bfdbfe")
        for (row, column), letter in np.ndenumerate(self.desc):
            picture.cell(row, column, "#e0f2fe")
            if letter == "H":
                picture.disc(row, column, 0.38, "#1e3a5f")
            elif letter == "S":
                picture.text(row, column, "S", "#64748b")
            elif letter == "G":
                picture.flag(row, column, "#dc2626")
        picture.agent(int(state.row), int(state.column))
        return picture.canvas.pixels()

    def describe(self, state: FrozenLakeState) -> str:
        """The map, the player's tile in brackets."""
        return text_grid(self.desc.tolist(), int(state.row), int(state.column))


def random_map(size: int = 8, p: float = 0.8, seed: int | None = None) -> list[str]:
    """Draws a square map with a path from S (upper left) to G (lower right).

    Equal to `gymnasium.envs.toy_text.frozen_lake.generate_random_map` for an equal seed.

    Args:
        size: cells along each side, at least 2.
        p: the probability that a tile is ice rather than a hole.
        seed: None for another map each time.

    Raises:
        InvalidValueError: `size` or `p` out of range, or no map with a path after 10,000 draws.
    """
    if size < 2:
        raise InvalidValueError(f"random_map(size={size}): a map needs at least 2 cells a side.")
    if not 0 <= p <= 1:
        raise InvalidValueError(f"random_map(p={p}): p is a probability, 0 to 1.")
    generator = np.random.default_rng(seed)
    for _ in range(_MOST_MAPS_TRIED):
        letters = generator.choice(["F", "H"], (size, size), p=[p, 1 - p])
        letters[0, 0], letters[-1, -1] = "S", "G"
        if _has_path(letters != "H"):
            return ["".join(row) for row in letters]
    raise InvalidValueError(
        f"random_map(size={size}, p={p}): none of {_MOST_MAPS_TRIED} maps had a path to the goal; "
        "choose a larger p."
    )


def _has_path(passable: np.ndarray) -> bool:
    """Whether the last cell can be reached from the first."""
    reached = np.zeros_like(passable)
    reached[0, 0] = True
    while True:
        spread = reached.copy()
        spread[1:] |= reached[:-1]
        spread[:-1] |= reached[1:]
        spread[:, 1:] |= reached[:, :-1]
        spread[:, :-1] |= reached[:, 1:]
        spread &= passable
        if (spread == reached).all():
            return bool(reached[-1, -1])
        reached = spread


def _named_map(name: str) -> tuple[str, ...]:
    if name not in MAPS:
        raise unknown_name("map", name, MAPS, "kiloworlds.envs.toy_text.frozen_lake.MAPS")
    return MAPS[name]


def _letters(desc: Any) -> np.ndarray:
    """One map or several as single letters `[..., rows, columns]`, checked."""
    try:
        rows = np.asarray(desc)
    except ValueError as error:
        raise InvalidValueError(
            "desc: the maps of one batch must have equally many rows."
        ) from error
    if rows.dtype.kind == "S":
        rows = rows.astype(str)
    if rows.dtype.kind != "U" or rows.size == 0:
        raise InvalidValueError(
            f"desc={desc!r}: a map is a list of rows of letters, for example ['SF', 'HG']."
        )
    columns = rows.dtype.itemsize // np.dtype("U1").itemsize
    if columns > 1:  # rows as whole strings; letters one by one already have an axis of columns
        lengths = np.char.str_len(rows)
        if (lengths != columns).any():
            *_, row = np.argwhere(lengths != columns)[0]
            raise InvalidValueError(
                f"desc is not rectangular: row {row} has {lengths.flat[lengths.argmin()]} letters, "
                f"another {columns}."
            )
        rows = np.ascontiguousarray(rows).view("U1").reshape(*rows.shape, columns)
    if rows.ndim not in (2, 3):
        raise InvalidValueError(
            f"desc has shape {rows.shape}: it must be [rows, columns] or [N, rows, columns]."
        )
    wrong = np.argwhere(~np.isin(rows, list("SFHG")))
    if len(wrong):
        *which, row, column = wrong[0]
        raise InvalidValueError(
            f"desc{''.join(f', map {index}' for index in which)}: the letter "
            f"{str(rows[tuple(wrong[0])])!r} at row {row}, column {column} is none of S (start), "
            "F (ice), H (hole), G (goal)."
        )
    for letter in "SG":
        if not (rows == letter).any(axis=(-2, -1)).all():
            raise InvalidValueError(f"desc: a map has no {letter}; it needs at least one S and G.")
    return rows


def _words(tiles: Bool[np.ndarray, "... rows columns"]) -> UInt32[np.ndarray, "... words"]:
    """Packs cells into the bits of 32-bit words, lowest bit first."""
    cells = tiles.reshape(*tiles.shape[:-2], -1)
    padding = [(0, 0)] * (cells.ndim - 1) + [(0, -cells.shape[-1] % 32)]
    return np.packbits(np.pad(cells, padding), axis=-1, bitorder="little").view("<u4")


def _unpack(words: ArrayLike, shape: tuple[int, int]) -> Bool[np.ndarray, "... rows columns"]:
    in_bytes = np.asarray(words, "<u4").view(np.uint8)
    cells = np.unpackbits(in_bytes, axis=-1, count=shape[0] * shape[1], bitorder="little")
    return cells.reshape(*np.shape(words)[:-1], *shape).astype(bool)


def _starts(tiles: Bool[np.ndarray, "... rows columns"]) -> tuple[np.ndarray, np.ndarray]:
    """The cells to start from `[..., most]`, and how many of them are meant."""
    cells = tiles.reshape(*tiles.shape[:-2], -1)
    counts = cells.sum(-1, dtype=np.int32)
    # A stable sort on "is no start" puts the starts first, in order.
    first = np.argsort(~cells, axis=-1, kind="stable")[..., : counts.max()]
    is_start = np.arange(counts.max()) < counts[..., None]
    return np.where(is_start, first, first[..., :1]).astype(np.int32), counts


def _holds(words: UInt32[ArrayLike, " words"], cell: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether the bit of `cell` is set."""
    words = jnp.asarray(words)
    index, bit = cell >> 5, (cell & 31).astype(jnp.uint32)
    if words.shape[0] > _FEW_WORDS:
        word = words[index]
    else:
        word = words[0]
        for i in range(1, words.shape[0]):
            word = jnp.where(index == i, words[i], word)
    return ((word >> bit) & 1) == 1


def _checked_rate(rate: ArrayLike) -> ArrayLike:
    if not isinstance(rate, Tracer):  # a value being traced cannot be looked at
        values = np.asarray(rate, float)
        if not ((values >= 0) & (values <= 1)).all():
            raise InvalidValueError(f"success_rate={rate}: it is a probability, 0 to 1.")
    return rate
