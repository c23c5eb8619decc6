"""Which hosts Totoro accepts, and how it rejects the others."""

import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Totoro
from totoro.middleware import MAX_HOST_LENGTH, MAX_HOSTS


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Totoro]:
    """A new server with an empty log."""
    server = Totoro(tmp_path, ALLOWED_HOSTS="movies.example,127.0.0.1")
    yield server
    server.terminate()


def rejected(server: Totoro) -> list[dict[str, Any]]:
    return server.events("host_not_allowed")


def test_the_error_for_a_host_names_allowed_hosts(fresh: Totoro) -> None:
    response = fresh.get("/movies/", headers={"Host": "evil.example"})

    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    problem = response.json()
    assert problem["type"] == "/problems/host-not-allowed/"
    assert "not allowed" in problem["detail"]
    assert "ALLOWED_HOSTS" in problem["detail"]
    assert "evil" not in response.text
    explanation = fresh.get(problem["type"]).json()
    assert "ALLOWED_HOSTS" in explanation["description"]
    assert "ALLOWED_HOSTS" in explanation["solution"]


def test_logs_each_rejected_host_once(fresh: Totoro) -> None:
    for _ in range(3):
        for host in ("a.example", "A.example:8080", "b.example", "[::2]"):
            for path in ("/movies/", "/", "/none/", "/problems/"):
                assert fresh.get(path, headers={"Host": host}).status_code == 400
        assert fresh.get("/problems/", headers={"Host": "movies.example:81"}).ok

    assert [event["host"] for event in rejected(fresh)] == ["a.example", "b.example", "[::2]"]
    assert {event["level"] for event in rejected(fresh)} == {"warning"}


def test_clients_cannot_fill_the_log_with_hosts(fresh: Totoro) -> None:
    for number in range(MAX_HOSTS + 20):
        host = f"{number}.{'x' * 7000}.example"
        assert fresh.get("/problems/", headers={"Host": host}).status_code == 400

    assert len(rejected(fresh)) == MAX_HOSTS
    assert max(len(event["host"]) for event in rejected(fresh)) == MAX_HOST_LENGTH


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_may_use_any_host(fresh: Totoro, path: str) -> None:
    assert fresh.get(path, headers={"Host": "10.0.0.9:8000"}).status_code in (200, 503)
    assert rejected(fresh) == []


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: a.example\r\nHost: movies.example",
        b"Host: movies.example, a.example",
        b"Host: movies.example@a.example",
        b"Host: movies.example:port",
        b"Host: a_b.example/",
    ],
)
def test_a_malformed_host_is_a_bad_request(fresh: Totoro, lines: bytes) -> None:
    with socket.create_connection(("127.0.0.1", fresh.port), timeout=10) as connection:
        connection.sendall(b"GET /problems/ HTTP/1.1\r\n" + lines + b"\r\n\r\n")
        response = HTTPResponse(connection)
        response.begin()
        body = response.read()

    assert response.status == 400
    assert not body or b'"type":"/problems/bad-request/"' in body
    assert rejected(fresh) == []
