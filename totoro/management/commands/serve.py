from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from granian import Granian
from granian.constants import Interfaces

from totoro.logs import logging_config

# Threads cost memory only while they wait, and a request waits only for the first flight after an
# idle minute.
BLOCKING_THREADS = 64


class Command(BaseCommand):
    help = "Serve Totoro with granian on PORT, in WEB_CONCURRENCY processes."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        server = Granian(
            "totoro.wsgi:application",
            address="0.0.0.0",  # noqa: S104 (a service for others)
            port=settings.PORT,
            interface=Interfaces.WSGI,
            workers=settings.WEB_CONCURRENCY,
            blocking_threads=BLOCKING_THREADS,
            respawn_failed_workers=True,
            workers_kill_timeout=30,
            websockets=False,
            log_dictconfig=logging_config(settings.LOG_LEVEL, pretty=settings.LOGS_PRETTY),
        )
        server.serve()
