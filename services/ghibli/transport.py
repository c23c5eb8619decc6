"""HTTP requests to the Ghibli API, with time limits and over connections that can be cancelled.

requests' adapter works without its Session here: a Session would add cookies, redirects, and the
environment's proxies, passwords and certificate bundles.
"""

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from services.background import Resolver
from services.exceptions import Reason, UpstreamError

# Resolvers repeat a query after 5 s: one that has not answered by then has a problem.
RESOLVE_SECONDS = 5.0
# For each address of the host. Connecting takes less than a second, even across an ocean.
CONNECT_SECONDS = 2.0
# Between two reads. Free hosting takes seconds to wake up.
READ_SECONDS = 5.0

HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "totoro"}

# Shared by all transports, so that a look-up that hangs occupies one thread.
resolver = Resolver("ghibli")

# Its warnings would log whatever an upstream sends in place of headers.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class Transport(HTTPAdapter):
    """Sends GET requests over pooled keep-alive connections, until it is cancelled."""

    def __init__(self) -> None:
        super().__init__(pool_connections=1, pool_maxsize=2, max_retries=0)
        self._lock = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._cancelled = False

    def get(self, url: str, *, etag: str | None = None) -> requests.Response:
        """Return the response with its body unread."""
        headers = HEADERS | ({"If-None-Match": etag} if etag else {})
        request = requests.Request("GET", url, headers=headers).prepare()
        return self.send(request, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))

    def cancel(self) -> None:
        """Break all connections, which wakes up threads that read from them; allow no new ones."""
        with self._lock:
            self._cancelled = True
            for sock in self._sockets:
                with suppress(OSError):  # closed already
                    # SSLSocket's own method also drops state that the reading thread needs.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        # Explicitly: HTTPAdapter.close() leaves idle connections to the garbage collector.
        for key in self.poolmanager.pools.keys():  # noqa: SIM118 (not iterable)
            self.poolmanager.pools[key].close()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = TLSConnection if pool.scheme == "https" else Connection
        pool.conn_kw["on_connect"] = self._register
        return pool

    def _register(self, sock: socket.socket) -> None:
        with self._lock:
            if self._cancelled:
                raise UpstreamError(Reason.DEADLINE, "the request was cancelled")
            self._sockets.add(sock)


class FinalResponse(HTTPResponse):
    """Skips all responses that come before the final one (RFC 9110, section 15.2).

    http.client itself skips 100 only, and would take 103 (Early Hints) for the response.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # private
        is_interim = HTTPStatus.PROCESSING <= status < HTTPStatus.OK
        return version, HTTPStatus.CONTINUE if is_interim else status, reason


class Connection(HTTPConnection):
    """Reports its socket to `on_connect`, and limits the time of the DNS look-up."""

    response_class = FinalResponse

    def __init__(
        self, *args: Any, on_connect: Callable[[socket.socket], None], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._on_connect = on_connect

    def connect(self) -> None:
        super().connect()
        self._on_connect(self.sock)

    def _new_conn(self) -> socket.socket:
        failure: OSError | None = None
        for address in self._addresses():
            try:
                return socket.create_connection((address, self.port), self.timeout)
            except OSError as error:
                failure = error
        reason = Reason.CONNECT_TIMEOUT if isinstance(failure, TimeoutError) else Reason.REFUSED
        raise UpstreamError(reason, "cannot connect", retriable=True) from failure

    def _addresses(self) -> list[str]:
        try:
            return resolver.addresses(self.host, self.port, RESOLVE_SECONDS)
        except TimeoutError as error:
            raise UpstreamError(Reason.DNS, "the DNS look-up timed out") from error
        except (OSError, UnicodeError) as error:
            raise UpstreamError(Reason.DNS, "the DNS look-up failed", retriable=True) from error


class TLSConnection(Connection, HTTPSConnection):
    pass
