"""Clients that do not behave, at the real server's socket.

What they may ask for that is not there is in tests/totoro/test_errors.py.
"""

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


def answer_to(connection: socket.socket, sent: bytes) -> tuple[HTTPResponse, bytes]:
    connection.sendall(sent)
    response = HTTPResponse(connection)
    response.begin()
    return response, response.read()


def ask(server: Totoro, sent: bytes) -> tuple[HTTPResponse, bytes]:
    with connect(server) as connection:
        return answer_to(connection, sent)


# Requests that are too much


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("search=" + "x" * 9_000, 414),
        ("a=1&" * 10_000, 414),
        ("a&" * 2_000, 400),
    ],
    ids=["9 KB", "10,000 parameters", "2,000 parameters"],
)
def test_a_query_that_is_too_much_is_a_problem(query: str, status: int, server: Totoro) -> None:
    response, body = ask(server, request(f"/movies/?{query}"))

    assert response.status == status
    assert response.getheader("Content-Type") == "application/problem+json"
    assert json.loads(body)["status"] == status


def test_a_query_that_the_server_itself_does_not_take_is_no_500_either(server: Totoro) -> None:
    response, _ = ask(server, request("/movies/?" + "a=1&" * 20_000))

    assert response.status == 414


def test_hundreds_of_unknown_parameters_are_ignored(server: Totoro) -> None:
    response, body = ask(server, request("/movies/?" + "a&" * 900))

    assert response.status == 200
    assert len(json.loads(body)["api_data"]) == 22


def resident(pid: int) -> int:
    """Bytes of memory that a process has ever held at once."""
    status = (proc(pid) / "status").read_text()
    [peak] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) * 1024


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_body_of_100_mb_is_not_kept_in_memory(server: Totoro, chunked: bool) -> None:
    [worker] = server.workers
    ask(server, request("/movies/"))
    before = resident(worker)
    head = request(
        "/movies/", "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000000"
    )
    piece = b" " * 1_000_000
    if chunked:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)

    with connect(server) as connection:
        response, body = answer_to(connection, head)
        with suppress(ConnectionError, TimeoutError):  # it need not be read at all
            connection.settimeout(5)
            for _ in range(100):
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n" if chunked else b"")

    assert response.status == 200
    assert len(json.loads(body)["api_data"]) == 22
    assert resident(worker) - before < 16 * MIB


# Old ones, and those behind a proxy


def test_http_1_0_is_answered_with_a_length_and_the_connection_closed(server: Totoro) -> None:
    with connect(server) as connection:
        response, body = answer_to(connection, request("/movies/", version="1.0"))
        assert connection.recv(1) == b""

    assert response.status == 200
    assert response.getheader("Transfer-Encoding") is None
    assert int(response.getheader("Content-Length") or 0) == len(body)
    assert len(json.loads(body)["api_data"]) == 22


def test_two_hosts_are_a_bad_request(server: Totoro) -> None:
    response, _ = ask(server, request("/movies/", "Host: localhost"))

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
def test_what_a_client_says_of_other_hosts_and_addresses_is_ignored(
    header: str, server: Totoro
) -> None:
    response, body = ask(server, request("/movies/?limit=1&offset=1", header))

    assert response.status == 200
    assert json.loads(body)["pagination"]["next"].startswith("http://localhost/movies/?")
    assert "evil" not in f"{response.msg}{body.decode()}"


# Clients that hang up


def test_clients_that_hang_up_while_they_wait_leave_the_flight_and_free_their_places(
    tmp_path: Path,
) -> None:
    gate = Gate()
    with ScriptedUpstream(films=then(gate, FILMS)) as upstream:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url)
        with ExitStack() as impatient:
            # As many as there are places.
            for _ in range(Base.REQUEST_THREADS):
                impatient.enter_context(connect(server)).sendall(request("/movies/"))
            assert gate.reached.wait(10)
        gate.opened.set()
        wait_until(lambda: bool(server.events("flight_landed")), what="the flight completes")

        with ThreadPoolExecutor(Base.REQUEST_THREADS) as others:
            sent = [request("/movies/")] * Base.REQUEST_THREADS
            started = time.monotonic()
            answers = list(others.map(partial(ask, server), sent))
        assert {response.status for response, _ in answers} == {200}
        assert len({body for _, body in answers}) == 1
        assert time.monotonic() - started < 5
        assert (upstream.count("films"), upstream.count("people")) == (1, 1)
        assert not server.events("flight_failed")
        server.terminate()


def test_clients_that_hang_up_amid_an_answer_do_no_harm(server: Totoro) -> None:
    for _ in range(20):
        with connect(server) as connection:
            connection.sendall(request("/movies/"))
            connection.recv(100)

    assert ask(server, request("/movies/"))[0].status == 200


def test_clients_that_send_half_a_request_do_not_keep_others_out(server: Totoro) -> None:
    with ExitStack() as slow:
        for _ in range(2 * Base.REQUEST_THREADS):
            slow.enter_context(connect(server)).sendall(b"GET /movies/ HTTP/1.1\r\nHost: loc")
        started = time.monotonic()

        assert ask(server, request("/movies/"))[0].status == 200
        assert time.monotonic() - started < 2
