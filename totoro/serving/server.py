"""Granian, set up to limit connections, and to replace killed workers."""

import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import resource_tracker
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import CommandError
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import MPServer

from totoro.serving.preload import preload
from totoro.serving.worker import (
    SERVER_SIGNALS,
    STOP_TIMEOUT_SECONDS,
    load_application,
    reset_signal_handlers,
)
from totoro.settings import VERSION

log = structlog.get_logger(__name__)

ADDRESS = "0.0.0.0"  # noqa: S104 (a service for others)
APPLICATION = "totoro.wsgi"  # a name for granian's log

# For receiving a request's headers, and for an idle connection between two requests: hyper, granian's
# HTTP library, has one timer for both. A worker that stalls for longer resets connections without
# reading the requests that arrived meanwhile, so it outlasts a stall of 10 seconds. It also delays the
# stop of a worker that has received half a request; docker-compose.yml allows 35 seconds.
HEADER_TIMEOUT_SECONDS = 12
# Of one request, URL included. Longer than any URL for which Totoro itself responds with 414.
MAX_HEADERS_BYTES = 128 * 1024
# Per process, idle ones included. Further connections wait in the kernel.
MAX_CONNECTIONS = 4096
# Connections that wait in the kernel, which has a limit of its own (net.core.somaxconn).
BACKLOG = 4096
# For the upstream, the database, metrics and code.
OTHER_FILES = 128
MIN_FILES = 1024
STOP_CHECK_SECONDS = 0.1


def serve() -> None:
    """Serve until SIGTERM or SIGINT."""
    # Until a worker has loaded the application it has only the server's handlers and mask.
    os.register_at_fork(after_in_child=reset_signal_handlers)
    server = RespawningServer(
        APPLICATION,
        address=ADDRESS,
        port=settings.PORT,
        interface=Interfaces.WSGI,
        # Not "auto", which has no timeout while it waits for the first bytes to tell HTTP/2 from HTTP/1.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_TIMEOUT_SECONDS * 1000, max_buffer_size=MAX_HEADERS_BYTES
        ),
        workers=settings.WEB_CONCURRENCY,
        # RequestThreads has others.
        blocking_threads=1,
        backlog=BACKLOG,
        backpressure=connection_limit(),
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT_SECONDS,
        websockets=False,
        # What else it logs, the events below say.
        log_level=(
            LogLevels.error if settings.LOG_LEVEL in ("ERROR", "CRITICAL") else LogLevels.warning
        ),
        # Changes that level only: the settings have set up logging for granian too.
        log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
    )
    if multiprocessing.get_start_method() == "fork":  # the default on Linux until Python 3.13
        server.on_startup(preload)
    server.on_startup(log_start)
    server.serve(target_loader=load_application, wrap_loader=False)


def log_start() -> None:
    log.info(
        "server_started",
        version=VERSION,
        configuration=settings.CONFIGURATION,
        workers=settings.WEB_CONCURRENCY,
        port=settings.PORT,
    )


class RespawningServer(MPServer):
    """Granian, but logging events, and replacing killed workers however often they are killed.

    Granian gives up when a worker dies twice within 5.5 seconds. That is right only for workers that
    exit by themselves because they cannot load the application.
    """

    def startup(self, *arguments: Any) -> None:
        if multiprocessing.get_start_method() != "fork":
            # Now, because it unblocks signals in the thread that starts it.
            resource_tracker.ensure_running()
        # For all threads, and workers until they load the application.
        signal.pthread_sigmask(signal.SIG_BLOCK, SERVER_SIGNALS)
        super().startup(*arguments)  # type: ignore[no-untyped-call]
        threading.Thread(target=self._handle_signals, daemon=True).start()

    def _handle_signals(self) -> None:
        """Wait for signals, and call granian's handlers.

        Python runs handlers in the main thread. Granian's would deadlock there if another signal
        interrupts them, and of two signals at once another thread may get both, so that the main
        thread sleeps on.
        """
        while True:
            if signal.sigwait(SERVER_SIGNALS) == signal.SIGHUP:
                self.signal_handler_reload()  # type: ignore[no-untyped-call]
            else:
                self.signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def _respawn_workers(self, workers: Sequence[int], *arguments: Any, **options: Any) -> None:
        # Imported now, because this process needs the metrics for nothing else.
        from totoro.observability.ended_workers import count_ended_worker

        processes = {index: self.wrks[index].inner for index in workers}
        for process in processes.values():
            log.warning("worker_exited", worker_pid=process.pid, exit_code=process.exitcode)
            if process.exitcode is not None:  # else it is replaced on SIGHUP
                count_ended_worker(process.pid)
        # The exit code of a killed process is minus the number of the signal.
        killed = [index for index, process in processes.items() if (process.exitcode or 0) < 0]
        super()._respawn_workers(workers, *arguments, **options)
        for index in killed:
            self.respawned_wrks.pop(index, None)

    def _stop_workers(self) -> None:
        """Wait for the workers, and leave those to granian that did not stop in time.

        Granian's own wait may end before the thread that watches a worker has noted the worker's end. Then
        it logs that the worker refused to stop.
        """
        workers: list[Any] = self.wrks
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for worker in workers:
            worker.terminate()
        for worker in workers:
            while worker.is_alive() and time.monotonic() < deadline:
                worker.join(STOP_CHECK_SECONDS)
        super()._stop_workers()  # type: ignore[no-untyped-call]

    def shutdown(self, exit_code: int = 0) -> None:
        log.info("server_stopping")
        try:
            super().shutdown(exit_code)  # type: ignore[no-untyped-call]
        except SystemExit:
            # After a stop signal it is no error that workers, which may get it too, have ended first.
            if exit_code or not self.interrupt_signal:
                raise
        finally:
            log.info("server_stopped")


def connection_limit() -> int:
    """Return how many connections a process may have: fewer than files.

    Without a free file, granian's accept loop spins. Importing granian raises the soft limit of files
    to the hard one.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    if files < MIN_FILES:
        raise CommandError(f"the limit of open files is {files}: must be at least {MIN_FILES}")
    redis_connections: int = 2 * settings.REQUEST_THREADS  # there are two pools
    return min(MAX_CONNECTIONS, files - redis_connections - OTHER_FILES)
