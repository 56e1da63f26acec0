"""A run, finished or interrupted: what training wrote into its directory, and the policy."""

import contextlib
import itertools
import json
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import yaml

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.parameters import is_batched
from kiloworlds.core.registry import find_spec
from kiloworlds.core.user_code import check_may_be_called, is_imported
from kiloworlds.training.agents_policy import AgentsPolicy
from kiloworlds.training.algorithms import AGENTS, algorithm_for
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.policy import Policy
from kiloworlds.training.resume import settings_at
from kiloworlds.training.run_errors import NoRunError, RunDirectoryError, reading
from kiloworlds.training.storage.arrays import from_arrays, part
from kiloworlds.training.storage.checkpoint import Checkpoint, CheckpointStore, NoCheckpointError
from kiloworlds.training.storage.checkpoint_writer import LEARNER
from kiloworlds.training.storage.metrics import Metrics
from kiloworlds.training.storage.metrics_file import read_metrics
from kiloworlds.training.storage.run_files import Say, read_events, say_on_stderr
from kiloworlds.vector.pettingzoo.ids import PREFIX as PETTINGZOO_PREFIX
from kiloworlds.vector.pettingzoo.ids import user_module
from kiloworlds.vector.pixels import pixel_options

_NEARBY_ENTRIES = 2000
"""How many directory entries are looked at to name runs near a wrong path."""


_FACTS = {"kiloworlds": str, "packages": dict, "jax_devices": list, "command": list}
"""What environment.json tells is of these kinds, where it tells it."""


class Run:
    """One training, finished or interrupted.

    Attributes:
        path: its directory.
        config: its settings, as in `config.yaml`.
        interrupted: whether it was stopped before `total_steps`, if it was trained just now.
        signal: the number of the signal that did so, if one did.
    """

    def __init__(self, path: Path, checkpoint: int | Literal["best"] | None = None):
        self.path = path
        self.interrupted = False
        self.signal: int | None = None
        self._checkpoint: int | Literal["best"] | None = checkpoint
        self.config: dict[str, Any] = _read_config(path / "config.yaml")
        self._policy: Policy | AgentsPolicy | None = None
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def metrics(self) -> Metrics:
        """All metrics by name, arrays `[rows]` or `[rows, seeds]`; of a damaged file those before the
        damage, which is said once on standard error."""
        return self.read_metrics(self._say_once)

    def read_metrics(self, say: Say) -> Metrics:
        """The same.

        Args:
            say: hears in a sentence which line is damaged, and how many are left out. A last line that
                was torn, as a kill leaves it, is no damage.

        Raises:
            RunDirectoryError: there are none, or they are of another run than `config.yaml`.
        """
        metrics = read_metrics(self.path, say)
        config = TrainConfig.from_dict(self.config)
        widths = {column.shape[1] for column in metrics.values() if column.ndim > 1}
        wrong = sorted(widths - {config.num_members})
        if wrong:
            raise RunDirectoryError(
                f"{str(self.path)!r} is damaged: it has metrics of {wrong[0]} values a row, and its "
                f"config.yaml tells of {config.members_in_words}."
            )
        return metrics.with_varied(config.varied) if config.population else metrics

    def _say_once(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            say_on_stderr(words)

    @property
    def checkpoint(self) -> int | Literal["newest", "best"]:
        """Which checkpoint it was loaded with."""
        return "newest" if self._checkpoint is None else self._checkpoint

    @property
    def steps(self) -> int:
        """Environment steps, per seed, until its newest checkpoint; 0 without one."""
        return max(self.checkpoints.steps(), default=0)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware and command, as in `environment.json`."""
        file = self.path / "environment.json"
        with reading(file):
            facts = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(facts, dict) or "backend" not in facts:
                raise InvalidValueError("it does not tell the backend.")
            for name, kind in _FACTS.items():
                if name in facts and not isinstance(facts[name], kind):
                    raise InvalidValueError(f"its {name!r} is {reprlib.repr(facts[name])}.")
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
            self._policy = _load_policy(self, TrainConfig.from_dict(self.config))
        return self._policy

    def settings_at(self, step: int) -> dict[str, Any]:
        """The settings with which a step (over all environments) was taken: resuming may have changed
        them since."""
        return settings_at(self.config, read_events(self.path), step)

    @property
    def checkpoints(self) -> CheckpointStore:
        """All that are kept."""
        return CheckpointStore(self.path / "checkpoints")

    def load_checkpoint(self, only: str = "") -> Checkpoint:
        """The checkpoint that was asked for, or the newest that can be read.

        Args:
            only: read but arrays whose names begin so.

        Raises:
            RunDirectoryError: there is none, or the one that was asked for is damaged.
        """
        store = self.checkpoints
        wanted = self._checkpoint
        if wanted is None:
            return store.load_newest(say_on_stderr, only)
        step = store.best_step() if isinstance(wanted, str) else wanted
        if step is None:
            raise NoCheckpointError(
                f"{str(self.path)!r} holds no checkpoint that tells its return."
            )
        return store.load(step, only)

    def make_envs(self, num_envs: int, **options: Any):
        """Environments like those it was trained in, with the game's own rewards and episodes where
        training saw others; see `kiloworlds.make`."""
        from kiloworlds.vector.make import make

        check_imported(self.config["env_id"])
        parameters = _parameters_for(num_envs, self.config["env_kwargs"], self.config["num_envs"])
        pixels = self.config.get("preprocessing")
        arguments = {
            "backend": self.config["backend"],
            "preprocessing": None if pixels is None else pixel_options(pixels).for_evaluation(),
            **parameters,
            **options,
        }
        return make(self.config["env_id"], num_envs, **arguments)

    def replay(self, step: int | None = None, seed: int = 0):
        """One step of the training, made again; see `kiloworlds.training.replay.replay`."""
        from kiloworlds.training.replay import replay

        return replay(self, step, seed)

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
    with reading(file):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise InvalidValueError("it holds no names and values.")
        lacking = [name for name in _NEEDED if name not in values]
        if lacking:
            raise InvalidValueError(f"it lacks {', '.join(lacking)}.")
        return TrainConfig.from_dict(values).as_dict()


_NEEDED = ("algorithm", "env_id", "env_kwargs", "num_envs", "backend")


def check_imported(env_id: str) -> None:
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


def _load_policy(run: "Run", config: TrainConfig) -> Policy | AgentsPolicy:
    from kiloworlds.vector.make import make

    check_imported(config.env_id)
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
    like = jax.eval_shape(  # the keys too: a damaged config.yaml may tell of a billion members
        lambda key: jax.vmap(algorithm.init)(jax.random.split(key, config.num_members)),
        jax.random.key(0),
    )
    checkpoint = run.load_checkpoint(only=LEARNER)
    arrays = part(checkpoint.arrays, LEARNER)
    what = f"the checkpoint of step {checkpoint.step} in {str(run.path)!r}"
    try:
        states = from_arrays(like, arrays, what, f"{config.env_id} with these settings")
    except InvalidValueError as error:
        raise RunDirectoryError(
            f"{error} It belongs to another environment or network; load it from its own run directory."
        ) from error
    states = jax.tree.map(jnp.asarray, states)
    return (
        AgentsPolicy(algorithm, states) if config.algorithm in AGENTS else Policy(algorithm, states)
    )


def load(path: str | os.PathLike, checkpoint: int | Literal["newest", "best"] = "newest") -> Run:
    """Opens a run directory.

    Args:
        path: of the directory.
        checkpoint: whose policy: "newest" (that can be read), "best" by the return while training, or
            the number of steps of one.

    Raises:
        NoRunError: the path is not one.
        RunDirectoryError: its config.yaml is damaged.
        InvalidValueError: `checkpoint` is something else.

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
    is_name = isinstance(checkpoint, str) and checkpoint in ("newest", "best")
    if not is_name and (not isinstance(checkpoint, int | np.integer) or checkpoint < 0):
        raise InvalidValueError(
            f"checkpoint={checkpoint!r} must be 'newest', 'best' or the number of steps of one."
        )
    if is_name:
        return Run(path, None if checkpoint == "newest" else "best")
    return Run(path, int(checkpoint))


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
