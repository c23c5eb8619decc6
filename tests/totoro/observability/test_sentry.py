"""Sentry gets every bug and no personal data."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests
import sentry_sdk

from fake_ghibli import FakeGhibli
from fake_ghibli.listener import Listener
from tests.support.servers import HIDDEN_PACKAGES, ROOT, Totoro, free_port, wait_until
from tests.support.settings.broken_urls import LOCAL, SECRET
from totoro.settings import VERSION

BUG = "/django/bug/"
BUG_IN_REFRESH = ROOT / "tests" / "support" / "python_patches" / "bug_in_refresh"


class Sentry(Listener):
    """Stores what the SDK sends, decompressed."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0, lambda *connection: Inbox(self, *connection))
        self.envelopes: list[str] = []

    @property
    def dsn(self) -> str:
        return self.url.replace("http://", "http://key@") + "/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for text in self.envelopes for line in text.split("\n") if line]
        return [line for line in lines if "exception" in line or "logentry" in line]


class Inbox(BaseHTTPRequestHandler):
    def __init__(self, sentry: Sentry, *connection: Any) -> None:
        self.sentry = sentry
        super().__init__(*connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.sentry.envelopes.append(body.decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def inbox() -> Iterator[Sentry]:
    with Sentry() as sentry:
        yield sentry


@pytest.fixture
def sentry(inbox: Sentry) -> Sentry:
    inbox.envelopes.clear()
    return inbox


@pytest.fixture(scope="module")
def reporting(inbox: Sentry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Totoro]:
    """The real server, with views that fail, a DSN, and no upstream."""
    server = Totoro(
        tmp_path_factory.mktemp("reporting"),
        DJANGO_SETTINGS_MODULE="tests.support.settings.broken",
        GHIBLI_API_BASE_URL=f"http://127.0.0.1:{free_port()}",
        SENTRY_DSN=inbox.dsn,
        SENTRY_ENVIRONMENT="tests",
    )
    yield server
    server.terminate()


def the_event(sentry: Sentry) -> dict[str, Any]:
    wait_until(lambda: bool(sentry.events), seconds=5, what="an event arrives")
    (event,) = sentry.events
    return event


def test_reports_a_bug(sentry: Sentry, reporting: Totoro) -> None:
    reporting.get("/drf/bug/")

    event = the_event(sentry)
    (error,) = event["exception"]["values"]
    assert error["type"] == "RuntimeError"
    assert error["value"] == SECRET
    assert error["stacktrace"]["frames"]
    assert event["transaction"] == "/drf/{name}/"
    assert event["release"] == f"totoro@{VERSION}"
    assert event["environment"] == "tests"


def test_reports_a_bug_in_a_refresh_and_responds_to_requests(
    sentry: Sentry, tmp_path: Path
) -> None:
    server = Totoro(
        tmp_path,
        PYTHONPATH=f"{BUG_IN_REFRESH}:{HIDDEN_PACKAGES}",
        SENTRY_DSN=sentry.dsn,
    )
    try:
        response = server.get("/movies/")
        assert response.status_code == 503
        assert response.json()["type"] == "/problems/upstream-internal/"
        wait_until(lambda: len(sentry.events) == 2, what="the bug and the outage arrive")
        [(error,)] = [each["exception"]["values"] for each in sentry.events if "exception" in each]
        assert (error["type"], error["value"]) == ("TypeError", "a bug in a refresh")
        assert server.get("/movies/").elapsed.total_seconds() < 2
    finally:
        server.terminate()


def test_reports_only_method_and_path_of_the_request(sentry: Sentry, reporting: Totoro) -> None:
    reporting.get("/drf/bug/?personal=query")

    assert the_event(sentry)["request"] == {"method": "GET", "url": "/drf/bug/"}


def test_reports_no_personal_data(sentry: Sentry, reporting: Totoro) -> None:
    requests.post(
        reporting.url + BUG + "?personal=in-query",
        data={"personal": "in-body"},
        headers={
            "Authorization": "Bearer in-authorization",
            "Cookie": "session=in-cookie",
            "User-Agent": "in-agent",
            "X-Forwarded-For": "203.0.113.7",
            "X-Real-IP": "203.0.113.7",
            "X-Personal": "in-header",
            "Referer": "https://in-referer.example/",
        },
        timeout=30,
    )

    event = the_event(sentry)
    sent = "\n".join(sentry.envelopes)
    assert "in-" not in json.dumps(event["request"])
    for place in ("query", "body", "authorization", "cookie", "agent", "header", "referer"):
        assert f"in-{place}" not in sent
    assert "203.0.113.7" not in sent
    assert "127.0.0.1" not in sent.replace(sentry.dsn, "")
    assert not {"user", "breadcrumbs", "server_name"} & event.keys()


def test_reports_nothing_about_the_machine(sentry: Sentry, reporting: Totoro) -> None:
    reporting.get(BUG)

    the_event(sentry)
    sent = "\n".join(sentry.envelopes)
    assert socket.gethostname() not in sent
    assert "only-for-this-test" not in sent


def test_reports_no_local_variables(sentry: Sentry, reporting: Totoro) -> None:
    reporting.get("/drf/bug/")

    event = the_event(sentry)
    assert LOCAL.replace(" ", "-") not in json.dumps(event)
    frames = event["exception"]["values"][0]["stacktrace"]["frames"]
    assert all("vars" not in frame for frame in frames)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/none/", 404), ("/drf/parameter/", 400), ("/drf/throttled/", 429)],
)
def test_does_not_report_expected_errors(
    sentry: Sentry, reporting: Totoro, path: str, status: int
) -> None:
    assert reporting.get(path).status_code == status
    reporting.get(BUG)

    assert the_event(sentry)["transaction"] == "/django/{name}/"


def test_an_outage_is_one_event_and_all_outages_are_one_issue(
    sentry: Sentry, tmp_path: Path
) -> None:
    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path,
            DJANGO_SETTINGS_MODULE="tests.support.settings.broken",
            GHIBLI_API_BASE_URL=upstream.url,
            SENTRY_DSN=sentry.dsn,
        )
        upstream.faults.status = 503
        for _ in range(3):
            assert server.get("/movies/?personal=query").status_code == 503
        server.get(BUG)
        wait_until(lambda: len(sentry.events) == 2, what="the outage and the bug arrive")
        server.terminate()

    outage = next(event for event in sentry.events if "exception" not in event)
    assert outage["logentry"] == {"message": "outage_began"}
    assert outage["fingerprint"] == ["outage_began"]
    assert outage["tags"] == {"reason": "upstream_5xx"}
    assert outage["level"] == "error"
    assert outage["release"] == f"totoro@{VERSION}"
    sent = "\n".join(sentry.envelopes)
    for private in ("personal", "127.0.0.1", socket.gethostname(), "only-for-this-test"):
        assert private not in sent.replace(sentry.dsn, "")


@pytest.mark.parametrize("is_hung", [False, True], ids=["dead", "hung"])
def test_an_unavailable_sentry_slows_neither_requests_nor_the_stop(
    tmp_path: Path, is_hung: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # it accepts no connection
        port = hung.getsockname()[1] if is_hung else free_port()
        server = Totoro(
            tmp_path,
            DJANGO_SETTINGS_MODULE="tests.support.settings.broken",
            SENTRY_DSN=f"http://key@127.0.0.1:{port}/1",
        )
        for _ in range(30):
            assert requests.get(server.url + BUG, timeout=5).status_code == 500
        started = time.monotonic()
        assert server.terminate() == 0
        assert (
            time.monotonic() - started < 10
        )  # the SDK waits 2 seconds; its connection times out after 30


@pytest.mark.parametrize("host", ["evil.example", "not/a/host"])
def test_does_not_report_a_host_that_is_not_allowed(
    host: str, sentry: Sentry, reporting: Totoro
) -> None:
    assert reporting.get("/movies/", headers={"Host": host}).status_code == 400
    reporting.get(BUG)

    assert the_event(sentry)["transaction"] == "/django/{name}/"


def test_sends_no_sentry_headers_to_the_ghibli_api(sentry: Sentry, tmp_path: Path) -> None:
    with FakeGhibli() as upstream:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, SENTRY_DSN=sentry.dsn)
        server.get("/movies/")
        server.terminate()

        headers = {name for seen in upstream.requests for name in seen.headers}
    assert headers
    assert not {"sentry-trace", "baggage", "traceparent"} & headers


def test_reports_bugs_in_dev_under_another_environment(sentry: Sentry, tmp_path: Path) -> None:
    server = Totoro(
        tmp_path,
        DJANGO_CONFIGURATION="Dev",
        DJANGO_SETTINGS_MODULE="tests.support.settings.broken",
        SENTRY_DSN=sentry.dsn,
    )
    server.get(BUG)
    event = the_event(sentry)
    server.terminate()

    assert event["environment"] == "development"


def test_start_and_stop_send_nothing(sentry: Sentry, tmp_path: Path) -> None:
    server = Totoro(tmp_path, SENTRY_DSN=sentry.dsn)
    server.get("/livez")
    server.terminate()

    assert sentry.envelopes == []


def test_sentry_is_off_without_a_dsn() -> None:
    assert not sentry_sdk.get_client().is_active()
