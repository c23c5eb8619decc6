import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

ADDRESS = "0.0.0.0"  # noqa: S104 (a service for others)
# In memory where there is such a place: the workers write there with every answer, and a container
# may have no other that it can write to.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder in it is new and private)


class Command(BaseCommand):
    help = "Serve Totoro with granian on PORT, in WEB_CONCURRENCY processes."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        # granian would share the port with whoever has it, and each would get half of the requests.
        try:
            socket.create_server((ADDRESS, settings.PORT)).close()
        except OSError as error:
            raise CommandError(f"PORT = {settings.PORT}: {error.strerror}") from error
        with metrics_folder() as folder:
            # prometheus_client reads it when it is imported, which only the workers do.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            # A worker inherits granian's own handlers, which do nothing in it: one told to end while
            # it still starts would serve on until it is killed, half a minute later.
            os.register_at_fork(after_in_child=end_when_told)
            self._serve()

    def _serve(self) -> None:
        server = Granian(
            "totoro.wsgi:application",
            address=ADDRESS,
            port=settings.PORT,
            interface=Interfaces.WSGI,
            workers=settings.WEB_CONCURRENCY,
            blocking_threads=settings.REQUEST_THREADS,
            respawn_failed_workers=True,
            workers_kill_timeout=30,
            websockets=False,
            log_level=LogLevels(settings.LOG_LEVEL.lower()),
            # Nothing but that level: the settings have set up logging, for granian's lines too.
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
        )
        server.serve()


def end_when_told() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def metrics_folder() -> "tempfile.TemporaryDirectory[str]":
    """A new folder for what the workers count, which ends with the server."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    try:
        return tempfile.TemporaryDirectory(prefix="totoro-metrics-", dir=place)
    except OSError as error:
        raise CommandError(f"no folder for the metrics can be made: {error}") from error
