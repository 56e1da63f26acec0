"""`kiloworlds report`: one page about one run."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

import kiloworlds
from kiloworlds.cli import options
from kiloworlds.core import devices
from kiloworlds.core.checks import require_count

DESCRIPTION = """\
Writes one HTML page about a run, with everything in it: learning curves, an evaluation, the best, the
median and the worst of 32 episodes to watch, how fast it was, settings, versions, what happened."""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `report`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run, such as runs/ppo/CartPole-v1_1."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The file; report.html in the run directory if not given."""
    episodes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 100
    """Episodes that each seed's policy plays."""
    seed: int = 10_000
    """Seed of their environments."""
    no_videos: options.Flag = False
    """Leave the videos out: the page is smaller and made sooner."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "report", DESCRIPTION)
    require_count("--episodes", chosen.episodes)
    from kiloworlds.evaluation.report import write_report

    console = options.console(chosen.json)
    devices.configure()
    trained = kiloworlds.load(chosen.run)
    path = write_report(
        trained,
        chosen.output,
        episodes=chosen.episodes,
        videos=not chosen.no_videos,
        seed=chosen.seed,
    )
    if chosen.json:
        options.print_json({"path": trained.path, "report": path, "bytes": path.stat().st_size})
    console.print(Text("report  ", "dim").append(str(path), "not dim"), soft_wrap=True)
    console.print(
        Text(f"{path.stat().st_size / 1e6:.1f} MB; open it in a browser", "dim"), soft_wrap=True
    )
    return 0
