"""The log of the real server: one JSON object a line, whatever happens."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Totoro, wait_until
from tests.support.settings.broken_urls import LOCAL, SECRET

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
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in written)
    granians = [line["event"] for line in written if line["logger"].startswith("_granian")]
    assert any(event.startswith("Listening at") for event in granians)
    assert granians[-1].startswith("Granian shutdown completed")


def test_logs_a_bug_in_one_line_with_its_traceback(broken_server: Totoro) -> None:
    error, request = lines_of(broken_server, "/drf/bug/", **{"X-Request-ID": "my-bug"})

    assert error["level"] == "error"
    assert error["event"] == "Internal Server Error: /drf/bug/"
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
    assert "Mind\nthe gap" in warning["event"]


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


def test_an_unavailable_ghibli_api_is_logged_as_a_warning(broken_server: Totoro) -> None:
    assert broken_server.get("/movies/").status_code == 503

    def failures() -> list[Line]:
        return [line for line in lines(broken_server) if line["event"] == "refresh_failed"]

    wait_until(lambda: bool(failures()), seconds=5)
    assert failures()[0]["level"] == "warning"
    assert failures()[0]["reason"] == "refused"
    (request,) = lines_of(broken_server, "/movies/")
    assert request["status"] == 503


def test_the_access_log_contains_no_personal_data(broken_server: Totoro) -> None:
    *_, request = lines_of(broken_server, "/livez?personal=query", Cookie="personal=cookie")

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
        "status": 200,
    }


def test_a_url_cannot_forge_a_line(broken_server: Totoro) -> None:
    forged = '/none/%0a{"event":"request","request_id":"forged"}%0a/'

    (request,) = lines_of(broken_server, forged)

    assert request["path"] == '/none/\n{"event":"request","request_id":"forged"}\n/'


def test_logs_no_request_without_the_access_log(tmp_path: Path) -> None:
    server = Totoro(tmp_path)
    server.get("/none/")
    server.terminate()

    assert [line for line in lines(server) if not line["logger"].startswith("_granian")] == []


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


def test_the_log_level_applies_to_granian_too(tmp_path: Path) -> None:
    server = Totoro(tmp_path, LOG_LEVEL="error", ACCESS_LOG="on")
    server.get("/none/")
    server.terminate()

    assert lines(server) == []
