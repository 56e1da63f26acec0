"""Sections of docs/benchmarks.md on what trainings survive, and what that costs."""

from typing import Any

from summary_text import interval_text, provenance, table

SURVIVAL_NOTE = """\
*Killed* means `kill -9` at a seeded random moment after the first checkpoint; the run is then resumed
and its end compared with that of a run that was never stopped: all arrays of the last checkpoint, bit
by bit, and all rows of metrics. *Damaged* means one flipped bit, or a file cut off at a random place.
*Speed* is that of the same training without checkpoints, or without looking for numbers that are not
finite; above 1 is noise. *Stops* is how long a checkpoint keeps training waiting."""

SOAK_NOTE = """\
PPO on LunarLander in four worker processes under `--supervise`, with its run directory on a disk of
8 MB. Faults come at random every 3 to 15 seconds. Memory is what belongs to each process alone, from
45 seconds of its life on; the mean is over processes by how long they lived. Where only workers were
hurt, on a machine with other work, the trainer was started again since it waited longer for them than
the 45 seconds after which it counted as hung; the disk was full when it ended, and the run was written
elsewhere."""


def survival_section(name: str, result: dict[str, Any]) -> str:
    """One table of all questions that the result answers."""
    rows = [row for cell in result["cells"] for row in _ROWS[cell["question"]](cell)]
    body = [table(["", "", "measured"], rows), SURVIVAL_NOTE]
    return "\n\n".join(["## Survival", *body, provenance(name, result, [])])


def _kill(cell: dict[str, Any]) -> list[list[str]]:
    told = cell["records"]
    return [
        [
            "killed and resumed",
            cell["training"],
            f"{told['bit_equal']} of {told['kills']} equal, {told['with_other_rows']} with other rows, "
            f"{told['unreadable_checkpoints']} unreadable checkpoints "
            f"({told['killed_while_saving']} were killed while saving)",
        ]
    ]


def _damage(cell: dict[str, Any]) -> list[list[str]]:
    told = cell["records"]
    found = f"{told['detected']} of {told['cases']} found; {told['fell_back']} times the one before"
    return [["damaged checkpoints", "ppo CartPole-v1", found]]


def _cost(cell: dict[str, Any]) -> list[list[str]]:
    told = cell["records"]
    stops = ""
    if told["saves"]:
        stops = (
            f"; stops {told['stop_median_ms']:.1f} ms, at most {told['stop_most_ms']:.1f}, "
            f"{told['saves']} saves, one every {1e3 * told['seconds_between_saves']:.0f} ms"
        )
    return [["speed with checkpoints", cell["case"], _speed(told) + stops]]


def _large(cell: dict[str, Any]) -> list[list[str]]:
    told = cell["records"]
    stops = ", ".join(f"{stop:,.0f}" for stop in told["stops_ms"])
    words = f"{_speed(told)}; stops {stops} ms"
    return [["speed with checkpoints", "every 10th update, 50 M parameters", words]]


def _guard(cell: dict[str, Any]) -> list[list[str]]:
    return [["speed with the guard", cell["training"], _speed(cell["records"])]]


def _speed(told: dict[str, Any]) -> str:
    return f"{told['ratio']:.3f} {interval_text(told['interval'], 3)}"


def _resume(cell: dict[str, Any]) -> list[list[str]]:
    told = cell["records"]
    words = f"{told['median']:.1f} s from the command to the first row"
    return [["resuming", "ppo CartPole-v1, compiled programs cached", words]]


def _signals(cell: dict[str, Any]) -> list[list[str]]:
    return [["ending after a signal", cell["signal"], f"at most {max(cell['records']):.1f} s"]]


_ROWS = {
    "kill": _kill,
    "damage": _damage,
    "cost": _cost,
    "large": _large,
    "resume": _resume,
    "signals": _signals,
    "guard": _guard,
}


def soak_section(name: str, result: dict[str, Any]) -> str:
    """What the soaks found: a column for each."""
    columns = [_soak_column(cell["records"]) for cell in result["cells"]]
    heads = [
        "workers' faults only" if "trainer killed" not in cell["kinds"] else "all faults"
        for cell in result["cells"]
    ]
    rows = [[row, *(column[row] for column in columns)] for row in columns[0]]
    body = [table(["", *heads], rows), SOAK_NOTE]
    return "\n\n".join(["## Twenty minutes of faults", *body, provenance(name, result, [])])


def _soak_column(told: dict[str, Any]) -> dict[str, str]:
    growth = "; ".join(
        f"{role} {values['mean']:.2f} (most {values['most']:.2f})"
        for role, values in told["memory_growth"].items()
    )
    files = "; ".join(f"{role} {median} ({most})" for role, (median, most) in told["files"].items())
    left = f"{len(told['processes_left'])} processes, {len(told['shared_memory_left'])} shared memories"
    return {
        "lasted": f"{told['seconds'] / 60:.1f} minutes",
        "faults": ", ".join(f"{kind} {count}" for kind, count in told["faults"].items()),
        "exit code": str(told["exit_code"]),
        "steps": f"{told['steps']:,} of {told['steps_wanted']:,}",
        "rows of metrics in order": "yes" if told["rows_in_order"] else "NO",
        "all numbers finite": "yes" if told["finite"] else "NO",
        "times the trainer was started again": str(told["trainer_crashes"]),
        "updates lost in each": ", ".join(map(str, told["updates_lost_in_each"])) or "none",
        "memory grows by, MB per minute": growth,
        "open files, median (most)": files,
        "left behind": left,
    }
