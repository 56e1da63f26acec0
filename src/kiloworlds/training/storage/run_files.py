"""What a training writes into its run directory, whatever happens to the disk meanwhile."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.run_errors import reading
from kiloworlds.training.storage.checkpoint import Checkpoint, CheckpointStore, Retention
from kiloworlds.training.storage.checkpoint_writer import (
    NotFiniteError,
    Snapshot,
    SnapshotWriter,
    check_finite,
)
from kiloworlds.training.storage.metrics_file import MetricsFile
from kiloworlds.training.storage.run_directory import free_directory, versions, write_whole

Say = Callable[[str], None]


class RunFiles:
    """The files of a run that is being trained.

    What cannot be written is said once, kept in memory and written as soon as it can be; training goes
    on.

    Args:
        path: the run directory.
        config: the settings.
        facts: of `environment.json`.
        say: is told in a sentence what goes wrong, and when it is over.
        more: other small files of the run, texts by name.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        facts: dict[str, Any],
        say: Say,
        more: dict[str, str] | None = None,
    ):
        self.path = path
        self._described_by = {"config": config.as_dict(), "versions": versions()}
        self._texts = {
            "config.yaml": yaml.safe_dump(config.as_dict(), sort_keys=False),
            "environment.json": json.dumps(facts, indent=2) + "\n",
            **(more or {}),
        }
        self.say = say
        self._troubles: set[str] = set()
        self.metrics = MetricsFile(path)  # which says whether somebody else trains it
        self.store = CheckpointStore(path / "checkpoints")
        self.store.sweep()
        self._keep = Retention(
            config.keep_checkpoints, config.keep_best_checkpoint, config.keep_checkpoint_every
        )
        self._writer = SnapshotWriter(self._save, self._told)

    def write_settings(self) -> None:
        """Writes `config.yaml`, `environment.json` and what else there is of the kind.

        Raises:
            OSError: they cannot be written.
        """
        self._write_texts(self.path)

    def renew_settings(self) -> None:
        """The same where the run has some already."""
        try:
            self._write_texts(self.path)
        except OSError as error:
            self._trouble("settings", error, "those in its files are older")

    def _write_texts(self, path: Path) -> None:
        for name, text in self._texts.items():
            write_whole(path / name, text)

    def write_row(self, row: dict[str, Any]) -> None:
        """Appends a row of metrics."""
        try:
            self.metrics.write(row)
            if not (self.path / "config.yaml").exists():  # somebody deleted the directory
                self._write_texts(self.path)
        except OSError as error:
            self._trouble("metrics", error, "rows of metrics wait in memory")
        else:
            self._over("metrics")

    def event(self, what: str, **facts: Any) -> None:
        """Appends to `events.jsonl` what happened to the training."""
        try:
            append_event(self.path, what, **facts)
        except OSError as error:
            self._trouble("events", error, f"this is not noted there: {what} {facts}")

    def offer(self, snapshot: Snapshot) -> None:
        """Has a checkpoint written soon, beside training."""
        self._writer.offer(self._described(snapshot))

    def newest(self) -> Checkpoint:
        """The newest checkpoint that can be read, all that were offered included.

        Raises:
            NoCheckpointError: there is none.
        """
        self._writer.settle()  # else one might be pruned while it is read
        return self.store.load_newest(self.say)

    def _save(self, snapshot: Snapshot) -> None:
        check_finite(snapshot)
        self.metrics.force_to_disk()
        self.store.save(*snapshot)
        self.store.prune(self._keep)

    def _described(self, snapshot: Snapshot) -> Snapshot:
        return snapshot._replace(facts=snapshot.facts | self._described_by)

    def finish(self, snapshot: Snapshot | None) -> Path:
        """Writes the last checkpoint and closes all files.

        Returns:
            Where the run is: another directory if its own cannot be written any more.
        """
        self._writer.close()
        path = self.path
        try:
            self.metrics.flush()
            if snapshot is not None:
                self._save(self._described(snapshot))
        except NotFiniteError as error:
            self.say(str(error))
        except OSError as error:
            path = self._rescue(snapshot, error)
        self.metrics.close()
        return path

    def _rescue(self, snapshot: Snapshot | None, error: OSError) -> Path:
        """Writes the run where that is possible."""
        problem = _reason(error)
        name = f"{self.path.resolve().name}_rescued"
        for folder in (self.path.resolve().parent, Path.cwd(), Path(tempfile.gettempdir())):
            try:
                path = free_directory(folder / name)
            except OSError as another:
                problem = _reason(another)
                continue
            try:
                self._copy_to(path, snapshot)
            except OSError as another:
                problem = _reason(another)
                shutil.rmtree(path, ignore_errors=True)  # half a run helps nobody
                continue
            self.say(
                f"{str(self.path)!r} cannot be written ({_reason(error)}): the run with its newest "
                f"checkpoint is in {str(path)!r}."
            )
            return path
        self.say(
            f"{str(self.path)!r} cannot be written ({_reason(error)}), nor can another directory "
            f"({problem}): what was learnt since its newest checkpoint is lost."
        )
        return self.path

    def _copy_to(self, path: Path, snapshot: Snapshot | None) -> None:
        self._write_texts(path)
        lines = self.metrics.read() + self.metrics.position()["unwritten"].encode()
        (path / "metrics.jsonl").write_bytes(lines)
        if (self.path / "events.jsonl").is_file():  # which may be gone with the directory
            shutil.copyfile(self.path / "events.jsonl", path / "events.jsonl")
        if snapshot is not None:
            CheckpointStore(path / "checkpoints").save(*self._described(snapshot))

    def _told(self, error: OSError | NotFiniteError | None) -> None:
        """Hears of each checkpoint that was tried."""
        if error is None:
            self._over("checkpoints")
        else:
            words = "training goes on, and the next one is tried when it is due"
            self._trouble("checkpoints", error, words)

    def _trouble(self, what: str, error: Exception, consequence: str) -> None:
        if what not in self._troubles:
            self._troubles.add(what)
            place = repr(str(self.path))
            self.say(f"{what} cannot be written to {place} ({_reason(error)}): {consequence}.")

    def _over(self, what: str) -> None:
        if what in self._troubles:
            self._troubles.discard(what)
            self.say(f"{what} are written to {str(self.path)!r} again.")


def append_event(path: Path, what: str, **facts: Any) -> None:
    """Appends to the `events.jsonl` of a run what happened to its training."""
    event = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": what, **facts}
    with (path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """What happened to the training of a run; none where nothing did. A last line that was cut off is
    left out.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    file = path / "events.jsonl"
    if not file.exists():
        return []
    with reading(file):
        *lines, _ = file.read_text(encoding="utf-8").split("\n")
        events = [json.loads(line) for line in lines if line.strip()]
        for event in events:
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise InvalidValueError(f"{event!r} is no event.")
        return events


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def say_on_stderr(words: str) -> None:
    """What is said where nobody else listens."""
    print(f"kiloworlds: {words}", file=sys.stderr, flush=True)
