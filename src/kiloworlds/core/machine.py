"""What this process may use of the machine: cores and memory, limits of containers included."""

import math
import os
import platform
import re
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**60  # bytes; cgroups of version 1 write a huge number for none


def affinity_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """The cores this process may use: its affinity and its container's quota, not the machine's."""
    cores, quota = affinity_cores(), cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def processor() -> str:
    """The processor's name, such as "Intel(R) Xeon(R) CPU @ 2.80GHz"; "" where it is not known."""
    found = re.search(r"^model name\s*: (.*)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else platform.processor()


def cpu_quota(
    cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """The cores' worth of time that the container allows, such as 1.5; None without a limit.

    Args:
        cgroups: where the control groups are mounted.
        membership: the file that says in which groups this process is.
    """
    quotas = []
    for group in _groups("", cgroups, membership):
        words = _read(group / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
    for group in _groups("cpu", cgroups, membership):
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(
    cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """The bytes of memory that the container allows; None without a limit. See `cpu_quota`."""
    limits = [_read(group / "memory.max") for group in _groups("", cgroups, membership)]
    limits += [
        _read(group / "memory.limit_in_bytes") for group in _groups("memory", cgroups, membership)
    ]
    known = [int(limit) for limit in limits if limit.isdigit() and int(limit) < _NO_LIMIT]
    return min(known, default=None)


def memory() -> tuple[int, int] | None:
    """Total and available bytes of the machine, or None where they cannot be read."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE))
    if "MemTotal" not in found or "MemAvailable" not in found:
        return None
    return 1024 * int(found["MemTotal"]), 1024 * int(found["MemAvailable"])


def out_of_memory_kills(file: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed for want of memory since the start; None if unknown."""
    found = re.search(r"^oom_kill (\d+)$", _read(file), re.MULTILINE)
    return int(found[1]) if found else None


def _groups(controller: str, cgroups: Path, membership: Path) -> list[Path]:
    """The group of this process and those around it, whose limits count as well.

    Args:
        controller: "" for version 2, where all share one tree, else the controller of version 1.
    """
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        root = cgroups / controllers
        group = root / path.lstrip("/")
        inside = [group, *group.parents]
        # Inside a container the path may be that of the host, where this mount has no such folder.
        return inside[: inside.index(root) + 1]
    return []


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
