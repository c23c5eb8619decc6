"""Faults of the Ghibli API, and what clients get while they last.

Each fault is tried twice: cold, with no earlier data, and warm, with data that has expired. The tests
go through the whole stack, down to the sockets; tests/services/ghibli/ tries more faults on the
client alone.
"""

import gzip
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.test import Client
from django.urls import resolve
from prometheus_client import REGISTRY
from pytest_django.fixtures import Settings

from services.exceptions import Reason
from services.freshness import policy
from services.ghibli import client, transport
from services.ghibli.client import GhibliClient
from services.models import StoredSnapshot
from tests.conftest import restart_service
from tests.support.fault_proxy import FaultProxy
from tests.support.processes import proc
from tests.support.scripted_upstream import (
    CATALOGUE,
    FILMS,
    PEOPLE,
    Exchange,
    Script,
    ScriptedUpstream,
    chunked,
    film,
    http_response,
    json_response,
    person,
    then,
)
from tests.support.servers import Totoro, wait_until

# Refreshes write from another thread, which does not see a transaction around the test.
pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024
# Short, so that the tests need not wait.
TTL_SECONDS = 0.15
BACKOFF_SECONDS = 0.15
NAME = "ghibli.test"
FILMS_BODY = json.dumps(CATALOGUE.films).encode()
HEAD = http_response(Content_Length=None)
HALF = http_response(FILMS_BODY)[:9000]
CHUNKED_HEAD = http_response(Content_Length=None, Transfer_Encoding="chunked")


class Resolver:
    """A getaddrinfo that also knows NAME. It can stall on it, or not know it."""

    def __init__(self) -> None:
        self.knows_name = True
        self.responds = threading.Event()
        self.responds.set()
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *arguments: Any, **options: Any) -> Any:
        if host == NAME:
            self.responds.wait()
            if not self.knows_name:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return self._real(host, *arguments, **options)


@dataclass
class World:
    """The Ghibli API with its DNS name, a proxy in front of it and, for some faults, TLS."""

    upstream: ScriptedUpstream
    proxy: FaultProxy
    resolver: Resolver
    patch: pytest.MonkeyPatch
    tls: ssl.SSLContext
    authority: trustme.CA


# Django's test client has no public name for its own.
Response = Any

# A fault that lasts as long as its block.
Fault = Callable[[World], AbstractContextManager[None]]


def sends(*, films: Script = FILMS, people: Script = PEOPLE) -> Fault:
    @contextmanager
    def fault(it: World) -> Iterator[None]:
        it.upstream.films, it.upstream.people = films, people
        yield
        it.upstream.films, it.upstream.people = FILMS, PEOPLE

    return fault


def with_deadline(seconds: float, fault: Fault) -> Fault:
    """Set the deadline of a refresh to so many seconds."""

    @contextmanager
    def limited(it: World) -> Iterator[None]:
        defaults = GhibliClient.__init__.__kwdefaults__
        assert defaults
        it.patch.setitem(defaults, "deadline", seconds)
        yield from entered(fault(it))

    return limited


def with_short_time_limits(fault: Fault) -> Fault:
    """Set the time limits of connecting and reading to a fifth of a second."""

    @contextmanager
    def limited(it: World) -> Iterator[None]:
        for name in ("RESOLVE_SECONDS", "CONNECT_SECONDS", "READ_SECONDS"):
            it.patch.setattr(transport, name, 0.2)
        yield from entered(fault(it))

    return limited


def entered(block: AbstractContextManager[None]) -> Iterator[None]:
    with block:
        yield


@contextmanager
def unknown_name(it: World) -> Iterator[None]:
    it.resolver.knows_name = False
    yield
    it.resolver.knows_name = True


@contextmanager
def stalled_resolver(it: World) -> Iterator[None]:
    it.resolver.responds.clear()
    yield
    it.resolver.responds.set()


@contextmanager
def closed_port(it: World) -> Iterator[None]:
    it.proxy.down()
    yield
    it.proxy.up()


@contextmanager
def black_hole(it: World) -> Iterator[None]:
    it.proxy.ignore_syn()
    yield
    it.proxy.up()


def certificate(make: Callable[[trustme.CA], trustme.LeafCert]) -> Fault:
    @contextmanager
    def fault(it: World) -> Iterator[None]:
        make(it.authority).configure_cert(it.tls)
        yield
        it.authority.issue_cert("127.0.0.1").configure_cert(it.tls)

    return fault


@contextmanager
def plain_http(it: World) -> Iterator[None]:
    def send_plain_http(connection: socket.socket) -> None:
        connection.sendall(http_response(b"", "400 Bad Request"))

    it.upstream._opening = send_plain_http
    yield
    it.upstream._opening = None


@contextmanager
def bug_in_totoro(it: World) -> Iterator[None]:
    """Make a refresh raise an unexpected exception."""

    def broken(*arguments: object, **options: object) -> None:
        raise TypeError("a bug")

    with it.patch.context() as patch:
        patch.setattr("requests.adapters.HTTPAdapter.send", broken)
        yield


@dataclass(frozen=True)
class Row:
    """A fault, its reason, and the number of requests that one refresh makes to the faulty list.

    `route`: how the Ghibli API is reached. `collection`: the faulty list; the refresh may fail before
    it requests the other one.
    """

    fault: Fault
    reason: Reason
    calls: int = 1
    route: str = "plain"
    collection: str = "films"


def films(script: Script, reason: Reason, calls: int = 1) -> Row:
    return Row(sends(films=script), reason, calls)


def people(script: Script, reason: Reason) -> Row:
    return Row(sends(people=script), reason, collection="people")


def redirect(location: str) -> bytes:
    return http_response(b"", "301 Moved Permanently", Location=location)


def film_titled(title: bytes) -> bytes:
    """Return a response with one film, whose title is exactly these bytes."""
    return http_response(json.dumps([film(title="TITLE")]).encode().replace(b'"TITLE"', title))


def bomb() -> bytes:
    """Return 200 MiB as 200 KB of gzip."""
    gzipper = zlib.compressobj(9, wbits=31)
    mebibyte = bytes(MIB)
    chunks = [*(gzipper.compress(mebibyte) for _ in range(200)), gzipper.flush()]
    return http_response(b"".join(chunks), Content_Encoding="gzip")


DRIP = partial(Exchange.drip, pause=0.05)
UNKNOWN_FILM = "https://ghibliapi.vercel.app/films/00000000-0000-0000-0000-000000000000"
CONFLICTING_FILMS = [*CATALOGUE.films, film(title="Another")]
PEOPLE_OF_UNKNOWN_FILMS = [one | {"films": [UNKNOWN_FILM]} for one in CATALOGUE.people]
FILM_LINKS = [one["url"] for one in CATALOGUE.films]
LARGE_PEOPLE = [
    one | {"species": "x" * 50_000, "films": FILM_LINKS} for one in CATALOGUE.people[:10]
]
UNAVAILABLE = http_response(b"{}", "503 Service Unavailable")

ROWS: dict[str, Row] = {
    "unknown name": Row(unknown_name, Reason.DNS, 0, "name"),
    "stalled resolver": Row(with_short_time_limits(stalled_resolver), Reason.DNS, 0, "name"),
    "closed port": Row(closed_port, Reason.REFUSED, 0, "name"),
    "black hole": Row(with_short_time_limits(black_hole), Reason.CONNECT_TIMEOUT, 0, "name"),
    "silence": Row(with_short_time_limits(sends(films=Exchange.stall)), Reason.READ_TIMEOUT),
    "headers, then silence": Row(
        with_short_time_limits(sends(films=then(HEAD, Exchange.stall))), Reason.READ_TIMEOUT
    ),
    "half a body, then silence": Row(
        with_short_time_limits(sends(films=then(HALF, Exchange.stall))), Reason.READ_TIMEOUT
    ),
    "a slow body": Row(
        with_deadline(0.5, sends(films=then(HEAD, lambda it: DRIP(it, FILMS_BODY)))), Reason.DEADLINE
    ),
    "slow headers": Row(with_deadline(0.5, sends(films=lambda it: DRIP(it, FILMS))), Reason.DEADLINE),
    "hung up at once": films(Exchange.hang_up, Reason.RESET, 2),
    "cut in the status": films(then(HEAD[:11], Exchange.hang_up), Reason.PROTOCOL),
    "cut in the headers": films(then(HEAD[:30], Exchange.hang_up), Reason.CONTENT_TYPE),
    "reset in the body": films(then(HALF, Exchange.reset), Reason.RESET, 2),
    "5 of 100 bytes": films(
        then(http_response(b"[1,2]", Content_Length="100"), Exchange.hang_up), Reason.TRUNCATED, 2
    ),
    "cut without a length": films(
        then(HEAD, FILMS_BODY[:9000], Exchange.hang_up), Reason.BAD_JSON
    ),
    "500": films(http_response(b"{}", "500 Internal Server Error"), Reason.UPSTREAM_5XX),
    "502": films(http_response(b"{}", "502 Bad Gateway"), Reason.UPSTREAM_5XX, 2),
    "503": films(UNAVAILABLE, Reason.UPSTREAM_5XX, 2),
    "504": films(http_response(b"{}", "504 Gateway Timeout"), Reason.UPSTREAM_5XX, 2),
    "401": films(http_response(b"{}", "401 Unauthorized"), Reason.UPSTREAM_4XX),
    "403": films(http_response(b"{}", "403 Forbidden"), Reason.UPSTREAM_4XX),
    "404": films(http_response(b"{}", "404 Not Found"), Reason.UPSTREAM_4XX),
    "429": films(http_response(b"{}", "429 Too Many Requests"), Reason.RATE_LIMITED),
    "honest HTML": films(http_response(b"<html>", Content_Type="text/html"), Reason.CONTENT_TYPE),
    "HTML labelled JSON": films(http_response(b"<html>"), Reason.BAD_JSON),
    "204": films(b"HTTP/1.1 204 No Content\r\n\r\n", Reason.STATUS),
    "empty body": films(http_response(b""), Reason.BAD_JSON),
    "redirect to a link-local address": films(redirect("http://169.254.169.254/"), Reason.REDIRECT),
    "redirect to itself": films(redirect("/films"), Reason.REDIRECT),
    "gzip bomb": films(bomb(), Reason.TOO_LARGE),
    "50 MB": films(
        then(http_response(Content_Length="50000000"), lambda it: it.send_repeatedly(b" " * MIB)), Reason.TOO_LARGE
    ),
    "endless chunks": films(
        then(CHUNKED_HEAD, lambda it: it.send_repeatedly(chunked(b" " * MIB))), Reason.TOO_LARGE
    ),
    "an object": films(http_response(b"{}"), Reason.SCHEMA),
    "a string": films(http_response(b'"x"'), Reason.SCHEMA),
    "a number": films(http_response(b"1"), Reason.SCHEMA),
    "null": films(http_response(b"null"), Reason.SCHEMA),
    "a list of numbers": films(http_response(b"[1]"), Reason.SCHEMA),
    "a list of null": films(http_response(b"[null]"), Reason.SCHEMA),
    "a list of lists": films(http_response(b"[[]]"), Reason.SCHEMA),
    "no films": films(http_response(b"[]"), Reason.EMPTY),
    "no people": people(http_response(b"[]"), Reason.EMPTY),
    "NaN": films(film_titled(b"NaN"), Reason.BAD_JSON),
    "1e999": films(film_titled(b"1e999"), Reason.BAD_JSON),
    "lone surrogate": films(film_titled(rb'"\ud83d"'), Reason.BAD_JSON),
    "NUL": films(film_titled(rb'"\u0000"'), Reason.BAD_JSON),
    "bad UTF-8": films(film_titled(b'"\xff"'), Reason.BAD_JSON),
    "depth": films(film_titled(b"[" * 100_000 + b"]" * 100_000), Reason.BAD_JSON),
    "BOM": films(http_response(b"\xef\xbb\xbf" + FILMS_BODY), Reason.BAD_JSON),
    "UTF-16": films(http_response(FILMS_BODY.decode().encode("utf-16")), Reason.BAD_JSON),
    "the same film twice, in conflict": films(json_response(CONFLICTING_FILMS), Reason.SCHEMA),
    "only unknown films": people(json_response(PEOPLE_OF_UNKNOWN_FILMS), Reason.TORN),
    "people who are too large for all their films": people(
        json_response(LARGE_PEOPLE), Reason.TOO_LARGE
    ),
    "films fine, people 500": people(
        http_response(b"{}", "500 Internal Server Error"), Reason.UPSTREAM_5XX
    ),
    "people missing": people(http_response(b"{}", "404 Not Found"), Reason.UPSTREAM_4XX),
    "self-signed": Row(certificate(lambda _: trustme.CA().issue_cert("127.0.0.1")), Reason.TLS, 0,
                       "tls"),
    "expired": Row(
        certificate(
            lambda authority: authority.issue_cert(
                "127.0.0.1",
                not_before=datetime(2020, 1, 1, tzinfo=UTC),
                not_after=datetime(2021, 1, 1, tzinfo=UTC),
            )
        ),
        Reason.TLS,
        0,
        "tls",
    ),
    "wrong name": Row(
        certificate(lambda authority: authority.issue_cert("ghibliapi.test")), Reason.TLS, 0, "tls"
    ),
    "a negative chunk size": films(
        then(CHUNKED_HEAD + b"-5\r\n", FILMS_BODY, Exchange.hang_up), Reason.PROTOCOL
    ),
    "a bug in Totoro": Row(bug_in_totoro, Reason.INTERNAL, 0),
    "plain HTTP on the TLS port": Row(plain_http, Reason.TLS, 0, "tls"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _views() -> None:
    """Import all views, so that no test that measures time pays for it."""
    resolve("/movies/")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def short_times(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = TTL_SECONDS, 0
    monkeypatch.setattr(policy, "BACKOFF_SECONDS", (BACKOFF_SECONDS,))
    monkeypatch.setattr(client, "RETRY_BACKOFF_SECONDS", 0.02)


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    authority: trustme.CA,
    tmp_path: Path,
) -> Iterator[World]:
    """A working Ghibli API, reached by the route of the row."""
    row = request.node.callspec.params.get("row") if hasattr(request.node, "callspec") else None
    route = row.route if row else "plain"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "authority.pem"))
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with (
        ScriptedUpstream(tls=tls if route == "tls" else None) as upstream,
        FaultProxy(int(upstream.url.rstrip("/").rpartition(":")[2])) as proxy,
    ):
        settings.GHIBLI_API_BASE_URL = (
            f"http://{NAME}:{proxy.port}/" if route == "name" else upstream.url
        )
        yield World(upstream, proxy, resolver, monkeypatch, tls, authority)
        resolver.responds.set()


@dataclass
class Refreshes:
    """Log events and metrics of refreshes since the last reset."""

    log: pytest.LogCaptureFixture
    before: dict[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.log.clear()
        self.before = self._counter_samples()

    def counts(self) -> dict[tuple[str, str], float]:
        """Return the number of refreshes by outcome and reason."""
        now = self._counter_samples()
        grown = {key: now[key] - self.before.get(key, 0) for key in now}
        return {key: count for key, count in grown.items() if count}

    def failed(self) -> list[dict[str, Any]]:
        events = [record.msg for record in self.log.records if isinstance(record.msg, dict)]
        return [event for event in events if event["event"] == "refresh_failed"]

    def _counter_samples(self) -> dict[tuple[str, str], float]:
        return {
            (sample.labels["outcome"], sample.labels["reason"]): sample.value
            for metric in REGISTRY.collect()
            if metric.name == "totoro_refreshes"
            for sample in metric.samples
            if sample.name == "totoro_refreshes_total"
        }


@pytest.fixture
def refreshes(caplog: pytest.LogCaptureFixture) -> Refreshes:
    return Refreshes(caplog)


def timestamp(response: Response) -> datetime:
    return datetime.fromisoformat(json.loads(response.content)["timestamp"])


def is_fresh(response: Response) -> bool:
    return response.status_code == 200 and "detail=" not in response["Cache-Status"]


def fresh(api: Client) -> Response:
    """Return a fresh response, as soon as there is one."""
    responses: list[Response] = []

    def responds() -> bool:
        responses.append(api.get("/movies/"))
        return is_fresh(responses[-1])

    wait_until(responds, what="a fresh response")
    return responses[-1]


def expired_response(api: Client) -> Response:
    """Return a complete response whose data has expired."""
    good = fresh(api)
    wait_until_expired(good)
    return good


def wait_until_expired(response: Response) -> None:
    end = timestamp(response) + timedelta(seconds=TTL_SECONDS)
    wait_until(lambda: datetime.now(UTC) > end)


def drop_connections(world: World) -> None:
    """Close idle connections, so that the fault meets new ones."""
    world.upstream.hang_up()
    wait_until(lambda: world.upstream.open_connections() == 0)


def assert_one_failure(refreshes: Refreshes, reason: Reason) -> dict[str, Any]:
    wait_until(lambda: bool(refreshes.failed()) and bool(refreshes.counts()), seconds=5)
    [event] = refreshes.failed()
    assert event["reason"] == reason
    assert refreshes.counts() == {("failed", reason): 1}
    return event


def assert_only_complete_data_was_stored() -> None:
    restart_service()  # which waits for the row of the last refresh
    [row] = StoredSnapshot.objects.all()
    assert len(json.loads(row.body)) == len(CATALOGUE.films)


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_responds_with_503_and_the_reason_when_cold_and_with_stale_data_when_warm(
    row: Row, world: World, api: Client, refreshes: Refreshes
) -> None:
    # Cold: there is no earlier data.
    with row.fault(world):
        started = time.monotonic()
        response = api.get("/movies/")
        seconds = time.monotonic() - started
        assert_one_failure(refreshes, row.reason)

    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "no-store"
    assert response["Retry-After"] == "1"
    name = row.reason.removeprefix("upstream_").replace("_", "-")
    assert json.loads(response.content)["type"] == f"/problems/upstream-{name}/"
    assert world.upstream.count(row.collection) == row.calls
    assert len(world.upstream.requests) <= row.calls + 1
    assert seconds < 4

    # The next refresh succeeds.
    good = expired_response(api)
    assert len(json.loads(good.content)["api_data"]) == len(CATALOGUE.films)

    # Warm: its data has expired.
    drop_connections(world)
    calls = world.upstream.count(row.collection)
    refreshes.reset()
    with row.fault(world):
        response = api.get("/movies/")
        assert_one_failure(refreshes, row.reason)

    assert response.status_code == 200
    assert response.content == good.content
    assert response["ETag"] == good["ETag"]
    assert response["Cache-Control"] == "no-cache"
    assert f"detail={row.reason}" in response["Cache-Status"]
    assert int(response["Age"]) >= 1
    assert world.upstream.count(row.collection) - calls == row.calls

    again = fresh(api)
    assert json.loads(again.content)["api_data"] == json.loads(good.content)["api_data"]
    assert timestamp(again) > timestamp(good)
    assert_only_complete_data_was_stored()


@pytest.mark.usefixtures("short_times")
def test_does_not_connect_to_the_target_of_a_redirect(
    world: World, api: Client, refreshes: Refreshes
) -> None:
    with ScriptedUpstream() as other, sends(films=redirect(f"{other.url}films"))(world):
        assert api.get("/movies/").status_code == 503
        assert_one_failure(refreshes, Reason.REDIRECT)

        assert other.connections == 0
    assert fresh(api)


def test_a_closed_port_is_reported_within_a_second(world: World, api: Client) -> None:
    world.proxy.down()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.GHIBLI_API_BASE_URL", url_of(world.proxy))
        started = time.monotonic()
        response = api.get("/movies/")

    assert response.status_code == 503
    assert time.monotonic() - started < 1


def url_of(proxy: FaultProxy) -> str:
    return f"http://127.0.0.1:{proxy.port}/"


def test_requests_share_a_failure_and_do_not_refresh_during_backoff(
    world: World, api: Client, refreshes: Refreshes
) -> None:
    with sends(films=UNAVAILABLE)(world):
        responses = [api.get("/movies/") for _ in range(20)]
        event = assert_one_failure(refreshes, Reason.UPSTREAM_5XX)

    assert {response.status_code for response in responses} == {503}
    assert 4 <= event["backoff"] <= 6
    assert all(1 <= int(response["Retry-After"]) <= 6 for response in responses)
    assert world.upstream.count("films") == 2


# Retry-After


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (lambda: "7", 7, 7),
        (lambda: in_seconds(100), 95, 100),
        (lambda: in_seconds(-100), 4, 6),
        (lambda: "999999", 300, 300),
        (lambda: "-1", 4, 6),
        (lambda: "soon", 4, 6),
        (lambda: "0", 4, 6),
    ],
    ids=["7", "date", "past date", "999999", "-1", "rubbish", "0"],
)
def test_backs_off_for_the_seconds_of_retry_after_within_limits(
    header: Callable[[], str],
    least: float,
    most: float,
    world: World,
    api: Client,
    refreshes: Refreshes,
) -> None:
    world.upstream.films = http_response(b"{}", "429 Too Many Requests", Retry_After=header())
    started = time.monotonic()
    responses = [api.get("/movies/") for _ in range(5)]
    seconds = time.monotonic() - started
    event = assert_one_failure(refreshes, Reason.RATE_LIMITED)

    assert least <= event["backoff"] <= most
    # The later responses came at once, without a refresh.
    assert seconds < least
    assert world.upstream.count("films") == 1
    assert {response.status_code for response in responses} == {503}
    retry_after = [int(response["Retry-After"]) for response in responses]
    assert all(least - seconds <= wait <= most + 1 for wait in retry_after)


@pytest.mark.usefixtures("short_times")
def test_refreshes_when_the_seconds_of_retry_after_are_over_and_not_before(
    world: World, api: Client, refreshes: Refreshes
) -> None:
    good = expired_response(api)
    refreshes.reset()
    with sends(films=http_response(b"{}", "429 Too Many Requests", Retry_After="1"))(world):
        assert api.get("/movies/").content == good.content
        assert_one_failure(refreshes, Reason.RATE_LIMITED)
    failed_at = world.upstream.requests[-1].at

    again = fresh(api)

    assert timedelta(seconds=0.95) <= timestamp(again) - failed_at < timedelta(seconds=3)


# Films that are missing


@pytest.mark.usefixtures("short_times")
def test_accepts_data_without_half_of_the_films_once_it_has_stayed_that_way(
    world: World, api: Client, refreshes: Refreshes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.catalogue.plausibility.MIN_SECONDS", 1.0)
    good = expired_response(api)
    refreshes.reset()
    started = time.monotonic()
    with sends(films=json_response(CATALOGUE.films[:10]))(world):
        stale = api.get("/movies/")
        assert_one_failure(refreshes, Reason.SHRUNK)
        few = fresh(api)

    assert stale.content == good.content
    assert "detail=shrunk" in stale["Cache-Status"]
    assert time.monotonic() - started >= 1.0
    assert refreshes.counts()["failed", Reason.SHRUNK] >= 2
    assert len(json.loads(few.content)["api_data"]) == 10


@pytest.mark.usefixtures("short_times")
def test_a_new_process_serves_the_films_of_the_database_while_half_of_them_are_missing(
    world: World, api: Client, refreshes: Refreshes
) -> None:
    good = expired_response(api)
    restart_service()
    refreshes.reset()
    with sends(films=json_response(CATALOGUE.films[:10]))(world):
        stale = api.get("/movies/")
        assert_one_failure(refreshes, Reason.SHRUNK)

    assert stale.content == good.content
    assert_only_complete_data_was_stored()


# Unusual data that is accepted


def listed(api: Client) -> list[dict[str, Any]]:
    movies: list[dict[str, Any]] = json.loads(fresh(api).content)["api_data"]
    return movies


def repairs(defect: str) -> float:
    return (
        REGISTRY.get_sample_value("totoro_upstream_data_repairs_total", {"defect": defect}) or 0.0
    )


@pytest.mark.parametrize("collection", ["films", "people"])
def test_serves_and_counts_duplicates_once(
    collection: str, world: World, api: Client, refreshes: Refreshes
) -> None:
    before, objects = repairs("duplicate"), getattr(CATALOGUE, collection)
    setattr(world.upstream, collection, json_response([*objects, objects[0]]))

    movies = listed(api)

    assert len(movies) == 22
    assert sum(len(movie["people"]) for movie in movies) == 59
    assert repairs("duplicate") - before == 1
    assert refreshes.failed() == []


def test_skips_and_counts_links_to_unknown_films(world: World, api: Client) -> None:
    before = repairs("unknown_film")
    world.upstream.people = json_response(
        [person(name="Pazu", films=[UNKNOWN_FILM, film()["url"]])]
    )

    assert [one["name"] for one in listed(api)[0]["people"]] == ["Pazu"]
    assert repairs("unknown_film") - before == 1


ID = film()["id"]


@pytest.mark.parametrize(
    ("links", "appears"),
    [
        (None, False),
        ("", False),
        ([], False),
        (["https://ghibliapi.vercel.app/films/"], False),
        (f"https://ghibliapi.vercel.app/films/{ID}", True),
        ([f"https://ghibliapi.herokuapp.com/films/{ID}"], True),
        ([f"htps://ghibliapi.herokuapp.com/films/{ID}"], True),
        ([f"https://ghibliapi.vercel.app/films/{ID}/"], True),
        ([f"https://ghibliapi.vercel.app/films/{ID.upper()}"], True),
    ],
    ids=str,
)
def test_accepts_links_to_films_in_every_form(
    links: object, appears: bool, world: World, api: Client
) -> None:
    world.upstream.people = json_response([person(name="Pazu", films=links)])

    assert [one["name"] for one in listed(api)[0]["people"]] == ["Pazu"] * appears


def test_a_person_without_the_films_field_appears_in_none(world: World, api: Client) -> None:
    without_films = {name: text for name, text in person().items() if name != "films"}
    world.upstream.people = json_response([without_films])

    assert all(movie["people"] == [] for movie in listed(api))


def test_accepts_ids_of_any_kind(world: World, api: Client) -> None:
    uuid1 = "E2CFAA78-FB19-11EB-9A03-0242AC130003"
    world.upstream.films = json_response([film(id=uuid1)])
    world.upstream.people = json_response([person(films=[f"https://x/films/{uuid1.lower()}"])])

    response = fresh(api)

    assert json.loads(response.content)["api_data"][0]["people"][0]["id"] == person()["id"]
    assert api.get(f"/movies/{uuid1.lower()}/").status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "\N{GRINNING FACE}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}",
        "\N{RIGHT-TO-LEFT OVERRIDE}טוטורו",
        "Tenku\N{COMBINING MACRON} no shiro",
        "one\N{LINE SEPARATOR}two\N{PARAGRAPH SEPARATOR}",
        "</script> \t \x1f \x7f",
    ],
    ids=ascii,
)
def test_text_arrives_unchanged_also_from_the_database(
    text: str, world: World, api: Client
) -> None:
    world.upstream.films = json_response([film(title=text)])
    world.upstream.people = json_response([person(name=text, films=[film()["url"]])])

    good = fresh(api)
    restart_service()
    world.upstream.films = UNAVAILABLE
    stale = api.get("/movies/")

    [movie] = json.loads(good.content)["api_data"]
    assert (movie["title"], movie["people"][0]["name"]) == (text, text)
    assert stale.content == good.content


@pytest.mark.usefixtures("short_times")
def test_replaces_connections_that_the_upstream_closes_between_refreshes(
    world: World, api: Client, refreshes: Refreshes, settings: Settings
) -> None:
    settings.CACHE_TTL = 1  # long enough for a refresh on a busy machine
    good = fresh(api)
    drop_connections(world)
    refreshes.reset()
    wait_until(lambda: datetime.now(UTC) > timestamp(good) + timedelta(seconds=1))

    again = api.get("/movies/")

    assert is_fresh(again)
    assert timestamp(again) > timestamp(good)
    assert refreshes.failed() == []
    assert (world.upstream.count("films"), world.upstream.count("people")) == (2, 2)


def test_ignores_a_proxy_and_passwords_in_the_environment(
    world: World, api: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login totoro password acorn\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedUpstream() as elsewhere:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, elsewhere.url)

        assert len(listed(api)) == 22
        assert elsewhere.connections == 0
    assert not any("authorization" in request.headers for request in world.upstream.requests)


def test_accepts_gzip(world: World, api: Client) -> None:
    world.upstream.films = http_response(gzip.compress(FILMS_BODY), Content_Encoding="gzip")

    assert len(listed(api)) == 22


# With the time limits of production


@pytest.mark.minutes
@pytest.mark.parametrize("row", [Row(stalled_resolver, Reason.DNS, 0, "name")], ids=["resolver"])
def test_responds_within_eight_seconds_while_dns_lookups_stall(
    row: Row, world: World, api: Client, refreshes: Refreshes
) -> None:
    with row.fault(world):
        started = time.monotonic()
        response = api.get("/movies/")

        assert time.monotonic() - started < 8
        assert_one_failure(refreshes, row.reason)
    assert response.status_code == 503


@pytest.mark.slow
def test_gives_up_a_silent_upstream_after_five_seconds(
    world: World, api: Client, refreshes: Refreshes, settings: Settings
) -> None:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = TTL_SECONDS, 0
    good = expired_response(api)
    refreshes.reset()
    with sends(films=then(HALF, Exchange.stall))(world):
        started = time.monotonic()
        stale = api.get("/movies/")

        assert 5 <= time.monotonic() - started < 7
        assert assert_one_failure(refreshes, Reason.READ_TIMEOUT)["seconds"] >= 5
    assert stale.content == good.content


@pytest.mark.minutes
@pytest.mark.parametrize("row", [Row(black_hole, Reason.CONNECT_TIMEOUT, 0, "name")], ids=["hole"])
def test_gives_up_connecting_after_two_seconds(
    row: Row, world: World, api: Client, refreshes: Refreshes
) -> None:
    with row.fault(world):
        api.get("/movies/")

        # Both requests time out; the failure of one ends the retry of the other.
        assert 2 <= assert_one_failure(refreshes, row.reason)["seconds"] < 5


@pytest.mark.minutes
@pytest.mark.parametrize("dripping", ["body", "headers"])
def test_a_slow_response_ends_after_twenty_seconds_and_requests_wait_eight(
    dripping: str, world: World, api: Client, refreshes: Refreshes, settings: Settings
) -> None:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = TTL_SECONDS, 0
    good = expired_response(api)
    refreshes.reset()

    def drip(exchange: Exchange) -> None:
        if dripping == "body":
            exchange.send(HEAD)
        exchange.drip(FILMS, pause=1)

    with sends(films=drip)(world):
        started = time.monotonic()
        stale = api.get("/movies/")
        assert 8 <= time.monotonic() - started < 9
        assert "detail=slow" in stale["Cache-Status"]
        assert stale.content == good.content

        wait_until(lambda: bool(refreshes.failed()), seconds=15)
        assert 20 <= assert_one_failure(refreshes, Reason.DEADLINE)["seconds"] < 21
        assert stale.content == api.get("/movies/").content


def peak_memory(pid: int) -> int:
    """Return the most memory that a process has used, in bytes."""
    status = (proc(pid) / "status").read_text()
    [peak] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) * 1024


@pytest.mark.minutes
def test_oversized_responses_take_little_memory(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        server = Totoro(
            tmp_path, GHIBLI_API_BASE_URL=upstream.url, CACHE_TTL=1, LOG_LEVEL="WARNING"
        )
        server.get("/movies/")
        [worker] = server.workers
        before = peak_memory(worker)
        scripts: list[Script] = [
            bomb(),
            then(
                http_response(Content_Length="50000000"), lambda it: it.send_repeatedly(b" " * MIB)
            ),
            then(CHUNKED_HEAD, lambda it: it.send_repeatedly(chunked(b" " * MIB))),
        ]
        for number, script in enumerate(scripts):
            upstream.films = upstream.people = script

            def fails(failures: int = number + 1) -> bool:
                assert server.get("/movies/").status_code == 200
                return len(server.events("refresh_failed")) == failures

            wait_until(fails, seconds=30)

        assert {event["reason"] for event in server.events("refresh_failed")} == {"too_large"}
        assert peak_memory(worker) - before < 16 * MIB
        server.terminate()
