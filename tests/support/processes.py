"""What Linux says about processes, in /proc."""

import os
from contextlib import suppress
from multiprocessing import get_start_method
from pathlib import Path

import pytest

needs_fork = pytest.mark.skipif(
    get_start_method() != "fork", reason="needs workers that are forked"
)


def proc(pid: int) -> Path:
    """Return the /proc folder of a process. Skip the test where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc, which only Linux has")
    return Path(f"/proc/{pid}")


def children(pid: int) -> list[int]:
    """Return the running child processes; none where there is no /proc."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    pids = [int(child) for child in file.read_text().split()] if file.exists() else []
    return [child for child in pids if process_state(child) != "Z"]


def process_state(pid: int) -> str:
    """Return R, S, T (stopped), Z (zombie)…, or "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def open_connections(pid: int) -> list[tuple[int, int]]:
    """Return the local and the remote port of each TCP connection of a process."""
    inodes = set()
    for descriptor in (proc(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(descriptor))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[3] == "01" and f"socket:[{row[9]}]" in inodes]
    return [(int(row[1][-4:], 16), int(row[2][-4:], 16)) for row in established]
