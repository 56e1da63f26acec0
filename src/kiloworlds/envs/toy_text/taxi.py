"""Taxi: fetch a passenger at one of four places and bring them to another."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int8, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Discrete
from kiloworlds.envs.toy_text.grid import CELL_PIXELS, GridPicture

# Letters are the four places; a bar between two cells is a wall, a colon is open.
_MAP = (
    "+---------+",
    "|R: | : :G|",
    "| : | : : |",
    "| : : : : |",
    "| | : | : |",
    "|Y| : |B: |",
    "+---------+",
)
_SIZE = 5
_SOUTH, _NORTH, _EAST, _WEST, _PICKUP, _DROPOFF = range(6)
_PLACES = ((0, 0), (0, 4), (4, 0), (4, 3))  # red, green, yellow, blue
_COLORS = ("#dc2626", "#16a34a", "#eab308", "#2563eb")
_SKIN, _OUTLINE = "#fdba8c", "#ffffff"
_LEGEND = 0.7  # cells
_IN_TAXI = 4
# Bit row * 5 + column says whether the way east of the cell is open.
_EAST_OPEN = sum(
    1 << (row * _SIZE + column)
    for row in range(_SIZE)
    for column in range(_SIZE)
    if _MAP[1 + row][2 * column + 2] == ":"
)


class TaxiState(NamedTuple):
    """The taxi's cell, the passenger's place (4 in the taxi) and destination.

    `is_fickle` says that the passenger will change the destination at the first move of the ride.
    """

    row: Int[Array, ""]
    column: Int[Array, ""]
    passenger: Int[Array, ""]
    destination: Int[Array, ""]
    is_fickle: Bool[Array, ""]


class Taxi(Environment):
    """Gymnasium's Taxi-v4, state for state (and Taxi-v3 without its rain and fickleness).

    Observation: `((row * 5 + column) * 5 + passenger) * 4 + destination`, int32.
    Action: 0 south, 1 north, 2 east, 3 west, 4 pick up, 5 drop off.
    Reward: 20 for delivering, -10 for a pick-up or drop-off that is impossible, else -1.
    Episode end: terminates on delivery.
    Info: `prob`, the probability of the transition taken, and `action_mask` int8 `[6]`, 1 for the
    actions that change the new state.

    With `is_rainy` a move that is not blocked goes ahead with probability `rainy_probability`, else
    to either side with half of the rest. With `fickle_passenger` the passenger changes the
    destination, once, with probability `fickle_probability`.

    Reference: T. Dietterich, "Hierarchical Reinforcement Learning with the MAXQ Value Function
    Decomposition" (2000).
    """

    is_rainy: bool = eqx.field(static=True, default=False)
    fickle_passenger: bool = eqx.field(static=True, default=False)
    rainy_probability: Float[ArrayLike, ""] = 0.8
    fickle_probability: Float[ArrayLike, ""] = 0.3

    cheap_reset: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = (
        "south",
        "north",
        "east",
        "west",
        "pick up",
        "drop off",
    )

    def reset(self, key: Key[Array, ""]) -> tuple[TaxiState, Int[Array, ""]]:
        # One of the 25 cells x 4 places x 3 other places as destination; unsigned divides faster.
        draw = random_index(key, 300).astype(jnp.uint32)
        row, column = (draw // 60).astype(jnp.int32), (draw // 12 % _SIZE).astype(jnp.int32)
        passenger = (draw // 3 % 4).astype(jnp.int32)
        destination = (passenger + 1 + (draw % 3).astype(jnp.int32)) & 3
        is_fickle = jnp.zeros_like(draw, bool)
        if self.fickle_passenger:
            is_fickle = jax.random.uniform(jax.random.fold_in(key, 1)) < self.fickle_probability
        state = TaxiState(row, column, passenger, destination, is_fickle)
        return state, _observe(state)

    def step(
        self, key: Key[Array, ""], state: TaxiState, action: Int[Array, ""]
    ) -> tuple[TaxiState, Step]:
        direction, probability = action, jnp.ones(())
        if self.is_rainy:
            direction, probability = self._drift(key, state, action)
        row, column = _move(state, direction)
        here = _place_of(state.row, state.column)
        riding = state.passenger == _IN_TAXI
        boards = (action == _PICKUP) & ~riding & (here == state.passenger)
        alights = (action == _DROPOFF) & riding & (here >= 0)
        terminated = alights & (here == state.destination)
        refused = (action >= _PICKUP) & ~boards & ~alights
        passenger = jnp.where(boards, _IN_TAXI, jnp.where(alights, here, state.passenger))
        destination, is_fickle = state.destination, state.is_fickle
        if self.fickle_passenger:
            moved = (row != state.row) | (column != state.column)
            changes = is_fickle & riding & moved
            other = random_index(jax.random.fold_in(key, 1), 3)
            destination = jnp.where(changes, (destination + 1 + other) & 3, destination)
            is_fickle = is_fickle & ~changes
        state = TaxiState(row, column, passenger, destination, is_fickle)
        return state, Step(
            _observe(state),
            jnp.where(terminated, 20.0, jnp.where(refused, -10.0, -1.0)),
            terminated,
            jnp.zeros_like(terminated),
            {"prob": probability, "action_mask": _action_mask(state)},
        )

    def _drift(
        self, key: Key[Array, ""], state: TaxiState, action: Int[Array, ""]
    ) -> tuple[Int[Array, ""], Float[Array, ""]]:
        """The direction rain makes of an action, and the probability of that outcome."""
        ahead = self.rainy_probability
        side = (1.0 - ahead) / 2.0
        draw = jax.random.uniform(key)
        strays = (action < _PICKUP) & (draw >= ahead)
        # Flipping the second bit of a direction turns it sideways, the first bit turns it about.
        sideways = (action ^ 2) ^ (draw < ahead + side)
        # A taxi whose way ahead is blocked stays where it is, whatever the draw.
        direction = jnp.where(strays & _is_open(state, action), sideways, action)
        moves = jnp.where(strays, side, ahead)
        return direction, jnp.where(action < _PICKUP, moves, 1.0).astype(jnp.float32)

    def reset_info(self, state: TaxiState) -> dict[str, Any]:
        return {"prob": jnp.ones(()), "action_mask": _action_mask(state)}

    @property
    def observation_space(self) -> Discrete:
        return Discrete(500)

    @property
    def action_space(self) -> Discrete:
        return Discrete(6)

    def render(self, state: TaxiState) -> np.ndarray:
        """The town, 64 pixels a cell, with walls, places, taxi, passenger and destination.

        A legend below says what the figure and the flag are, and where.
        """
        picture = GridPicture(_SIZE, _SIZE, background="#cbd5e1", legend=_LEGEND)
        for row, column in np.ndindex(_SIZE, _SIZE):
            picture.cell(row, column, "#f1f5f9")
        for (row, column), color, letter in zip(_PLACES, _COLORS, "RGYB", strict=True):
            picture.cell(row, column, color, margin=0.06)
            corner = picture.point(row + 0.25, column + 0.22)
            picture.canvas.text(corner, letter, "#ffffff", size=18)
        for row, column in np.ndindex(_SIZE, _SIZE - 1):
            if not _EAST_OPEN >> (row * _SIZE + column) & 1:
                top, bottom = picture.point(row, column + 1), picture.point(row + 1, column + 1)
                picture.canvas.line(top, bottom, "#334155", width=6)
        passenger, destination = int(state.passenger), int(state.destination)
        riding = passenger == _IN_TAXI
        row, column = _PLACES[destination]
        _draw_flag(picture, row + 0.04, column + 0.42)
        _draw_taxi(picture, int(state.row), int(state.column), riding)
        if not riding:
            row, column = _PLACES[passenger]
            _draw_passenger(picture, row + 0.2, column + 0.76)
        corners = picture.point(_SIZE + _LEGEND, 0), picture.point(_SIZE, _SIZE)
        picture.canvas.rectangle(*corners, "#ffffff")
        middle = _SIZE + _LEGEND / 2
        _draw_passenger(picture, middle - 0.16, 0.25)
        where = "in the taxi" if riding else f"at {'RGYB'[passenger]}"
        picture.canvas.text(
            picture.point(middle, 0.48), f"passenger {where}", "#1e293b", size=14, align="left"
        )
        _draw_flag(picture, middle - 0.3, 2.9)
        picture.canvas.text(
            picture.point(middle, 3.35),
            f"destination {'RGYB'[destination]}",
            "#1e293b",
            size=14,
            align="left",
        )
        return picture.canvas.pixels()

    def describe(self, state: TaxiState) -> str:
        """The map with the taxi as #, and where the passenger is and wants to go."""
        lines = [list(line) for line in _MAP]
        lines[1 + int(state.row)][1 + 2 * int(state.column)] = "#"
        passenger = "RGYB"[int(state.passenger)] if int(state.passenger) < 4 else "the taxi"
        town = "\n".join("".join(line) for line in lines)
        return f"{town}\nPassenger in {passenger}, destination {'RGYB'[int(state.destination)]}"


def _observe(state: TaxiState) -> Int[Array, ""]:
    cell = state.row * _SIZE + state.column
    return (cell * 5 + state.passenger) * 4 + state.destination


def _ways(state: TaxiState) -> tuple[Bool[Array, ""], ...]:
    """Whether the ways south, north, east and west of the taxi are open."""
    cell = (state.row * _SIZE + state.column).astype(jnp.uint32)
    east = (jnp.uint32(_EAST_OPEN) >> cell) & 1
    # East of the cell before; the edge of the row above counts as closed.
    west = (jnp.uint32(_EAST_OPEN << 1) >> cell) & 1
    return state.row < _SIZE - 1, state.row > 0, east == 1, west == 1


def _is_open(state: TaxiState, direction: Int[Array, ""]) -> Bool[Array, ""]:
    south, north, east, west = _ways(state)
    vertical = jnp.where(direction == _SOUTH, south, north)
    return jnp.where(direction < _EAST, vertical, jnp.where(direction == _EAST, east, west))


def _move(state: TaxiState, direction: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    south, north, east, west = _ways(state)
    down = ((direction == _SOUTH) & south).astype(jnp.int32) - ((direction == _NORTH) & north)
    right = ((direction == _EAST) & east).astype(jnp.int32) - ((direction == _WEST) & west)
    return state.row + down, state.column + right


def _place_of(row: Int[Array, ""], column: Int[Array, ""]) -> Int[Array, ""]:
    """The index of the place at a cell, -1 if there is none."""
    place = jnp.int32(-1)
    for index, (place_row, place_column) in enumerate(_PLACES):
        place = jnp.where((row == place_row) & (column == place_column), index, place)
    return place


def _action_mask(state: TaxiState) -> Int8[Array, "6"]:
    here = _place_of(state.row, state.column)
    boards = here == state.passenger  # never -1, and in the taxi (4) it is no place
    alights = (state.passenger == _IN_TAXI) & (here >= 0)
    bits = jnp.int32(0)
    for action, changes in enumerate((*_ways(state), boards, alights)):
        bits = bits | changes.astype(jnp.int32) << action
    return (bits >> jnp.arange(6) & 1).astype(jnp.int8)


def _draw_taxi(picture: GridPicture, row: int, column: int, with_passenger: bool) -> None:
    """A taxi in the lower part of a cell; the upper part stays free for who waits there."""

    def points(*corners: tuple[float, float]) -> list[tuple[float, float]]:
        return [picture.point(row + y, column + x) for y, x in corners]

    canvas, window = picture.canvas, "#e0f2fe"
    canvas.polygon(points((0.66, 0.18), (0.42, 0.28), (0.42, 0.72), (0.66, 0.82)), "#1e293b")
    canvas.polygon(points((0.66, 0.23), (0.46, 0.31), (0.46, 0.69), (0.66, 0.77)), window)
    if with_passenger:
        canvas.circle(picture.point(row + 0.56, column + 0.5), 0.11, _OUTLINE)
        canvas.circle(picture.point(row + 0.56, column + 0.5), 0.09, _SKIN)
    for edge, color in ((0.02, "#1e293b"), (0.0, "#facc15")):
        lower_left = picture.point(row + 0.85 + edge, column + 0.08 - edge)
        upper_right = picture.point(row + 0.65 - edge, column + 0.92 + edge)
        canvas.rectangle(lower_left, upper_right, color)
    for wheel in (0.28, 0.72):
        canvas.circle(picture.point(row + 0.86, column + wheel), 0.1, "#1e293b")
        canvas.circle(picture.point(row + 0.86, column + wheel), 0.04, "#cbd5e1")


def _draw_passenger(picture: GridPicture, row: float, column: float) -> None:
    """A figure with its head at (row, column), outlined so that it shows on every colour."""
    for edge, body, head in ((0.04, _OUTLINE, _OUTLINE), (0.0, "#7c3aed", _SKIN)):
        shoulder, foot = picture.point(row + 0.2, column), picture.point(row + 0.36, column)
        picture.canvas.line(shoulder, foot, body, width=(0.18 + 2 * edge) * CELL_PIXELS)
        picture.canvas.circle(picture.point(row, column), 0.11 + edge, head)


def _draw_flag(picture: GridPicture, row: float, column: float) -> None:
    """A chequered flag on a pole, half a cell high."""
    canvas, size = picture.canvas, 0.11
    canvas.line(
        picture.point(row + 0.56, column), picture.point(row + 0.06, column), "#0f172a", width=3
    )
    for y, x in np.ndindex(3, 3):
        corner = row + 0.06 + y * size, column + 0.02 + x * size
        canvas.rectangle(
            picture.point(corner[0] + size, corner[1]),
            picture.point(corner[0], corner[1] + size),
            "#0f172a" if (x + y) % 2 == 0 else "#ffffff",
        )
