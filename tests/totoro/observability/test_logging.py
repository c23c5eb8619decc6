"""The log of the real server: one JSON object a line, whatever happens."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import requests

from fake_ghibli import FakeGhibli
from tests.support.servers import (
    Process,
    Totoro,
    clean_environment,
    manage,
    wait_until,
)
from tests.support.settings.broken_urls import LOCAL, SECRET
from totoro.observability.log_stream import MAX_WAITING_BYTES, MAX_WRITE_BYTES
from totoro.observability.logging import bounded_json
from totoro.settings import VERSION

Line = dict[str, Any]


def lines(server: Totoro) -> list[Line]:
    return [json.loads(line) for line in server.log.read_text().split("\n")[:-1]]


def lines_of(server: Totoro, path: str, **headers: str) -> list[Line]:
    """Return what one request logs; the access log comes last."""
    before = len(lines(server))
    request_id = server.get(path, headers=headers, allow_redirects=False).headers["X-Request-ID"]

    def is_over() -> bool:
        return any(
            line["event"] == "request" and line["request_id"] == request_id
            for line in lines(server)
        )

    wait_until(is_over, seconds=5)
    return lines(server)[before:]


def test_every_line_is_a_json_object(tmp_path: Path) -> None:
    server = Totoro(
        tmp_path, DJANGO_SETTINGS_MODULE="tests.support.settings.broken", ACCESS_LOG="on"
    )
    for path in ("/livez", "/none/", "/drf/bug/", "/django/bug/", "/movies/%0a%7b%7d%0a/"):
        server.get(path)
    server.terminate()

    written = lines(server)
    assert all(isinstance(line, dict) for line in written)
    assert all({"event", "level", "logger", "pid", "timestamp"} <= line.keys() for line in written)
    assert all(re.fullmatch("[a-z_]+", line["event"]) for line in written)


def test_logs_a_bug_in_one_line_with_its_traceback(broken_server: Totoro) -> None:
    error, request = lines_of(broken_server, "/drf/bug/", **{"X-Request-ID": "my-bug"})

    assert error["level"] == "error"
    assert error["event"] == "request_error"
    assert error["message"] == "Internal Server Error: /drf/bug/"
    assert error["exception"].startswith("Traceback (most recent call last):\n")
    assert error["exception"].endswith(f"RuntimeError: {SECRET}")
    assert error["request_id"] == request["request_id"] == "my-bug"


def test_logs_no_local_variables(broken_server: Totoro) -> None:
    lines_of(broken_server, "/drf/bug/?personal=query")

    assert LOCAL.replace(" ", "-") not in broken_server.log.read_text()
    assert "personal" not in broken_server.log.read_text()


def test_logs_a_python_warning_in_one_line(broken_server: Totoro) -> None:
    warning, _ = lines_of(broken_server, "/drf/warning/")

    assert warning["level"] == "warning"
    assert warning["logger"] == "py.warnings"
    assert warning["event"] == "python_warning"
    assert "Mind\nthe gap" in warning["message"]


@pytest.mark.parametrize("path", ["/none/", "/movies", "/drf/forbidden/", "/drf/throttled/"])
def test_a_client_error_is_logged_as_a_request_only(broken_server: Totoro, path: str) -> None:
    assert [line["event"] for line in lines_of(broken_server, path)] == ["request"]


def test_a_host_that_is_not_allowed_is_a_warning_only_once(
    broken_server: Totoro,
) -> None:
    first = lines_of(broken_server, "/movies/", Host="evil.example")
    again = lines_of(broken_server, "/movies/", Host="evil.example")

    assert [line["event"] for line in first] == ["host_not_allowed", "request"]
    assert first[0]["level"] == "warning"
    assert [line["event"] for line in again] == ["request"]


def test_a_malformed_host_is_logged_as_a_request_only(broken_server: Totoro) -> None:
    assert [line["event"] for line in lines_of(broken_server, "/movies/", Host="a/b")] == [
        "request"
    ]


def test_an_unavailable_ghibli_api_is_logged_as_a_warning(broken_server: Totoro) -> None:
    assert broken_server.get("/movies/").status_code == 503

    def failures() -> list[Line]:
        return [line for line in lines(broken_server) if line["event"] == "refresh_failed"]

    wait_until(lambda: bool(failures()), seconds=5)
    assert failures()[0]["level"] == "warning"
    assert failures()[0]["reason"] == "refused"
    (request,) = lines_of(broken_server, "/movies/")
    assert request["status"] == 503


def test_an_access_line(broken_server: Totoro) -> None:
    response = broken_server.get("/livez")
    *_, request = lines_of(broken_server, "/livez")

    assert request.pop("timestamp")
    assert request.pop("request_id")
    assert 0 < request.pop("seconds") < 10
    assert request.pop("pid") > 0
    assert request == {
        "event": "request",
        "level": "info",
        "logger": "totoro.observability.requests",
        "method": "GET",
        "path": "/livez",
        "route": "/livez",
        "status": 200,
        "bytes": len(response.content),
    }


PERSONAL = {
    "Authorization": "Bearer personal",
    "Cookie": "session=personal",
    "Referer": "https://personal.example/",
    "User-Agent": "personal",
    "X-Forwarded-For": "203.0.113.7",
    "X-Personal": "personal",
}


def test_no_line_contains_personal_data(tmp_path: Path) -> None:
    server = Totoro(
        tmp_path,
        DJANGO_SETTINGS_MODULE="tests.support.settings.broken",
        ACCESS_LOG="on",
        TRUSTED_PROXIES=1,
    )
    paths = ("/livez", "/none/", "/movies/", "/drf/bug/", "/django/suspicious/", "/drf/warning/")
    for path in paths:
        server.get(f"{path}?q=personal", headers=PERSONAL)
        requests.post(f"{server.url}{path}?q=personal", "personal", headers=PERSONAL, timeout=30)
    server.get("/movies/?q=personal", headers={**PERSONAL, "Host": "evil.example"})
    server.terminate()

    assert len(server.events("request")) == 2 * len(paths) + 1 + 1  # and the one at the start
    log = server.log.read_text()
    assert "personal" not in log
    assert "203.0.113.7" not in log


@pytest.mark.parametrize("path", ["/livez", "/movies/"])
def test_the_access_log_has_addresses_if_the_operator_asks_for_them(
    tmp_path: Path, path: str
) -> None:
    server = Totoro(tmp_path, ACCESS_LOG="on", ACCESS_LOG_ADDRESSES="on", TRUSTED_PROXIES=1)
    for _ in range(2):
        server.get(path, headers={"X-Forwarded-For": "203.0.113.7"})
    server.terminate()

    clients = [line["client"] for line in server.events("request")]
    assert clients[-2:] == ["203.0.113.7"] * 2


def test_access_lines_have_route_bytes_and_cache_status(tmp_path: Path) -> None:
    with FakeGhibli() as upstream:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, ACCESS_LOG="on")
        plain = {"Accept-Encoding": "identity"}
        miss = server.get("/movies/", headers=plain)
        server.get("/movies/", headers=plain)  # Django, which the response cache then stores
        server.get("/movies/", headers=plain)
        server.get("/movies/", headers={**plain, "If-None-Match": miss.headers["ETag"]})
        requests.head(f"{server.url}/movies/", headers=plain, timeout=30)
        server.get(f"/movies/{miss.json()['api_data'][0]['id']}/")
        server.get("/static/none.css")
        server.get("/none/")
        server.terminate()

    length = len(miss.content)
    seen = [
        (line["route"], line["status"], line["bytes"], line.get("cache"))
        for line in server.events("request")
        if line["route"] != "/livez"
    ]
    assert seen[:5] == [
        ("/movies/", 200, length, "miss"),
        ("/movies/", 200, length, "hit"),
        ("/movies/", 200, length, "hit"),
        ("/movies/", 304, 0, "hit"),
        ("/movies/", 200, 0, "hit"),
    ]
    assert [(route, cache) for route, _, _, cache in seen[5:]] == [
        ("/movies/{id}/", "hit"),
        ("/static/", None),
        ("other", None),
    ]


def test_a_stale_response_is_logged_as_stale(tmp_path: Path) -> None:
    with FakeGhibli() as upstream:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, ACCESS_LOG="on", CACHE_TTL=1)
        server.get("/movies/")
        upstream.faults.status = 503
        wait_until(lambda: "detail=" in server.get("/movies/").headers["Cache-Status"])
        server.terminate()

    assert server.events("request")[-1]["cache"] == "stale"


class TwoStreams(Totoro):
    """Standard error is a file of its own."""

    def start(self) -> None:
        self.errors = self.log.with_suffix(".errors")
        with self.log.open("a") as log, self.errors.open("a") as errors:
            self._options |= {"stdout": log, "stderr": errors}
            Process.start(self)
        wait_until(self._responds)


def test_start_and_stop_of_server_and_workers_are_events(tmp_path: Path) -> None:
    server = TwoStreams(tmp_path, WEB_CONCURRENCY=2)

    def workers() -> list[int]:
        return [line["pid"] for line in server.events("worker_started")]

    wait_until(lambda: len(workers()) == 2)
    killed, _ = workers()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(workers()) == 3)
    assert server.terminate() == 0

    [start] = server.events("server_started")
    assert start["version"] == VERSION
    assert start["configuration"] == "totoro.settings.Production"
    assert (start["workers"], start["port"], start["pid"]) == (2, server.port, server.pid)
    [exited] = server.events("worker_exited")
    assert (exited["worker_pid"], exited["exit_code"]) == (killed, -signal.SIGKILL)
    assert [line["event"] for line in lines(server)[-2:]] == ["server_stopping", "server_stopped"]
    assert server.errors.read_text() == ""


@pytest.mark.parametrize(
    "path",
    ["/%01" * 2000, "/" + "%F0%9F%8D%84" * 600, "/" + "x" * 7900],
    ids=["controls", "emoji", "long"],
)
def test_a_line_has_at_most_4096_bytes(broken_server: Totoro, path: str) -> None:
    (request,) = lines_of(broken_server, path)

    written = broken_server.log.read_bytes().splitlines()[-1]
    assert 1000 < len(written) < 4096
    assert request["status"] == 404
    assert "…" in request["path"]


def test_a_long_traceback_has_its_begin_and_its_end() -> None:
    traceback = "Traceback (most recent call last):\n" + "line\n" * 2000 + "ValueError: why"

    line = bounded_json({"event": "request_error", "exception": traceback, "hosts": ["a", "b"]})

    short = json.loads(line)
    assert short["exception"].startswith("Traceback (most")
    assert short["exception"].endswith("ValueError: why")
    assert len(line) < 4096


PIPE_BYTES = 2**16  # pipe(7)


class UnreadTotoro(Totoro):
    """Logs to a pipe that nobody reads."""

    def start(self) -> None:
        self._options |= {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        Process.start(self)
        wait_until(self._responds)


def test_a_program_that_stops_reading_the_log_stops_neither_requests_nor_the_server(
    tmp_path: Path,
) -> None:
    with FakeGhibli() as upstream, requests.Session() as client:
        server = UnreadTotoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, ACCESS_LOG="on")
        limit = Timer(60, server.kill)  # ends a test that waits for a line
        limit.start()

        def status(path: str) -> int:
            counted = {"X-Request-ID": "counted"}
            return client.get(server.url + path, headers=counted, timeout=5).status_code

        def fill(size: int) -> int:
            number = size // MAX_WRITE_BYTES + 32
            assert all(status(f"/{'x' * 3700}") == 404 for _ in range(number))
            return number

        try:
            assert [status("/movies/") for _ in range(3)] == [200] * 3
            sent = fill(PIPE_BYTES + MAX_WAITING_BYTES)
            assert [status("/movies/"), status("/livez")] == [200] * 2  # a hit, and Django

            written, dropped = 0, 0
            while not dropped:
                line = json.loads(server.process.stdout.readline())
                written += line.get("request_id") == "counted"
                dropped = line.get("lines", 0)
            assert line["event"] == "log_lines_dropped"
            assert written + dropped == 3 + sent + 2

            fill(PIPE_BYTES)
            assert server.terminate() == 0
        finally:
            limit.cancel()
            server.kill()
            server.process.stdout.close()


def test_logs_no_request_without_the_access_log(tmp_path: Path) -> None:
    server = Totoro(tmp_path)
    server.get("/none/")
    server.terminate()

    assert server.events("request") == []


def test_logs_server_errors_with_their_request_id_without_the_access_log(tmp_path: Path) -> None:
    server = Totoro(tmp_path, DJANGO_SETTINGS_MODULE="tests.support.settings.broken")
    try:
        for path, status in (
            ("/drf/bug/", 500),
            ("/drf/unavailable/", 503),
            ("/drf/parameter/", 400),
        ):
            headers = {"X-Request-ID": f"for-{status}"}
            assert server.get(f"{path}?personal=query", headers=headers).status_code == status
        requests = server.events("request")
        assert [(line["status"], line["request_id"]) for line in requests] == [
            (500, "for-500"),
            (503, "for-503"),
        ]
        assert {line["level"] for line in requests} == {"warning"}
        assert "personal" not in server.log.read_text()
    finally:
        server.terminate()


@pytest.mark.parametrize(("access_log", "statuses"), [("off", [503]), ("on", [200, 404, 503])])
def test_server_errors_and_the_access_log_do_not_depend_on_the_log_level(
    tmp_path: Path, access_log: str, statuses: list[int]
) -> None:
    server = Totoro(
        tmp_path,
        DJANGO_SETTINGS_MODULE="tests.support.settings.broken",
        LOG_LEVEL="critical",
        ACCESS_LOG=access_log,
    )
    server.get("/none/")
    server.get("/drf/unavailable/")
    server.terminate()

    assert {line["event"] for line in lines(server)} == {"request"}
    assert sorted({line["status"] for line in lines(server)}) == statuses


def test_a_command_logs_to_stderr(tmp_path: Path) -> None:
    """Its output is for people or for programs."""
    environment = {
        **clean_environment(),
        "DJANGO_SECRET_KEY": "only-for-this-test",
        "THROTLE_RATE": "1",
    }

    process = manage("check", environment=environment)

    assert process.stdout == "System check identified no issues (0 silenced).\n"
    assert json.loads(process.stderr)["event"] == "environment_variable_unknown"
