"""The folder in which the workers of one server keep their metrics (prometheus_client's
multiprocess mode)."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import CommandError

# In memory where that is possible: workers write with every response, and a container may have no
# other place to write to.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder in it is new and private)
NAME_PREFIX = "totoro-metrics-"
LOCK = "server.lock"


@contextmanager
def metrics_folder() -> Iterator[str]:
    """Create a locked folder and remove it at the end."""
    parent = Path(IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else tempfile.gettempdir())
    remove_abandoned_folders(parent)
    try:
        folder = tempfile.TemporaryDirectory(prefix=NAME_PREFIX, dir=parent)
    except OSError as error:
        raise CommandError(f"cannot create a folder for the metrics: {error}") from error
    with folder as name, (Path(name) / "new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Renamed after it is locked, so that no other server ever finds it unlocked.
        os.rename(lock.name, Path(name) / LOCK)
        yield name


def remove_abandoned_folders(parent: Path) -> None:
    """Remove the folders of killed servers.

    A lock ends with the last process that holds it: the server, or a worker that outlives it.
    """
    for path in parent.glob(f"{NAME_PREFIX}*/{LOCK}"):
        try:
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:  # locked, another user's, or just removed
            continue
