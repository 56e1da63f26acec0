"""The metrics of a run: arrays by name, or a data frame."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, unknown_name

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]
    import polars  # pyright: ignore[reportMissingImports]

_FIRST = ("step", "seconds")
_SEED = "seed"
_SHOWN = 60
"""Names that a repr shows at most."""


class Metrics(Mapping[str, np.ndarray]):
    """Arrays by metric: `[rows]`, or `[rows, seeds]` where each seed has its own; NaN where nothing was.

    Args:
        columns: these.
        varied: settings of which each seed has a value of its own, as in a population: a value for each.

    Example:
        >>> metrics = Metrics({"step": np.array([64, 128]), "rollout/ep_rew_mean": np.ones((2, 3))})
        >>> metrics
        Metrics of 2 rows and 3 seeds: step, rollout/ep_rew_mean
        >>> metrics["rollout/ep_rew_mean"].shape
        (2, 3)
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        varied: Mapping[str, Sequence[Any]] | None = None,
    ):
        self._columns = dict(columns)
        self._varied = dict(varied or {})

    def __getitem__(self, name: str) -> np.ndarray:
        """One metric.

        Raises:
            UnknownNameError: the run has no such metric. It is a KeyError.
        """
        try:
            return self._columns[name]
        except KeyError:
            words = f"of its {len(self)} metrics, print(list(metrics))"
            raise unknown_name("metric", str(name), self._columns, words) from None

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        names = ", ".join(list(self)[:_SHOWN]) + (", ..." if len(self) > _SHOWN else "")
        rows, seeds = self.num_rows, self.num_seeds
        return (
            f"Metrics of {rows} row{'' if rows == 1 else 's'} and {seeds} "
            f"seed{'' if seeds == 1 else 's'}: {names or 'none'}"
        )

    @property
    def num_rows(self) -> int:
        return max((len(column) for column in self._columns.values()), default=0)

    @property
    def num_seeds(self) -> int:
        """How many seeds the metrics tell apart, at least 1."""
        return max(
            (column.shape[1] for column in self._columns.values() if column.ndim > 1), default=1
        )

    def with_varied(self, varied: Mapping[str, Sequence[Any]]) -> "Metrics":
        """The same metrics, whose data frames have columns of these settings: a value for each seed."""
        return Metrics(self._columns, varied)

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with one row for each row and seed: `step`, `seconds`, `seed` (counted from 0, as
        `Policy.select_seed` does; in a population over all its members), the settings that a population
        varies, and the metrics. What is not a seed's own is repeated for each.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _lacks("pandas") from error
        return pandas.DataFrame(self._tidy())

    def to_polars(self) -> "polars.DataFrame":
        """The same as polars has it. Its NaN are nulls, which its means leave out.

        Raises:
            MissingDependencyError: polars is not installed.
        """
        try:
            import polars  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _lacks("polars") from error
        return polars.DataFrame(self._tidy(), nan_to_null=True)

    def _tidy(self) -> dict[str, np.ndarray]:
        """Columns of one length: rows, and within them seeds."""
        rows, seeds = self.num_rows, self.num_seeds
        first = [name for name in _FIRST if name in self]
        others = [name for name in self if name not in first]
        columns = {name: self._long(name) for name in first}
        columns[_SEED] = np.tile(np.arange(seeds), rows)
        columns |= {name: np.tile(values, rows) for name, values in self._varied.items() if rows}
        return columns | {name: self._long(name) for name in others}

    def _long(self, name: str) -> np.ndarray:
        column = self[name]
        if column.ndim == 1:
            return np.repeat(column, self.num_seeds)
        if column.shape[1] != self.num_seeds:
            raise InvalidValueError(
                f"{name!r} has {column.shape[1]} values a row, and other metrics have "
                f"{self.num_seeds}: these are not the seeds of one run."
            )
        return column.reshape(-1)


def _lacks(package: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"to_{package} needs {package}, which is not installed: pip install {package}"
    )
