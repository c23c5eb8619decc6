import base64
import gzip
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPMessage, RemoteDisconnected
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from fake_ghibli import FakeGhibli
from fake_ghibli.control import control
from tests.support.servers import ROOT

NOW = datetime(2026, 11, 23, 20, 40, 12, 341359, tzinfo=UTC)
TOTORO = "58611129-2dbc-4a81-a72f-77ddfc1b1b49"
HAKU = "267649ac-fb1b-11eb-9a03-0242ac130003"
ETAG_OF_NOTHING = 'W/"2-vyGp6PvFo4RvsFtPoIWeCReyIC8"'
JSON = {"Content-Type": "application/json"}
# Seconds until a test that waits for something gives up.
PATIENCE = 5


class Reply(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli(clock=lambda: NOW) as running:
        yield running


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)


def read_reply(connection: HTTPConnection) -> Reply:
    response = connection.getresponse()
    return Reply(response.status, response.headers, response.read())


def ask(
    upstream: FakeGhibli,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    connection = connect(upstream.url)
    try:
        connection.request(method, path, body, headers or {})
        return read_reply(connection)
    finally:
        connection.close()


def say(upstream: FakeGhibli, sent: bytes) -> bytes:
    """All that comes back for raw bytes until the fake Ghibli API closes the connection."""
    with socket.create_connection(address(upstream), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as received:
            return received.read()


def address(upstream: FakeGhibli) -> tuple[str, int]:
    parts = urlsplit(upstream.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def etag(body: bytes) -> str:
    return f'W/"{len(body):x}-{base64.b64encode(hashlib.sha1(body).digest()).decode()[:27]}"'


def test_it_gives_whole_collections(upstream: FakeGhibli) -> None:
    films, people = ask(upstream, "/films"), ask(upstream, "/people")
    assert (films.status, people.status) == (200, 200)
    assert (len(films.json), len(people.json)) == (22, 57)


def test_bodies_are_indented_and_unescaped_without_a_newline_at_the_end(
    upstream: FakeGhibli,
) -> None:
    body = ask(upstream, "/films").body.decode()
    assert body.startswith('[\n  {\n    "id": "')
    assert '"original_title": "天空の城ラピュタ"' in body
    assert body.endswith("\n  }\n]")


@pytest.mark.parametrize(
    "path", ["/films/", "/FILMS", "/Films/", "/films?foo=bar", "/films?fields="]
)
def test_these_paths_all_mean_films(upstream: FakeGhibli, path: str) -> None:
    plain, other = ask(upstream, "/films"), ask(upstream, path)
    assert (other.status, other.body) == (200, plain.body)
    assert other.headers["ETag"] == plain.headers["ETag"]


@pytest.mark.parametrize("path", [f"/films/{TOTORO}", f"/films/{TOTORO}/", f"/FILMS/{TOTORO}"])
def test_it_gives_one_object(upstream: FakeGhibli, path: str) -> None:
    reply = ask(upstream, path)
    assert reply.status == 200
    assert reply.json["title"] == "My Neighbor Totoro"


@pytest.mark.parametrize(
    "path",
    [
        "//films",
        "/nope",
        "/films/nope",
        "/films/00000000-0000-4000-8000-000000000000",
        "/films/%00",
        f"/films/{TOTORO.upper()}",
        f"/people/{TOTORO}",
        f"/films/{TOTORO}/nope",
    ],
)
def test_what_is_not_there_is_an_empty_object(upstream: FakeGhibli, path: str) -> None:
    reply = ask(upstream, path)
    assert (reply.status, reply.body) == (404, b"{}")
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert reply.headers["ETag"] == ETAG_OF_NOTHING


def test_what_is_not_there_has_nothing_to_revalidate(upstream: FakeGhibli) -> None:
    assert ask(upstream, "/nope", headers={"If-None-Match": ETAG_OF_NOTHING}).status == 404


def test_a_nested_path_gives_everything(upstream: FakeGhibli) -> None:
    assert len(ask(upstream, f"/films/{TOTORO}/people").json) == 57


def test_the_home_page_is_html(upstream: FakeGhibli) -> None:
    reply = ask(upstream, "/")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.headers["Cache-Control"] == "public, max-age=0"


def test_headers_of_json_are_those_of_express(upstream: FakeGhibli) -> None:
    reply = ask(upstream, "/films")
    assert dict(reply.headers) == {
        "X-Powered-By": "Express",
        "Vary": "Origin, Accept-Encoding",
        "Access-Control-Allow-Credentials": "true",
        "Cache-Control": "no-cache",
        "Pragma": "no-cache",
        "Expires": "-1",
        "X-Content-Type-Options": "nosniff",
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(reply.body)),
        "ETag": etag(reply.body),
        "Date": "Mon, 23 Nov 2026 20:40:12 GMT",
        "Connection": "keep-alive",
        "Keep-Alive": "timeout=5",
    }


def test_an_origin_is_echoed(upstream: FakeGhibli) -> None:
    reply = ask(upstream, "/films", headers={"Origin": "https://a.test"})
    assert reply.headers["Access-Control-Allow-Origin"] == "https://a.test"


@pytest.mark.parametrize("path", ["/films?fields=title,id", f"/films/{TOTORO}?fields=title,id"])
def test_fields_come_in_the_order_of_the_data(upstream: FakeGhibli, path: str) -> None:
    found = ask(upstream, path).json
    for item in found if isinstance(found, list) else [found]:
        assert list(item) == ["id", "title"]


def test_unknown_fields_leave_empty_objects(upstream: FakeGhibli) -> None:
    assert ask(upstream, "/films?fields=nope").json == [{}] * 22


def test_fields_are_not_trimmed(upstream: FakeGhibli) -> None:
    assert [list(film) for film in ask(upstream, "/films?fields=id,%20title").json] == [["id"]] * 22


@pytest.mark.parametrize(
    ("limit", "count"),
    [("0", 0), ("1", 1), ("10", 10), ("57", 57), ("250", 57), ("999", 57), ("99.5", 57), ("", 57)],
)
def test_a_limit_cuts_a_list(upstream: FakeGhibli, limit: str, count: int) -> None:
    reply = ask(upstream, f"/people?limit={limit}")
    assert (reply.status, len(reply.json)) == (200, count)


def test_no_limit_is_above_250() -> None:
    with FakeGhibli(data={"things": [{"id": number} for number in range(300)]}) as upstream:
        assert len(ask(upstream, "/things").json) == 300
        assert len(ask(upstream, "/things?limit=299").json) == 250


def test_one_object_has_no_limit(upstream: FakeGhibli) -> None:
    assert ask(upstream, f"/films/{TOTORO}?limit=abc").json["id"] == TOTORO


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/films?limit=-1", "RangeError"),
        ("/films?limit=abc", "RangeError"),
        ("/films?limit=1.5", "RangeError"),
        ("/films?limit=nan", "RangeError"),
        ("/films?limit=1&limit=2", "RangeError"),
        ("/films?fields=id&fields=title", "TypeError"),
        ("/films/%", "URIError"),
        ("/films/%zz", "URIError"),
        ("/films/%ff", "URIError"),
    ],
)
def test_what_it_cannot_cope_with_is_a_stack_trace(
    upstream: FakeGhibli, path: str, reason: str
) -> None:
    reply = ask(upstream, path)
    assert reply.status == 500
    assert reply.headers["Content-Type"].startswith("text/html")
    assert "X-Content-Type-Options" not in reply.headers
    assert reason in reply.body.decode()
    assert " at " in reply.body.decode().replace("&nbsp;", " ")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/people?name=Haku", ["Haku"]),
        (f"/people?id={HAKU}", ["Haku"]),
        ("/people?name=Haku&name=Pazu", ["Haku", "Pazu"]),
        ("/people?name=Haku&gender=Female", []),
        ("/people?name=haku", []),
        ("/people?q=totoro", ["Totoro", "Chu Totoro", "Chibi Totoro"]),
        ("/people?q=nobody-like-this", []),
    ],
)
def test_values_filter_a_list(upstream: FakeGhibli, path: str, names: list[str]) -> None:
    assert [person["name"] for person in ask(upstream, path).json] == names


def test_an_empty_search_finds_everything(upstream: FakeGhibli) -> None:
    assert len(ask(upstream, "/films?q=").json) == 22


def test_head_has_the_headers_and_no_body(upstream: FakeGhibli) -> None:
    got, head = ask(upstream, "/films"), ask(upstream, "/films", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert dict(head.headers) == dict(got.headers)


def test_options_lists_methods(upstream: FakeGhibli) -> None:
    asked = {"Access-Control-Request-Headers": "X-Any", "Access-Control-Request-Method": "GET"}
    for headers in ({}, asked):
        reply = ask(upstream, "/films", "OPTIONS", headers)
        assert (reply.status, reply.body) == (204, b"")
        methods = reply.headers["Access-Control-Allow-Methods"]
        assert methods == "GET,HEAD,PUT,PATCH,POST,DELETE"
        assert reply.headers["Vary"] == "Origin, Access-Control-Request-Headers"
        assert reply.headers["Content-Length"] == "0"


def test_trace_is_not_found(upstream: FakeGhibli) -> None:
    assert ask(upstream, "/films", "TRACE").status == 404


def test_a_known_etag_is_not_modified(upstream: FakeGhibli) -> None:
    known = ask(upstream, "/films").headers["ETag"]
    for tags in (known, known.removeprefix("W/"), f'"other", {known}', "*"):
        reply = ask(upstream, "/films", headers={"If-None-Match": tags})
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["ETag"] == known
        assert "Content-Type" not in reply.headers
        assert "Content-Length" not in reply.headers


def test_another_etag_gets_everything(upstream: FakeGhibli) -> None:
    assert ask(upstream, "/films", headers={"If-None-Match": 'W/"other"'}).status == 200


def test_no_cache_in_the_request_gets_everything(upstream: FakeGhibli) -> None:
    known = ask(upstream, "/films").headers["ETag"]
    headers = {"If-None-Match": known, "Cache-Control": "max-age=0, no-cache"}
    assert ask(upstream, "/films", headers=headers).status == 200


def test_gzip_comes_in_chunks_with_the_same_etag(upstream: FakeGhibli) -> None:
    plain = ask(upstream, "/films")
    packed = ask(upstream, "/films", headers={"Accept-Encoding": "deflate, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in packed.headers
    assert packed.headers["ETag"] == plain.headers["ETag"]
    assert gzip.decompress(packed.body) == plain.body


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "br"])
def test_it_does_not_pack_for_those_who_do_not_ask(upstream: FakeGhibli, accepted: str) -> None:
    reply = ask(upstream, "/films", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in reply.headers


def test_small_bodies_are_not_packed(upstream: FakeGhibli) -> None:
    assert ask(upstream, "/nope", headers={"Accept-Encoding": "gzip"}).body == b"{}"


def test_http_1_0_gets_no_chunks(upstream: FakeGhibli) -> None:
    said = say(upstream, b"GET /films HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert gzip.decompress(body) == ask(upstream, "/films").body


@pytest.mark.parametrize(
    ("method", "path", "status", "answered"),
    [
        ("POST", "/films", 201, {"id": "x", "title": "New"}),
        ("POST", "/nope", 404, {}),
        ("PUT", f"/people/{HAKU}", 200, {"id": HAKU, "title": "New"}),
        ("PUT", "/people/nope", 404, {}),
        ("PATCH", "/people/nope", 404, {}),
        ("DELETE", f"/people/{HAKU}", 200, {}),
        ("DELETE", "/people/nope", 404, {}),
    ],
)
def test_writes_are_answered(
    upstream: FakeGhibli, method: str, path: str, status: int, answered: dict[str, str]
) -> None:
    reply = ask(upstream, path, method, JSON, b'{"id": "x", "title": "New"}')
    assert (reply.status, reply.json) == (status, answered)


def test_a_patch_keeps_the_rest(upstream: FakeGhibli) -> None:
    reply = ask(upstream, f"/people/{HAKU}", "PATCH", JSON, b'{"age": "13"}')
    assert (reply.json["name"], reply.json["age"]) == ("Haku", "13")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_writes_change_nothing(upstream: FakeGhibli, method: str) -> None:
    before = ask(upstream, "/people").body
    ask(
        upstream,
        "/people" if method == "POST" else f"/people/{HAKU}",
        method,
        JSON,
        b'{"age": "1"}',
    )
    assert ask(upstream, "/people").body == before


@pytest.mark.parametrize("body", [b"{", b"\xff", b"1"])
def test_a_malformed_body_is_refused_as_html(upstream: FakeGhibli, body: bytes) -> None:
    reply = ask(upstream, "/films", "POST", JSON, body)
    assert reply.status == 400
    assert reply.headers["Content-Type"].startswith("text/html")


def test_a_connection_serves_many_requests(upstream: FakeGhibli) -> None:
    connection = connect(upstream.url)
    connection.connect()
    kept = connection.sock
    for method, body in (("GET", None), ("POST", b"{}"), ("HEAD", None), ("GET", None)):
        connection.request(method, "/films", body)
        assert read_reply(connection).status in (200, 201)
        assert connection.sock is kept
    connection.close()


def test_an_idle_connection_is_closed() -> None:
    with FakeGhibli(idle=0.05) as upstream:
        connection = connect(upstream.url)
        connection.request("GET", "/nope")
        assert read_reply(connection).headers["Keep-Alive"] == "timeout=0.05"
        assert connection.sock.recv(1) == b""
        connection.close()


def test_a_client_can_close(upstream: FakeGhibli) -> None:
    said = say(upstream, b"GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in said
    assert b"Keep-Alive" not in said


@pytest.mark.parametrize(
    "sent",
    [
        b"BREW /films HTTP/1.1\r\nHost: a\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /films HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /films HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_in_few_words(upstream: FakeGhibli, sent: bytes) -> None:
    assert say(upstream, sent) == b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


def test_it_serves_any_collections() -> None:
    with FakeGhibli(data={"vehicles": [{"id": "1", "name": "Broom"}]}) as upstream:
        assert ask(upstream, "/vehicles/1").json == {"id": "1", "name": "Broom"}
        assert ask(upstream, "/films").status == 404


def test_it_serves_strange_data_as_it_is() -> None:
    with FakeGhibli(data={"films": [{}, {"id": None}]}) as upstream:
        assert ask(upstream, "/films").json == [{}, {"id": None}]


def test_changed_data_is_in_the_next_answer() -> None:
    films: list[dict[str, Any]] = [{"id": "1", "title": "Ponyo"}]
    with FakeGhibli(data={"films": films}) as upstream:
        before = ask(upstream, "/films").headers["ETag"]
        films.append({"id": "2", "title": "Arrietty"})
        after = ask(upstream, "/films")
        assert len(after.json) == 2
        assert after.headers["ETag"] != before


def test_it_remembers_requests(upstream: FakeGhibli) -> None:
    ask(upstream, "/films?limit=1", headers={"X-Any": "thing"})
    ask(upstream, "//films", "HEAD")
    first, second = upstream.requests
    assert (first.method, first.path, first.headers["x-any"]) == ("GET", "/films?limit=1", "thing")
    assert (second.method, second.path) == ("HEAD", "//films")


def test_it_counts_requests_for_each_collection(upstream: FakeGhibli) -> None:
    for path in ("/films", "/FILMS/", f"/films/{TOTORO}", "/people", "/nope"):
        ask(upstream, path)
    assert [upstream.count(name) for name in ("films", "people", "nope")] == [3, 1, 0]


def test_a_delay_holds_every_answer(upstream: FakeGhibli) -> None:
    upstream.faults.delay = 0.05
    begun = time.monotonic()
    assert ask(upstream, "/films").status == 200
    assert time.monotonic() - begun >= 0.05


@pytest.mark.parametrize("status", [200, 429, 503])
def test_a_status_is_everybodys_with_html(upstream: FakeGhibli, status: int) -> None:
    upstream.faults.status = status
    for path in ("/films", "/nope", "/"):
        reply = ask(upstream, path)
        assert reply.status == status
        assert reply.headers["Content-Type"].startswith("text/html")
        assert reply.body.startswith(b"<!DOCTYPE html>")
    upstream.faults.status = None
    assert len(ask(upstream, "/films").json) == 22


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_a_reset_cuts_the_body(upstream: FakeGhibli, accepted: str) -> None:
    upstream.faults.reset = True
    with pytest.raises((HTTPException, ConnectionError)):
        ask(upstream, "/films", headers={"Accept-Encoding": accepted})


def test_a_hanging_one_takes_requests_and_says_nothing(upstream: FakeGhibli) -> None:
    upstream.faults.hang = True
    connection = HTTPConnection(urlsplit(upstream.url).netloc, timeout=0.05)
    connection.request("GET", "/films")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert upstream.count("films") == 1


def test_a_stamp_tells_when_a_film_was_read(upstream: FakeGhibli) -> None:
    before = ask(upstream, "/films").json
    upstream.faults.stamp = True
    stamped = ask(upstream, "/films").json
    stamp = {"description": "2026-11-23T20:40:12.341359+00:00"}
    assert stamped == [film | stamp for film in before]
    assert ask(upstream, f"/films/{TOTORO}").json["description"] == stamp["description"]
    upstream.faults.stamp = False
    assert ask(upstream, "/films").json == before


@pytest.mark.parametrize("fault", ["hang", "delay"])
def test_the_end_cuts_those_who_still_wait(fault: str) -> None:
    with FakeGhibli() as upstream:
        setattr(upstream.faults, fault, 60)
        connection = connect(upstream.url)
        connection.request("GET", "/films")
        wait_until(lambda: upstream.count("films") == 1)
    with pytest.raises((RemoteDisconnected, ConnectionError)):
        connection.getresponse()
    connection.close()


def test_the_end_closes_idle_connections_and_the_port() -> None:
    with FakeGhibli() as upstream:
        connection = connect(upstream.url)
        connection.request("GET", "/films")
        read_reply(connection)
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        ask(upstream, "/films")


def test_another_can_take_over_the_port(upstream: FakeGhibli) -> None:
    with FakeGhibli() as first:
        ask(first, "/films")
    with FakeGhibli(port=address(first)[1]) as second:
        assert ask(second, "/films").status == 200


def test_nobody_sees_a_client_hang_up(
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


class TestControl:
    @pytest.fixture
    def panel(self, upstream: FakeGhibli) -> Iterator[str]:
        with control(upstream, "127.0.0.1", 0) as listener:
            yield listener.url

    def put(self, panel: str, body: bytes) -> Reply:
        connection = connect(panel)
        connection.request("PUT", "/", body)
        reply = read_reply(connection)
        connection.close()
        return reply

    def get(self, panel: str, path: str = "/") -> Reply:
        connection = connect(panel)
        connection.request("GET", path)
        reply = read_reply(connection)
        connection.close()
        return reply

    def test_it_shows_faults_and_counters(self, upstream: FakeGhibli, panel: str) -> None:
        ask(upstream, "/films")
        faults = {"delay": 0, "status": None, "reset": False, "hang": False, "stamp": False}
        assert self.get(panel).json == {
            "faults": faults,
            "requests": {"films": 1, "people": 0},
        }

    def test_it_sets_faults(self, upstream: FakeGhibli, panel: str) -> None:
        reply = self.put(panel, b'{"status": 503, "stamp": true, "delay": 0.01}')
        assert reply.status == 200
        assert reply.json["faults"]["status"] == 503
        assert (upstream.faults.stamp, upstream.faults.delay) == (True, 0.01)
        assert ask(upstream, "/films").status == 503
        self.put(panel, b'{"status": null}')
        assert ask(upstream, "/films").status == 200

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"nope": 1}', "no fault 'nope', only delay, status, reset, hang, stamp"),
            (b'{"delay": "1"}', "delay is a number of seconds, 0 or more, not '1'"),
            (b'{"delay": true}', "delay is a number"),
            (b'{"delay": -1}', "delay is a number"),
            (b'{"delay": Infinity}', "delay is a number"),
            (b'{"status": 99}', "status is null or a status that has a body, 200 to 599, not 99"),
            (b'{"status": 304}', "status is null"),
            (b'{"status": true}', "status is null"),
            (b'{"stamp": 1}', "stamp is true or false, not 1"),
            (b'{"hang": null}', "hang is true or false"),
            (b"[]", "Send an object"),
            (b"{", "Expecting property name"),
        ],
    )
    def test_it_refuses_what_is_no_fault(self, panel: str, body: bytes, message: str) -> None:
        reply = self.put(panel, body)
        assert reply.status == 400
        assert message in reply.json["message"]

    def test_it_sets_all_or_nothing(self, upstream: FakeGhibli, panel: str) -> None:
        assert self.put(panel, b'{"stamp": true, "hang": 1}').status == 400
        assert upstream.faults.stamp is False

    def test_there_is_nothing_else(self, panel: str) -> None:
        assert self.get(panel, "/films").status == 404


class TestProgram:
    def run(self, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fake_ghibli", "--port", "0", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def url(self, program: subprocess.Popen[str], says: str = "listening") -> str:
        assert program.stdout
        line = program.stdout.readline()
        assert re.fullmatch(rf"{says} on http://127\.0\.0\.1:[0-9]+\n", line)
        return str(line.split()[-1])

    @pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
    def test_it_ends_well_when_told_to(self, sign: signal.Signals) -> None:
        program = self.run()
        connection = connect(self.url(program))
        connection.request("GET", "/films")
        assert len(read_reply(connection).json) == 22
        program.send_signal(sign)
        out, err = program.communicate(timeout=PATIENCE)
        connection.close()
        assert (program.returncode, out, err) == (0, "", "")

    def test_it_takes_a_file_of_data_faults_and_a_control_port(self, tmp_path: Path) -> None:
        file = tmp_path / "data.json"
        file.write_text('{"films": [{"id": "1", "description": ""}], "version": 3}')
        program = self.run("--data", str(file), "--stamp", "--delay", "0.01", "--control", "0")
        connection = connect(self.url(program))
        connection.request("GET", "/films/1")
        stamp = read_reply(connection).json["description"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", stamp)
        connection.close()
        panel = connect(self.url(program, "control"))
        panel.request("GET", "/")
        assert read_reply(panel).json["requests"] == {"films": 1}
        panel.close()
        program.terminate()
        program.communicate(timeout=PATIENCE)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--status", "304"), "status is null or a status"),
            (("--delay", "-1"), "delay is a number"),
            (("--data", "/nowhere.json"), "No such file"),
        ],
    )
    def test_it_says_why_it_does_not_start(self, flags: tuple[str, ...], message: str) -> None:
        program = self.run(*flags)
        _, err = program.communicate(timeout=PATIENCE)
        assert program.returncode == 1
        assert message in err
        assert "Traceback" not in err
