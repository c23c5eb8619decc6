"""Connections to Redis that no resolver holds up: a look-up counts towards the time for connecting."""

import time
from typing import Any

from redis.connection import Connection, ConnectionPool, SSLConnection

from services.background import Resolver

# Where the settings name no time-out.
CONNECT_SECONDS = 0.1
# For an address when the look-up, or the address before it, has used up the time.
LEAST_SECONDS = 0.01

resolver = Resolver()


class BoundedConnection(Connection):
    def _connect(self) -> Any:
        host, seconds = self.host, self.socket_connect_timeout or CONNECT_SECONDS
        end = time.monotonic() + seconds
        failed: OSError | None = None
        try:
            for address in resolver.addresses(host, int(self.port), seconds):
                self.host = address
                self.socket_connect_timeout = max(end - time.monotonic(), LEAST_SECONDS)
                try:
                    return super()._connect()  # type: ignore[no-untyped-call]
                except OSError as error:
                    failed = error
        finally:
            # The name again, for the next time and for TLS.
            self.host, self.socket_connect_timeout = host, seconds
        raise failed or OSError("the name has no address")


class BoundedTLSConnection(SSLConnection, BoundedConnection):
    pass


class BoundedConnectionPool(ConnectionPool):
    """For django-redis' CONNECTION_POOL_CLASS: a URL's scheme chooses among redis-py's own classes."""

    CLASSES = {Connection: BoundedConnection, SSLConnection: BoundedTLSConnection}

    def __init__(self, connection_class: type[Any] = Connection, **options: Any) -> None:
        bounded = self.CLASSES.get(connection_class, connection_class)
        super().__init__(connection_class=bounded, **options)
