"""One video of many episodes at once, side by side."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from kiloworlds.core.checks import require_count, require_number
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.envs.drawing import drawn_at
from kiloworlds.evaluation.episode import (
    Frame,
    Instant,
    acting,
    as_picture,
    first_picture,
    pace,
    play_together,
    short,
    watchable_envs,
)
from kiloworlds.evaluation.pictures import caption, caption_height, closed, fitted
from kiloworlds.evaluation.video import check_can_write, video_path, write_video
from kiloworlds.vector.base import VectorEnv, expand_seeds

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

MOST_CELLS = 16  # beside or above each other
_WIDTH, _HEIGHT = 1280, 960  # of the whole, in pixels, at most
_GAP = 6
_ROOM_FOR_NAME = 360
_WALL = (148, 163, 184)
_MOST_FRAMES = 600
_PROGRESS_STEPS = 20
"""Steps between two words on how far it is."""
_MOST_FRAMES_PER_SECOND = 25.0


class Grid(NamedTuple):
    """How many environments are seen beside and above each other."""

    columns: int
    rows: int

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"


def grid_of(given: Any) -> Grid:
    """Reads a grid such as "8x4" or (8, 4): eight columns, four rows.

    Raises:
        InvalidValueError: something else, or fewer than 1 or more than 16 of either.
    """
    words = "x".join(map(str, given)) if isinstance(given, tuple | list) else given
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})", str(words).strip().lower())
    if found is None:
        raise InvalidValueError(
            f"the grid {words!r} must be columns x rows, each from 1 to {MOST_CELLS}, such as 8x8."
        )
    grid = Grid(int(found[1]), int(found[2]))
    nearest = Grid(*(min(max(count, 1), MOST_CELLS) for count in grid))
    if nearest != grid:
        raise InvalidValueError(
            f"the grid {grid} must have 1 to {MOST_CELLS} columns and 1 to {MOST_CELLS} rows; the "
            f"nearest is {nearest}."
        )
    return grid


@dataclass(frozen=True)
class GridVideo:
    """A video of many episodes, and how they went.

    Attributes:
        path: the file.
        grid: columns and rows; episode i is in column i % columns of row i // columns.
        seeds, returns, lengths: of each episode `[N]`; of several agents returns are their mean.
        ended: which episodes ended; the others were cut and count as far as they went.
        frames_per_second: of the video.
        steps_per_frame: more than 1 where an environment is faster than a video need be, or episodes
            so long that they are shown faster than they are.
    """

    path: Path
    grid: Grid
    seeds: tuple[int, ...]
    returns: Float[np.ndarray, " N"]
    lengths: Int[np.ndarray, " N"]
    ended: Bool[np.ndarray, " N"]
    frames_per_second: float
    steps_per_frame: int

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean())


def play_grid(
    run: "Run",
    grid: str | tuple[int, int] = (8, 8),
    path: Path | None = None,
    *,
    seed: int = 0,
    seed_index: int = 0,
    deterministic: bool = True,
    max_steps: int = 5_000,
    frames_per_second: float | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> GridVideo:
    """Plays an episode in each cell of a grid, all at once, and writes one video of them.

    An episode that has ended stays on its last picture, pale and with its return, until all have: short
    ones are not shown more often than long ones. They are played twice, first to learn how long that is.

    Args:
        run: of a training.
        grid: columns and rows, such as (8, 8) or "8x8".
        path: ends in .gif or .mp4; by default a GIF in the videos folder of the run, whose name says
            whose policy plays.
        seed: of the environment in the upper left; the others have the seeds that follow, row by row.
        seed_index: whose policy plays, for a run of several seeds.
        deterministic: the most likely actions; otherwise drawn from the policy.
        max_steps: cuts episodes that do not end.
        frames_per_second: environment steps shown a second; what the environment asks for if not given.
        on_progress: hears in a few words how far it is, such as "drawing: step 40 of 500".

    Raises:
        InvalidValueError: a grid that is none, or an environment without pictures.
        MissingDependencyError: MP4 without PyAV.

    Example:
        >>> from kiloworlds.evaluation.grid import play_grid
        >>> run = kiloworlds.load("runs/ppo/CartPole-v1_1")  # doctest: +SKIP
        >>> play_grid(run, (4, 2)).mean_return  # doctest: +SKIP
        500.0
    """
    grid = grid_of(grid)
    max_steps = require_count("max_steps", max_steps)
    if frames_per_second is not None:
        require_number("frames_per_second", frames_per_second, 0.1, 1000)
    env_id = run.config["env_id"]
    path = path or video_path(run, f"grid{grid}", seed=seed, seed_index=seed_index)
    check_can_write(path)
    say = on_progress or _ignore
    policy = run.policy.select_seed(seed_index)
    with watchable_envs(run, grid.columns * grid.rows, "next_step") as envs:
        seeds = expand_seeds(seed, envs.num_envs)
        first = first_picture(envs, seeds, env_id)

        def play() -> Iterator[Instant]:
            act = acting(policy, deterministic)
            return play_together(envs, act, seed=seeds, max_steps=max_steps)

        last = _last(play(), say)
        steps = last.step
        steps_per_frame, rate = _tempo(steps, frames_per_second or pace(envs, env_id))

        def frames() -> Iterator[Frame]:
            nonlocal last  # what is told is what is seen
            wall = _Wall(grid, env_id, first)
            for last in play():
                is_last = last.step == max_steps or not last.goes_on.any()
                is_shown = is_last or last.step % steps_per_frame == 0
                wall.update(envs, last, is_shown)
                if last.step % _PROGRESS_STEPS == 0:
                    say(f"drawing: step {last.step:,} of {steps:,}")
                if is_shown:
                    yield wall.frame(last, is_last)
            say(f"writing {path.name}")

        write_video(frames(), path, rate)
    return GridVideo(
        path, grid, tuple(seeds), last.returns, last.lengths, ~last.goes_on, rate, steps_per_frame
    )


def _ignore(words: str) -> None:
    """Where nobody listens."""


def _last(instants: Iterator[Instant], say: Callable[[str], None]) -> Instant:
    """Plays to the end."""
    say("playing")
    last = next(instants)
    for last in instants:
        if last.step % _PROGRESS_STEPS == 0:
            say(f"playing: step {last.step:,}")
    return last


def _tempo(steps: int, steps_per_second: float) -> tuple[int, float]:
    """Steps per frame and frames per second: as fast as wanted, but faster where that is too long."""
    per_frame = math.ceil(steps_per_second / _MOST_FRAMES_PER_SECOND)
    return max(per_frame, math.ceil(steps / _MOST_FRAMES)), steps_per_second / per_frame


class _Wall:
    """The pixels of all cells; only those that change are drawn.

    Args:
        grid: how many.
        name: of the environment, for the caption.
        picture: of one environment, whose shape the cells take.
    """

    def __init__(self, grid: Grid, name: str, picture: Frame):
        self._name = name
        height, width = picture.shape[:2]
        room = (
            (_WIDTH - _GAP) / grid.columns - _GAP,
            (_HEIGHT - caption_height(_WIDTH) - _GAP) / grid.rows - _GAP,
        )
        self._scale = min(1.0, room[0] / width, room[1] / height)
        self._cell = max(1, int(self._scale * width)), max(1, int(self._scale * height))
        self._columns = grid.columns
        total = (
            _GAP + grid.rows * (self._cell[1] + _GAP),
            _GAP + grid.columns * (self._cell[0] + _GAP),
        )
        self._pixels = np.full((*total, 3), _WALL, np.uint8)

    def update(self, envs: VectorEnv, instant: Instant, is_shown: bool) -> None:
        """Draws the environments that just ended, and where it is to be shown those that go on."""
        changed = np.flatnonzero(instant.ends | (instant.goes_on & is_shown)).tolist()
        if not changed:
            return
        with drawn_at(self._scale):
            pictures = envs.render(changed)
        assert pictures is not None  # the first one was there
        for index, picture in zip(changed, pictures, strict=True):
            cell = fitted(as_picture(picture), *self._cell)
            if instant.ends[index]:
                cell = closed(cell, f"return {short(instant.returns[index])}")
            self._put(index, cell)

    def _put(self, index: int, cell: Frame) -> None:
        width, height = self._cell
        row, column = divmod(index, self._columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        self._pixels[top : top + height, left : left + width] = cell

    def frame(self, instant: Instant, is_last: bool) -> Frame:
        """All cells below a caption: what is played, how far it is and how it went."""
        width = self._pixels.shape[1]
        ended = f"{(~instant.goes_on).sum()} of {len(instant.goes_on)} ended"
        told = f"mean return {short(instant.returns.mean())}" if is_last else ended
        name = self._name if width >= _ROOM_FOR_NAME else ""
        return np.concatenate([caption(width, name, f"step {instant.step:,}", told), self._pixels])
