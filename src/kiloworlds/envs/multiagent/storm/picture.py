"""Pictures of STORM: the grid with coins, beams and players, and what each player has collected."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from kiloworlds.envs.toy_text.grid import GridPicture

_RED, _BLUE = (
    "#d55e00",
    "#0072b2",
)  # told apart by the colour-blind, as all these (Okabe & Ito 2008)
_PLAYERS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#7c3aed")
_INK, _PAPER, _BEAM, _ICE = "#1e293b", "#f8fafc", "#fef08a", "#7dd3fc"
_LINE = 0.45  # cells: a line of the legend
_ENTRY = 4.0  # cells: the width of an entry of the legend
_ARROWS = "^>v<"


class Player(NamedTuple):
    """Where a player is and looks, its red and blue coins, and the steps it is still frozen for."""

    x: int
    y: int
    direction: int
    red: int
    blue: int
    frozen: int


class Scene(NamedTuple):
    """What there is to see: cells `[x, y]` of coins and beams, and the players."""

    red: Bool[np.ndarray, "size size"]
    blue: Bool[np.ndarray, "size size"]
    beams: Bool[np.ndarray, "size size"]
    players: list[Player]


def draw(scene: Scene) -> np.ndarray:
    """The picture, 64 pixels a cell: red coins are round, blue ones square, frozen players on ice."""
    size = len(scene.red)
    entries = max(1, int(size / _ENTRY))
    lines = -(-len(scene.players) // entries)
    legend = 0.15 + _LINE * lines
    picture = GridPicture(size, size, background="#cbd5e1", legend=legend)
    for x, y in np.ndindex(size, size):
        picture.cell(size - 1 - y, x, _BEAM if scene.beams[x, y] else _PAPER)
    for number, player in enumerate(scene.players):
        _draw_player(picture, size - 0.5 - player.y, player.x + 0.5, 0.38, number, player)
    for x, y in np.ndindex(size, size):
        if scene.red[x, y] or scene.blue[x, y]:
            # A player that starts where a coin lies does not see itself for the coin.
            hides = any((player.x, player.y) == (x, y) for player in scene.players)
            radius = 0.13 if hides else 0.22
            _draw_coin(picture, size - 0.5 - y, x + 0.5, radius, bool(scene.red[x, y]))
    corners = picture.point(size + legend, 0), picture.point(size, size)
    picture.canvas.rectangle(*corners, "#ffffff")
    for number, player in enumerate(scene.players):
        line, entry = divmod(number, entries)
        row, column = size + 0.15 + _LINE * (line + 0.4), _ENTRY * entry
        _draw_player(picture, row, column + 0.35, 0.18, number, player._replace(direction=0))
        for offset, count, is_red in ((0.85, player.red, True), (1.6, player.blue, False)):
            _draw_coin(picture, row, column + offset, 0.12, is_red)
            place = picture.point(row, column + offset + 0.2)
            picture.canvas.text(place, str(count), _INK, size=14, align="left")
        if player.frozen:
            text = f"frozen: {player.frozen}"
            place = picture.point(row, column + 2.35)
            picture.canvas.text(place, text, _INK, size=14, align="left")
    return picture.canvas.pixels()


def describe(scene: Scene) -> str:
    """The grid as text: r and b coins, * beams, ^ > v < players; below, what each player has."""
    size = len(scene.red)
    cells = np.full((size, size), ".", object)
    cells[scene.beams] = "*"
    for player in scene.players:
        cells[player.x, player.y] = _ARROWS[player.direction]
    cells[scene.red], cells[scene.blue] = "r", "b"
    lines = [" ".join(cells[:, y]) for y in reversed(range(size))]
    for number, player in enumerate(scene.players):
        frozen = f", frozen for {player.frozen} steps" if player.frozen else ""
        lines.append(
            f"player {number} {_ARROWS[player.direction]} at ({player.x}, {player.y}): "
            f"{player.red} red, {player.blue} blue coins{frozen}"
        )
    return "\n".join(lines)


def _draw_player(
    picture: GridPicture, row: float, column: float, radius: float, number: int, player: Player
) -> None:
    """A disc with a nose and the player's number, centred at (row, column)."""
    canvas = picture.canvas
    center_x, center_y = picture.point(row, column)
    if player.frozen:
        canvas.circle((center_x, center_y), 1.25 * radius, _ICE)
    color = _PLAYERS[number % len(_PLAYERS)]
    angle = math.pi / 2 * (1 - player.direction)
    nose = [
        (center_x + length * math.cos(angle + turn), center_y + length * math.sin(angle + turn))
        for turn, length in ((0.0, 1.15 * radius), (0.85, 0.75 * radius), (-0.85, 0.75 * radius))
    ]
    canvas.polygon(nose, color)
    canvas.circle((center_x, center_y), 0.75 * radius, color)
    canvas.circle((center_x, center_y), 0.5 * radius, "#ffffff")
    canvas.text((center_x, center_y), str(number), _INK, size=round(42 * radius))


def _draw_coin(
    picture: GridPicture, row: float, column: float, radius: float, is_red: bool
) -> None:
    """A round red or a square blue coin, centred at (row, column)."""
    canvas = picture.canvas
    x, y = picture.point(row, column)
    for part, shade in ((1.0, _RED if is_red else _BLUE), (0.5, "#fde68a")):
        size = part * radius
        if is_red:
            canvas.circle((x, y), size, shade)
        else:
            side = 0.88 * size
            canvas.rectangle((x - side, y - side), (x + side, y + side), shade)
