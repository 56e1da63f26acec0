"""What the commands share that take an algorithm, an environment and the settings of a training."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from kiloworlds.cli import options
from kiloworlds.cli.config_file import read_config_file
from kiloworlds.cli.settings import flags_class, settings_by_class, settings_of
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import ALGORITHMS, build_config
from kiloworlds.training.presets import preset

_NAMED = {
    "--algo": "algorithm",
    "--algorithm": "algorithm",
    "--env": "env_id",
    "--env-id": "env_id",
    "--config": "config",
}
_SHORT = {"-n": "total_steps"}


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of all of them beside the settings."""

    config: Path | None = None
    """YAML or JSON file with settings, such as the config.yaml of an earlier run."""


Chosen = TypeVar("Chosen", bound=Options)


@dataclasses.dataclass(frozen=True)
class Asked(Generic[Chosen]):
    """A command line that was read.

    Attributes:
        settings: all of the training, by name.
        given: the names of those that flags or a file gave, and not the preset or the defaults.
        options: the other flags.
    """

    algorithm: str
    env_id: str
    settings: dict[str, Any]
    given: frozenset[str]
    options: Chosen


def read(
    verb: str,
    arguments: Sequence[str],
    kind: type[Chosen],
    description: str,
    old: Mapping[str, Any] | None = None,
) -> Asked[Chosen]:
    """Reads ALGORITHM ENV [flags].

    Args:
        verb: the command.
        kind: what flags there are beside the settings.
        description: for the help.
        old: settings of a run, which a file and flags go before.

    Raises:
        InvalidValueError: an algorithm or an environment is missing, or a value is out of range.
    """
    arguments, env_flags = options.split_env_flags(arguments)
    arguments, named = _split_names(arguments)
    from_file: dict[str, Any] = {}
    if "config" in named:
        kinds: dict[str, Any] = {"algorithm": str, "env_id": str}
        for known in ALGORITHMS:
            kinds |= {name: setting.kind for name, setting in settings_of(known).items()}
        from_file = read_config_file(Path(named["config"]), kinds)
    from_file = {**(old or {}), **from_file}
    algorithm = named.get("algorithm", from_file.pop("algorithm", None))
    env_id = named.get("env_id", from_file.pop("env_id", None))
    if "-h" in arguments or "--help" in arguments:
        algorithm, env_id = algorithm or "ppo", env_id or ""
    if algorithm is None or env_id is None:
        where = f", and {named['config']} names neither" if "config" in named else ""
        raise InvalidValueError(
            f"{verb} needs an algorithm and an environment before the flags{where}, such as: "
            f"kiloworlds {verb} ppo CartPole-v1."
        )
    settings, chosen = _parse(verb, kind, description, algorithm, env_id, from_file, arguments)
    settings["env_kwargs"] = settings["env_kwargs"] | env_flags
    if (settings["preprocessing"] or "").startswith("{"):
        settings["preprocessing"] = options.mapping(settings["preprocessing"])
    flags = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    names = {_SHORT.get(flag, flag.lstrip("-").replace("-", "_")) for flag in flags}
    if "population" in names:
        _check_population(names, settings["population"])
    given = frozenset((names & set(settings)) | set(from_file))
    return Asked(algorithm, env_id, settings, given, chosen)


def _check_population(names: set[str], population: Mapping[str, Any]) -> None:
    """Refuses flags of settings that a population varies."""
    name = next((name for name in population if name in names), None)
    if name is not None:
        raise InvalidValueError(
            f"--{name.replace('_', '-')} is given beside a population that holds values of it: leave "
            "one of them out."
        )


def _split_names(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Takes the leading words and the flags of `_NAMED` out of `arguments`.

    They are needed before the rest can be read: they decide which settings there are.
    """
    words = list(arguments)
    named: dict[str, str] = {}
    for name in ("algorithm", "env_id"):
        if words and not words[0].startswith("-"):
            named[name] = words.pop(0)
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if flag not in _NAMED:
            rest.append(word)
            continue
        if not equals:
            value = next(remaining, "")
        if not value:
            raise InvalidValueError(f"{flag} needs a value.")
        if named.get(_NAMED[flag], value) != value:
            raise InvalidValueError(f"{named[_NAMED[flag]]} and {flag} {value}: give one of them.")
        named[_NAMED[flag]] = value
    return rest, named


def _parse(
    verb: str,
    kind: type[Chosen],
    description: str,
    algorithm: str,
    env_id: str,
    from_file: dict[str, Any],
    arguments: Sequence[str],
) -> tuple[dict[str, Any], Chosen]:
    """The settings by name, and the other flags."""
    own, learner = settings_by_class(algorithm)
    defaults = build_config(algorithm, env_id, preset(algorithm, env_id) | from_file).as_dict()
    training_class = flags_class("Training", own, defaults)
    learner_class = flags_class("Algorithm", learner, defaults)

    # The classes of the settings are known only now, so this one is built here too.
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("training", training_class, dataclasses.field(default_factory=training_class)),
            ("algorithm", learner_class, dataclasses.field(default_factory=learner_class)),
        ],
        bases=(kind,),
        frozen=True,
    )
    usage = f"{verb} {algorithm} {env_id or 'ENV'}"
    chosen = options.parse(command, arguments, usage, description)
    settings = {name: getattr(chosen.training, name) for name in own}
    return settings | {name: getattr(chosen.algorithm, name) for name in learner}, chosen
