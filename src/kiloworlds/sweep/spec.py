"""What a sweep looks for, and where."""

import math
import numbers
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import gymnasium

from kiloworlds.core.checks import require_choice, require_flag, require_number
from kiloworlds.core.errors import InvalidValueError, UnknownNameError, did_you_mean, unknown_name
from kiloworlds.core.registry import find_spec, list_envs
from kiloworlds.training.config import TrainConfig, build_config, setting_names
from kiloworlds.training.presets import preset

_NOT_SEARCHED = ("num_seeds", "seed", "population", "devices")
_NAMES = {"algorithm": "ppo", "env": "CartPole-v1"}
SAMPLERS = ("tpe", "random", "grid")
_AT_ONCE = 16
"""Trials drawn at once by samplers that learn nothing from results."""


class Range(NamedTuple):
    """Numbers between two, both included."""

    low: float
    high: float
    log: bool
    whole: bool


class Choices(NamedTuple):
    """One of some values."""

    values: tuple[Any, ...]


Search = dict[str, Range | Choices]


@dataclass(frozen=True)
class SweepSpec:
    """A hyper-parameter search.

    Attributes:
        algorithm, env: what is trained.
        search: what is looked for, by setting: {min, max, log} or a list of choices.
        settings: of every training; others are those of the preset.
        trials: how many settings are tried; of a grid all are, if None.
        seeds: trainings of each; their mean return is what counts.
        population: at most so many trials are drawn at once, and trained side by side in one program as
            far as they differ in settings that one program can hold. If None, of "tpe" a quarter of the
            trials, so that it learns from results three times; of "random" and "grid" 16.
        sampler: how settings are drawn: "tpe" (J. Bergstra et al., "Algorithms for Hyper-Parameter
            Optimization", 2011), "random" or "grid".
        seed: of the sampler, and the first of the trainings' seeds.
        early_stopping: whether a program ends early once all of its trials are, half way or later,
            below the median of the trials before.
    """

    algorithm: str
    env: str
    search: Search
    settings: dict[str, Any] = field(default_factory=dict)
    trials: int | None = None
    seeds: int = 4
    population: int | None = None
    sampler: str = "tpe"
    seed: int = 0
    early_stopping: bool = True

    def __post_init__(self):
        require_number("seeds", self.seeds, 1, whole=True)
        if self.population is not None:
            require_number("population", self.population, 1, whole=True)
        require_number("seed", self.seed, 0, 2**31, whole=True)
        require_choice("sampler", self.sampler, SAMPLERS)
        require_flag("early_stopping", self.early_stopping)
        if self.trials is not None:
            require_number("trials", self.trials, 1, whole=True)
        elif self.sampler != "grid":
            raise InvalidValueError("trials: say how many settings to try, such as 'trials: 32'.")
        for name in ("algorithm", "env"):
            if not isinstance(getattr(self, name), str):
                given = reprlib.repr(getattr(self, name))
                raise InvalidValueError(f"{name}={given} must be a name, such as {_NAMES[name]}.")
        for name in _NOT_SEARCHED:
            if name in self.settings:
                raise InvalidValueError(
                    f"settings: {name} is what a sweep decides by itself; see its own 'seed', 'seeds' "
                    "and 'population'."
                )
        is_known = find_spec(self.env) is not None or self.env in gymnasium.registry
        # Of "module:id" and games only their modules know.
        if not is_known and ":" not in self.env and not self.env.startswith("ALE/"):
            ids = [*list_envs(), *gymnasium.registry]
            raise unknown_name("environment", self.env, ids, "kiloworlds list")
        self._check_search()
        if not self.is_compiled and self.seeds > 1:
            raise InvalidValueError(
                f"seeds={self.seeds}: {self.env} runs outside XLA, where a program trains one seed; "
                "give seeds: 1."
            )

    def _check_search(self) -> None:
        known = setting_names(self.algorithm)
        if not self.search:
            raise InvalidValueError(
                "search: name at least one setting to look for, such as "
                "'learning_rate: {min: 1.0e-4, max: 1.0e-2, log: true}'."
            )
        for name, space in self.search.items():
            if name not in known:
                raise unknown_name(
                    "setting", name, known, f"`kiloworlds train {self.algorithm} {self.env} --help`"
                )
            if name in self.settings or name in _NOT_SEARCHED:
                where = (
                    "settings too" if name in self.settings else "what a sweep decides by itself"
                )
                raise InvalidValueError(f"search: {name} is among {where}; name it once.")
            if self.sampler == "grid" and isinstance(space, Range):
                raise InvalidValueError(
                    f"search: a grid needs lists, and {name} is a range: list its values, such as "
                    f"[{space.low:g}, {space.high:g}], or choose sampler: tpe."
                )
            if isinstance(space, Choices) and len(set(map(repr, space.values))) < len(space.values):
                raise InvalidValueError(
                    f"search: {name} has a choice twice in {reprlib.repr(list(space.values))}: name "
                    "each once."
                )
            for value in space[:2] if isinstance(space, Range) else space.values:
                self.config({name: value})

    def config(self, values: Mapping[str, Any]) -> TrainConfig:
        """The complete settings of a trial.

        Raises:
            UnknownNameError, InvalidValueError: they do not exist, or are out of range.
        """
        settings = preset(self.algorithm, self.env) | self.settings | dict(values)
        settings |= {"num_seeds": self.seeds, "seed": self.seed}
        return build_config(self.algorithm, self.env, settings)

    @property
    def is_compiled(self) -> bool:
        """Whether the environment is part of the compiled program."""
        backend = self.settings.get("backend", "auto")
        return find_spec(self.env) is not None and backend in ("auto", "compiled")

    @property
    def grid_size(self) -> int:
        """Combinations of all choices."""
        return math.prod(
            len(space.values) for space in self.search.values() if isinstance(space, Choices)
        )

    @property
    def wanted(self) -> int:
        """How many trials there shall be."""
        if self.sampler == "grid":
            return min(self.trials or self.grid_size, self.grid_size)
        assert self.trials is not None
        return self.trials

    @property
    def quarter(self) -> int:
        """A quarter of the trials, one at least."""
        return max(1, self.wanted // 4)

    @property
    def drawn_at_once(self) -> int:
        """At most so many trials are drawn before the result of any of them is known."""
        if self.population is not None:
            return self.population
        return self.quarter if self.sampler == "tpe" else _AT_ONCE

    @property
    def shared(self) -> tuple[str, ...]:
        """What is looked for of which one program can hold many values: nothing outside XLA."""
        if not self.is_compiled:
            return ()
        varies = getattr(self.config({}).settings, "varies", ())
        return tuple(
            name
            for name, space in self.search.items()
            if name in varies and (isinstance(space, Range) or all(map(_is_number, space.values)))
        )


def read_spec(values: Mapping[str, Any]) -> SweepSpec:
    """Reads a specification from names and values, as a YAML file holds them.

    Raises:
        UnknownNameError: a name that means nothing; the nearest is suggested.
        InvalidValueError: something is missing, or out of range.
    """
    known = [item.name for item in fields(SweepSpec)]
    for name in values:
        if name not in known:
            raise UnknownNameError(
                f"unknown entry {name!r} of a sweep.{did_you_mean(str(name), known)} Those there are: "
                f"{', '.join(known)}."
            )
    for name in ("algorithm", "env", "search"):
        if name not in values:
            raise InvalidValueError(f"a sweep lacks {name!r}; {_EXAMPLE}")
    for name in ("search", "settings"):
        if not isinstance(values.get(name, {}), dict):
            raise InvalidValueError(f"{name} must map settings to values; {_EXAMPLE}")
    given = dict(values)
    given["search"] = {
        str(name): _space(str(name), space) for name, space in values["search"].items()
    }
    return SweepSpec(**given)


_EXAMPLE = (
    "such as 'search: {learning_rate: {min: 1.0e-4, max: 1.0e-2, log: true}, gamma: [0.95, 0.99]}'."
)


def _space(name: str, given: Any) -> Range | Choices:
    if isinstance(given, list) and given:
        return Choices(tuple(_number_or_word(value) for value in given))
    if isinstance(given, dict) and {"min", "max"} <= set(given) <= {"min", "max", "log"}:
        low, high = _number_or_word(given["min"]), _number_or_word(given["max"])
        log = given.get("log", False)
        if _is_number(low) and _is_number(high) and low < high and isinstance(log, bool):
            if log and low <= 0:
                raise InvalidValueError(
                    f"search: {name}: a range with log: true begins above 0, not at {low}."
                )
            return Range(low, high, log, isinstance(low, int) and isinstance(high, int))
    raise InvalidValueError(
        f"search: {name}: {reprlib.repr(given)} is neither a list of values nor a range with min below "
        "max, such as {min: 1.0e-4, max: 1.0e-2, log: true}."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _number_or_word(value: Any) -> Any:
    """1e-3, which is a word to YAML 1.1, is a number here."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
