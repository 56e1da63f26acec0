"""Pictures of robots on their map, and the same as text."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from kiloworlds.envs.drawing import Canvas, Point

if TYPE_CHECKING:
    from kiloworlds.envs.multiagent.navigation.navigation import NavigationState

# Okabe and Ito's colours, which colour-blind people tell apart, but for the yellow.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7c3aed", "#8c564b")
_WALL, _FLOOR, _INK, _WHITE = "#334155", "#f8fafc", "#0f172a", "#ffffff"
_LARGEST = 720  # pixels of the longer side
_MOST_BEAMS = 160  # drawn of all robots together, so that they do not hide the rest


def draw(
    state: "NavigationState",
    beams: Float[np.ndarray, "A B"],
    reach: float,
    field_of_view: float,
    body: tuple[float, float],
    goal_radius: float,
    gone: Bool[np.ndarray, " A"],
) -> np.ndarray:
    """The map from above.

    Args:
        beams: lengths (m), `reach` for those that meet nothing.
        body: half the length and half the width of a robot (m).
        gone: robots that are no longer there.
    """
    cells = np.asarray(state.walls.cells)
    height, width = cells.shape
    pixels = max(12, _LARGEST // max(height, width))  # of a cell
    canvas = Canvas(width * pixels, height * pixels, (0, width), y_origin=0, background=_FLOOR)
    motion = [np.asarray(values, float) for values in state.motion]
    x, y, heading = motion[0], motion[1], motion[2]
    goals = np.stack([state.goal_x, state.goal_y], 1).astype(float)
    crashed, arrived = np.asarray(state.crashed), np.asarray(state.arrived)
    under_way = ~(crashed | arrived)

    colors = [COLORS[robot % len(COLORS)] for robot in range(len(x))]
    soft = [
        color if on else _mixed(color, 0.6) for color, on in zip(colors, under_way, strict=True)
    ]

    angles = np.linspace(-field_of_view / 2, field_of_view / 2, beams.shape[1])
    count = min(len(angles), 64, max(12, _MOST_BEAMS // max(1, under_way.sum())))
    shown = np.unique(np.linspace(0, len(angles) - 1, count).round().astype(int))
    for robot in np.flatnonzero(under_way):
        pale = _mixed(colors[robot], 0.72)
        for beam in shown:
            angle, length = heading[robot] + angles[beam], beams[robot, beam]
            end = x[robot] + length * np.cos(angle), y[robot] + length * np.sin(angle)
            canvas.line((x[robot], y[robot]), end, pale, width=1)
            if length < reach:
                canvas.circle(end, 0.045, pale)
    for (row, column), wall in np.ndenumerate(cells):
        if wall:
            canvas.rectangle((column, row), (column + 1, row + 1), _WALL)
    for robot in np.flatnonzero(under_way):
        way = _way(cells, (x[robot], y[robot]), tuple(goals[robot]))
        for point in _along(way, 0.18):
            canvas.circle(point, 0.04, colors[robot])
    for robot, goal in enumerate(goals):
        canvas.circle(tuple(goal), goal_radius, soft[robot])
        canvas.circle(tuple(goal), goal_radius - 0.06, _mixed(soft[robot], 0.85))
        canvas.text(tuple(goal), str(robot), soft[robot], size=max(10, round(0.34 * pixels)))
    for robot in np.flatnonzero(~gone):
        place = x[robot], y[robot]
        _draw_robot(canvas, place, heading[robot], body, soft[robot], pixels)
        if crashed[robot]:
            for side in (-1, 1):
                first = place[0] - 0.3, place[1] - 0.3 * side
                second = place[0] + 0.3, place[1] + 0.3 * side
                canvas.line(first, second, _INK, width=0.07 * pixels)
        else:
            canvas.text(place, str(robot), _WHITE, size=max(8, round(0.24 * pixels)))
    return canvas.pixels()


def draw_text(state: "NavigationState") -> str:
    """The map, its top row first, with robots as A, B, ... and goals as a, b, ...; then the robots."""
    cells = np.asarray(state.walls.cells)
    letters = np.where(cells, "#", ".").astype("U1")
    motion = [np.asarray(values, float) for values in state.motion]
    places = [
        (np.asarray(state.goal_x), np.asarray(state.goal_y), "a"),
        (motion[0], motion[1], "A"),
    ]
    for across, up, first in places:
        for robot, (x, y) in enumerate(zip(across, up, strict=True)):
            letters[int(y), int(x)] = chr(ord(first) + robot % 26)
    lines = ["".join(row) for row in letters[::-1]]
    for robot, (x, y, heading, speed, _) in enumerate(zip(*motion, strict=True)):
        finished = "crashed" if state.crashed[robot] else "arrived" if state.arrived[robot] else ""
        lines.append(
            f"{chr(ord('A') + robot % 26)} at ({x:.2f}, {y:.2f}) m, facing {np.degrees(heading):.0f} "
            f"degrees, {speed:.2f} m/s{', ' if finished else ''}{finished}"
        )
    return "\n".join(lines)


def _draw_robot(
    canvas: Canvas,
    place: Point,
    heading: float,
    body: tuple[float, float],
    color: str,
    pixels: int,
) -> None:
    """A rectangle with two wheels and a light bar in front."""
    cosine, sine = np.cos(heading), np.sin(heading)

    def at(ahead: float, aside: float) -> Point:
        x = place[0] + ahead * cosine - aside * sine
        return x, place[1] + ahead * sine + aside * cosine

    ahead, aside = body
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    for side in (-1, 1):
        wheel = at(-0.45 * ahead, side * aside), at(0.45 * ahead, side * aside)
        canvas.line(*wheel, _INK, width=0.09 * pixels)
    canvas.polygon([at(i * ahead, j * aside) for i, j in corners], color)
    canvas.line(
        at(0.82 * ahead, -0.6 * aside), at(0.82 * ahead, 0.6 * aside), _WHITE, width=0.06 * pixels
    )


def _way(is_wall: np.ndarray, start: Point, goal: Point) -> list[Point]:
    """A shortest way through the middles of cells; straight where there is none."""
    first, last = (int(start[1]), int(start[0])), (int(goal[1]), int(goal[0]))
    came_from, waiting = {last: last}, [last]  # backwards, so that the way reads forwards
    for cell in waiting:
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            near = cell[0] + step[0], cell[1] + step[1]
            if near not in came_from and not is_wall[near]:
                came_from[near] = cell
                waiting.append(near)
    if first not in came_from:
        return [start, goal]
    way, cell = [start], first
    while cell != last:
        cell = came_from[cell]
        way.append((cell[1] + 0.5, cell[0] + 0.5))
    return _straightened(is_wall, [*way[:-1], goal] if len(way) > 1 else [start, goal])


def _straightened(is_wall: np.ndarray, way: list[Point]) -> list[Point]:
    """A way that goes from point to point in sight of each other, as far as it can at once."""
    straight, at = [way[0]], 0
    while at < len(way) - 1:
        in_sight = (to for to in range(len(way) - 1, at, -1) if _is_free(is_wall, way[at], way[to]))
        at = next(in_sight, at + 1)
        straight.append(way[at])
    return straight


_ALONG = np.linspace(0, 1, 100)[:, None]
_SIDES = np.array([(-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)])


def _is_free(is_wall: np.ndarray, start: Point, end: Point) -> bool:
    """Whether a robot's width fits along a line."""
    points = (1 - _ALONG) * start + _ALONG * end
    x, y = np.moveaxis((points[:, None] + _SIDES).astype(int), -1, 0)
    return not is_wall[y, x].any()


def _along(way: list[Point], spacing: float) -> list[Point]:
    """Points along a line, equally far apart."""
    points = np.array(way)
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.arange(spacing, lengths[-1], spacing)
    x, y = (np.interp(at, lengths, points[:, axis]) for axis in (0, 1))
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _mixed(color: str, white: float) -> str:
    """A colour with a part of white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * white):02x}" for part in parts)
