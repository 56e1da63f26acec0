"""What the commands share: reading flags into dataclasses, and where results and words go."""

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_origin

import tyro
import yaml
from rich.console import Console
from rich.text import Text

import kiloworlds
from kiloworlds.cli.output import print_json as print_json
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.user_code import import_user_module
from kiloworlds.vector.pettingzoo.ids import user_module

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

_WIDE = 200
"""Columns of a table that is not printed to a terminal."""

Command = TypeVar("Command")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""A flag that is only ever turned on: there is no `--no-json`."""

Checkpoint = Annotated[str, tyro.conf.arg(metavar="newest|best|STEP")]
"""Which checkpoint of a run; `load` reads it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Flags of every command."""

    json: Flag = False
    """Print the result as JSON on standard output, and words for people on standard error."""

    debug: Flag = False
    """Show the traceback of an error."""

    imports: Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE")] = ()
    """Python modules to import first, such as one that registers environments of your own."""


def whole_number(word: str) -> int:
    """Reads "500000", "500_000" or "5e5"; raises ValueError for anything that is not whole."""
    try:
        return int(word)
    except ValueError:
        number = float(word)
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"{word!r} is not a whole number")
    return int(number)


def mapping(word: str) -> dict[str, Any]:
    """Reads a JSON (or YAML) object such as '{"length": 0.7}'; raises ValueError otherwise."""
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError as error:
        raise ValueError(f"{word!r} is not JSON such as '{{\"length\": 0.7}}'") from error
    if not isinstance(value, dict):
        raise ValueError(f"{word!r} is not JSON such as '{{\"length\": 0.7}}'")
    return value


def _registry() -> tyro.constructors.ConstructorRegistry:
    registry = tyro.constructors.ConstructorRegistry()
    one_word = tyro.constructors.PrimitiveConstructorSpec

    @registry.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type is int:
            return one_word(
                nargs=1,
                metavar="INT",
                instance_from_str=lambda words: whole_number(words[0]),
                is_instance=lambda value: isinstance(value, int),
                str_from_instance=lambda value: [str(value)],
            )
        if info.type is dict or get_origin(info.type) is dict:
            return one_word(
                nargs=1,
                metavar="JSON",
                instance_from_str=lambda words: mapping(words[0]),
                is_instance=lambda value: isinstance(value, dict),
                str_from_instance=lambda value: [json.dumps(value)],
            )
        return None

    return registry


def parse(
    command: type[Command],
    arguments: Sequence[str],
    verb: str,
    description: str,
) -> Command:
    """Reads `arguments` into the dataclass `command`.

    Wrong flags print what was meant and raise SystemExit(2), `--help` prints and raises
    SystemExit(0).
    """
    chosen = tyro.cli(
        command,
        args=list(arguments),
        prog=f"kiloworlds {verb}",
        description=description,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
        registry=_registry(),
    )
    for module in getattr(chosen, "imports", ()):
        import_user_module(module)
    return chosen


def load(run: Path, checkpoint: str) -> "Run":
    """The run at a path, with the checkpoint that `--checkpoint` names.

    Raises:
        InvalidValueError: it names none.
    """
    if checkpoint in ("newest", "best"):
        return kiloworlds.load(run, checkpoint)  # type: ignore[arg-type]
    try:
        step = whole_number(checkpoint)
    except ValueError as error:
        raise InvalidValueError(
            f"--checkpoint {checkpoint} must be newest, best, or the number of steps of one."
        ) from error
    return kiloworlds.load(run, step)


def tell_best(run: "Run", target: Console) -> None:
    """Of a run loaded with its best checkpoint, which that is, and of how many."""
    if run.checkpoint != "best":
        return
    steps, best = run.checkpoints.steps(), run.checkpoints.best_step()
    if len(steps) < 2:
        words = (
            f"there is no choice: the one checkpoint is of step {steps[0]:,}; --checkpoint-seconds and "
            "--checkpoint-updates of train say how often there is one"
        )
    else:
        words = f"the best of {len(steps)} checkpoints is of step {best:,}"
    target.print(Text(words, "dim"), soft_wrap=True)


def console(as_json: bool) -> Console:
    """The console for words: standard output, or standard error where that carries JSON."""
    return Console(stderr=as_json, highlight=False)


def wide_console(as_json: bool) -> Console:
    """As `console`, for tables: wide where no terminal sets a width, so that their lines stay whole."""
    wide = console(as_json)
    if not wide.is_terminal:
        wide.width = _WIDE
    return wide


def run_words(path: Any, env_id: str, imports: Sequence[str] = ()) -> str:
    """A run as the next command needs it: its path, and what must be imported before it is loaded.

    Loading a run imports nothing by itself: neither the module of "my_file:MyEnv", nor those that
    this command was told to import.
    """
    module = user_module(env_id)
    modules = [*imports, *([module] if module and module not in imports else [])]
    return shlex.join([str(path), *(["--import", *modules] if modules else [])])


def split_env_flags(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes `--env.NAME VALUE` (or `--env.NAME=VALUE`) out of `arguments`.

    Values are read as YAML: 0.7 is a number, true a truth value, euler a word.

    Raises:
        InvalidValueError: a flag without a value.
    """
    rest: list[str] = []
    settings: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("--env."):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix("--env.").partition("=")
        if not equals:
            value = next(words, None)
        if not name or value is None or value.startswith("--"):
            raise InvalidValueError(f"{word} needs a name and a value, such as --env.length 0.7.")
        settings[name.replace("-", "_")] = parse_value(value)
    return rest, settings


def parse_value(word: str) -> Any:
    """Reads one YAML value; 1e-3, a word to YAML 1.1, is a number here."""
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError:
        return word
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
