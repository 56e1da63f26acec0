"""`kiloworlds check`: everything that can be checked about an environment of one's own."""

import dataclasses
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kiloworlds.cli import options
from kiloworlds.core.errors import InvalidValueError

DESCRIPTION = """\
Checks an environment and tells what to mend: kiloworlds check my_file:MyEnv [flags].

ENV is a class or function in a file or module (my_file:MyEnv, my_file.py:MyEnv, package.module:make),
or an id. It may be a Gymnasium environment, a PettingZoo one or a compiled one. Parameters are given
as --env.NAME VALUE. The environment runs in a process of its own: crashes and hangs are findings.
Exits with 1 if a check failed; warnings are allowed."""

_MARKS = {
    "ok": ("✓ ok", "green"),
    "warning": ("! warning", "yellow"),
    "failed": ("✗ failed", "red"),
}


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `check`."""

    env: Annotated[str, tyro.conf.Positional]
    """FILE:NAME, MODULE:NAME or an id."""
    steps: int = 2000
    """Steps of the longest rollout."""
    timeout: float = 60.0
    """Seconds each check may take before it counts as hung."""
    seed: int = 0
    """The first of the seeds used."""
    only: tuple[str, ...] = ()
    """Names of the checks to run, such as seeding; all if not given."""
    show_output: options.Flag = False
    """Pass on what the environment prints, to standard error."""
    env_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Parameters of the environment."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    arguments, env_flags = options.split_env_flags(arguments)
    chosen = options.parse(Options, arguments, "check", DESCRIPTION)
    if chosen.steps < 1:
        raise InvalidValueError(f"--steps {chosen.steps} must be 1 or more.")
    if not 0 < chosen.timeout <= 86_400:
        raise InvalidValueError(
            f"--timeout {chosen.timeout:g} must lie between 0 and 86400 seconds."
        )
    from kiloworlds.testing import check_environment

    console = options.console(chosen.json)
    with console.status("checking") as status:
        report = check_environment(
            chosen.env,
            chosen.env_kwargs | env_flags,
            steps=chosen.steps,
            timeout=chosen.timeout,
            seed=chosen.seed,
            only=chosen.only,
            on_check=lambda name: status.update(f"checking: {name}"),
            show_output=chosen.show_output,
        )
    if chosen.json:
        options.print_json(report.as_dict())
    _show(console, report)
    return 0 if report.ok else 1


def _show(console: Console, report: Any) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("what was seen, and what to mend", overflow="fold")
    for finding in report.findings:
        mark, style = _MARKS[finding.result]
        words = Text(finding.seen, "dim" if finding.result == "ok" else "")
        if finding.mend:
            words.append(f"\n→ {finding.mend}", "cyan")
        table.add_row(Text(finding.check), Text(mark, style), words)
    console.print(table)
    failed, warned = len(report.failures), len(report.warnings)
    verdict = (
        Text(f"\n✗ {failed} failed", "bold red") if failed else Text("\n✓ no failure", "bold green")
    )
    warnings = f", {warned} warning{'s' if warned > 1 else ''}" if warned else ""
    verdict.append(
        f"{warnings}  {report.name} ({report.kind}), {report.seconds:.0f} s", "not bold dim"
    )
    console.print(verdict, soft_wrap=True)
