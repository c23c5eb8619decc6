"""CPU time, memory and files of a server and its workers together, from /proc.

prometheus_client has them for a single process only. The names are its own.
"""

import math
import os
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

PROC = Path("/proc")
# Of a container: in version 2 of cgroups, and in version 1.
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """CPU times in seconds, `started` in seconds since the machine did, memory in bytes."""

    cpu: float
    cpu_of_ended_children: float
    started: float
    memory: int
    open_files: int


def process_metrics() -> Iterator[Metric]:
    """Yield them in a worker; nothing where there is no /proc."""
    pid = os.getppid()
    server = process(pid)
    if not server:
        return
    children = (PROC / f"{pid}/task/{pid}/children").read_text().split()
    processes = [server, *filter(None, map(process, children))]
    yield CounterMetricFamily(
        "process_cpu_seconds",
        "CPU time of the server and its workers, also of ended ones.",
        sum(each.cpu for each in processes) + server.cpu_of_ended_children,
    )
    yield GaugeMetricFamily(
        "process_resident_memory_bytes",
        "Memory of the server and its workers; what they share counts once.",
        sum(each.memory for each in processes),
    )
    yield GaugeMetricFamily(
        "process_open_fds",
        "Open files of the process that has the most.",
        max(each.open_files for each in processes),
    )
    yield GaugeMetricFamily(
        "process_max_fds",
        "How many files each process may open.",
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    yield GaugeMetricFamily(
        "process_start_time_seconds",
        "When the server started (Unix time).",
        boot_time() + server.started,
    )


def process(pid: int | str) -> Process | None:
    """Return what Linux says of a process; None if it has ended."""
    folder = PROC / str(pid)
    try:
        # From the third field on, see proc_pid_stat(5).
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        files = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    user, system, children_user, children_system = (int(field) / TICKS for field in fields[11:15])
    started = int(fields[19]) / TICKS
    cpu_of_ended_children = children_user + children_system
    return Process(user + system, cpu_of_ended_children, started, memory(folder), files)


def memory(folder: Path) -> int:
    """Return a process' part of the memory: of a page that n processes share, 1/n."""
    with suppress(OSError):
        if found := re.search(r"^Pss: +(\d+) kB", (folder / "smaps_rollup").read_text(), re.M):
            return int(found[1]) * 1024
    return 0


def boot_time() -> int:
    found = re.search(r"^btime (\d+)", (PROC / "stat").read_text(), re.M)
    return int(found[1]) if found else 0


def memory_limit() -> float:
    """Return the container's limit in bytes, or infinity."""
    for file in MEMORY_LIMITS:
        with suppress(OSError):
            limit = file.read_text().strip()
            return math.inf if limit == "max" else float(limit)
    return math.inf
