"""The native engines there are, and which of them runs an environment."""

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, did_you_mean
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.faults import logger
from kiloworlds.vector.native.envpool import ENVPOOL_TASKS
from kiloworlds.vector.native.mujoco import MUJOCO_IDS
from kiloworlds.vector.pixels import PixelOptions


@dataclass(frozen=True)
class Wanted:
    """An environment that an engine may run.

    Attributes:
        env_id: Gymnasium's id.
        env_kwargs: parameters of the environment.
        pixels: the preprocessing; None for none.
        autoreset_mode: of the vector.
        options: settings of executors that the user has chosen, such as "batch_size".
    """

    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    pixels: PixelOptions | None = None
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """A simulator that steps many environments in one call.

    Attributes:
        name: what users type.
        module, distribution: what is imported, and what is installed.
        install: the command that installs it.
        executor: "module:Class" of the executor.
        runs: which environments, in words.
        note: what else is to be known.
        ids: the ids it runs; called when asked, for some are known only to the simulator.
        refuse: why it does not run what is wanted, given that the id is among `ids`; None if it does.
        options: the settings of executors that it shares.
    """

    name: str
    module: str
    distribution: str
    install: str
    executor: str
    runs: str
    note: str
    ids: Callable[[], list[str]]
    refuse: Callable[[Wanted], str | None]
    options: frozenset[str]

    @property
    def is_installed(self) -> bool:
        """Whether there is the simulator's package."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def load_error(self) -> str | None:
        """Why the installed package cannot be imported, such as for want of a system library."""
        return _load_error(self.module)

    @property
    def version(self) -> str | None:
        """The version of the simulator's package; None where it is not installed."""
        return importlib.metadata.version(self.distribution) if self.is_installed else None

    def refusal(self, wanted: Wanted) -> str | None:
        """Why this engine does not run what is wanted, in words; None if it does."""
        if wanted.env_id not in self.ids():
            return f"it does not run {wanted.env_id!r}"
        if not _is_gymnasiums(wanted.env_id):
            return f"another environment is registered as {wanted.env_id!r}"
        unshared = [name for name in wanted.options if name not in self.options]
        if unshared:
            return f"{', '.join(unshared)}: settings of backend='process'"
        return self.refuse(wanted)

    def make(self, wanted: Wanted, num_envs: int, **options: Any) -> VectorEnv:
        """Builds its executor.

        Raises:
            MissingDependencyError: the simulator is not installed, or cannot be loaded.
        """
        if not self.is_installed:
            raise MissingDependencyError(
                f"the engine {self.name!r} needs a package that is missing: {self.install}"
            )
        if self.load_error is not None:
            raise MissingDependencyError(
                f"{self.distribution} {self.version} is installed, but cannot be loaded: "
                f"{self.load_error}. Install what it misses, or use another backend, such as "
                "backend='process'."
            )
        module, _, name = self.executor.partition(":")
        executor = getattr(importlib.import_module(module), name)
        # Engines that take results in the order of sending always do.
        given = {name: value for name, value in wanted.options.items() if name != "ordered"}
        if wanted.pixels is not None:
            given["pixels"] = wanted.pixels
        else:
            given["env_kwargs"] = wanted.env_kwargs
        return executor(
            wanted.env_id, num_envs, autoreset_mode=wanted.autoreset_mode, **given, **options
        )


def _is_gymnasiums(env_id: str) -> bool:
    """Whether the id still means what its simulator means by it."""
    spec = gymnasium.registry.get(env_id)
    if spec is None:
        return False
    origin = spec.entry_point if isinstance(spec.entry_point, str) else ""
    return origin.startswith(("gymnasium.envs.", "ale_py.")) and not spec.additional_wrappers


def _refuse_mujoco(wanted: Wanted) -> str | None:
    if wanted.pixels is not None:
        return "it gives no images, so there is nothing to preprocess"
    if wanted.env_kwargs.get("render_mode") is not None:
        return "render_mode: it does not render"
    return None


def _refuse_envpool(wanted: Wanted) -> str | None:
    if wanted.pixels is not None:
        return "preprocessing: it is left to the engine 'ale' and to backend='process'"
    others = [name for name in wanted.env_kwargs if name != "max_episode_steps"]
    if others:
        return f"{', '.join(others)}: it takes no parameter but max_episode_steps"
    if wanted.env_kwargs.get("max_episode_steps", 1) == -1:
        return "max_episode_steps=-1: it has a time limit always"
    return None


def _refuse_ale(wanted: Wanted) -> str | None:
    if wanted.pixels is None:
        return "it runs games with preprocessing only; give preprocessing='atari'"
    if wanted.env_kwargs:
        return f"{', '.join(wanted.env_kwargs)}: parameters of games; it takes preprocessing only"
    if wanted.pixels.life_loss and wanted.autoreset_mode != AutoresetMode.SAME_STEP:
        return "life_loss: it goes on after a lost life only with autoreset_mode='same_step'"
    return None


def _atari_ids() -> list[str]:
    # Importing ale_py registers the games; without it there are none.
    if importlib.util.find_spec("ale_py") is not None:
        importlib.import_module("ale_py")
    return [id for id, spec in gymnasium.registry.items() if spec.namespace == "ALE"]


_ORDERED = frozenset({"num_workers", "batch_size", "ordered"})

# In order of preference: results equal to Gymnasium's come before speed.
ENGINES: tuple[Engine, ...] = (
    Engine(
        name="mujoco",
        module="mujoco",
        distribution="mujoco",
        install='pip install "kiloworlds[mujoco]"',
        executor="kiloworlds.vector.native.mujoco:MuJoCoExecutor",
        runs="Gymnasium's MuJoCo environments, version 5",
        note="results equal to Gymnasium's",
        ids=lambda: list(MUJOCO_IDS),
        refuse=_refuse_mujoco,
        options=_ORDERED,
    ),
    Engine(
        name="ale",
        module="ale_py",
        distribution="ale-py",
        install='pip install "kiloworlds[atari]"',
        executor="kiloworlds.vector.native.ale:ALEExecutor",
        runs="Atari games (ALE/*) with preprocessing",
        note="the emulator's own threads",
        ids=_atari_ids,
        refuse=_refuse_ale,
        options=frozenset({"num_workers", "batch_size", "copy"}),
    ),
    Engine(
        name="envpool",
        module="envpool",
        distribution="envpool",
        install='pip install "kiloworlds[envpool]"',
        executor="kiloworlds.vector.native.envpool:EnvPoolExecutor",
        runs="Gymnasium's classic control, Box2D, MuJoCo v5 and toy text",
        note="EnvPool's random streams and infos",
        ids=lambda: list(ENVPOOL_TASKS),
        refuse=_refuse_envpool,
        options=_ORDERED,
    ),
)


@functools.cache
def _load_error(module: str) -> str | None:
    """Why a module cannot be imported; None if it can. Told once."""
    try:
        importlib.import_module(module)
    except (
        Exception
    ) as error:  # what is raised at import, and of what kind, is the package's affair
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning("%s is installed, but cannot be loaded: %s", module, reason)
        return reason
    return None


def find_engine(wanted: Wanted) -> Engine | None:
    """The first engine that is installed, can be loaded and runs what is wanted; None if none."""
    for engine in ENGINES:
        if engine.is_installed and engine.refusal(wanted) is None and engine.load_error is None:
            return engine
    return None


def choose_engine(wanted: Wanted, name: str | None) -> Engine:
    """The engine of that name, or the first that runs what is wanted if None.

    Raises:
        InvalidValueError: no engine of that name, or it does not run what is wanted, and why.
        MissingDependencyError: an engine that would is not installed.
    """
    if name is not None:
        engine = engine_by_name(name)
        reason = engine.refusal(wanted) if engine.is_installed else None
        if reason is not None:
            raise InvalidValueError(f"engine={name!r}: {reason}.")
        return engine
    reasons = {engine: engine.refusal(wanted) for engine in ENGINES}
    able = [engine for engine, reason in reasons.items() if reason is None]
    installed = [engine for engine in able if engine.is_installed]
    usable = [engine for engine in installed if engine.load_error is None]
    for engine in usable or installed or able:
        return engine
    told = [
        f"{engine.name}: {reason}"
        for engine, reason in reasons.items()
        if wanted.env_id in engine.ids()
    ]
    raise InvalidValueError(
        f"no native engine runs {wanted.env_id!r} as asked ({'; '.join(told)}); use "
        "backend='process'."
        if told
        else f"no native engine runs {wanted.env_id!r}; use backend='process', which runs any."
    )


def engine_by_name(name: str) -> Engine:
    """The engine of that name.

    Raises:
        InvalidValueError: there is none; the nearest is suggested.
    """
    names = [engine.name for engine in ENGINES]
    if name not in names:
        raise InvalidValueError(
            f"engine={name!r} is not one of {', '.join(map(repr, names))}."
            f"{did_you_mean(str(name), names)}"
        )
    return ENGINES[names.index(name)]
