"""The counts of workers that have ended, in one file for all of them.

Each worker has files of 0.2 MB. Workers that are killed again and again would fill the memory that holds
the files.
"""

import fcntl
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

from totoro.observability.metrics import locked_files, worker_restarts


def count_ended_worker(pid: int) -> None:
    """Count it, and replace its files: what it counted remains, and its gauges end with it."""
    worker_restarts.inc()
    with locked_files(fcntl.LOCK_EX) as folder:
        for file in folder.glob(f"*_{pid}.db"):
            if file.name.startswith(("counter", "histogram")):
                add_values(file, folder / file.name.replace(f"_{pid}", "_ended"))
            file.unlink()


def add_values(source: Path, target: Path) -> None:
    totals = MmapedDict(str(target))  # type: ignore[no-untyped-call]
    for key, value, _, _ in MmapedDict.read_all_values_from_file(source):  # type: ignore[no-untyped-call]
        totals.write_value(key, totals.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    totals.close()  # type: ignore[no-untyped-call]
