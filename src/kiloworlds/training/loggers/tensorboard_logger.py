"""TensorBoard's event files, in `tensorboard/` of the run directory.

Of a single seed that is one run to TensorBoard. Of several each is a run (`seed_0`, ...; of a population
`learning_rate_0.001_seed_0`, ...), and their means are another (`mean`), so that one chart shows all.
"""

import os
import shlex
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.message import DecodeError  # pyright: ignore[reportMissingModuleSource]
from tensorboardX import summary  # pyright: ignore[reportMissingImports]
from tensorboardX.event_file_writer import EventsWriter  # pyright: ignore[reportMissingImports]
from tensorboardX.proto import event_pb2  # pyright: ignore[reportMissingImports]

from kiloworlds.training.loggers.base import LoggedRun, Point, Started

# Made as the module is imported, where no type checker sees them.
Event: Any = getattr(event_pb2, "Event")  # noqa: B009
SessionLog: Any = getattr(event_pb2, "SessionLog")  # noqa: B009
_FOLDER = "tensorboard"
_MEAN = "mean"
_RETURN = "rollout/ep_rew_mean"
_FILES = "events.out.tfevents.*"
_HEADER = struct.Struct("<QI")  # length and its checksum; then the event and its own
_CHECKSUM = 4


class TensorBoardLogger:
    """See the module. Writes in the thread that calls: tensorboardX's `SummaryWriter` writes in one of
    its own, in which an error (a full disk) is nobody's and leaves all who flush waiting."""

    def start(self, run: LoggedRun) -> Started:
        self._folder = run.path.absolute() / _FOLDER
        self._writers: dict[Path, Any] = {}
        self._files: list[Path] = []
        self._begins_at = run.step + 1
        newest = cut_back(self._folder, run.step)
        self._mean_folder = self._folder_of_means(run.num_members)
        self._logged = run
        if newest < 0:
            text = summary.text("config", f"```\n{yaml.safe_dump(run.config, sort_keys=False)}```")
            self._write(self._mean_folder, Event(wall_time=time.time(), summary=text))
            self._write_settings()
        return Started(f"tensorboard --logdir {shlex.quote(str(run.path))}", newest)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._write_scalars(self._mean_folder, point, point.values)
            for name, values in zip(self._logged.member_names, point.by_seed, strict=False):
                self._write_scalars(self._folder / name, point, values)
        for writer in self._writers.values():
            writer.flush()
        for file in self._files:
            if not file.exists():  # what is written goes nowhere then, and no error says so
                raise FileNotFoundError(f"{str(file)!r} was deleted")

    def close(self, ok: bool) -> None:
        for writer in self._writers.values():
            writer.close()

    def _write_settings(self) -> None:
        """For the page HPARAMS, a table in which a run has a line, and of a population each member."""
        lines = {
            self._folder / name: self._logged.config | own
            for name, own in zip(
                self._logged.member_names, self._logged.member_settings, strict=False
            )
        } or {self._mean_folder: self._logged.config}
        for folder, settings in lines.items():
            plain = {
                name: str(value) if isinstance(value, list) else value
                for name, value in settings.items()
                if isinstance(value, str | int | float | bool | list)
            }
            about, values, _ = summary.hparams(plain, {_RETURN: None})
            for part in (about, values):
                self._write(folder, Event(wall_time=time.time(), summary=part))

    def _folder_of_means(self, num_members: int) -> Path:
        """Runs that began before means had a folder of their own go on where they were."""
        began_without = any(self._folder.glob(_FILES))
        return self._folder if num_members == 1 or began_without else self._folder / _MEAN

    def _write_scalars(self, folder: Path, point: Point, values: dict[str, float]) -> None:
        entries = [summary.Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
        event = Event(step=point.step, wall_time=point.time, summary=summary.Summary(value=entries))
        self._write(folder, event)

    def _write(self, folder: Path, event: Any) -> None:
        if folder not in self._writers:
            folder.mkdir(parents=True, exist_ok=True)
            known = set(folder.glob(_FILES))
            # The name tells the second, and two sessions may begin within one; names are read in order.
            writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            self._writers[folder] = writer
            self._files += set(folder.glob(_FILES)) - known
            begins = SessionLog(status=SessionLog.START)
            # A TensorBoard that has read what was cut off forgets it.
            writer.write_event(
                Event(step=self._begins_at, wall_time=time.time(), session_log=begins)
            )
        self._writers[folder].write_event(event)


def cut_back(folder: Path, step: int) -> int:
    """Cuts off what event files hold after a step, and what no folder beneath has to its end.

    Returns:
        The step of the newest row left; -1 without any.
    """
    newest: dict[Path, int] = {}
    for file in folder.rglob(_FILES):
        newest[file.parent] = max(newest.get(file.parent, -1), _cut_back(file, step))
    least = min(newest.values(), default=-1)
    if any(other > least for other in newest.values()):
        return cut_back(folder, least)
    return least


def _cut_back(file: Path, step: int) -> int:
    newest = -1
    end = 0
    with file.open("r+b") as content:
        for event, end_of_event in _events(content):
            if event.HasField("summary"):
                if event.step > step:
                    break
                newest = event.step
            end = end_of_event
        content.truncate(end)
    if newest < 0:
        file.unlink()
    return newest


def _events(content: Any) -> Iterator[tuple[Any, int]]:
    """The events of a file, until one that is damaged or torn, and where each ends."""
    size = os.fstat(content.fileno()).st_size
    while len(header := content.read(_HEADER.size)) == _HEADER.size:
        length, _ = _HEADER.unpack(header)
        if content.tell() + length + _CHECKSUM > size:
            return
        data = content.read(length + _CHECKSUM)[:length]
        try:
            yield Event.FromString(data), content.tell()
        except DecodeError:
            return
