"""When a program of a sweep is not worth going on with."""

from typing import Any

import numpy as np

from kiloworlds.evaluation.comparison import RETURN
from kiloworlds.sweep.spec import SweepSpec
from kiloworlds.sweep.store import Trials

_EARLIEST = 0.5
"""Share of a training before which none is stopped early."""
_ENOUGH = 5
"""Trials before; the median of fewer says little."""


class Stopping:
    """Ends a program all of whose trials are worse than the median of those before, at the same step."""

    def __init__(self, spec: SweepSpec, trials: Trials):
        self._spec, self._trials = spec, trials
        self._is_set = False

    def is_set(self) -> bool:
        """Whether the program is to end."""
        return self._is_set

    def hear(self, row: dict[str, Any], total: int) -> None:
        """Looks at a row of metrics.

        Args:
            row: of a training.
            total: steps that it takes if it is not stopped.
        """
        spec = self._spec
        if not spec.early_stopping or row["step"] < _EARLIEST * total:
            return
        others = [
            np.interp(row["step"], *np.array(trial.user_attrs["curve"]).T)
            for trial in self._trials.finished()
            if trial.user_attrs["steps"] >= total
        ]
        now = np.array([np.nan if value is None else value for value in row[RETURN]], float)
        means = now.reshape(-1, spec.seeds).mean(axis=1)
        if len(others) >= _ENOUGH and (means < np.median(others)).all():
            self._is_set = True
