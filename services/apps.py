from django.apps import AppConfig
from django.core.cache import close_caches
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries


class ServicesConfig(AppConfig):
    name = "services"

    def ready(self) -> None:
        """Spare each request what Django does before and after it for the database and caches.

        Requests use the database only in threads that close their connections themselves
        (persistence.py), and connections to Redis go back to their pool.
        """
        request_started.disconnect(reset_queries)
        request_started.disconnect(close_old_connections)
        request_finished.disconnect(close_old_connections)
        request_finished.disconnect(close_caches)
