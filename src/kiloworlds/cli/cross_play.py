"""`kiloworlds crossplay`: lets the seeds of a run play with each other."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

import kiloworlds
from kiloworlds.cli import options
from kiloworlds.core import devices
from kiloworlds.core.checks import require_count
from kiloworlds.core.words import number

DESCRIPTION = """\
Lets agents trained with different seeds play with each other: a matrix of mean returns, printed and
drawn as a picture in the run directory. High numbers on the diagonal only mean that partners have agreed
on something that others do not know."""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `crossplay`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a run of several agents and several seeds, such as runs/ippo/coin_game_1."""
    episodes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """Episodes per pair of seeds."""
    seed: int = 10_000
    """Seed of the environments."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "crossplay", DESCRIPTION)
    require_count("--episodes", chosen.episodes)
    from kiloworlds.evaluation.cross_play import cross_play, plot_cross_play

    console = options.console(chosen.json)
    devices.configure()
    trained = kiloworlds.load(chosen.run)
    result = cross_play(trained, chosen.episodes, chosen.seed)
    path = trained.path / "cross_play.png"
    config = trained.config
    title = f"{config['algorithm'].upper()} on {config['env_id']}"
    plot_cross_play(result, title).savefig(path)
    if chosen.json:
        options.print_json(
            {
                "path": trained.path,
                "seeds": result.seeds,
                "policies": result.names,
                "measured": result.measured,
                "returns": result.returns,
                "self_play": result.self_play,
                "cross_play": result.cross_play,
                "episodes": result.episodes,
                "picture": path,
            }
        )
    line = Text(f"return of {result.measured}: ", "not bold")
    line.append(f"{number(result.self_play)} where all are of one seed", "bold")
    line.append(f", {number(result.cross_play)} where two seeds meet", "not bold")
    console.print(line, soft_wrap=True)
    for name, row in zip(result.names, result.returns, strict=True):
        console.print(Text(f"{name}: " + "  ".join(map(number, row)), "dim"), soft_wrap=True)
    console.print(Text("picture ", "dim").append(str(path), "not dim"), soft_wrap=True)
    return 0
