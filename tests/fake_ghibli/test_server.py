import gzip
import socket
import threading
from http.client import RemoteDisconnected
from typing import Any

import pytest

from fake_ghibli import FakeGhibli
from tests.fake_ghibli.client import TOTORO, address, connect, receive, send, send_raw
from tests.support.servers import wait_until


def test_http_1_0_gets_no_chunks(upstream: FakeGhibli) -> None:
    received = send_raw(upstream, b"GET /films HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert gzip.decompress(body) == send(upstream, "/films").body


def test_a_connection_serves_many_requests(upstream: FakeGhibli) -> None:
    connection = connect(upstream.url)
    connection.connect()
    first_socket = connection.sock
    for method, body in (("GET", None), ("POST", b"{}"), ("HEAD", None), ("GET", None)):
        connection.request(method, "/films", body)
        assert receive(connection).status in (200, 201)
        assert connection.sock is first_socket
    connection.close()


def test_closes_an_idle_connection() -> None:
    with FakeGhibli(idle=0.05) as upstream:
        connection = connect(upstream.url)
        connection.request("GET", "/nope")
        assert receive(connection).headers["Keep-Alive"] == "timeout=0.05"
        assert connection.sock.recv(1) == b""
        connection.close()


def test_closes_the_connection_if_the_client_asks_for_it(upstream: FakeGhibli) -> None:
    received = send_raw(upstream, b"GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in received
    assert b"Keep-Alive" not in received


@pytest.mark.parametrize(
    "sent",
    [
        b"BREW /films HTTP/1.1\r\nHost: a\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /films HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /films HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_anything_but_http_is_a_short_400(upstream: FakeGhibli, sent: bytes) -> None:
    assert send_raw(upstream, sent) == b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


def test_changed_data_is_in_the_next_response() -> None:
    films: list[dict[str, Any]] = [{"id": "1", "title": "Ponyo"}]
    with FakeGhibli(data={"films": films}) as upstream:
        before = send(upstream, "/films").headers["ETag"]
        films.append({"id": "2", "title": "Arrietty"})
        after = send(upstream, "/films")
        assert len(after.json) == 2
        assert after.headers["ETag"] != before


def test_records_requests(upstream: FakeGhibli) -> None:
    send(upstream, "/films?limit=1", headers={"X-Any": "thing"})
    send(upstream, "//films", "HEAD")
    first, second = upstream.requests
    assert (first.method, first.path, first.headers["x-any"]) == ("GET", "/films?limit=1", "thing")
    assert (second.method, second.path) == ("HEAD", "//films")


def test_counts_requests_for_each_collection(upstream: FakeGhibli) -> None:
    for path in ("/films", "/FILMS/", f"/films/{TOTORO}", "/people", "/nope"):
        send(upstream, path)
    assert [upstream.count(name) for name in ("films", "people", "nope")] == [3, 1, 0]


@pytest.mark.parametrize("fault", ["hang", "delay"])
def test_stopping_closes_connections_that_wait(fault: str) -> None:
    with FakeGhibli() as upstream:
        setattr(upstream.faults, fault, 60)
        connection = connect(upstream.url)
        connection.request("GET", "/films")
        wait_until(lambda: upstream.count("films") == 1)
    with pytest.raises((RemoteDisconnected, ConnectionError)):
        connection.getresponse()
    connection.close()


def test_stopping_closes_idle_connections_and_the_port() -> None:
    with FakeGhibli() as upstream:
        connection = connect(upstream.url)
        connection.request("GET", "/films")
        receive(connection)
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        send(upstream, "/films")


def test_another_server_can_reuse_the_port(upstream: FakeGhibli) -> None:
    with FakeGhibli() as first:
        send(first, "/films")
    with FakeGhibli(port=address(first)[1]) as second:
        assert send(second, "/films").status == 200


def test_prints_nothing_if_a_client_resets_its_connection(
    upstream: FakeGhibli, capfd: pytest.CaptureFixture[str]
) -> None:
    upstream.faults.delay = 0.05
    for _ in range(5):
        with socket.create_connection(address(upstream)) as connection:
            connection.sendall(b"GET /films HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: not lingering())
    assert capfd.readouterr().err == ""


def lingering() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if "process_request_thread" in one.name]
