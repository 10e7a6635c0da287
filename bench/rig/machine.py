"""What a figure was measured on: the machine, its load at the time, and the versions of what took part."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.core.version import VERSION

_PACKAGES = ("numpy", "trio", "uvloop", "httptools", "msgspec", "asyncpg", "redis")
_MB = 1024 * 1024


def machine() -> dict[str, Any]:
    """The machine: processors, kernel, memory, and the limits on socket buffers."""
    return {
        "cpu": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MB,
        "system": f"{platform.system()} {platform.release()}",
        "rmem_max": _number("/proc/sys/net/core/rmem_max"),
        "wmem_max": _number("/proc/sys/net/core/wmem_max"),
        "root": os.geteuid() == 0,
        "load_at_start": load(),
    }


def versions() -> dict[str, str]:
    """Versions by name; what is not there is left out."""
    found = {"nodepulse": VERSION, "python": platform.python_version()}
    found |= {name: metadata.version(name) for name in _PACKAGES}
    compiler = shutil.which("cc")
    if compiler is not None:
        told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
        found["cc"] = told.stdout.split("\n", 1)[0]
    return found


def load() -> list[float]:
    """Runnable processes over 1, 5 and 15 minutes: more than there are processors, and some had to wait."""
    return [round(average, 2) for average in os.getloadavg()]


def cpu_s(pid: int | None = None) -> float:
    """Processor seconds used so far by this process and its threads, or by another one (Linux)."""
    if pid is None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    return sum(_times(pid)[:2])


def family_cpu_s(pid: int) -> float:
    """Processor seconds of another process and of its children, those that have ended too (Linux)."""
    return sum(_times(pid)) + sum(cpu_s(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _times(pid: int) -> tuple[float, ...]:
    """User, system, and the same of the children that were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return tuple(int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:15])


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process now (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def rss_max_bytes(pid: int) -> int:
    """The most memory of another process that was ever resident (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError("no VmHWM")


def disk(path: Path) -> str:
    """The kind of filesystem that a folder lies on; a journal on `tmpfs` is synced to nowhere."""
    kind, longest = "unknown", -1
    mounts = Path("/proc/self/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        _device, place, found, *_ = line.split()
        if len(place) > longest and path.resolve().is_relative_to(place):
            kind, longest = found, len(place)
    return kind


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _number(path: str) -> int | None:
    file = Path(path)
    return int(file.read_text()) if file.exists() else None
