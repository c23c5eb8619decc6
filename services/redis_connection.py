"""Connections to Redis that no resolver holds up: a look-up counts towards the time for connecting."""

import time
from typing import Any

from redis.connection import Connection, ConnectionPool, SSLConnection

from services.background import Resolver

# Where the settings name no time-out.
CONNECT_SECONDS = 0.1

resolver = Resolver()


class BoundedConnection(Connection):
    def _connect(self) -> Any:
        host, seconds = self.host, self.socket_connect_timeout or CONNECT_SECONDS
        started = time.monotonic()
        try:
            [self.host, *_] = resolver.addresses(host, int(self.port), seconds)
            self.socket_connect_timeout = max(seconds - (time.monotonic() - started), 0.01)
            return super()._connect()  # type: ignore[no-untyped-call]
        finally:
            # The name again, for the next time and for TLS.
            self.host, self.socket_connect_timeout = host, seconds


class BoundedTLSConnection(SSLConnection, BoundedConnection):
    pass


class BoundedConnectionPool(ConnectionPool):
    """For django-redis' CONNECTION_POOL_CLASS: a URL's scheme chooses among redis-py's own classes."""

    CLASSES = {Connection: BoundedConnection, SSLConnection: BoundedTLSConnection}

    def __init__(self, connection_class: type[Any] = Connection, **options: Any) -> None:
        bounded = self.CLASSES.get(connection_class, connection_class)
        super().__init__(connection_class=bounded, **options)
