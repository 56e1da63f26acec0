"""Sections of docs/benchmarks.md on existing simulators: how fast they run, what is learnt on them."""

import statistics
from collections.abc import Sequence
from typing import Any

from summary_text import absent_text, find, number, provenance, rate_text, ratio_text, table

PYTHON_NOTE = """\
Gymnasium's CartPole-v1 in Python, with two workers; *auto* has as many, or steps in the calling process
where that is faster. *Busy waiting* is
`benchmarks/peers/busy_wait.py`: workers that look at shared memory without sleeping, as PufferLib's do.
*Two loops, no exchange* is two processes that step their environments and keep nothing: what the two
cores can do at most. Executors with a process for each environment stop at 64."""

UNEVEN_NOTE = """\
16 environments with a worker each, one in eight of which takes 20 times as long for a step.
*Asynchronous* receives whichever four finish first. Waiting environments sleep for 1 and 20 ms,
computing ones use a core for 0.2 and 4 ms."""

ENGINES_NOTE = """\
What `kiloworlds.make(id, num_envs)` takes by itself (`backend="auto"`), against EnvPool with two
threads; Pong with the same preprocessing (84 × 84, four frames, frame skip 4). The last two columns
are the worker pool on Gymnasium's environments, in processes and in threads."""

FRAMES_NOTE = """\
64 environments that compute nothing give observations of 4 × 84 × 84 bytes. *memcpy* copies as much
within one process, on one thread."""

ACTORS_NOTE = """\
PPO on 16 environments, with a worker each, that take 5 ms for a step. *Actor-learner* has
`max_staleness=1`; where times are exponential, also `batch_size=4`."""

RECOVERY_NOTE = """\
`kill -9` of one of two workers with four environments each, beside which the others step on."""


def pool_section(name: str, result: dict[str, Any]) -> str:
    """Tables of every question that the result answers."""
    parts = ["## Existing simulators in parallel"]
    records: list[dict[str, Any]] = []
    for key, title, note, make_table in (
        ("python", "Python environments", PYTHON_NOTE, _python_table),
        ("uneven", "Uneven environments", UNEVEN_NOTE, _uneven_table),
        ("engines", "Native engines", ENGINES_NOTE, _engines_table),
        ("frames", "Large observations", FRAMES_NOTE, _frames_table),
        ("actors", "Learning while environments step", ACTORS_NOTE, _actors_table),
    ):
        if key in result:
            found = [record for cell in result[key] for record in cell["records"]]
            records += found
            parts += [f"### {title}", make_table(result[key]) + absent_text(found), note]
    if "recovery" in result:
        parts += ["### A worker is killed", _recovery_table(result["recovery"]), RECOVERY_NOTE]
    return "\n\n".join([*parts, provenance(name, result, records)])


def _python_table(cells: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(r["name"] for cell in cells for r in cell["records"]))
    rows = []
    for competitor in names:
        row = [competitor]
        for cell in cells:
            record, ours = find(cell["records"], competitor), find(cell["records"], "kiloworlds")
            if record is None or ours is None:
                row += ["–", ""]
                continue
            ratio = "" if record is ours else ratio_text(ours["ratios"][competitor])
            row += [rate_text(record["rate"]), ratio]
        rows.append(row)
    header = [""]
    for cell in cells:
        header += [f"{cell['num_envs']:,} environments", "kiloworlds / this"]
    return table(header, rows)


def _uneven_table(cells: Sequence[dict[str, Any]]) -> str:
    titles = {"WaitingEnv": "waiting", "BusyEnv": "computing"}
    return _pairs(cells, "asynchronous", "synchronous", lambda cell: titles[cell["kind"]])


def _engines_table(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for cell in cells:
        ours, theirs = find(cell["records"], "kiloworlds"), find(cell["records"], "EnvPool")
        if ours is None or theirs is None:
            continue
        rows.append(
            [
                cell["env"],
                f"{cell['num_envs']}",
                rate_text(ours["rate"]),
                rate_text(theirs["rate"]),
                ratio_text(ours["ratios"]["EnvPool"]),
                *(
                    "–" if record is None else rate_text(record["rate"])
                    for record in (
                        find(cell["records"], f"kiloworlds, {workers}")
                        for workers in ("processes", "threads")
                    )
                ),
            ]
        )
    header = ("", "environments", "kiloworlds", "EnvPool", "ratio", "in processes", "in threads")
    return table(header, rows)


def _frames_table(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for record in cells[0]["records"]:
        if "absent" not in record:
            ratio = record["ratios"].get("memcpy")
            rows.append(
                [
                    record["name"],
                    f"{record['gigabytes_per_second']:.2f}",
                    "" if ratio is None else ratio_text(ratio),
                ]
            )
    return table(("", "GB/s", "of memcpy"), rows)


def _actors_table(cells: Sequence[dict[str, Any]]) -> str:
    return _pairs(cells, "actor-learner", "synchronous", lambda cell: cell["case"])


def _pairs(cells: Sequence[dict[str, Any]], one: str, other: str, title: Any) -> str:
    rows = []
    for cell in cells:
        first, second = find(cell["records"], one), find(cell["records"], other)
        if first is not None and second is not None:
            rates = [rate_text(first["rate"]), rate_text(second["rate"])]
            rows.append([title(cell), *rates, ratio_text(first["ratios"][other])])
    return table(("steps/s", one, other, "ratio"), rows)


def _recovery_table(found: dict[str, Any]) -> str:
    rows = [
        ["until its environments step again", f"{found['seconds_until_back']:.2f}"],
        ["longest pause of the others", f"{found['longest_pause_of_the_others']:.3f}"],
    ]
    return table(("", "s"), rows)


LEARNING_NOTE = """\
`kiloworlds train ppo ID` with its preset; the mean return of the last episodes while training, and of
30 episodes without exploration at the end. SB3 learns LunarLander with the settings of RL Baselines3
Zoo (16 environments in one process, its default) on the same cores, in turn with ours."""


def simulators_section(name: str, result: dict[str, Any]) -> str:
    """Steps and minutes to the level of each task."""
    rows = []
    for env_id, task in result.items():
        if not isinstance(task, dict) or "curves" not in task:
            continue
        for trainer in dict.fromkeys(curve["name"] for curve in task["curves"]):
            curves = [curve for curve in task["curves"] if curve["name"] == trainer]
            reached = [curve["reached"] for curve in curves if curve["reached"]]
            rows.append(
                [
                    env_id,
                    trainer,
                    f"{task['level']:,.0f}",
                    f"{len(reached)} of {len(curves)}",
                    _median_text(f["step"] / 1e6 for f in reached),
                    _median_text(f["seconds"] / 60 for f in reached),
                    f"{curves[0]['step'][-1] / 1e6:.2g}",
                    _median_text(curve["return"][-1] for curve in curves),
                    _median_text(c["greedy_return"] for c in curves if "greedy_return" in c),
                ]
            )
    header = (
        "",
        "",
        "level",
        "seeds that reach it",
        "after million steps",
        "after minutes",
        "million steps in all",
        "last return",
        "greedy",
    )
    picture = "![](images/benchmark_simulators.png)"
    title = "## Learning on existing simulators"
    return "\n\n".join(
        [title, picture, table(header, rows), LEARNING_NOTE, provenance(name, result, [])]
    )


def _median_text(values: Any) -> str:
    found = [value for value in values if value is not None]
    return number(statistics.median(found)) if found else "–"
