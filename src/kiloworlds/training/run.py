"""The run directory: everything about one training, on disk.

config.yaml       complete settings; training from it repeats the run
metrics.jsonl     one JSON object per line, appended and flushed as training goes
environment.json  versions, hardware, command line, git commit, seed
checkpoints/      learner states, written by Orbax
videos/, *.png    made by `kiloworlds play` and at the end of training
"""

import contextlib
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import yaml

from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import InvalidValueError, KiloworldsError
from kiloworlds.core.parameters import is_batched
from kiloworlds.core.registry import find_spec
from kiloworlds.core.user_code import check_may_be_called, is_imported
from kiloworlds.training.agents_policy import AgentsPolicy
from kiloworlds.training.algorithms import AGENTS, algorithm_for
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.policy import Policy
from kiloworlds.vector.pettingzoo.ids import PREFIX as PETTINGZOO_PREFIX
from kiloworlds.vector.pettingzoo.ids import user_module
from kiloworlds.vector.pixels import pixel_options

FORMAT_VERSION = 1

_NEARBY_ENTRIES = 2000
"""How many directory entries are looked at to name runs near a wrong path."""


class RunDirectoryError(KiloworldsError, OSError):
    """A run directory that cannot be written or read."""


class NoRunError(RunDirectoryError, InvalidValueError):
    """A path at which there is no run."""


@contextlib.contextmanager
def _reading(part: Path) -> Iterator[None]:
    """Turns whatever goes wrong while `part` of a run is read into RunDirectoryError.

    YAML, JSON, Orbax and TensorStore raise a dozen kinds of errors for damaged files.
    """
    try:
        yield
    except RunDirectoryError:
        raise
    except Exception as error:
        words = " ".join(str(error).partition(" [tensorstore_spec")[0].split())
        reason = words if isinstance(error, KiloworldsError) else f"{type(error).__name__}: {words}"
        raise RunDirectoryError(
            f"{str(part)!r} is damaged, or not of this run: {reason[:300]}"
        ) from error


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
        base, number = Path("runs") / config.algorithm / name, 1
    elif not isinstance(run_dir, str | os.PathLike) or not os.fspath(run_dir):
        raise InvalidValueError(
            f"run_dir={run_dir!r} must be the path of a directory, such as 'runs/mine', or '.' for "
            "the current one."
        )
    else:
        base, number = Path(run_dir), 0
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

    Reading ends before the first line that is no row, such as one torn by a kill.
    """
    file = path / "metrics.jsonl"
    rows: list[dict[str, Any]] = []
    with _reading(file):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if _layout(row) is None or (rows and _layout(row) != _layout(rows[0])):
            break
        rows.append(row)
    return {name: _column([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _layout(row: Any) -> dict[str, int | None] | None:
    """How many numbers a row holds for each metric (None: just one); None if it is no row."""
    if not isinstance(row, dict):
        return None
    for value in row.values():
        for entry in value if isinstance(value, list) else [value]:
            if not isinstance(entry, int | float | None):
                return None
    return {name: len(value) if isinstance(value, list) else None for name, value in row.items()}


def _column(values: list[Any]) -> np.ndarray:
    column = np.asarray(values)
    return column.astype(float) if column.dtype == object else column  # None becomes NaN


def save_checkpoint(path: Path, step: int, learner: Any) -> None:
    """Writes learner states (leading seed axis) to `checkpoints/<step>`."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        target = (path / "checkpoints" / str(step)).absolute()
        checkpointer.save(target, jax.tree.map(np.asarray, _without_empty(learner)), force=True)


def _without_empty(tree: Any) -> Any:
    """None in place of arrays without elements, which Orbax refuses to save."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def _latest_checkpoint(path: Path) -> Path:
    folder = path / "checkpoints"
    # An empty directory is one whose writing was broken off.
    steps = {
        int(entry.name): entry
        for entry in folder.glob("*")
        if re.fullmatch("[0-9]+", entry.name) and entry.is_dir() and any(entry.iterdir())
    }
    if not steps:
        raise RunDirectoryError(
            f"{str(path)!r} holds no checkpoint: it is written when training ends or is "
            "interrupted by Ctrl-C, and this one was killed or is still running."
        )
    return steps[max(steps)].absolute()


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
        self.config: dict[str, Any] = _read_config(path / "config.yaml")
        self._policy: Policy | AgentsPolicy | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """All metrics by name, arrays `[rows]` or `[rows, seeds]`."""
        return read_metrics(self.path)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware and command, as in `environment.json`."""
        file = self.path / "environment.json"
        with _reading(file):
            facts = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(facts, dict) or "backend" not in facts:
                raise InvalidValueError("it does not tell the backend.")
            return facts

    @property
    def policy(self) -> Policy | AgentsPolicy:
        """The trained policy of the first seed; `policy.select_seed(i)` gives another's.

        Raises:
            RunDirectoryError: no checkpoint, a damaged one, or one that does not fit the
                environment.
            InvalidValueError: the environment is defined in a module that is not imported.
        """
        if self._policy is None:
            self._policy = _load_policy(self.path, TrainConfig.from_dict(self.config))
        return self._policy

    def make_envs(self, num_envs: int, **options: Any):
        """Environments like those it was trained in, with the game's own rewards and episodes where
        training saw others; see `kiloworlds.make`."""
        from kiloworlds.vector.make import make

        _check_imported(self.config["env_id"])
        parameters = _parameters_for(num_envs, self.config["env_kwargs"], self.config["num_envs"])
        pixels = self.config.get("preprocessing")
        arguments = {
            "backend": self.config["backend"],
            "preprocessing": None if pixels is None else pixel_options(pixels).for_evaluation(),
            **parameters,
            **options,
        }
        return make(self.config["env_id"], num_envs, **arguments)

    def evaluate(
        self,
        episodes: int = 100,
        seed: int = 10_000,
        deterministic: bool = True,
        env_kwargs: dict[str, Any] | None = None,
    ):
        """Plays whole episodes with the policy; see `kiloworlds.training.evaluate.evaluate`."""
        from kiloworlds.training.evaluate import evaluate

        return evaluate(self, episodes, seed, deterministic, env_kwargs=env_kwargs)


def _parameters_for(num_envs: int, env_kwargs: dict[str, Any], trained: int) -> dict[str, Any]:
    """Parameters of the environment for another number of them: one value each, taken in turn."""
    return {
        name: np.resize(value, num_envs) if is_batched(value) and len(value) == trained else value
        for name, value in env_kwargs.items()
    }


def _read_config(file: Path) -> dict[str, Any]:
    """The settings of a run; those that came later than the run have their defaults."""
    with _reading(file):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise InvalidValueError("it holds no names and values.")
        lacking = [name for name in _NEEDED if name not in values]
        if lacking:
            raise InvalidValueError(f"it lacks {', '.join(lacking)}.")
        return TrainConfig.from_dict(values).as_dict()


_NEEDED = ("algorithm", "env_id", "env_kwargs", "num_envs", "backend")


def _check_imported(env_id: str) -> None:
    """Loading a run runs no code but the environment's own: of "module:id", only the user imports the
    module, and what is called is an environment of it."""
    module = user_module(env_id)
    if module is not None and not is_imported(module):
        raise InvalidValueError(
            f"the run's environment {env_id!r} is defined in module {module!r}, and loading a run "
            f"imports nothing by itself: import {module} first (in Python), or give "
            f"`--import {module}` on the command line."
        )
    if module is None or env_id.startswith(PETTINGZOO_PREFIX):
        return
    if env_id.rpartition(":")[2] not in gymnasium.registry and find_spec(env_id) is None:
        check_may_be_called(env_id)


def _load_policy(path: Path, config: TrainConfig) -> Policy | AgentsPolicy:
    import orbax.checkpoint as ocp

    from kiloworlds.vector.make import make

    _check_imported(config.env_id)
    parameters = _parameters_for(1, config.env_kwargs, config.num_envs)
    envs = make(
        config.env_id,
        1,
        backend=config.backend,  # type: ignore[arg-type]
        preprocessing=config.preprocessing,  # type: ignore[arg-type]
        **parameters,
    )
    algorithm: Any = algorithm_for(config, envs)
    envs.close()
    shapes = jax.eval_shape(
        jax.vmap(algorithm.init), jax.random.split(jax.random.key(0), config.num_seeds)
    )
    checkpoint = _latest_checkpoint(path)
    with _reading(checkpoint), ocp.StandardCheckpointer() as checkpointer:
        stored = _without_empty(shapes)
        states = checkpointer.restore(checkpoint, stored)
    _check_shapes(checkpoint, states, stored, config)
    states = jax.tree.map(
        lambda shape, leaf: jnp.zeros(shape.shape, shape.dtype) if leaf is None else leaf,
        shapes,
        states,
    )
    return (
        AgentsPolicy(algorithm, states) if config.algorithm in AGENTS else Policy(algorithm, states)
    )


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
        RunDirectoryError: its config.yaml is damaged.

    Example:
        >>> run = kiloworlds.load("runs/ppo/CartPole-v1_1")  # doctest: +SKIP
        >>> actions = run.policy.act(observations)  # doctest: +SKIP
    """
    path = Path(path)
    if not os.path.isdir(path):  # unlike Path's, never raises
        raise NoRunError(f"there is no run directory {str(path)!r}.{_nearby(path)}")
    if not (path / "config.yaml").is_file() or not (path / "environment.json").is_file():
        raise NoRunError(
            f"{str(path)!r} is not a run directory: it lacks config.yaml or environment.json."
            f"{_nearby(path)}"
        )
    return Run(path)


def _nearby(path: Path) -> str:
    """Names some runs at most two levels below the path, or its parent."""
    start = path if os.path.isdir(path) else path.parent
    below = itertools.islice(_entries(start, levels=2), _NEARBY_ENTRIES)
    runs = sorted(path for path in [start, *below] if os.path.isfile(path / "environment.json"))
    return f" Runs near it: {', '.join(map(str, runs[:5]))}." if runs else ""


def _entries(folder: Path, levels: int) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # some may not be read
        for entry in entries:
            yield folder / entry.name
            if levels > 1 and entry.is_dir(follow_symlinks=False):
                yield from _entries(folder / entry.name, levels - 1)
