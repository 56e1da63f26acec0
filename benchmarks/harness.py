"""Times competitors side by side, in turn, and says how sure the ratios are.

Each competitor lives in its own process, so that no thread pool disturbs another, and idles while
another is timed. A worker is a script that calls `serve`; it talks in lines of JSON over its standard
input and output. Round by round the order turns (A B C, C B A, ...), which cancels a drift of the
machine, and ratios are taken within a round.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SOURCE = HERE.parent / "src"
LOAD_BEFORE = os.getloadavg()[0]  # when the benchmark starts: its own load is not the machine's

# What one round does: returns {"steps": int, "seconds": float, ...anything else worth keeping}.
Round = Callable[[], dict[str, Any]]


class AbsentError(Exception):
    """A competitor that cannot run here: not installed, or without the task asked for."""


# ---------------------------------------------------------------------------------------- workers


def serve(make: Callable[..., tuple[Round, dict[str, Any]]], packages: Sequence[str]) -> None:
    """Runs a worker process: builds the competitor from the JSON in argv[1], then times on demand.

    Args:
        make: takes the settings as keywords, warms up and returns the function that times one round
            and a dictionary of facts (for example `compile_seconds`).
        packages: distributions whose versions the result names.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not disturb the protocol
    try:
        one_round, facts = make(**json.loads(sys.argv[1]))
    except (AbsentError, ImportError) as error:
        answers.write(json.dumps({"absent": str(error)}) + "\n")
        return
    facts["versions"] = versions(packages)
    answers.write(json.dumps({"ready": facts}) + "\n")
    for _ in sys.stdin:
        answers.write(json.dumps(one_round()) + "\n")


def repeat_for(seconds: float, once: Callable[[], int]) -> Round:
    """A round that calls `once`, which returns the steps it made, for about `seconds`."""
    once()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds / 3:
        once()
        calls += 1
    repeats = max(1, round(calls * seconds / (time.perf_counter() - start)))

    def one_round() -> dict[str, Any]:
        start = time.perf_counter()
        steps = sum(once() for _ in range(repeats))
        return {"steps": steps, "seconds": time.perf_counter() - start}

    return one_round


def repeat_with_seeds(seconds: float, run: Callable[[int], Any], steps: int) -> Round:
    """The same for `run(seed)`, which makes `steps` steps and is called with ever new seeds."""
    seeds = itertools.count(1)

    def once() -> int:
        run(next(seeds))
        return steps

    return repeat_for(seconds, once)


def versions(packages: Sequence[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@dataclass
class Competitor:
    """A worker script with its settings.

    Args:
        name: what tables and figures call it.
        script: worker, relative to `benchmarks/`.
        settings: keywords of the worker's `make`.
        python: interpreter to run it in.
        environment: additional environment variables.
        group: competitors of one group answer the same question; tables keep them together.
    """

    name: str
    script: str
    settings: dict[str, Any]
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)
    group: str = ""

    def start(self) -> dict[str, Any]:
        """Starts the process and waits until it is warm; returns its facts.

        Raises:
            AbsentError: it cannot run here.
        """
        paths = [str(SOURCE), str(HERE), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "KILOWORLDS_CACHE_DIR": "",  # compile times are those of a first compilation
        }
        self._process = subprocess.Popen(
            [self.python, str(HERE / self.script), json.dumps(self.settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | self.environment,
        )
        answer = self._read()
        if "absent" in answer:
            self.stop()
            raise AbsentError(answer["absent"])
        return answer["ready"]

    def round(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):  # some libraries print while they are imported
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: worker ended with code {self._process.wait()}")
        return json.loads(line)


# ------------------------------------------------------------------------------------- comparison


def compare(competitors: Sequence[Competitor], rounds: int) -> list[dict[str, Any]]:
    """Times the competitors in turn and returns one record each, in the given order.

    A record holds `rate` (median steps/s) with its interval, every round, the worker's facts, and
    `ratios`: this competitor's rate over each other's, round by round. One that cannot run has
    `absent` with the reason instead.
    """
    records = [
        {"name": c.name, "group": c.group, "settings": c.settings, "variables": c.environment}
        for c in competitors
    ]
    present = []
    try:
        for competitor, record in zip(competitors, records, strict=True):
            try:
                record |= competitor.start()
                record["rounds"] = []
                present.append((competitor, record))
                log(f"  {competitor.name}: ready")
            except AbsentError as reason:
                record["absent"] = str(reason)
                log(f"  {competitor.name}: absent ({reason})")
        for index in range(rounds):
            for competitor, record in present[:: 1 if index % 2 == 0 else -1]:
                record["rounds"].append(competitor.round())
    finally:
        for competitor, _ in present:
            competitor.stop()
    for competitor, record in present:
        rates = [r["steps"] / r["seconds"] for r in record["rounds"]]
        record["rate"], record["rate_interval"] = median_interval(rates)
        record["ratios"] = {
            other["name"]: ratio(record["rounds"], other["rounds"])
            for _, other in present
            if other is not record
        }
        log(f"  {competitor.name}: {record['rate']:,.0f} steps/s")
    return records


def ratio(rounds: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Median over rounds of rate / other rate, with its interval."""
    middle, interval = median_interval(
        [
            (a["steps"] / a["seconds"]) / (b["steps"] / b["seconds"])
            for a, b in zip(rounds, others, strict=True)
        ]
    )
    return {"median": middle, "interval": interval}


def median_interval(values: Sequence[float], resamples: int = 2000) -> tuple[float, list[float]]:
    """The median and its 95% percentile-bootstrap interval (Efron, 1979)."""
    generator = random.Random(0)
    medians = sorted(
        statistics.median(generator.choices(values, k=len(values))) for _ in range(resamples)
    )
    low, high = medians[int(0.025 * resamples)], medians[int(0.975 * resamples) - 1]
    return statistics.median(values), [low, high]


# ---------------------------------------------------------------------------------------- results


def machine() -> dict[str, Any]:
    """What a reader must know about the machine to judge a number."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    facts = {
        "processor": model,
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": LOAD_BEFORE,
    }
    with contextlib.suppress(ValueError, OSError):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        facts["memory_gib"] = round(size / 2**30, 1)
    with contextlib.suppress(OSError):
        # The clock rate is not in every model name.
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("cpu MHz"):
                facts["mhz"] = round(float(line.split(":", 1)[1]))
                break
    return facts


def commit() -> str | None:
    """The commit measured, with a + where files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", str(SOURCE), str(HERE / "*.py"))
        return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_results(
    question: str, content: dict[str, Any], quick: bool, update: bool = False
) -> Path:
    """Saves `content` with the machine's facts; quick runs get their own name.

    Args:
        update: keep what today's result already holds and this run did not measure. Each comparison
            is still the work of one run.

    Returns the path `results/<question>-<date>.json`.
    """
    today = datetime.date.today().isoformat()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{question}{'-quick' if quick else ''}-{today}.json"
    header = {
        "question": question,
        "date": today,
        "quick": quick,
        "commit": commit(),
        # Without the folders of this machine, which mean nothing elsewhere.
        "command": "python benchmarks/" + " ".join(Path(word).name for word in sys.argv),
        "machine": machine(),
    }
    if update and path.exists():
        old = json.loads(path.read_text())
        header["earlier"] = [
            *old.pop("earlier", []),
            {"commit": old["commit"], "command": old["command"]},
        ]
        content = merge_results(old, content)
        content = {name: value for name, value in content.items() if name not in header}
    path.write_text(json.dumps(header | content, indent=1) + "\n")
    log(f"wrote {path}")
    return path


def merge_results(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new`, and what only `old` holds: sections, and comparisons ("cells") of other settings."""
    merged = old | new
    if "cells" in old and "cells" in new:
        measured = {_settings(cell) for cell in new["cells"]}
        merged["cells"] = [cell for cell in old["cells"] if _settings(cell) not in measured] + new[
            "cells"
        ]
    return merged


def _settings(cell: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in cell.items() if name != "records"})


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--peers-python",
        default=sys.executable,
        help="interpreter that has the peers installed (default: this one)",
    )
    parser.add_argument(
        "--update", action="store_true", help="keep what today's result holds of other comparisons"
    )
    parser.add_argument("--rounds", type=int, help="timed rounds per comparison (default 7)")
    parser.add_argument(
        "--quick", action="store_true", help="few short rounds, to see that everything runs"
    )
    return parser


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
