"""An HTTP client that changes nothing in requests and responses."""

import json
import socket
from http.client import HTTPConnection, HTTPMessage
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fake_ghibli import FakeGhibli

TOTORO = "58611129-2dbc-4a81-a72f-77ddfc1b1b49"
HAKU = "267649ac-fb1b-11eb-9a03-0242ac130003"
ETAG_OF_EMPTY_OBJECT = 'W/"2-vyGp6PvFo4RvsFtPoIWeCReyIC8"'
# Seconds until a test that waits for something fails.
TIMEOUT = 5


class Response(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)


def receive(connection: HTTPConnection) -> Response:
    response = connection.getresponse()
    return Response(response.status, response.headers, response.read())


def send(
    upstream: FakeGhibli,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Response:
    connection = connect(upstream.url)
    try:
        connection.request(method, path, body, headers or {})
        return receive(connection)
    finally:
        connection.close()


def send_raw(upstream: FakeGhibli, sent: bytes) -> bytes:
    """Return all that the server sends until it closes the connection."""
    with socket.create_connection(address(upstream), timeout=TIMEOUT) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as received:
            return received.read()


def address(upstream: FakeGhibli) -> tuple[str, int]:
    parts = urlsplit(upstream.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port
