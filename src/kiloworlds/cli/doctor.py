"""`kiloworlds doctor`: whether this machine is fit for training, and what is missing."""

import dataclasses
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

import kiloworlds
from kiloworlds.cli import options
from kiloworlds.core import machine

DESCRIPTION = """\
Looks at this machine and tells what would keep kiloworlds from running well: kiloworlds doctor.

Cores, memory and limits (those of containers included), JAX and its devices, optional packages, where
results and compiled programs go, and a short run of both engines. Exits with 1 if there is a
problem."""

Result = Literal["ok", "note", "problem"]

_MIB, _GIB = 2**20, 2**30
_LEAST_MEMORY, _LEAST_DISK = _GIB, _GIB
_FEW_FILES, _TOO_FEW_FILES = 1024, 128  # a worker takes about ten
_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "red")}


@dataclasses.dataclass(frozen=True)
class Package:
    """An optional package: what it is for, and how to get it."""

    name: str
    purpose: str
    install: str


PACKAGES = (
    Package("ale-py", "Atari games", 'pip install "kiloworlds[atari]"'),
    Package("box2d", "Gymnasium's Box2D environments", 'pip install "kiloworlds[box2d]"'),
    Package("mujoco", "Gymnasium's MuJoCo environments", 'pip install "kiloworlds[mujoco]"'),
    Package("pettingzoo", "multi-agent environments", 'pip install "kiloworlds[pettingzoo]"'),
    Package("envpool", "the fastest Atari and MuJoCo engine", 'pip install "kiloworlds[envpool]"'),
    Package("av", "MP4 videos (GIFs need nothing)", 'pip install "kiloworlds[video]"'),
    Package("jax-cuda13-plugin", "JAX on NVIDIA GPUs", 'pip install "kiloworlds[cuda]"'),
)


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing looked at.

    Attributes:
        part: what it belongs to, such as "memory".
        name: of the thing.
        result: "ok", "note" (works, but) or "problem".
        seen: in words.
        advice: one line for what is not ok; "" otherwise.
    """

    part: str
    name: str
    result: Result
    seen: str
    advice: str = ""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `doctor`."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "doctor", DESCRIPTION)
    console = options.console(chosen.json)
    with console.status("looking around"):
        facts = list(examine())
    problems = [fact for fact in facts if fact.result == "problem"]
    if chosen.json:
        options.print_json(
            {
                "ok": not problems,
                "problems": len(problems),
                "facts": [dataclasses.asdict(fact) for fact in facts],
            }
        )
    _show(console, facts)
    return 1 if problems else 0


def examine() -> Iterator[Fact]:
    """Everything `doctor` looks at; what cannot be looked at is a problem, not the end."""
    for part, look in _PARTS.items():
        try:
            yield from look()
        except Exception as error:  # whatever a damaged installation or an odd kernel raises
            yield Fact(part, part, "problem", f"{type(error).__name__}: {error}", _REPORT)


_REPORT = "this should not happen: run it again with --debug, and report it"


def _look_at_system() -> Iterator[Fact]:
    yield Fact(
        "system", "kiloworlds", "ok", f"{kiloworlds.__version__}, {Path(__file__).parents[1]}"
    )
    yield Fact("system", "Python", "ok", f"{platform.python_version()}, {sys.executable}")
    linux = sys.platform == "linux"
    yield Fact(
        "system",
        "operating system",
        "ok" if linux else "note",
        platform.platform(),
        "" if linux else "worker processes need Linux; elsewhere use backend='sync'",
    )


def _look_at_cores() -> Iterator[Fact]:
    cores, quota = machine.affinity_cores(), machine.cpu_quota()
    total = os.cpu_count() or 1
    seen = f"{cores} of {total}" if cores < total else f"{cores}"
    if quota is None:
        yield Fact("cores", "cores", "ok", f"{seen}, no quota")
        return
    tight = quota < cores
    yield Fact(
        "cores",
        "cores",
        "note" if tight else "ok",
        f"{seen}, but the container allows the time of {quota:g}"
        if tight
        else f"{seen}, quota {quota:g}",
        "worker processes follow the quota; XLA's threads do not: PJRT_NPROC sets them"
        if tight
        else "",
    )


def _look_at_memory() -> Iterator[Fact]:
    sizes, limit = machine.memory(), machine.memory_limit()
    if sizes is not None:
        total, available = sizes
        low = available < _LEAST_MEMORY
        yield Fact(
            "memory",
            "memory",
            "problem" if low else "ok",
            f"{_size(available)} available of {_size(total)}",
            "free some: JAX alone takes half a gigabyte" if low else "",
        )
    if limit is not None:
        low = limit < _LEAST_MEMORY
        yield Fact(
            "memory",
            "limit of the container",
            "problem" if low else "ok",
            _size(limit),
            "give the container more memory: beyond the limit processes are killed" if low else "",
        )
    shared = Path("/dev/shm")
    if shared.exists():
        usage = shutil.disk_usage(shared)
        small = usage.total < 256 * _MIB
        yield Fact(
            "memory",
            "/dev/shm",
            "note" if small else "ok",
            f"{_size(usage.used)} used of {_size(usage.total)}",
            "kiloworlds does not use it, but other libraries do: docker run --shm-size=1g"
            if small
            else "",
        )


def _look_at_limits() -> Iterator[Fact]:
    if importlib.util.find_spec("resource") is None:
        return
    import resource

    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = files != resource.RLIM_INFINITY and files < _FEW_FILES
    result: Result = "ok"
    if few:
        result = "problem" if files < _TOO_FEW_FILES else "note"
    yield Fact(
        "limits",
        "open files (ulimit -n)",
        result,
        _limit(files),
        f"a worker process takes about ten: ulimit -n {_limit(most).replace(',', '')}"
        if few
        else "",
    )
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    few = processes != resource.RLIM_INFINITY and processes < 256
    yield Fact(
        "limits",
        "processes (ulimit -u)",
        "note" if few else "ok",
        _limit(processes),
        "threads count as well: ulimit -u 4096" if few else "",
    )
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    seen = _size(locked) if locked != resource.RLIM_INFINITY else "unlimited"
    yield Fact("limits", "locked memory (ulimit -l)", "ok", seen)


def _look_at_kernel() -> Iterator[Fact]:
    if sys.platform != "linux":
        return
    calls: dict[str, Callable[[], int]] = {
        "eventfd": lambda: os.eventfd(0),
        "memfd": lambda: os.memfd_create("kiloworlds-doctor"),
        "pidfd": lambda: os.pidfd_open(os.getpid()),
    }
    for name, call in calls.items():
        try:
            os.close(call())
        except (AttributeError, OSError) as error:
            advice = "worker processes need it (Linux 5.3, and no sandbox that forbids it); use "
            yield Fact("kernel", name, "problem", str(error), f"{advice}backend='sync'")
        else:
            yield Fact("kernel", name, "ok", "works")


def _look_at_jax() -> Iterator[Fact]:
    import jax

    devices = jax.devices()
    backend = jax.default_backend()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    unused = backend == "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))
    yield Fact(
        "jax",
        f"JAX {jax.__version__}",
        "note" if unused else "ok",
        f"{backend}, {len(devices)} device{'s' if len(devices) > 1 else ''} ({kinds})",
        'there is an NVIDIA GPU that JAX does not use: pip install "kiloworlds[cuda]"'
        if unused
        else "",
    )


def _look_at_folders() -> Iterator[Fact]:
    from kiloworlds.core.devices import cache_directory

    cache = cache_directory()
    if cache is None:
        advice = "every start compiles anew; unset KILOWORLDS_CACHE_DIR"
        yield Fact("folders", "compilation cache", "note", "turned off", advice)
    else:
        files = [path for path in Path(cache).glob("*") if path.is_file()]
        size = _size(sum(path.stat().st_size for path in files))
        reason = _why_not_writable(Path(cache))
        yield Fact(
            "folders",
            "compilation cache",
            "problem" if reason else "ok",
            f"{cache}: {reason or f'{size} in {len(files)} files'}",
            "name another folder in KILOWORLDS_CACHE_DIR" if reason else "",
        )
    reason = _why_not_writable(Path("runs"))
    yield Fact(
        "folders",
        "./runs",
        "problem" if reason else "ok",
        reason or "can be written",
        "work in another directory, or name one with --run-dir" if reason else "",
    )
    free = shutil.disk_usage(".").free
    low = free < _LEAST_DISK
    advice = "checkpoints and videos may not fit" if low else ""
    yield Fact("folders", "free disk space here", "note" if low else "ok", _size(free), advice)


def _why_not_writable(folder: Path) -> str:
    """Why no file can be made in a folder (or the folder itself be made); "" if one can."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is no folder"
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return f"{place} cannot be written ({error.strerror})"
    return ""


def _look_at_packages() -> Iterator[Fact]:
    from kiloworlds.vector.native.engines import ENGINES

    engines = {engine.distribution: engine for engine in ENGINES}
    for package in PACKAGES:
        try:
            version = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            seen = f"not installed: {package.purpose}"
            yield Fact("packages", package.name, "ok", seen, package.install)
            continue
        error = engines[package.name].load_error if package.name in engines else None
        if error is None:
            yield Fact("packages", package.name, "ok", f"{version}: {package.purpose}")
        else:
            advice = "install what it misses; until then other backends run its environments"
            yield Fact(
                "packages", package.name, "note", f"{version} cannot be loaded: {error}", advice
            )


def _test_compiled() -> Iterator[Fact]:
    import jax

    from kiloworlds.core import devices
    from kiloworlds.vector.random_rollout import random_rollout

    devices.configure()
    started = time.perf_counter()
    envs = kiloworlds.make("CartPole-v1", 1024)
    rollout = random_rollout(envs, 200)  # type: ignore[arg-type]
    jax.block_until_ready(rollout(0))
    ready = time.perf_counter()
    jax.block_until_ready(rollout(1))
    seconds = time.perf_counter() - ready
    yield Fact(
        "self-test",
        "compiled environments",
        "ok",
        f"compiled in {ready - started:.1f} s, then {1024 * 200 / seconds / 1e6:,.0f} million steps/s",
    )


def _test_pool() -> Iterator[Fact]:
    from kiloworlds.core.errors import KiloworldsError

    if not hasattr(os, "pidfd_open"):
        return
    times = [time.perf_counter()]
    try:
        envs = kiloworlds.make(
            "CartPole-v1",
            2,
            backend="process",
            num_workers=2,
            start_timeout=30.0,
            step_timeout=10.0,
            max_restarts=0,
        )
        times.append(time.perf_counter())
        try:
            envs.reset(seed=0)
            for _ in range(100):
                envs.step(envs.action_space.sample())
            times.append(time.perf_counter())
        finally:
            envs.close()
        times.append(time.perf_counter())
    except (KiloworldsError, OSError) as error:
        advice = "until it is mended, use backend='sync'"
        yield Fact("self-test", "worker processes", "problem", str(error), advice)
        return
    start, step, close = (after - before for before, after in itertools.pairwise(times))
    yield Fact(
        "self-test",
        "worker processes",
        "ok",
        f"2 started in {start:.1f} s, 100 steps in {1000 * step:,.0f} ms, closed in "
        f"{1000 * close:,.0f} ms",
    )


_PARTS: dict[str, Callable[[], Iterator[Fact]]] = {
    "system": _look_at_system,
    "cores": _look_at_cores,
    "memory": _look_at_memory,
    "limits": _look_at_limits,
    "kernel": _look_at_kernel,
    "jax": _look_at_jax,
    "folders": _look_at_folders,
    "packages": _look_at_packages,
    "compiled environments": _test_compiled,
    "worker processes": _test_pool,
}


def _size(count: float) -> str:
    for unit, bound in (("GiB", _GIB), ("MiB", _MIB)):
        if count >= bound:
            return f"{count / bound:,.1f} {unit}"
    return f"{count / 1024:,.0f} KiB"


def _limit(value: int) -> str:
    return "unlimited" if value < 0 or value >= 2**63 - 1 else f"{value:,}"


def _show(console: Console, facts: list[Fact]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    part = ""
    for fact in facts:
        if fact.part != part:
            table.add_row("", Text(fact.part, "bold"), "")
            part = fact.part
        mark, style = _MARKS[fact.result]
        words = Text(fact.seen, "dim" if fact.result == "ok" else "")
        if fact.advice:
            words.append(f"\n→ {fact.advice}", "cyan")
        table.add_row(Text(mark, style), fact.name, words)
    console.print(table)
    problems = sum(fact.result == "problem" for fact in facts)
    verdict = (
        f"\n✗ {problems} problem{'s' if problems > 1 else ''}" if problems else "\n✓ no problem"
    )
    console.print(Text(verdict, "bold red" if problems else "bold green"))
