"""A small canvas in world coordinates, for the pictures of environments."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np

Point = tuple[float, float]
Align = Literal["left", "center", "right"]

_SMOOTH = 3  # drawn so many times larger and shrunk, which smooths edges
_size = ContextVar("size", default=1.0)


@contextlib.contextmanager
def drawn_at(size: float) -> Iterator[None]:
    """Pictures drawn meanwhile are `size` times as wide and as high, rounded down.

    For those that would be shrunk anyway: fewer pixels take less time.
    """
    before = _size.set(size)
    try:
        yield
    finally:
        _size.reset(before)


class Canvas:
    """Draws in the environment's own units; y grows upwards.

    Args:
        width, height: size of the picture in pixels, unless it is `drawn_at` another.
        x_range: the world's x at the left and the right edge.
        y_origin: where y = 0 lies, as a fraction of the height from the bottom.
        background: a colour such as "#f8fafc".
    """

    def __init__(
        self,
        width: int,
        height: int,
        x_range: Point,
        y_origin: float = 0.5,
        background: str = "#f8fafc",
    ):
        from PIL import Image, ImageDraw

        size = _size.get()
        self._scale = _SMOOTH * size
        self._unit = self._scale * width / (x_range[1] - x_range[0])  # pixels per world unit
        self._left = x_range[0]
        self._zero = self._scale * height * (1 - y_origin)
        pixels = [_SMOOTH * max(1, int(size * length)) for length in (width, height)]
        self._image = Image.new("RGB", (pixels[0], pixels[1]), background)
        self._draw = ImageDraw.Draw(self._image)

    def _pixel(self, point: Point) -> Point:
        return (point[0] - self._left) * self._unit, self._zero - point[1] * self._unit

    def line(self, start: Point, end: Point, color: str, width: float = 2) -> None:
        """A line `width` pixels thick with round ends."""
        self.polyline([start, end], color, width)

    def polyline(self, points: Sequence[Point], color: str, width: float = 2) -> None:
        pixels = [self._pixel(point) for point in points]
        self._draw.line(pixels, fill=color, width=max(1, round(width * self._scale)), joint="curve")
        radius = width * self._scale / 2
        for x, y in (pixels[0], pixels[-1]):
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def polygon(self, points: Sequence[Point], color: str) -> None:
        self._draw.polygon([self._pixel(point) for point in points], fill=color)

    def rectangle(self, lower_left: Point, upper_right: Point, color: str) -> None:
        left, bottom = self._pixel(lower_left)
        right, top = self._pixel(upper_right)
        self._draw.rectangle((left, top, right, bottom), fill=color)

    def circle(self, center: Point, radius: float, color: str) -> None:
        x, y = self._pixel(center)
        size = radius * self._unit
        self._draw.ellipse((x - size, y - size, x + size, y + size), fill=color)

    def text(
        self, point: Point, text: str, color: str, size: int = 16, align: Align = "center"
    ) -> None:
        """Text `size` pixels high whose centre, left or right end lies at a point."""
        font = _font(max(1, round(size * self._scale)))
        anchor = {"left": "lm", "center": "mm", "right": "rm"}[align]
        self._draw.text(self._pixel(point), text, fill=color, font=font, anchor=anchor)

    def pixels(self) -> np.ndarray:
        """The picture as uint8 RGB `[height, width, 3]`."""
        return np.asarray(self._image.reduce(_SMOOTH))


@functools.cache
def _font(size: int) -> Any:
    """Pillow's own font, which it unpacks at each call."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
