"""The settings of one training run."""

import reprlib
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from kiloworlds.algorithms.ippo import IPPOConfig
from kiloworlds.algorithms.iql import IQLConfig
from kiloworlds.algorithms.mappo import MAPPOConfig
from kiloworlds.algorithms.ppo_config import PPOConfig
from kiloworlds.algorithms.pqn_vdn import PQNVDNConfig
from kiloworlds.algorithms.qmix import QMIXConfig
from kiloworlds.algorithms.self_play import SelfPlayConfig
from kiloworlds.algorithms.vdn import VDNConfig
from kiloworlds.core.checks import require_choice, require_count, require_flag, require_number
from kiloworlds.core.errors import InvalidValueError, UnknownNameError, unknown_name
from kiloworlds.vector.pixels import pixel_options

ALGORITHMS: dict[str, type] = {
    "ppo": PPOConfig,
    "ippo": IPPOConfig,
    "mappo": MAPPOConfig,
    "iql": IQLConfig,
    "vdn": VDNConfig,
    "qmix": QMIXConfig,
    "pqn_vdn": PQNVDNConfig,
    "self_play": SelfPlayConfig,
}

CHECKPOINTS = frozenset(
    (
        *("checkpoint_seconds", "checkpoint_updates", "keep_checkpoints"),
        *("keep_best_checkpoint", "keep_checkpoint_every"),
    )
)
SURVIVAL = CHECKPOINTS | frozenset(
    ("step_timeout", "max_restarts", "max_worker_memory", "on_nonfinite", "on_divergence")
)
"""Settings of how a training gets over faults: as long as there are none, nothing depends on them."""

PLACES = frozenset(("devices", "threads_per_device", "num_workers"))
"""Settings of where it runs: they decide how fast it learns, and nothing about what."""


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, where and for how long; the algorithm's own settings are in `settings`."""

    algorithm: str
    env_id: str
    settings: Any = field(default_factory=PPOConfig)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Parameters of the environment."""
    total_steps: int = 500_000
    """Environment steps to train for, per seed."""
    num_envs: int = 64
    """Environments per seed."""
    seed: int = 0
    """Seed of the run; with several seeds the first of them."""
    num_seeds: int = 1
    """Independent trainings side by side in one program, with seeds `seed`, `seed` + 1, ..."""
    backend: str = "auto"
    """Executor of the environments: auto, compiled, native, process, thread or sync."""
    preprocessing: str | dict[str, Any] | None = None
    """Of image observations: "atari", or a mapping of options of `kiloworlds.PixelOptions`."""
    num_workers: int | None = None
    """Workers of the process and thread backends; None: one per core."""
    batch_size: int | None = None
    """How many environments act together; fewer than `num_envs` let each go at its own pace, first
    finished first served. None: all."""
    max_staleness: int = 0
    """Updates by which the policy that acts may be behind the one that learns. 0: stepping and
    learning take turns; from 1 on the environments go on while the learner learns."""
    step_timeout: float | None = 60.0
    """Seconds after which a worker that does not finish a step is replaced; None: never."""
    max_restarts: int = 10
    """Restarts of failed environments and workers allowed in ten minutes before training ends."""
    max_worker_memory: float | None = None
    """Bytes a worker process may hold before another takes over from it; None: no limit."""
    on_nonfinite: str = "mask"
    """What to do about NaN or Inf from an environment of the process and thread backends: mask, raise,
    quarantine or ignore."""
    on_divergence: str = "rollback"
    """What to do where numbers are not finite: stop; skip the update and go on; or rollback: skip it,
    and after ten in a row go on from the newest checkpoint with other random numbers."""
    checkpoint_seconds: float | None = 60.0
    """Seconds between two checkpoints; None: only one at the end."""
    checkpoint_updates: int | None = None
    """Updates between two checkpoints, in place of seconds."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    keep_best_checkpoint: bool = True
    """Whether the one of the highest return while training stays too."""
    keep_checkpoint_every: int | None = None
    """Steps (per seed) after which each another one stays for good."""
    population: dict[str, Any] = field(default_factory=dict)
    """Values of settings to train side by side in one program, as many of each: {"learning_rate":
    [0.001, 0.01]} trains `num_seeds` seeds with either. Those that fit are listed in `varies` of the
    algorithm's configuration."""
    devices: int | None = None
    """Devices the seeds (or, for one seed, the environments) are spread over; None: as many as leave
    the result as it is."""
    threads_per_device: int | None = None
    """Threads of XLA for each device that a CPU is split into; None: one where networks are small, else
    all cores."""

    @property
    def steps_per_update(self) -> int:
        """Environment steps between two updates, per seed."""
        return self.num_envs * self.settings.num_steps

    @property
    def num_updates(self) -> int:
        """Updates of the whole run: `total_steps` rounded up to whole rollouts."""
        return -(-self.total_steps // self.steps_per_update)

    @property
    def num_members(self) -> int:
        """Trainings side by side: `num_seeds` for each entry of the population."""
        return self.num_seeds * self._entries

    @property
    def _entries(self) -> int:
        return len(next(iter(self.population.values()), [None]))

    def member(self, index: int) -> tuple[dict[str, Any], int]:
        """What is one member's own: its values of the population's settings, and its seed."""
        entry, number = divmod(index, self.num_seeds)
        values = {name: values[entry] for name, values in self.population.items()}
        return values, self.seed + number

    @property
    def varied(self) -> dict[str, list[Any]]:
        """The settings of the population, each with one value for every member."""
        members = [self.member(index)[0] for index in range(self.num_members)]
        return {name: [values[name] for values in members] for name in self.population}

    @property
    def member_settings(self) -> list[dict[str, Any]]:
        """Of a population, each member's own settings and its seed; [] without."""
        if not self.population:
            return []
        members = map(self.member, range(self.num_members))
        return [{**values, "seed": seed} for values, seed in members]

    @property
    def entry_members(self) -> list[range]:
        """The members of each entry of the population; without one there is one entry, of all seeds."""
        firsts = range(0, self.num_members, self.num_seeds)
        return [range(first, first + self.num_seeds) for first in firsts]

    @property
    def entry_names(self) -> tuple[str, ...]:
        """Of each entry of the population, such as "learning_rate=0.001, gamma=0.9"; () without."""
        if not self.population:
            return ()
        return tuple(_in_words(self.member(members[0])[0]) for members in self.entry_members)

    @property
    def member_names(self) -> tuple[str, ...]:
        """Of each member, such as "seed 2", or "learning_rate=0.001, seed 2" in a population."""
        names = []
        for index in range(self.num_members):
            values, seed = self.member(index)
            names.append(f"{_in_words(values)}, seed {seed}" if values else f"seed {seed}")
        return tuple(names)

    @property
    def members_in_words(self) -> str:
        """How many there are: "1 seed", "8 seeds", or of a population "3 x 4 trainings", which are three
        entries of four seeds."""
        if self.population:
            return f"{self._entries} x {self.num_seeds} trainings"
        return f"{self.num_seeds} seed{'' if self.num_seeds == 1 else 's'}"

    def _check_population(self) -> None:
        given = self.population
        known = getattr(self.settings, "varies", ())
        if not isinstance(given, dict) or not all(
            isinstance(values, list) and values for values in given.values()
        ):
            raise InvalidValueError(
                f"population={reprlib.repr(given)} must map settings to lists of values, such as "
                "{'learning_rate': [0.001, 0.01]}."
            )
        for name, values in given.items():
            if name not in known:
                fits = ", ".join(known) or "none"
                raise InvalidValueError(
                    f"population: one program cannot hold several values of {name!r} of "
                    f"{self.algorithm}; those that it can: {fits}."
                )
            for value in values:
                try:
                    replace(self.settings, **{name: value})
                except InvalidValueError as error:
                    raise InvalidValueError(f"population: {error}") from error
        counts = {name: len(values) for name, values in given.items()}
        if len(set(counts.values())) > 1:
            raise InvalidValueError(
                f"population: all settings need the same number of values, and here are {counts}: "
                "the first values make the first entry, the second ones the second."
            )

    def __post_init__(self):
        self._check_population()
        require_number("total_steps", self.total_steps, 1, 2**53, whole=True)
        for name in ("num_envs", "num_seeds"):
            require_number(name, getattr(self, name), 1, whole=True)
        if self.preprocessing is not None:
            pixel_options(self.preprocessing)
        for name in ("devices", "num_workers", "threads_per_device"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), 1, whole=True)
        if self.step_timeout is not None:
            require_number("step_timeout", self.step_timeout, 0.0)
        require_number("max_restarts", self.max_restarts, 0, whole=True)
        if self.max_worker_memory is not None:
            require_number("max_worker_memory", self.max_worker_memory, 1.0)
        require_choice("on_divergence", self.on_divergence, ("stop", "skip", "rollback"))
        if self.checkpoint_seconds is not None:
            require_number("checkpoint_seconds", self.checkpoint_seconds, 0.0)
        for name in ("checkpoint_updates", "keep_checkpoint_every"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), 1, whole=True)
        require_number("keep_checkpoints", self.keep_checkpoints, 1, whole=True)
        require_flag("keep_best_checkpoint", self.keep_best_checkpoint)
        require_number("max_staleness", self.max_staleness, 0, whole=True)
        if self.batch_size is not None:
            require_count("batch_size", self.batch_size, self.num_envs, "num_envs")
        require_number("seed", self.seed, 0, 2**32 - 1 - self.num_seeds, whole=True)
        if not isinstance(self.env_kwargs, dict) or not all(
            isinstance(name, str) for name in self.env_kwargs
        ):
            raise InvalidValueError(
                f"env_kwargs={reprlib.repr(self.env_kwargs)} must map names to values, such as "
                "{'length': 0.7}."
            )
        if hasattr(self.settings, "check_num_envs"):
            self.settings.check_num_envs(self.num_envs)
        parts = getattr(self.settings, "num_minibatches", 1)
        if self.steps_per_update % parts:
            raise InvalidValueError(
                f"num_minibatches={parts} does not divide num_envs * num_steps = "
                f"{self.steps_per_update}; choose one that does, such as "
                f"{np.gcd(parts, self.steps_per_update)}."
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the algorithm's settings among the others; `from_dict` reads it."""
        values = asdict(self)
        settings = values.pop("settings")
        return {**values, **{name: _plain(value) for name, value in settings.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Builds the settings from names and values; see `build_config`."""
        values = {"algorithm": None, "env_id": None, **values}
        return build_config(values.pop("algorithm"), values.pop("env_id"), values)


def _in_words(values: dict[str, Any]) -> str:
    """Such as "learning_rate=0.001, gamma=0.9"."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _python_value(value: Any) -> Any:
    """Numpy and JAX scalars as Python's, arrays as nested lists: what a config file can hold."""
    match value:
        case dict():
            return {name: _python_value(entry) for name, entry in value.items()}
        case list() | tuple():
            return type(value)(map(_python_value, value))
    return value.tolist() if hasattr(value, "tolist") else value


def setting_names(algorithm: str) -> list[str]:
    """The names of all settings of a training with `algorithm`."""
    own = [item.name for item in fields(TrainConfig) if item.name not in _NOT_SETTINGS]
    return own + [item.name for item in fields(algorithm_config(algorithm))]


_NOT_SETTINGS = ("algorithm", "env_id", "settings")


def algorithm_config(algorithm: str) -> type:
    """The configuration class of an algorithm, or UnknownNameError."""
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise unknown_name("algorithm", str(algorithm), ALGORITHMS, ", ".join(ALGORITHMS))
    return ALGORITHMS[algorithm]


def _kind(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def _as_id(given: Any) -> str:
    """How a class or function is named where an id is wanted: "my_file:MyEnv"."""
    module = getattr(given, "__module__", "__main__")
    name = getattr(given, "__qualname__", "MyEnv")
    usable = module != "__main__" and "<" not in name  # others can import neither
    return f"{module}:{name}" if usable and callable(given) else "my_file:MyEnv"


def build_config(algorithm: str, env_id: str, overrides: dict[str, Any]) -> TrainConfig:
    """Builds the settings from overrides of the defaults.

    Raises:
        UnknownNameError: an algorithm or setting that does not exist; near names are suggested.
        InvalidValueError: a value outside its range.
    """
    if not isinstance(env_id, str):
        raise InvalidValueError(
            f"training needs the id of an environment, not {_kind(env_id)}, so that a run can be "
            f"loaded again: give its file and name as a string, such as {_as_id(env_id)!r}, or "
            "register it with kiloworlds.register or gymnasium.register."
        )
    overrides = _python_value(overrides)
    settings_class = algorithm_config(algorithm)
    settings_names = {item.name for item in fields(settings_class)}
    own_names = {item.name for item in fields(TrainConfig)} - set(_NOT_SETTINGS)
    for name in overrides:
        if name not in settings_names | own_names:
            known = sorted(settings_names | own_names)
            help = f"`kiloworlds train {algorithm} {env_id} --help`"
            error = unknown_name("setting", str(name), known, help)
            raise UnknownNameError(
                f"{error} A parameter of the environment goes into env_kwargs={{{str(name)!r}: ...}}."
            )
    settings = settings_class(
        **{name: value for name, value in overrides.items() if name in settings_names}
    )
    own = {name: value for name, value in overrides.items() if name in own_names}
    return TrainConfig(algorithm, env_id, settings, **own)
