"""`kiloworlds profile`: where the time of a training goes."""

import dataclasses
import re
import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kiloworlds.cli import autotuning, options, training_flags
from kiloworlds.cli.output import say
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.outputs import check_output_file
from kiloworlds.profiling.advice import near_ceiling
from kiloworlds.profiling.profile import WAITING, Part, Profile
from kiloworlds.training.config import build_config

DESCRIPTION = """\
Measures where the time of a training goes: kiloworlds profile ALGORITHM ENV [flags].

Environment, policy, learning, copies, waiting and compilation; the costliest operations of the
compiled program; the workers of a pool; how near that comes to what this machine can do at most; and
what to change. Flags are those of train. Nothing of what is learnt is kept."""

_OPERATIONS = 6
"""So many operations are listed; --json has more."""
_ALL_OPERATIONS = 100


@dataclasses.dataclass(frozen=True)
class Options(autotuning.Options):
    """Flags of `profile` beside the settings."""

    seconds: float = 5.0
    """How long to measure, about; compiling comes on top, and whole updates are measured."""
    picture: Path | None = None
    """Where the roofline picture goes; profiles/ALGORITHM-ENV.png if not given."""
    remeasure: options.Flag = False
    """Measure again what this machine can do at most; else once, and kept beside the compilation
    cache."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    from kiloworlds.profiling.run import profile

    asked = training_flags.read("profile", arguments, Options, DESCRIPTION)
    chosen = asked.options
    file = chosen.picture or default_picture(asked.algorithm, asked.env_id)
    if file.suffix != ".png":
        raise InvalidValueError(f"--picture {str(file)!r} must end in .png.")
    check_output_file(file, "profile.png")
    console = options.console(chosen.json)
    settings, tuned = autotuning.autotuned(asked, console)
    config = build_config(asked.algorithm, asked.env_id, settings)
    found = profile(config, seconds=chosen.seconds, file=file, remeasure=chosen.remeasure)
    show(found, console)
    again = shlex.join(["kiloworlds", "train", asked.algorithm, asked.env_id, "--autotune"])
    say(console, "picture", str(file))
    say(console, "next", again if tuned is None else f"{again}, which uses what was chosen here")
    if chosen.json:
        values = found.as_dict()
        values["operations"] = values["operations"][:_ALL_OPERATIONS]
        values["autotune"] = None if tuned is None else tuned.as_dict()
        options.print_json(values)
    return 0


def default_picture(algorithm: str, env_id: str) -> Path:
    """Where the picture goes unless told: a name that is a file's, whatever the id is."""
    return Path("profiles") / f"{algorithm}-{re.sub('[^A-Za-z0-9_.-]+', '-', env_id)}.png"


def show(profile: Profile, console: Console) -> None:
    """Prints a profile."""
    seeds = profile.settings["num_seeds"]
    title = f"{profile.algorithm} · {profile.env_id}" + (f" · {seeds} seeds" if seeds > 1 else "")
    console.print(Text(title, "bold"))
    console.print(
        f"{profile.steps_per_second:,.0f} steps/s: {profile.steps_per_update:,} steps in "
        f"{_duration(profile.seconds_per_update)}, the median of {profile.updates} updates or so; "
        f"{profile.backend}, {profile.placement}",
        style="dim",
    )
    console.print()
    console.print(_parts(profile))
    if profile.operations:
        console.print(_operations(profile))
    if profile.pool is not None:
        _show_pool(profile, console)
    compilation = profile.compilation
    cached = (
        f", {compilation['from_cache']} of them from the cache" if compilation["from_cache"] else ""
    )
    say(
        console,
        "compilation",
        f"{compilation['seconds']:.1f} s to the first update; {compilation['programs']} programs"
        f"{cached}",
    )
    most = profile.ceilings
    if most is not None:
        one = (
            f" ({_rates(most.flops_of_one, most.bytes_of_one)} with one core)"
            if most.flops_of_one
            else ""
        )
        rates = f"{_rates(most.flops, most.bytes)}{one}"
        whose = "" if profile.roof is None else f"; held against {profile.roof.whose}"
        say(console, "ceilings", f"{rates}, measured once on this machine{whose}")
    for index, sentence in enumerate(profile.advice):
        say(console, "" if index else "advice", sentence)


def _parts(profile: Profile) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("part", min_width=12)
    for name in ("share", "an update", "±", "GFLOP/s", "GB/s", "of the ceiling"):
        table.add_column(name, justify="right")
    for part in profile.parts:
        overlaps = part.name == WAITING and profile.loop == "fused"
        share = f"{profile.share(part):.1%}"
        table.add_row(
            f"  {part.name}" if overlaps else part.name,
            f"({share})" if overlaps else share,
            _duration(part.seconds),
            _duration(part.spread) if part.spread else "",
            *_speeds(profile, part),
        )
    if profile.loop == "fused":
        whole = sum(part.seconds for part in profile.parts if part.name != WAITING)
        table.caption = (
            "Estimates: XLA mixes the parts, so they were compiled as programs of their own. Together "
            f"{whole / profile.seconds_per_update:.0%} of an update."
        )
        if profile.part(WAITING) is not None:
            table.caption += " Devices wait for each other within the parts (in brackets)."
        table.caption_justify = "left"
        table.caption_style = "dim"
    return table


def _speeds(profile: Profile, part: Part) -> tuple[str, str, str]:
    reached = near_ceiling(part, profile.roof)
    if reached is None or part.flops is None or part.bytes is None:
        return "", "", ""
    compute, move = reached
    nearest = f"{compute:.0%} of compute" if compute > move else f"{move:.0%} of memory"
    speed, moved = part.flops / part.seconds / 1e9, part.bytes / part.seconds / 1e9
    return f"{speed:.3g}", f"{moved:.3g}", nearest


def _operations(profile: Profile) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("operation", min_width=12)
    for name in ("share", "times", "GFLOP/s"):
        table.add_column(name, justify="right")
    table.add_column("from")
    for each in profile.operations[:_OPERATIONS]:
        speed = (
            f"{each.flops / each.seconds / 1e9:.3g}" if each.seconds and each.flops > 1e3 else ""
        )
        share = "" if each.share is None else f"{each.share:.1%}"
        table.add_row(each.name, share, f"{each.times:,.0f}", speed, each.source)
    return table


def _show_pool(profile: Profile, console: Console) -> None:
    pool = profile.pool
    assert pool is not None
    idle = ", ".join(f"{share:.0%}" for share in pool.idle[:8])
    more = f", ... ({len(pool.idle)} workers)" if len(pool.idle) > 8 else ""
    say(console, "workers idle", f"{idle}{more} of the time that environments step")
    slowest = ", ".join(
        f"{row} ({share * pool.num_envs:.1f} x the mean)" for row, share in pool.slowest
    )
    say(console, "slowest", f"environments {slowest}" if slowest else "none was timed")


def _rates(flops: float, moved: float | None) -> str:
    return f"{flops / 1e9:,.0f} GFLOP/s, {(moved or 0.0) / 1e9:,.0f} GB/s"


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
