"""One episode of a trained policy as frames: written to a GIF or MP4, or as text."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.compiled import CompiledVectorEnv

FORMATS = (".gif", ".mp4")
_RAMP = " .:-=+*#%@"

Frame = UInt8[np.ndarray, "height width 3"]


class Moment(NamedTuple):
    """One moment of an episode: what has been earned so far, and how it looks.

    `picture` or `text`, or both, are None.
    """

    step: int
    episode_return: float
    picture: Frame | None
    text: str | None


def play_episode(
    envs: VectorEnv,
    act: Callable[[Any], Any],
    *,
    seed: int,
    as_text: bool = False,
    max_steps: int = 10_000,
) -> Iterator[Moment]:
    """Plays one episode in a vector of one environment, giving each moment, the first included.

    Args:
        envs: one environment with `autoreset_mode="disabled"`, so that the last moment is seen.
        act: from observations `[1, ...]` to actions `[1, ...]`.
        seed: of the reset.
        as_text: gives the text of environments that have one, instead of their picture.
        max_steps: ends an episode that does not.
    """
    observations, _ = envs.reset(seed=seed)
    total, finished = 0.0, False
    yield _moment(envs, 0, total, as_text)
    for step in range(1, max_steps + 1):
        observations, rewards, terminated, truncated, _ = envs.step(act(observations))
        total += float(rewards[0])
        finished = bool(terminated[0] or truncated[0])
        yield _moment(envs, step, total, as_text)
        if finished:
            return


def _moment(envs: VectorEnv, step: int, total: float, as_text: bool) -> Moment:
    text = envs.describe(0) if isinstance(envs, CompiledVectorEnv) else None
    if as_text and text is not None:
        return Moment(step, total, None, text)
    frames = None if envs.render_mode is None else envs.render()
    if frames is None:
        return Moment(step, total, None, text)
    if envs.render_mode == "ansi":
        return Moment(step, total, None, str(frames[0]))
    return Moment(step, total, np.asarray(frames[0], np.uint8), None)


def write_video(frames: Sequence[Frame], path: Path, frames_per_second: float) -> None:
    """Writes frames of one size to `path`, whose ending says the format (.gif or .mp4).

    Raises:
        InvalidValueError: no frames, or another ending.
        MissingDependencyError: MP4 without PyAV.
    """
    if not frames:
        raise InvalidValueError("a video needs at least one frame.")
    if path.suffix.lower() not in FORMATS:
        raise InvalidValueError(f"{path.name} must end in {' or '.join(FORMATS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        _write_gif(frames, path, frames_per_second)
    else:
        _write_mp4(frames, path, frames_per_second)


def _write_gif(frames: Sequence[Frame], path: Path, frames_per_second: float) -> None:
    from PIL import Image

    # GIF counts time in hundredths of a second, and viewers slow down anything below two of them.
    keep_every = max(1, round(frames_per_second / 50))
    delay = max(2, round(100 * keep_every / frames_per_second)) * 10
    kept = [*frames[:-1:keep_every], frames[-1]]
    # One palette for all frames, from a few of them: colours do not flicker, and files stay small.
    sample = np.concatenate(kept[:: max(1, len(kept) // 4)])
    palette = Image.fromarray(sample).quantize(255, method=Image.Quantize.MEDIANCUT)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in kept
    ]
    last = 1000  # rests on the end before it starts over
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[delay] * (len(images) - 1) + [last],
        loop=0,
        optimize=False,
    )


def _write_mp4(frames: Sequence[Frame], path: Path, frames_per_second: float) -> None:
    from fractions import Fraction

    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            'MP4 needs PyAV: pip install "kiloworlds[video]". GIF needs nothing more.'
        ) from error
    height, width = (size - size % 2 for size in frames[0].shape[:2])  # H.264 wants even sizes
    with av.open(str(path), "w") as container:
        rate = Fraction(frames_per_second).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


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
