"""MLflow. Its own variables (`MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`, ...) hold."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from kiloworlds.training.loggers.base import LoggedRun, Point, Started
from kiloworlds.training.loggers.points import STEP

_TAG = "kiloworlds.identity"
_PARAMETERS, _METRICS = 100, 1000  # at most in one call, says its server
_LONGEST_PARAMETER = 6000


class MlflowLogger:
    """A run of MLflow; it is found again by a tag."""

    def start(self, run: LoggedRun) -> Started:
        import mlflow  # pyright: ignore[reportMissingImports]
        from mlflow import entities  # pyright: ignore[reportMissingImports]

        self._logged = run
        self._entities: Any = entities
        self._client: Any = mlflow.MlflowClient()
        experiment = mlflow.set_experiment(
            os.environ.get("MLFLOW_EXPERIMENT_NAME", "kiloworlds")
        ).experiment_id
        known = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.identity}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            newest = int(known[0].data.metrics.get(STEP, -1))
        else:
            made = self._client.create_run(experiment, tags={_TAG: run.identity}, run_name=run.name)
            self._id, newest = made.info.run_id, -1
            parameters = [
                entities.Param(name, str(value)[:_LONGEST_PARAMETER])
                for name, value in run.config.items()
            ]
            for batch in _batches(parameters, _PARAMETERS):
                self._client.log_batch(self._id, params=batch)
        return Started(f"mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}", newest)

    def log(self, points: Sequence[Point]) -> None:
        metrics = []
        for point in points:
            milliseconds = int(point.time * 1000)
            # The step itself comes last: it tells that the row is whole.
            values = point.flat(self._logged)
            for name in sorted(values, key=lambda name: name == STEP):
                value = values[name]
                metrics.append(
                    self._entities.Metric(_allowed(name), value, milliseconds, point.step)
                )
        for batch in _batches(metrics, _METRICS):  # a call takes long, whatever it carries
            self._client.log_batch(self._id, metrics=batch)

    def close(self, ok: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if ok else "FAILED")


def _batches(items: list[Any], most: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, most)):
        yield batch


def _allowed(name: str) -> str:
    """A metric's name with what MLflow does not allow in one replaced."""
    return re.sub(r"[^\w\-. /]", "_", name)
