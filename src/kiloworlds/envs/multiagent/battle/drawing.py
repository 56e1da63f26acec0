"""A battle as a picture."""

from typing import NamedTuple

import numpy as np

from kiloworlds.envs.drawing import Canvas
from kiloworlds.envs.multiagent.battle.describing import Scene
from kiloworlds.envs.multiagent.battle.scenarios import UNIT_NAMES

# Blue and vermilion of Okabe & Ito (2008), told apart by all; armies differ in shape as well.
_ALLY, _ENEMY = "#0072b2", "#d55e00"
_ALLY_SHOT, _ENEMY_SHOT = "#56b4e9", "#e69f00"
_HEALTH, _GROUND, _LINES, _DEAD, _TEXT = "#009e73", "#f1f5f9", "#dbe2ea", "#94a3b8", "#1e293b"
_LETTERS = "MRSZGH"  # one for each of UNIT_NAMES
_PIXELS = 800
_SIDES = (12.0, 18.0, 24.0)  # of the part of the map that is shown, if not all
_EDGE = 2.0  # around the units in it
_GRID = 4  # between two lines
_ROOM = 15  # pixels of a unit's radius from which it holds its number


class _Window(NamedTuple):
    """The part of the map that is shown; `scale` is what 1/32 of its side measures."""

    left: float
    bottom: float
    side: float

    @property
    def scale(self) -> float:
        return self.side / 32

    def holds(self, x: float, y: float) -> bool:
        inside_x = self.left <= x <= self.left + self.side
        return inside_x and self.bottom <= y <= self.bottom + self.side


def draw(scene: Scene) -> np.ndarray:
    """Allies as blue discs, enemies as orange squares, with bars of health, and the shots since the
    state before. What holds all units is shown, and where on the map that lies; 800 pixels wide."""
    window = _window(scene)
    scale = window.scale
    margin, legend = 1.1 * scale, 5.4 * scale
    width, height = window.side + 2 * margin, window.side + margin + legend
    canvas = Canvas(
        _PIXELS,
        round(_PIXELS * height / width),
        x_range=(window.left - margin, window.left - margin + width),
        y_origin=(legend - window.bottom) / height,
        background="#ffffff",
    )
    _ground(canvas, scene, window)
    for index in np.flatnonzero(~scene.alive):
        if window.holds(scene.x[index], scene.y[index]):
            _cross(canvas, scene.x[index], scene.y[index], 0.25 * scale + 0.1)
    shots = [int(index) for index in np.flatnonzero(scene.shot)]
    for index in shots:
        _shot(canvas, scene, index)
    for index in np.flatnonzero(scene.alive):
        _unit(canvas, scene, int(index), _PIXELS / width)
    for index in shots:
        _hit(canvas, scene, index, scale)
    for index in np.flatnonzero(scene.alive):
        _health_bar(canvas, scene, int(index), scale)
    _legend(canvas, scene, window)
    _overview(canvas, scene, window)
    return canvas.pixels()


def _window(scene: Scene) -> _Window:
    """The smallest part of the map that holds all living units; it moves in jumps, not all the time."""
    whole = max(scene.width, scene.height)
    if not scene.alive.any():
        return _Window(0.0, 0.0, whole)
    x, y = scene.x[scene.alive], scene.y[scene.alive]
    for side in _SIDES:
        left, bottom = (
            float(np.clip(2 * round((values.min() + values.max() - side) / 4), 0, most - side))
            for values, most in ((x, scene.width), (y, scene.height))
        )
        window = _Window(left, bottom, side)
        fits = x.min() > left and x.max() < left + side
        fits = fits and y.min() > bottom and y.max() < bottom + side
        roomy = max(np.ptp(x), np.ptp(y)) + _EDGE < side
        if side < whole and fits and roomy:
            return window
    return _Window(0.0, 0.0, whole)


def _ground(canvas: Canvas, scene: Scene, window: _Window) -> None:
    left, bottom = window.left, window.bottom
    right, top = min(left + window.side, scene.width), min(bottom + window.side, scene.height)
    canvas.rectangle((left, bottom), (right, top), _GROUND)
    away = 0.55 * window.scale
    for x in range(_GRID * int(np.ceil(left / _GRID)), int(right) + 1, _GRID):
        canvas.line((x, bottom), (x, top), _LINES, width=1)
        canvas.text((x, bottom - away), str(x), _DEAD, size=12)
    for y in range(_GRID * int(np.ceil(bottom / _GRID)), int(top) + 1, _GRID):
        canvas.line((left, y), (right, y), _LINES, width=1)
        canvas.text((left - away, y), str(y), _DEAD, size=12)
    for start, end, shown in (
        ((0.0, bottom), (0.0, top), left <= 0),
        ((scene.width, bottom), (scene.width, top), right >= scene.width),
        ((left, 0.0), (right, 0.0), bottom <= 0),
        ((left, scene.height), (right, scene.height), top >= scene.height),
    ):
        if shown:
            canvas.line(start, end, _TEXT, width=4)


def _cross(canvas: Canvas, x: float, y: float, size: float) -> None:
    canvas.line((x - size, y - size), (x + size, y + size), _DEAD, width=3)
    canvas.line((x - size, y + size), (x + size, y - size), _DEAD, width=3)


def _shot_color(scene: Scene, index: int) -> str:
    return _ALLY_SHOT if index < scene.num_allies else _ENEMY_SHOT


def _way_to_target(scene: Scene, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a unit that shot stands, and where it hit its target."""
    target = scene.target_of(index)
    assert target is not None
    start = np.array([scene.x[index], scene.y[index]])
    end = np.array([scene.x[target], scene.y[target]])
    way = start - end
    radius = float(scene.unit_types.radius[scene.unit_type[target]])
    return start, end + way * radius / max(float(np.hypot(*way)), 1e-6)


def _shot(canvas: Canvas, scene: Scene, index: int) -> None:
    start, end = _way_to_target(scene, index)
    canvas.line(tuple(start), tuple(end), _shot_color(scene, index), width=3)


def _hit(canvas: Canvas, scene: Scene, index: int, scale: float) -> None:
    """A star where a shot hit, on top of the units."""
    _, end = _way_to_target(scene, index)
    for angle in (0, np.pi / 3, 2 * np.pi / 3):
        ray = (0.2 * scale + 0.12) * np.array([np.cos(angle), np.sin(angle)])
        canvas.line(tuple(end - ray), tuple(end + ray), _shot_color(scene, index), width=2.5)


def _unit(canvas: Canvas, scene: Scene, index: int, pixels: float) -> None:
    """The shape of a unit with the letter of its type and, where there is room, its number."""
    kind, is_ally = int(scene.unit_type[index]), index < scene.num_allies
    x, y, radius = scene.x[index], scene.y[index], float(scene.unit_types.radius[kind])
    _shape(canvas, x, y, radius, is_ally)
    size = radius * pixels
    if size < _ROOM:
        canvas.text((x, y), _LETTERS[kind], "#ffffff", size=max(9, round(1.1 * size)))
        return
    number = index if is_ally else index - scene.num_allies
    canvas.text((x, y + 0.28 * radius), _LETTERS[kind], "#ffffff", size=round(0.85 * size))
    canvas.text((x, y - 0.42 * radius), str(number), "#ffffff", size=round(0.7 * size))


def _shape(canvas: Canvas, x: float, y: float, radius: float, is_ally: bool) -> None:
    for size, color in ((1.12 * radius, "#ffffff"), (radius, _ALLY if is_ally else _ENEMY)):
        if is_ally:
            canvas.circle((x, y), size, color)
        else:
            side = 0.9 * size  # the square as large as a disc of the same radius
            canvas.rectangle((x - side, y - side), (x + side, y + side), color)


def _health_bar(canvas: Canvas, scene: Scene, index: int, scale: float) -> None:
    kind = int(scene.unit_type[index])
    radius = float(scene.unit_types.radius[kind])
    part = float(scene.health[index]) / float(scene.unit_types.health[kind])
    left, right = scene.x[index] - radius, scene.x[index] + radius
    bottom, edge = scene.y[index] + radius + 0.04, 0.05 * scale
    top = bottom + 0.22 * scale
    canvas.rectangle((left - edge, bottom - edge), (right + edge, top + edge), _TEXT)
    canvas.rectangle((left, bottom), (right, top), "#ffffff")
    canvas.rectangle((left, bottom), (left + part * (right - left), top), _HEALTH)


def _legend(canvas: Canvas, scene: Scene, window: _Window) -> None:
    """Whose shape is whose, how many live, what marks mean, and the letters of the types there are."""
    scale, left = window.scale, window.left
    first, second, third = (window.bottom - row * scale for row in (1.9, 3.2, 4.5))
    armies = scene.alive[: scene.num_allies], scene.alive[scene.num_allies :]
    x = left + 0.4 * scale
    for is_ally, name, army in ((True, "allies", armies[0]), (False, "enemies", armies[1])):
        _shape(canvas, x, first, 0.42 * scale, is_ally)
        text = f"{name}: {int(army.sum())} of {len(army)} alive"
        canvas.text((x + 0.8 * scale, first), text, _TEXT, size=16, align="left")
        x += 10 * scale
    x = left
    for color in (_ALLY_SHOT, _ENEMY_SHOT):
        canvas.line((x, second), (x + 0.8 * scale, second), color, width=3)
        x += 1.1 * scale
    canvas.text((x + 0.1 * scale, second), "shots", _TEXT, size=16, align="left")
    low, high = (
        (left + 5.6 * scale, second - 0.15 * scale),
        (left + 7.2 * scale, second + 0.15 * scale),
    )
    edge = 0.06 * scale
    canvas.rectangle((low[0] - edge, low[1] - edge), (high[0] + edge, high[1] + edge), _TEXT)
    canvas.rectangle(low, high, "#ffffff")
    canvas.rectangle(low, (low[0] + scale, high[1]), _HEALTH)
    canvas.text((left + 7.6 * scale, second), "health", _TEXT, size=16, align="left")
    _cross(canvas, left + 11.5 * scale, second, 0.3 * scale)
    canvas.text((left + 12.1 * scale, second), "dead", _TEXT, size=16, align="left")
    kinds = sorted(set(scene.unit_type.tolist()))
    names = "     ".join(f"{_LETTERS[kind]} {UNIT_NAMES[kind]}" for kind in kinds)
    canvas.text((left, third), names, _TEXT, size=16, align="left")


def _overview(canvas: Canvas, scene: Scene, window: _Window) -> None:
    """The whole map in small, and the part of it that is shown."""
    scale = window.scale
    size = 3.9 * scale / max(scene.width, scene.height)  # of one length in the overview
    left = window.left + window.side - scene.width * size
    bottom = window.bottom - 5.1 * scale

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * size, bottom + y * size

    canvas.rectangle(place(0, 0), place(scene.width, scene.height), _LINES)
    low = window.left, window.bottom
    high = min(low[0] + window.side, scene.width), min(low[1] + window.side, scene.height)
    canvas.rectangle(place(*low), place(*high), _GROUND)
    corners = [low, (high[0], low[1]), high, (low[0], high[1]), low]
    canvas.polyline([place(*corner) for corner in corners], _TEXT, width=1.5)
    for index in np.flatnonzero(scene.alive):
        x, y = place(scene.x[index], scene.y[index])
        _shape(canvas, x, y, 0.14 * scale, bool(index < scene.num_allies))
