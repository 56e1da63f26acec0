"""What the sections of docs/benchmarks.md share: reading results, numbers as text, tables."""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from harness import RESULTS


def newest(question: str, quick: bool) -> tuple[str, dict[str, Any]] | None:
    """File name and content of the newest result, or None if there is none."""
    pattern = f"{question}-quick-*.json" if quick else f"{question}-[0-9]*.json"
    paths = sorted(RESULTS.glob(pattern))
    return (paths[-1].name, json.loads(paths[-1].read_text())) if paths else None


def find(records: Iterable[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The record called `name`, if it took part."""
    for record in records:
        if record["name"] == name and "absent" not in record:
            return record
    return None


# -------------------------------------------------------------------------------------- formatting


def rate_text(value: float) -> str:
    """1,234,567 as "1.23 M", and so on, to three digits."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit * 0.9995:
            return f"{float(f'{value / limit:.3g}'):g}{unit}"
    return f"{value:.3g}"


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio_text(ratio: dict[str, Any]) -> str:
    low, high = ratio["interval"]
    return f"{number(ratio['median'])} [{number(low)}, {number(high)}]"


def interval_text(interval: Sequence[float], digits: int) -> str:
    low, high = interval
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def seconds_text(values: Sequence[float | None]) -> str:
    """Median seconds of the seeds that got there, with how many did not."""
    reached = [value for value in values if value is not None]
    if not reached:
        return f"– (0 of {len(values)})"
    return f"{number(statistics.median(reached))} ({len(reached)} of {len(values)})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def absent_text(records: Iterable[dict[str, Any]]) -> str:
    """One sentence naming who could not take part and why."""
    reasons = {r["name"]: r["absent"] for r in records if "absent" in r}
    if not reasons:
        return ""
    listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return f"\n\nNot measured: {listed}."


def provenance(name: str, result: dict[str, Any], records: Iterable[dict[str, Any]]) -> str:
    """Command, machine, versions, date and raw file."""
    facts = result["machine"]
    versions: dict[str, set[str]] = {}
    for record in records:
        for package, version in record.get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    clock = f" at {facts['mhz'] / 1000:.1f} GHz" if "mhz" in facts else ""
    memory = f", {facts['memory_gib']:g} GiB" if "memory_gib" in facts else ""
    lines = [
        f"`{result['command']}`",
        f"{facts['processor']}{clock}, {facts['cores']} cores{memory}, {facts['system']}",
        f"{result['date']}, commit {result['commit'] or 'unknown'}, load before the start "
        f"{facts['load_before']:.2f}"
        + (f", {result['rounds']} rounds" if "rounds" in result else ""),
    ]
    if versions:
        found = (f"{package} {' and '.join(sorted(seen))}" for package, seen in versions.items())
        lines.append(", ".join(found))
    lines.append(f"raw data: [`{name}`](../benchmarks/results/{name})")
    return "\n".join(f"- {line}" for line in lines)
