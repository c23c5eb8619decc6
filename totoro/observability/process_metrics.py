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

from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

PROC = Path("/proc")
# Of a container: in version 2 of cgroups, and in version 1.
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def process_metrics() -> Iterator[Metric]:
    """Yield them in a worker; nothing where there is no /proc."""
    pid = str(os.getppid())
    server = metrics_of(pid)
    if not server:
        return
    workers = (PROC / f"{pid}/task/{pid}/children").read_text().split()
    processes = [server, *map(metrics_of, workers)]
    yield CounterMetricFamily(
        "process_cpu_seconds",
        "CPU time of the server and its workers, also of ended ones.",
        sum(each.get("process_cpu_seconds", 0) for each in processes) + cpu_of_ended_children(pid),
    )
    yield GaugeMetricFamily(
        "process_resident_memory_bytes",
        "Memory of the server and its workers; what they share counts once.",
        sum(map(memory, [pid, *workers])),
    )
    yield GaugeMetricFamily(
        "process_open_fds",
        "Open files of the process that has the most.",
        max(each.get("process_open_fds", 0) for each in processes),
    )
    yield GaugeMetricFamily(
        "process_max_fds",
        "How many files each process may open.",
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    yield GaugeMetricFamily(
        "process_start_time_seconds",
        "When the server started (Unix time).",
        server["process_start_time_seconds"],
    )


def metrics_of(pid: str) -> dict[str, float]:
    """Return prometheus_client's metrics of one process; none if it has ended."""
    metrics = ProcessCollector(pid=lambda: pid, registry=None).collect()
    return {metric.name: metric.samples[0].value for metric in metrics}


def cpu_of_ended_children(pid: str) -> float:
    """Return their CPU time in seconds."""
    # From the third field on, see proc_pid_stat(5).
    fields = (PROC / pid / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def memory(pid: str) -> int:
    """Return a process' part of the memory: of a page that n processes share, 1/n."""
    with suppress(OSError):
        smaps = (PROC / pid / "smaps_rollup").read_text()
        if found := re.search(r"^Pss: +(\d+) kB", smaps, re.M):
            return int(found[1]) * 1024
    return 0


def memory_limit() -> float:
    """Return the container's limit in bytes, or infinity."""
    for file in MEMORY_LIMITS:
        with suppress(OSError):
            limit = file.read_text().strip()
            return math.inf if limit == "max" else float(limit)
    return math.inf
