"""Pictures as they are shown: below a caption, fitted into a cell, or as text."""

import numpy as np

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.envs.drawing import Canvas
from kiloworlds.evaluation.episode import Frame, Moment, short

_RAMP = " .:-=+*#%@"
_PALENESS = 0.55  # of what has ended
_SMALLEST_LETTERS = 8  # pixels
INK, _SOFT, PAPER = "#1e293b", "#64748b", "#e2e8f0"


def captioned(moment: Moment) -> Frame:
    """The picture of a moment below a strip with its step, the action taken and the return so far.

    Raises:
        InvalidValueError: the moment has no picture.
    """
    if moment.picture is None:
        raise InvalidValueError(
            f"there is no picture of step {moment.step:,} to write a caption on."
        )
    words = moment.action or ""
    action = words if not words or words[:1].isalpha() else f"action {words}"
    earned = f"return {short(moment.episode_return)}"
    strip = caption(moment.picture.shape[1], f"step {moment.step:,}", action, earned)
    return np.concatenate([strip, moment.picture])


def caption(width: int, left: str, middle: str, right: str) -> Frame:
    """A strip with words, `caption_height(width)` high; what does not fit in the middle is cut off."""
    size = _caption_size(width)
    strip = Canvas(width, caption_height(width), x_range=(0, width), background=PAPER)
    strip.text((size, 0), left, INK, size, align="left")
    room = round(width / size)  # characters between what stands left and right of it
    strip.text((width / 2, 0), middle if len(middle) <= room else f"{middle[:room]}…", _SOFT, size)
    strip.text((width - size, 0), right, INK, size, align="right")
    return strip.pixels()


def caption_height(width: int) -> int:
    return 2 * _caption_size(width)


def _caption_size(width: int) -> int:
    return min(20, max(8, width // 20))  # pixels; small pictures get small letters


def fitted(picture: Frame, width: int, height: int) -> Frame:
    """A picture shrunk, where it is larger, to fit into a cell, in whose middle it lies."""
    from PIL import Image

    if picture.shape[:2] == (height, width):
        return picture
    factor = min(1.0, width / picture.shape[1], height / picture.shape[0])
    size = [max(1, round(factor * length)) for length in picture.shape[1::-1]]
    small = Image.fromarray(picture)
    if factor < 1.0:
        small = small.resize((size[0], size[1]), Image.Resampling.HAMMING, reducing_gap=1.5)
    cell = Image.new("RGB", (width, height), PAPER)
    cell.paste(small, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(cell)


def closed(cell: Frame, words: str) -> Frame:
    """A cell whose episode has ended: pale, with words along its lower edge if they fit."""
    height, width = cell.shape[:2]
    paper = np.array([226, 232, 240])
    pale = (cell + _PALENESS * (paper - cell)).round().astype(np.uint8)
    size = min(max(11, height // 16), 20, height // 4, int(1.6 * width / len(words)))
    if size < _SMALLEST_LETTERS:
        return pale
    label = Canvas(width, round(1.8 * size), x_range=(0, width), background="#ffffff")
    label.text((width / 2, 0), words, INK, size)
    return np.concatenate([pale[: -round(1.8 * size)], label.pixels()])


def picture_as_text(picture: Frame, columns: int = 78) -> str:
    """A picture as `columns` characters a line; the further from the background, the denser."""
    from PIL import Image

    height, width = picture.shape[:2]
    lines = max(1, round(columns * height / width / 2))  # a character is twice as high as wide
    small = Image.fromarray(picture).resize((columns, lines), Image.Resampling.BOX)
    pixels = np.asarray(small, float)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    distance = np.linalg.norm(pixels - background, axis=-1)
    density = distance / max(distance.max(), 1.0)
    levels = np.round(density * (len(_RAMP) - 1)).astype(int)
    return "\n".join("".join(_RAMP[level] for level in row).rstrip() for row in levels)
