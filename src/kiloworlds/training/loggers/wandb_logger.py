"""Weights & Biases. Its own variables (`WANDB_API_KEY`, `WANDB_PROJECT`, `WANDB_MODE`, ...) hold."""

import os
from collections.abc import Sequence

from kiloworlds.training.loggers.base import LoggedRun, Point, Started


class WandbLogger:
    """A run of Weights & Biases; what it keeps locally is in `wandb/` of the run directory.

    It takes no step twice: rows that a resumed training makes again are those that it has.
    """

    def start(self, run: LoggedRun) -> Started:
        import wandb  # pyright: ignore[reportMissingImports]

        self._logged = run
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "kiloworlds"),
            id=run.identity,
            name=os.environ.get("WANDB_NAME", run.name),
            dir=str(run.path),
            config=run.config,
            resume="allow",
            settings=wandb.Settings(console="off"),
        )
        if self._run.offline:  # asks no server, so it does not know
            return Started(f"wandb sync {os.path.dirname(self._run.dir)}", None)
        return Started(str(self._run.url), self._run.starting_step - 1)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log(point.flat(self._logged), step=point.step)

    def close(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)
