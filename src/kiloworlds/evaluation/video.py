"""Frames written to a GIF or MP4."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.core.outputs import check_output_file
from kiloworlds.evaluation.episode import Frame

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

FORMATS = (".gif", ".mp4")


class Film:
    """Frames of one size, kept compressed: drawn pictures are flat, and take a hundredth of theirs."""

    def __init__(self, frames: Iterable[Frame] = ()):
        self._packed: list[tuple[bytes, tuple[int, ...]]] = []
        for frame in frames:
            self.add(frame)

    def add(self, frame: Frame) -> None:
        """Appends one.

        Raises:
            InvalidValueError: it has another size than the first.
        """
        if self._packed and frame.shape != self._packed[0][1]:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (frame.shape, self._packed[0][1])]
            raise InvalidValueError(
                f"frames of a video must have one size: frame {len(self)} has {sizes[0]} pixels, and "
                f"the first {sizes[1]}."
            )
        self._packed.append((zlib.compress(frame.tobytes(), level=1), frame.shape))

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> Frame:
        packed, shape = self._packed[index]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))


def file_name(env_id: str) -> str:
    """An id as a part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in env_id)


def video_path(
    run: "Run", what: str = "", *, seed: int, seed_index: int = 0, format: str = "gif"
) -> Path:
    """Where a video of a run goes, unless told otherwise: into its videos folder, under a name that says
    whose policy plays what.

    Args:
        what: is shown, such as "grid8x8"; "" for one episode.
        seed: of the episode, or of the first one.
        seed_index: whose policy plays.
        format: "gif" or "mp4".
    """
    parts = [file_name(run.config["env_id"])]
    parts += [f"policy{seed_index}"] if seed_index else []
    parts += [f"checkpoint-{run.checkpoint}"] if run.checkpoint != "newest" else []
    parts += [what] if what else []
    return run.path / "videos" / f"{'-'.join([*parts, f'seed{seed}'])}.{format}"


def check_can_write(path: Path) -> None:
    """Finds out before anything is played whether a video can be written.

    Raises:
        InvalidValueError: the path ends neither in .gif nor in .mp4, or no file can be there.
        MissingDependencyError: MP4 without PyAV.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidValueError(f"{path.name} must end in {' or '.join(FORMATS)}.")
    check_output_file(path, "video.gif")
    if path.suffix.lower() == ".mp4":
        _pyav()


def _pyav() -> Any:
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            'MP4 needs PyAV: pip install "kiloworlds[video]". GIF needs nothing more.'
        ) from error
    return av


def write_video(frames: Film | Iterable[Frame], path: Path, frames_per_second: float) -> None:
    """Writes frames of one size to `path`, whose ending says the format (.gif or .mp4).

    Raises:
        InvalidValueError: no frames, or another ending.
        MissingDependencyError: MP4 without PyAV; no frame has been asked for then.
    """
    check_can_write(path)
    film = frames if isinstance(frames, Film) else Film(frames)
    if not len(film):
        raise InvalidValueError("a video needs at least one frame.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        _write_gif(film, path, frames_per_second)
    else:
        _write_mp4(film, path, frames_per_second)


def _write_gif(film: Film, path: Path, frames_per_second: float) -> None:
    from PIL import Image

    # GIF counts time in hundredths of a second, and viewers slow down anything below two of them.
    keep_every = max(1, round(frames_per_second / 50))
    delay = max(2, round(100 * keep_every / frames_per_second)) * 10
    kept = [*range(0, len(film) - 1, keep_every), len(film) - 1]
    palette = _palette(film, kept)

    def indexed(index: int) -> Any:
        frame = Image.fromarray(film[index])
        return frame.quantize(palette=palette, dither=Image.Dither.NONE)

    last = 2000  # milliseconds; rests on the end before it starts over
    indexed(kept[0]).save(
        path,
        save_all=True,
        append_images=map(indexed, kept[1:]),
        duration=[delay] * (len(kept) - 1) + [last],
        loop=0,
        optimize=False,
    )


def _palette(film: Film, kept: Sequence[int]) -> Any:
    """One for all frames, from a few of them: colours do not flicker, and files stay small."""
    from PIL import Image

    some = {*kept[:: max(1, len(kept) // 4)], kept[-1]}
    sample = np.concatenate([film[index] for index in sorted(some)])
    return Image.fromarray(sample).quantize(255, method=Image.Quantize.MEDIANCUT)


def _write_mp4(film: Film, path: Path, frames_per_second: float) -> None:
    from fractions import Fraction

    av = _pyav()
    height, width = (size - size % 2 for size in film[0].shape[:2])  # H.264 wants even sizes
    with av.open(str(path), "w") as container:
        rate = Fraction(frames_per_second).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in film:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
