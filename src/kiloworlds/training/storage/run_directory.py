"""The run directory: everything about one training, on disk.

config.yaml       complete settings; training from it repeats the run
metrics.jsonl     one JSON object per line, appended and flushed as training goes
environment.json  versions, hardware, command line, git commit, seed
events.jsonl      what happened to the training: resumed, in trouble, ended
loggers.json      which trackers get the metrics too, and by what they know the run
loggers/          what they print, and how far they got
tensorboard/      event files
checkpoints/      everything that determines how it goes on (`kiloworlds.training.storage.checkpoint`)
videos/, *.png    made by `kiloworlds play` and at the end of training
"""

import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.machine import processor
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.run_errors import RunDirectoryError

FORMAT_VERSION = 1


def create_run_directory(config: TrainConfig, run_dir: str | os.PathLike | None) -> Path:
    """Makes the directory of a new run.

    Without `run_dir` it is `runs/<algorithm>/<environment>_<n>` with the first free n. A directory
    that already holds a run is never written to: the first free `<run_dir>_<n>` is taken instead.

    Raises:
        InvalidValueError: `run_dir` is empty or no path.
        RunDirectoryError: it cannot be created or written, or is a file.
    """
    if run_dir is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", config.env_id)
        return free_directory(Path("runs") / config.algorithm / name, first=1)
    if not isinstance(run_dir, str | os.PathLike) or not os.fspath(run_dir):
        raise InvalidValueError(
            f"run_dir={run_dir!r} must be the path of a directory, such as 'runs/mine', or '.' for "
            "the current one."
        )
    return free_directory(Path(run_dir))


def free_directory(base: Path, first: int = 0) -> Path:
    """Makes the first of `base` (unless `first` is 1), `base`_1, `base`_2, ... that holds no run.

    Raises:
        RunDirectoryError: it cannot be created or written, or is a file.
    """
    number = first
    while True:
        if number and base.name in ("", ".."):  # such as ".", which has no name to number
            base = base.resolve()
        path = base if number == 0 else base.parent / f"{base.name}_{number}"
        try:
            path.mkdir(parents=True, exist_ok=number == 0)
            if not (path / "config.yaml").exists():
                # Claims the directory: a second run started at the same moment fails here.
                (path / "config.yaml").open("x").close()
                return path
        except FileExistsError as error:
            if number == 0 and not path.is_dir():
                raise RunDirectoryError(
                    f"the run directory {str(path)!r} is a file; choose another with --run-dir."
                ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunDirectoryError(
                f"the run directory {str(path)!r} cannot be written ({reason}); choose another "
                "with --run-dir."
            ) from error
        number += 1


def environment_facts(config: TrainConfig, backend: str) -> dict[str, Any]:
    """What `environment.json` tells: versions, hardware, command line, git commit, seed."""
    return {
        "format_version": FORMAT_VERSION,
        **versions(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": available_cores(),
        "jax_backend": jax.default_backend(),
        "jax_devices": [str(device) for device in jax.devices()],
        "backend": backend,
        "seed": config.seed,
        "git_commit": _git_commit(),
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, Any]:
    """Of kiloworlds, Python and the packages on which results depend."""
    import equinox
    import gymnasium
    import optax

    import kiloworlds

    packages = (jax, np, gymnasium, equinox, optax)
    return {
        "kiloworlds": kiloworlds.__version__,
        "python": platform.python_version(),
        "packages": {module.__name__: module.__version__ for module in packages},
    }


def write_whole(file: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part.

    Raises:
        OSError: it cannot be written; the error names the file itself.
    """
    unfinished = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):  # the directory itself may be gone
            unfinished.unlink()
        raise OSError(error.errno, error.strerror, str(file)) from error


def _git_commit() -> str | None:
    """The commit of the working directory, None outside a repository or without git."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
