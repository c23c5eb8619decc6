"""What can happen to the server's processes and connections, at the real server."""

import json
import socket

import pytest

from tests.servers import Totoro


def reply(server: Totoro, sends: bytes, *, half_closes: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sends)
        if half_closes:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


# Methods


@pytest.mark.parametrize("method", ["get", "Get", "head", "options"])
@pytest.mark.parametrize(
    "path", ["/", "/redoc/", "/swagger.json", "/movies/", "/problems/", "/livez", "/metrics"]
)
def test_a_method_in_lower_case_is_another_method(server: Totoro, path: str, method: str) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    head, _, body = reply(server, request.encode()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: GET, HEAD, OPTIONS" in head
    assert b"\r\ncontent-type: application/problem+json" in head
    assert json.loads(body)["detail"] == f'Method "{method.upper()} (CASE-SENSITIVE)" not allowed.'
