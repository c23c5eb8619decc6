import os
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from totoro.observability.metrics_folder import metrics_folder
from totoro.serving import server


class Command(BaseCommand):
    help = "Serve Totoro with granian on PORT, in WEB_CONCURRENCY processes."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        check_port()
        with metrics_folder() as folder:
            # prometheus_client reads it when it is imported.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            server.serve()


def check_port() -> None:
    """Stop if the port is in use: granian would share it, and get half of the requests."""
    try:
        socket.create_server((server.ADDRESS, settings.PORT)).close()
    except OSError as error:
        raise CommandError(f"PORT = {settings.PORT}: {error.strerror}") from error
