"""Pictures of the particle world."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiloworlds.envs.drawing import Canvas
from kiloworlds.envs.multiagent.mpe.world import Message, Vector

BLUE, ORANGE, BROWN, GREY, SLATE = "#2563eb", "#e0731a", "#8a3b12", "#94a3b8", "#475569"
TEAL, FOREST = "#0d9488", "#bbdfc0"
PURPLE, GREEN = "#7c5cbf", "#009e73"
COLORED = (("R", "#d55e00"), ("G", "#009e73"), ("B", "#0072b2"))
"""Landmarks that are told apart by colour, in red, green and blue for all eyes (Okabe & Ito)."""

_INK, _PAPER, _FIELD, _BORDER = "#1e293b", "#f1f5f9", "#ffffff", "#cbd5e1"
_SIZE = 600  # pixels
_HALF_WIDTH = 1.15  # of what is seen, unless a body lies farther out
_ZOOM = 1.5
_ROW = 44  # pixels, of a message below the world
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Disc:
    """A round body to draw, or a square place to go to.

    Attributes:
        ring: the colour of a ring around it, which tells of a goal.
        velocity: drawn as a line as long as it moves in a quarter of a unit of time.
    """

    position: Vector
    radius: Any
    color: str
    label: str = ""
    ring: str | None = None
    velocity: Vector | None = None
    is_square: bool = False


def place(position: Vector, radius: float, color: str, label: str = "") -> Disc:
    """A landmark that stops nobody."""
    return Disc(position, radius, color, label, is_square=True)


def colored_places(landmarks: Iterable[Vector], first: int = 0) -> list[Disc]:
    """Landmarks told apart by colour, red, green and blue; or from green on."""
    return [
        place(it, 0.05, color, name)
        for it, (name, color) in zip(landmarks, COLORED[first:], strict=True)
    ]


@dataclass(frozen=True)
class Speech:
    """What an agent says, as a row of symbols below the world."""

    speaker: str
    message: Message
    color: str


def draw(discs: Sequence[Disc], speeches: Sequence[Speech] = ()) -> np.ndarray:
    """Bodies, the first lowest, and messages; the square within 1 of the middle is white.

    Zooms out in a few large steps where a body lies farther out, so that a film does not breathe.
    """
    ends = [_coordinates(disc.position) for disc in discs]
    far = max(
        abs(value) + float(disc.radius)
        for end, disc in zip(ends, discs, strict=True)
        for value in end
    )
    zoom = max(0, math.ceil(math.log(1.04 * far / _HALF_WIDTH, _ZOOM)))
    half_width = _HALF_WIDTH * _ZOOM**zoom
    height = _SIZE + _ROW * len(speeches) + (12 if speeches else 0)
    origin = 1 - 0.5 * _SIZE / height
    canvas = Canvas(_SIZE, height, (-half_width, half_width), origin, background=_PAPER)
    pixel = 2 * half_width / _SIZE
    canvas.rectangle((-1 - 2 * pixel, -1 - 2 * pixel), (1 + 2 * pixel, 1 + 2 * pixel), _BORDER)
    canvas.rectangle((-1, -1), (1, 1), _FIELD)
    for disc, (x, y) in zip(discs, ends, strict=True):
        radius = max(float(disc.radius), 5 * pixel)
        if disc.ring is not None:
            canvas.circle((x, y), radius + 7 * pixel, disc.ring)
            canvas.circle((x, y), radius + 3 * pixel, _FIELD)
        if disc.velocity is not None:
            speed_x, speed_y = _coordinates(disc.velocity)
            canvas.line((x, y), (x + speed_x / 4, y + speed_y / 4), disc.color, width=5)
        if disc.is_square:
            canvas.rectangle((x - radius, y - radius), (x + radius, y + radius), disc.color)
        else:
            canvas.circle((x, y), radius, disc.color)
    for disc, (x, y) in zip(discs, ends, strict=True):  # above all bodies
        if disc.label:
            radius = max(float(disc.radius), 5 * pixel)
            inside = radius > 10 * pixel
            place = (x, y) if inside else (x + radius + 10 * pixel, y)
            canvas.text(place, disc.label, "#ffffff" if inside else _INK, size=15)
    for row, speech in enumerate(speeches):
        middle = -half_width - (row + 0.5) * _ROW * pixel
        _draw_speech(canvas, speech, middle, half_width, pixel)
    return canvas.pixels()


def draw_lines(lines: Sequence[tuple[str, Message, str]]) -> np.ndarray:
    """Named rows of symbols, each in a colour."""
    height = _ROW * len(lines) + 24
    canvas = Canvas(420, height, (0, 420), y_origin=0.0, background=_PAPER)
    for row, (name, message, color) in enumerate(lines):
        y = height - 12 - (row + 0.5) * _ROW
        canvas.text((24, y), name, _INK, size=18, align="left")
        _draw_symbols(canvas, (190, y), message, color, 1.0)
    return canvas.pixels()


def _draw_speech(canvas: Canvas, speech: Speech, y: float, half_width: float, pixel: float) -> None:
    left = -half_width + 16 * pixel
    canvas.text((left, y), f"{speech.speaker} says", _INK, size=17, align="left")
    _draw_symbols(canvas, (left + 190 * pixel, y), speech.message, speech.color, pixel)


def _draw_symbols(
    canvas: Canvas, start: tuple[float, float], message: Message, color: str, pixel: float
) -> None:
    """A row of letters from `start` (its left middle) on; each is as strong as it is said."""
    half = 15 * pixel
    x, y = start
    for index, number in enumerate(message):
        strength = float(np.clip(float(number), 0.0, 1.0))
        canvas.rectangle((x - half, y - half), (x + half, y + half), _mix(color, strength))
        letter = _LETTERS[index] if index < len(_LETTERS) else str(index)
        canvas.text((x, y), letter, "#ffffff" if strength > 0.5 else SLATE, size=16)
        x += 34 * pixel


def _mix(color: str, strength: float) -> str:
    """A colour on paper, as strong as wanted."""
    paper = np.array([226, 232, 240])
    full = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
    return "#" + "".join(f"{round(part):02x}" for part in paper + strength * (full - paper))


def _coordinates(vector: Vector) -> tuple[float, float]:
    return float(vector.x), float(vector.y)
