"""Section of docs/benchmarks.md on how fast evidence is gathered."""

import statistics
from typing import Any

from summary_text import provenance, ratio_text, table

NOTE = """\
*Evaluation*: whole episodes by the most likely actions of a trained policy; stable-baselines3's
`evaluate_policy` with eight environments, a tenth of the episodes. *Sweep*: 16 learning rates with 4
seeds each, 200,000 steps, trained as one population; of the 64 single trainings eight were timed.
*Profiler loaded*: a million steps of PPO on CartPole in a process that has imported the profiler, beside
one that has no module of it."""


def evidence_section(name: str, result: dict[str, Any]) -> str:
    """One table of all questions that the result answers."""
    rows = [row for cell in result["cells"] for row in _ROWS[cell["question"]](cell["records"])]
    body = [table(["", "measured"], rows), NOTE]
    return "\n\n".join(["## Evidence", *body, provenance(name, result, [])])


def _eval(told: dict[str, Any]) -> list[list[str]]:
    seconds = statistics.median(told["seconds"])
    words = (
        f"{seconds:.2f} s for {told['episodes']:,} episodes, {told['steps']:,} steps of CartPole"
    )
    rows = [["evaluation, compiled", words]]
    if "peer" in told:
        peer = told["peer"]
        words = f"{peer['seconds']:.2f} s for {peer['episodes']} episodes, {peer['steps']:,} steps"
        rows.append(["evaluation, stable-baselines3", words])
        rows.append(
            ["times its steps per second", f"{told['times_the_peers_steps_per_second']:.0f}"]
        )
    return rows


def _sweep(told: dict[str, Any]) -> list[list[str]]:
    return [
        ["sweep as one population", f"{told['together_seconds']:.1f} s"],
        ["times as fast as 64 commands", f"{told['times_as_fast_as_commands']:.1f}"],
        [
            "times as fast as 64 trainings in one process",
            f"{told['times_as_fast_as_in_one_process']:.1f}",
        ],
    ]


def _bootstrap(told: dict[str, Any]) -> list[list[str]]:
    what = "aggregates of 10 algorithms x 20 tasks x 10 seeds, 50,000 resamples"
    return [[what, f"{statistics.median(told['seconds']):.2f} s"]]


def _profile(told: dict[str, Any]) -> list[list[str]]:
    ratios = told["ratios"]
    words = (
        f"{statistics.median(ratios):.3f} of the steps per second without it; pairs from "
        f"{min(ratios):.3f} to {max(ratios):.3f}"
    )
    return [["profiler loaded, training not profiled", words]]


_ROWS = {"eval": _eval, "sweep": _sweep, "bootstrap": _bootstrap, "profile": _profile}


AUTOTUNE_NOTE = """\
What `--autotune` chose within its budget of {budget:.0f} seconds, with nothing compiled before. Then
every setting that it could have chosen was built and timed in turn, over five rounds of half a second:
*of the best* is the choice's speed over that of the fastest of them, *of what was asked* over that of
the preset. *acrobot* is Gymnasium's own, in Python."""


def autotune_section(name: str, result: dict[str, Any]) -> str:
    """How good its choices are."""
    rows = [
        [
            f"{cell['task']} ({cell['algorithm']})",
            f"{cell['seconds']:.0f}",
            ", ".join(f"{key} {value}" for key, value in cell["chosen"].items()) or "no change",
            ratio_text(cell["of_the_best"]),
            ratio_text(cell["over_what_was_asked"]),
            str(len(cell["grid"])),
        ]
        for cell in result["cells"]
    ]
    header = ("", "seconds", "chosen", "of the best", "of what was asked", "settings compared")
    body = [table(header, rows), AUTOTUNE_NOTE.format(budget=result["budget"])]
    return "\n\n".join(["## Autotune", *body, provenance(name, result, [])])
