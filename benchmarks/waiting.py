"""Requests that wait in a server while it is measured."""

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

from benchmarks.load import BenchmarkError
from benchmarks.server import Server
from tests.support.servers import wait_until

# As many as may wait for a refresh in one process.
WAITING = 128
WAITING_SETTINGS = {"DJANGO_SETTINGS_MODULE": "benchmarks.waiting_settings"}


@contextmanager
def waiting_requests(server: Server) -> Iterator[None]:
    """Let requests wait in a server with `WAITING_SETTINGS`; BenchmarkError if some did not."""
    with ExitStack() as stack:
        requests = [stack.enter_context(closing(waiting_request(server))) for _ in range(WAITING)]
        wait_until(lambda: number_waiting(server) == WAITING, what="all requests wait")
        try:
            yield
            number = number_waiting(server)
        finally:
            server.get("/continue")
        statuses = {request.getresponse().status for request in requests}
    if number != WAITING or statuses != {HTTPStatus.NO_CONTENT}:
        raise BenchmarkError(f"only {number} requests have waited; their statuses: {statuses}")


def waiting_request(server: Server) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("GET", "/wait")
    return connection


def number_waiting(server: Server) -> int:
    return int(server.get("/waiting").body)
