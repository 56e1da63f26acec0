"""trackio: a local database, or a Space of Hugging Face's (`TRACKIO_SPACE_ID`)."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

from kiloworlds.training.loggers.base import LoggedRun, Point, Started


class TrackioLogger:
    """A run of trackio, which knows runs by their names.

    It turns whatever goes wrong into warnings, in threads of its own; here the first is raised by the
    next call.
    """

    def start(self, run: LoggedRun) -> Started:
        import trackio  # pyright: ignore[reportMissingImports]

        self._logged = run
        self._wrong: str | None = None
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = self._hear
        project = os.environ.get("TRACKIO_PROJECT", "kiloworlds")
        self._run: Any = trackio.init(
            project=project,
            name=run.unique_name,
            config=run.config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._raise_wrong()
        return Started(f"trackio show --project {project}", None)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log(point.flat(self._logged), step=point.step)
        self._raise_wrong()

    def close(self, ok: bool) -> None:
        self._run.finish()
        self._raise_wrong()

    def _hear(self, message: Any, category: type[Warning], filename: str, *_: Any) -> None:
        if issubclass(category, UserWarning) and "trackio" in filename:
            self._wrong = self._wrong or str(message)

    def _raise_wrong(self) -> None:
        if self._wrong is not None:
            raise RuntimeError(self._wrong)
