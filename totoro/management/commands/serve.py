import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

ADDRESS = "0.0.0.0"  # noqa: S104 (a service for others)
# Threads cost memory only while they wait, and a request waits only for the first flight after an
# idle minute.
BLOCKING_THREADS = 64


class Command(BaseCommand):
    help = "Serve Totoro with granian on PORT, in WEB_CONCURRENCY processes."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        # granian would share the port with whoever has it, and each would get half of the requests.
        try:
            socket.create_server((ADDRESS, settings.PORT)).close()
        except OSError as error:
            raise CommandError(f"PORT = {settings.PORT}: {error.strerror}") from error
        server = Granian(
            "totoro.wsgi:application",
            address=ADDRESS,
            port=settings.PORT,
            interface=Interfaces.WSGI,
            workers=settings.WEB_CONCURRENCY,
            blocking_threads=BLOCKING_THREADS,
            respawn_failed_workers=True,
            workers_kill_timeout=30,
            websockets=False,
            log_level=LogLevels(settings.LOG_LEVEL.lower()),
            # Nothing but that level: the settings have set up logging, for granian's lines too.
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
        )
        server.serve()
