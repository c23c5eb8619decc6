"""Misbehaving clients at the socket of the real server."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.support.processes import proc
from tests.support.scripted_upstream import FILMS, Gate, ScriptedUpstream, then
from tests.support.servers import Totoro, wait_until
from totoro.settings import Base

MIB = 1024 * 1024


def connect(server: Totoro) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def request(target: str, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"GET {target} HTTP/{version}", "Host: localhost", *headers, "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode()


def exchange(connection: socket.socket, sent: bytes) -> tuple[HTTPResponse, bytes]:
    connection.sendall(sent)
    response = HTTPResponse(connection)
    response.begin()
    return response, response.read()


def send(server: Totoro, sent: bytes) -> tuple[HTTPResponse, bytes]:
    with connect(server) as connection:
        return exchange(connection, sent)


# Large requests


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("search=" + "x" * 9_000, 414),
        ("a=1&" * 10_000, 414),
        ("a&" * 2_000, 400),
    ],
    ids=["9 KB", "10,000 parameters", "2,000 parameters"],
)
def test_a_query_that_is_too_long_gets_a_problem_response(
    query: str, status: int, server: Totoro
) -> None:
    response, body = send(server, request(f"/movies/?{query}"))

    assert response.status == status
    assert response.getheader("Content-Type") == "application/problem+json"
    assert json.loads(body)["status"] == status


def test_a_query_that_granian_rejects_is_not_a_server_error(server: Totoro) -> None:
    response, _ = send(server, request("/movies/?" + "a=1&" * 20_000))

    assert response.status == 414


def test_hundreds_of_unknown_parameters_are_ignored(server: Totoro) -> None:
    response, body = send(server, request("/movies/?" + "a&" * 900))

    assert response.status == 200
    assert len(json.loads(body)["api_data"]) == 22


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of a process in bytes."""
    status = (proc(pid) / "status").read_text()
    [peak] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) * 1024


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_request_body_of_100_mb_is_not_buffered(server: Totoro, chunked: bool) -> None:
    [worker] = server.workers
    send(server, request("/movies/"))
    before = peak_memory(worker)
    head = request(
        "/movies/", "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000000"
    )
    piece = b" " * 1_000_000
    if chunked:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)

    with connect(server) as connection:
        response, body = exchange(connection, head)
        with suppress(ConnectionError, TimeoutError):  # the server need not read the body
            connection.settimeout(5)
            for _ in range(100):
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n" if chunked else b"")

    assert response.status == 200
    assert len(json.loads(body)["api_data"]) == 22
    assert peak_memory(worker) - before < 16 * MIB


# HTTP/1.0 and forwarding headers


def test_an_http_1_0_response_has_a_length_and_closes_the_connection(server: Totoro) -> None:
    with connect(server) as connection:
        response, body = exchange(connection, request("/movies/", version="1.0"))
        assert connection.recv(1) == b""

    assert response.status == 200
    assert response.getheader("Transfer-Encoding") is None
    assert int(response.getheader("Content-Length") or 0) == len(body)
    assert len(json.loads(body)["api_data"]) == 22


def test_a_request_with_two_hosts_is_a_bad_request(server: Totoro) -> None:
    response, _ = send(server, request("/movies/", "Host: localhost"))

    assert response.status == 400


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Server: evil.example",
        "X-Host: evil.example",
        "Forwarded: host=evil.example;proto=https",
        "X-Original-URL: /redoc/",
        "X-Rewrite-URL: /redoc/",
        "X-HTTP-Method-Override: DELETE",
    ],
)
def test_ignores_forwarding_headers_of_untrusted_clients(header: str, server: Totoro) -> None:
    response, body = send(server, request("/movies/?limit=1&offset=1", header))

    assert response.status == 200
    assert json.loads(body)["pagination"]["next"].startswith("http://localhost/movies/?")
    assert "evil" not in f"{response.msg}{body.decode()}"


# Clients that disconnect


def test_a_refresh_continues_and_threads_become_free_when_waiting_clients_disconnect(
    tmp_path: Path,
) -> None:
    gate = Gate()
    with ScriptedUpstream(films=then(gate, FILMS)) as upstream:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url)
        with ExitStack() as impatient:
            # One per thread.
            for _ in range(Base.REQUEST_THREADS):
                impatient.enter_context(connect(server)).sendall(request("/movies/"))
            assert gate.reached.wait(10)
        gate.opened.set()
        wait_until(lambda: bool(server.events("refresh_succeeded")), what="the refresh completes")

        with ThreadPoolExecutor(Base.REQUEST_THREADS) as pool:
            sent = [request("/movies/")] * Base.REQUEST_THREADS
            started = time.monotonic()
            responses = list(pool.map(partial(send, server), sent))
        assert {response.status for response, _ in responses} == {200}
        assert len({body for _, body in responses}) == 1
        assert time.monotonic() - started < 5
        assert (upstream.count("films"), upstream.count("people")) == (1, 1)
        assert not server.events("refresh_failed")
        server.terminate()


def test_clients_that_disconnect_during_a_response_do_no_harm(server: Totoro) -> None:
    for _ in range(20):
        with connect(server) as connection:
            connection.sendall(request("/movies/"))
            connection.recv(100)

    assert send(server, request("/movies/"))[0].status == 200


def test_clients_that_send_half_a_request_do_not_block_others(server: Totoro) -> None:
    with ExitStack() as slow:
        for _ in range(2 * Base.REQUEST_THREADS):
            slow.enter_context(connect(server)).sendall(b"GET /movies/ HTTP/1.1\r\nHost: loc")
        started = time.monotonic()

        assert send(server, request("/movies/"))[0].status == 200
        assert time.monotonic() - started < 2
