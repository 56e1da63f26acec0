"""Which trackers there are, and whether they are installed."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from kiloworlds.core.errors import (
    InvalidValueError,
    MissingDependencyError,
    UnknownNameError,
    did_you_mean,
)
from kiloworlds.training.loggers.base import Logger


@dataclass(frozen=True)
class Tracker:
    """What a logger needs.

    Attributes:
        logger: its class, in the module `NAME_logger`.
        package: which it imports when it is made or starts.
        install: what pip installs that by.
    """

    logger: str
    package: str
    install: str


TRACKERS = {
    "tensorboard": Tracker("TensorBoardLogger", "tensorboardX", "tensorboardX"),
    "wandb": Tracker("WandbLogger", "wandb", "kiloworlds[wandb]"),
    "mlflow": Tracker("MlflowLogger", "mlflow", "kiloworlds[mlflow]"),
    "trackio": Tracker("TrackioLogger", "trackio", "kiloworlds[trackio]"),
}


def make_logger(name: str) -> Logger:
    """The logger of a tracker."""
    module = importlib.import_module(f"{__package__}.{name}_logger")
    return getattr(module, TRACKERS[name].logger)()


def check_loggers(names: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of loggers, each once, if all can be had. Imports none of them.

    Raises:
        UnknownNameError: there is no such logger.
        MissingDependencyError: its package is not installed.
        InvalidValueError: these are no names.
    """
    words = [names] if isinstance(names, str) else names
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise InvalidValueError(
            f"log={names!r} must name loggers, such as ('tensorboard',): {', '.join(TRACKERS)}."
        )
    for word in words:
        if word not in TRACKERS:
            raise UnknownNameError(
                f"Unknown logger {word!r}.{did_you_mean(word, TRACKERS)} There are "
                f"{', '.join(TRACKERS)}."
            )
        if not _is_installed(TRACKERS[word].package):
            raise MissingDependencyError(
                f"the logger {word!r} needs {TRACKERS[word].package}, which is not installed: "
                f'pip install "{TRACKERS[word].install}"'
            )
    return tuple(dict.fromkeys(words))


def _is_installed(package: str) -> bool:
    """Whether it can be imported. A folder of that name, such as the `wandb` that Weights & Biases
    leaves where it runs, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None
