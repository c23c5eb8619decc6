import fcntl
import logging
import multiprocessing
import os
import resource
import select
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import MPServer

ADDRESS = "0.0.0.0"  # noqa: S104 (a service for others)
APPLICATION = "totoro.wsgi.application"

# How long a connection may take to send the headers of a request, and how long it may stay idle
# between two: hyper, granian's HTTP library, has one timer for both. A worker that was stalled for
# longer resets connections without reading the requests that came meanwhile, so it outlasts a stall of
# 10 seconds. Connections with half a request keep a worker from stopping for so long; docker-compose.yml
# grants it 35 seconds.
HEADER_TIMEOUT_SECONDS = 12
# Of one request, address included. Longer than any address that Totoro answers with its own 414.
HEADERS_BYTES = 128 * 1024
# Per process, idle ones included. More than this wait in the kernel until others are closed.
CONNECTIONS = 4096
# In the kernel, which has a limit of its own (net.core.somaxconn).
BACKLOG = 4096
# Files that a process opens besides its clients' connections: one connection for each request in
# each of two pools of Redis connections, and some for the upstream, the database, metrics and code.
OTHER_FILES = 2 * 256 + 128
LEAST_FILES = 1024

STOP_SECONDS = 30
PARENT_CHECK_SECONDS = 0.2

# In memory where there is such a place: the workers write there with every answer, and a container
# may have no other that it can write to.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder in it is new and private)
METRICS_PREFIX = "totoro-metrics-"
LOCK = "server.lock"


class Command(BaseCommand):
    help = "Serve Totoro with granian on PORT, in WEB_CONCURRENCY processes."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        # granian would share the port with whoever has it, and each would get half of the requests.
        try:
            socket.create_server((ADDRESS, settings.PORT)).close()
        except OSError as error:
            raise CommandError(f"PORT = {settings.PORT}: {error.strerror}") from error
        connections = connection_limit()
        with metrics_folder() as folder:
            # prometheus_client reads it when it is imported, which only the workers do.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            # A worker inherits granian's own handlers, which do nothing in it: one told to end while
            # it still starts would serve on until it is killed, half a minute later.
            os.register_at_fork(after_in_child=end_when_told)
            self._serve(connections)

    def _serve(self, connections: int) -> None:
        logging.getLogger("_granian").addFilter(is_no_advice_on_threads)
        server = Server(
            APPLICATION,
            address=ADDRESS,
            port=settings.PORT,
            interface=Interfaces.WSGI,
            # Not "auto": while that waits for the first bytes, to tell HTTP/2 from HTTP/1, it has no
            # time-out, and connections that send nothing stay open for ever.
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_TIMEOUT_SECONDS * 1000, max_buffer_size=HEADERS_BYTES
            ),
            workers=settings.WEB_CONCURRENCY,
            blocking_threads=settings.REQUEST_THREADS,
            backlog=BACKLOG,
            backpressure=connections,
            respawn_failed_workers=True,
            workers_kill_timeout=STOP_SECONDS,
            websockets=False,
            log_level=LogLevels(settings.LOG_LEVEL.lower()),
            # Nothing but that level: the settings have set up logging, for granian's lines too.
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
        )
        server.serve(target_loader=load_application, wrap_loader=False)


class Server(MPServer):
    """Granian, which replaces workers that are killed however often that happens.

    It gives up when a worker dies twice within 5.5 seconds. That is right for workers that end by
    themselves, as they do when they cannot load the application: the next one could not either.
    """

    def _respawn_workers(
        self,
        workers: Sequence[int],
        spawn_target: Callable[..., None],
        target_loader: Callable[..., Any],
        delay: float = 0,
    ) -> None:
        # Minus the number of the signal that killed it.
        killed = [index for index in workers if (self.wrks[index].inner.exitcode or 0) < 0]
        super()._respawn_workers(workers, spawn_target, target_loader, delay)
        for index in killed:
            self.respawned_wrks.pop(index, None)


def is_no_advice_on_threads(record: logging.LogRecord) -> bool:
    """Return False for granian's warning of more threads than processors can run.

    It is about threads that compute. Those here are many because requests wait in them for a refresh;
    the others take a millisecond. `backpressure`, which it recommends, is set.
    """
    return "Python threads, which seems quite high" not in record.getMessage()


def load_application() -> WSGIApplication:
    """Return the WSGI application, in a worker that ends when the server does."""
    server = multiprocessing.parent_process()
    assert server
    signals, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=end_with, args=(server.pid, signals), daemon=True).start()
    application: WSGIApplication = import_string(APPLICATION)
    return application


def end_with(server: int, signals: int) -> None:
    """Wait until the server process is gone, then stop this worker: no other could have the port.

    `signals` is the reading end of Python's wakeup descriptor. The kernel may hand a signal to any
    thread, and then the main one, which waits for granian's shutdown, sleeps on with the signal noted
    but not handled: a worker told to stop would be killed half a minute later. So it is sent once more,
    to the main thread.

    A server that was killed (SIGKILL, out of memory) cannot tell its workers to stop. Not the kernel's
    PR_SET_PDEATHSIG: Linux alone has it, and this needs no second way for other systems.
    """
    is_sent_on = False
    while os.getppid() == server:
        ready, _, _ = select.select([signals], [], [], PARENT_CHECK_SECONDS)
        if ready:
            [number, *_] = os.read(signals, 64)
            if not is_sent_on:
                signal.pthread_kill(threading.main_thread().ident or 0, number)
                is_sent_on = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def end_when_told() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def connection_limit() -> int:
    """Return how many connections a process may have.

    granian's accept loop spins, and fills a processor, when there is no file left for a connection.
    So each process has fewer connections than files. granian has raised the soft limit to the hard
    one when it was imported.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return CONNECTIONS
    if files < LEAST_FILES:
        raise CommandError(f"the limit of open files is {files}: must be at least {LEAST_FILES}")
    return min(CONNECTIONS, files - OTHER_FILES)


@contextmanager
def metrics_folder() -> Iterator[str]:
    """Make a folder for what the workers count, which ends with the server."""
    place = Path(IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else tempfile.gettempdir())
    remove_abandoned_folders(place)
    try:
        folder = tempfile.TemporaryDirectory(prefix=METRICS_PREFIX, dir=place)
    except OSError as error:
        raise CommandError(f"no folder for the metrics can be made: {error}") from error
    with folder as name, (Path(name) / "new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The name that others look for comes after the lock, so they never find it unlocked.
        os.rename(lock.name, Path(name) / LOCK)
        yield name


def remove_abandoned_folders(place: Path) -> None:
    """Remove the metrics folders of servers that were killed.

    A lock ends with the last process that has it: the server, or a worker that survives it.
    """
    for path in place.glob(f"{METRICS_PREFIX}*/{LOCK}"):
        try:
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:  # locked, another user's, or just removed
            continue
