"""The run directory: everything about one training, on disk.

config.yaml       complete settings; training from it repeats the run
metrics.jsonl     one JSON object per line, appended and flushed as training goes
environment.json  versions, hardware, command line, git commit, seed
checkpoints/      learner states, written by Orbax
videos/, *.png    made by `kiloworlds play` and at the end of training
"""

import contextlib
import json
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
import yaml

from kiloworlds.algorithms.ppo import PPO
from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import InvalidValueError, KiloworldsError
from kiloworlds.core.spaces import Space, from_gymnasium
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.policy import Policy

FORMAT_VERSION = 1


class RunDirectoryError(KiloworldsError, OSError):
    """A run directory that cannot be written or read."""


class NoRunError(RunDirectoryError, InvalidValueError):
    """A path at which there is no run."""


def create_run_directory(config: TrainConfig, run_dir: str | os.PathLike | None) -> Path:
    """Makes the directory of a new run.

    Without `run_dir` it is `runs/<algorithm>/<environment>_<n>` with the first free n. A directory
    that already holds a run is never written to: the first free `<run_dir>_<n>` is taken instead.

    Raises:
        RunDirectoryError: it cannot be created or written.
    """
    if run_dir is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", config.env_id)
        base, number = Path("runs") / config.algorithm / name, 1
    else:
        base, number = Path(run_dir), 0
    while True:
        path = base if number == 0 else base.with_name(f"{base.name}_{number}")
        try:
            path.mkdir(parents=True, exist_ok=number == 0)
            if not (path / "config.yaml").exists():
                # Claims the directory: a second run started at the same moment fails here.
                (path / "config.yaml").open("x").close()
                return path
        except FileExistsError:
            pass
        except OSError as error:
            raise RunDirectoryError(
                f"the run directory {str(path)!r} cannot be written ({error.strerror}); choose "
                "another with --run-dir."
            ) from error
        number += 1


def write_environment(path: Path, config: TrainConfig, backend: str) -> None:
    """Writes `config.yaml` and `environment.json`."""
    (path / "config.yaml").write_text(yaml.safe_dump(config.as_dict(), sort_keys=False))
    import equinox
    import gymnasium
    import optax

    import kiloworlds

    facts = {
        "format_version": FORMAT_VERSION,
        "kiloworlds": kiloworlds.__version__,
        "python": platform.python_version(),
        "packages": {
            module.__name__: module.__version__ for module in (jax, np, gymnasium, equinox, optax)
        },
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": available_cores(),
        "jax_backend": jax.default_backend(),
        "jax_devices": [str(device) for device in jax.devices()],
        "backend": backend,
        "seed": config.seed,
        "git_commit": _git_commit(),
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    (path / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")


def _processor() -> str:
    with contextlib.suppress(FileNotFoundError):  # only Linux has it
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _git_commit() -> str | None:
    """The commit of the working directory, None outside a repository or without git."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


class MetricsWriter:
    """Appends metric rows to `metrics.jsonl`; each line is complete once written."""

    def __init__(self, path: Path):
        self._file = (path / "metrics.jsonl").open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        # Survives the death of the process: the line is in the kernel's hands.
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Reads `metrics.jsonl` into arrays `[rows]` or `[rows, seeds]`, NaN where nothing was.

    A last line torn by a kill is left out.
    """
    rows = []
    for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    names = list(rows[0]) if rows else []
    return {
        name: np.asarray(
            [
                [np.nan if value is None else value for value in row[name]]
                if isinstance(row[name], list)
                else row[name]
                for row in rows
            ]
        )
        for name in names
    }


def save_checkpoint(path: Path, step: int, learner: Any) -> None:
    """Writes learner states (leading seed axis) to `checkpoints/<step>`."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        target = (path / "checkpoints" / str(step)).absolute()
        checkpointer.save(target, jax.tree.map(np.asarray, learner), force=True)


def _latest_checkpoint(path: Path) -> Path:
    folder = path / "checkpoints"
    steps = [int(entry.name) for entry in folder.glob("*") if entry.name.isdigit()]
    if not steps:
        raise RunDirectoryError(
            f"{str(path)!r} holds no checkpoint: the training ended before its first one. Train "
            "again."
        )
    return (folder / str(max(steps))).absolute()


class Run:
    """One training, finished or interrupted.

    Attributes:
        path: its directory.
        config: its settings, as in `config.yaml`.
        interrupted: whether it was stopped before `total_steps`.
    """

    def __init__(self, path: Path, interrupted: bool = False):
        self.path = path
        self.interrupted = interrupted
        self.config: dict[str, Any] = yaml.safe_load((path / "config.yaml").read_text())
        self._policy: Policy | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """All metrics by name, arrays `[rows]` or `[rows, seeds]`."""
        return read_metrics(self.path)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware and command, as in `environment.json`."""
        return json.loads((self.path / "environment.json").read_text())

    @property
    def policy(self) -> Policy:
        """The trained policy of the first seed; `policy.select_seed(i)` gives another's.

        Raises:
            RunDirectoryError: no checkpoint, or one that does not fit the environment.
        """
        if self._policy is None:
            self._policy = _load_policy(self.path, TrainConfig.from_dict(self.config))
        return self._policy

    def make_envs(self, num_envs: int, **options: Any):
        """Environments like those it was trained in; see `kiloworlds.make`."""
        from kiloworlds.vector.make import make

        arguments = {"backend": self.config["backend"], **self.config["env_kwargs"], **options}
        return make(self.config["env_id"], num_envs, **arguments)

    def evaluate(self, episodes: int = 100, seed: int = 10_000, deterministic: bool = True):
        """Plays whole episodes with the policy; see `kiloworlds.training.evaluate.evaluate`."""
        from kiloworlds.training.evaluate import evaluate

        return evaluate(self, episodes, seed, deterministic)


def _load_policy(path: Path, config: TrainConfig) -> Policy:
    import orbax.checkpoint as ocp

    from kiloworlds.vector.make import make

    envs = make(config.env_id, 1, backend=config.backend, **config.env_kwargs)  # type: ignore[arg-type]
    observation_space: Space = from_gymnasium(envs.single_observation_space)
    action_space: Space = from_gymnasium(envs.single_action_space)
    envs.close()
    algorithm = PPO(config.settings, observation_space, action_space)
    shapes = jax.eval_shape(
        jax.vmap(algorithm.init), jax.random.split(jax.random.key(0), config.num_seeds)
    )
    checkpoint = _latest_checkpoint(path)
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(checkpoint).item_metadata.tree  # type: ignore[union-attr]
        _check_shapes(checkpoint, stored, shapes, config)
        states = checkpointer.restore(checkpoint, shapes)
    return Policy(algorithm, states)


def _check_shapes(checkpoint: Path, stored: Any, expected: Any, config: TrainConfig) -> None:
    found = [tuple(leaf.shape) for leaf in jax.tree.leaves(stored)]
    wanted = [tuple(leaf.shape) for leaf in jax.tree.leaves(expected)]
    if sorted(found) != sorted(wanted):
        raise RunDirectoryError(
            f"the checkpoint {str(checkpoint)!r} does not fit {config.env_id} with these settings: "
            f"it holds arrays of shapes {found}, needed are {wanted}. It belongs to another "
            "environment or network; load it from its own run directory."
        )


def load(path: str | os.PathLike) -> Run:
    """Opens a run directory.

    Raises:
        NoRunError: the path is not one.

    Example:
        >>> run = kiloworlds.load("runs/ppo/CartPole-v1_1")  # doctest: +SKIP
        >>> actions = run.policy.act(observations)  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_dir():
        raise NoRunError(f"there is no run directory {str(path)!r}.{_nearby(path)}")
    if not (path / "config.yaml").is_file() or not (path / "environment.json").is_file():
        raise NoRunError(
            f"{str(path)!r} is not a run directory: it lacks config.yaml or environment.json."
            f"{_nearby(path)}"
        )
    run = Run(path)
    if not isinstance(run.config, dict) or "env_id" not in run.config:
        raise NoRunError(f"{str(path / 'config.yaml')!r} is not the config of a run.")
    return run


def _nearby(path: Path) -> str:
    parent = path if path.is_dir() else path.parent
    runs = sorted(entry.parent for entry in parent.glob("**/environment.json"))
    return f" Runs near it: {', '.join(map(str, runs[:5]))}." if runs else ""
