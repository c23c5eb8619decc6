"""What a process and all its descendants use, from Linux's /proc."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Positions in /proc/<pid>/stat, counted from the state, which follows the command's name.
CHILDREN_USER, CHILDREN_SYSTEM = 13, 14


def tree(pid: int) -> list[int]:
    """Return a process and its running descendants, whichever of its threads started them."""
    pids = [pid]
    for process in pids:  # which grows meanwhile
        for task in (PROC / str(process) / "task").glob("*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                pids += map(int, (task / "children").read_text().split())
    return pids


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time of these process trees so far, with children that have ended."""
    return sum(_cpu_seconds(process) for pid in pids for process in tree(pid))


def _cpu_seconds(pid: int) -> float:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        own = time.clock_gettime(_cpu_clock(pid))
    except OSError:
        return 0.0  # ended between the listing and this: its parent has its time
    return own + (int(fields[CHILDREN_USER]) + int(fields[CHILDREN_SYSTEM])) / TICKS_PER_SECOND


def _cpu_clock(pid: int) -> int:
    """Return what clock_getcpuclockid(3) does. In /proc, CPU time is rounded to ticks of 10 ms."""
    return ~pid << 3 | 2


def rss_mb(pid: int) -> float:
    """Return the resident memory of one process in MB."""
    return _memory_mb(pid, "Rss")


def pss_mb(pid: int) -> float:
    """Return the memory of a process tree in MB; a page that N processes share counts 1/N in each."""
    return sum(_memory_mb(process, "Pss") for process in tree(pid))


def _memory_mb(pid: int, field: str) -> float:
    lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return kilobytes * 1024 / 1_000_000


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Let the processes that are started within this run on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
