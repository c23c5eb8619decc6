"""The facade over the Ghibli API, and the merge of what it brings, against an upstream that does
everything that an upstream can do wrong."""

import gc
import gzip
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from services.catalogue.merge import Catalogue, build
from services.exceptions import Reason, UpstreamError
from services.ghibli.client import GhibliClient
from tests.support.scripted_upstream import (
    CATALOGUE,
    FILMS,
    PEOPLE,
    BlackHole,
    Exchange,
    Script,
    ScriptedUpstream,
    chunked,
    film,
    http_response,
    in_turn,
    json_response,
    person,
    run_concurrently,
    then,
)
from tests.support.servers import ROOT, free_port, wait_until

MIB = 1024 * 1024
YEAR_2020, YEAR_2021 = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
FILMS_BODY = json.dumps(CATALOGUE.films).encode()
HEAD = http_response(Content_Length=None)
CHUNKED_HEAD = http_response(Content_Length=None, Transfer_Encoding="chunked")
HALF = http_response(FILMS_BODY)[:9000]
UNAVAILABLE = http_response(b"{}", "503 Service Unavailable")


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """The working case: whole, good answers to both requests."""
    with ScriptedUpstream() as upstream:
        yield upstream


def catalogue_of(client: GhibliClient) -> Catalogue:
    fetched = client.fetch()
    return build(fetched.films, fetched.people)


def failure(url: str, **options: Any) -> UpstreamError:
    """What fetching from there, and merging what comes, fails with."""
    client = GhibliClient(url, **options)
    with pytest.raises(UpstreamError) as caught:
        catalogue_of(client)
    wait_until(lambda: not threads_of_flights(), what="nothing of the flight is left")
    return caught.value


def threads_of_flights() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ghibli"]


@dataclass
class Ending:
    reason: Reason
    seconds: float


def ending(url: str, **options: Any) -> Ending:
    """How and when a flight fails, whatever of it is left."""
    client = GhibliClient(url, **options)
    start = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        client.fetch()
    return Ending(caught.value.reason, time.monotonic() - start)


# The working case


def test_it_brings_every_film_and_every_person(upstream: ScriptedUpstream) -> None:
    fetched = GhibliClient(upstream.url).fetch()

    assert fetched.films == CATALOGUE.films
    assert fetched.people == CATALOGUE.people
    assert (upstream.count("films"), upstream.count("people")) == (1, 1)


def test_it_asks_for_all_items_and_for_exactly_the_fields_that_it_serves(
    upstream: ScriptedUpstream,
) -> None:
    GhibliClient(upstream.url).fetch()

    asked = {r.collection: parse_qs(urlsplit(r.target).query) for r in upstream.requests}
    assert asked == {
        "films": {
            "fields": [
                "id,title,original_title,original_title_romanised,description,director,producer,"
                "release_date,running_time,rt_score,image,movie_banner,url"
            ],
            "limit": ["250"],
        },
        "people": {
            "fields": ["id,name,gender,age,eye_color,hair_color,films,species,url"],
            "limit": ["250"],
        },
    }
    for request in upstream.requests:
        assert request.headers["accept"] == "application/json"
        assert request.headers["accept-encoding"] == "gzip"


def test_both_requests_are_made_at_the_same_time(upstream: ScriptedUpstream) -> None:
    both = threading.Barrier(2, timeout=5)

    def wait_for_the_other(exchange: Exchange) -> None:
        both.wait()

    upstream.films = then(wait_for_the_other, FILMS)
    upstream.people = then(wait_for_the_other, PEOPLE)

    assert len(catalogue_of(GhibliClient(upstream.url)).movies) == 22


def test_the_timestamp_is_taken_before_the_first_byte_is_sent(upstream: ScriptedUpstream) -> None:
    connections = []

    def now() -> datetime:
        connections.append(upstream.connections)
        return datetime(2026, 11, 23, tzinfo=UTC)

    fetched = GhibliClient(upstream.url, now=now).fetch()

    assert fetched.timestamp == datetime(2026, 11, 23, tzinfo=UTC)
    assert connections == [0]


def test_the_timestamp_is_the_time_in_utc(upstream: ScriptedUpstream) -> None:
    before = datetime.now(UTC)

    timestamp = GhibliClient(upstream.url).fetch().timestamp

    assert timestamp.tzinfo is UTC
    assert before <= timestamp <= min(request.at for request in upstream.requests)


@pytest.mark.parametrize(
    "films",
    [
        http_response(gzip.compress(FILMS_BODY), Content_Encoding="gzip"),
        http_response(gzip.compress(FILMS_BODY), Content_Encoding=" GZIP "),
        http_response(FILMS_BODY, Content_Encoding="identity"),
        http_response(FILMS_BODY, Content_Type="Application/JSON; charset=utf-8"),
        CHUNKED_HEAD + chunked(FILMS_BODY[:7], FILMS_BODY[7:], b""),
        then(HEAD + FILMS_BODY, Exchange.hang_up),
        then(http_response(FILMS_BODY, Connection="close"), Exchange.hang_up),
        b"HTTP/1.1 100 Continue\r\n\r\n" + FILMS,
    ],
    ids=["gzip", "GZIP", "identity", "charset", "chunked", "no length", "close", "continue"],
)
def test_an_answer_may_come_in_any_form_that_http_allows(
    upstream: ScriptedUpstream, films: Script
) -> None:
    upstream.films = films

    assert GhibliClient(upstream.url).fetch().films == CATALOGUE.films


# Names and connections


def test_a_name_that_does_not_resolve_is_told(upstream: ScriptedUpstream) -> None:
    assert failure("http://totoro.invalid/").reason == Reason.DNS


def test_a_closed_port_fails_at_once() -> None:
    start = time.monotonic()

    assert failure(f"http://127.0.0.1:{free_port()}/").reason == Reason.REFUSED
    assert time.monotonic() - start < 1


class StuckResolver:
    """getaddrinfo, which waits until it is released before it tells the addresses of one name."""

    NAME = "stuck.test"

    def __init__(self) -> None:
        self.asked = 0
        self.released = threading.Event()
        self.addresses = ["127.0.0.1"]
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host != self.NAME:
            return self._real(host, *arguments, **options)
        self.asked += 1
        self.released.wait()
        found = (self._real(address, *arguments, **options) for address in self.addresses)
        return [one for each in found for one in each]

    def url(self, upstream: ScriptedUpstream) -> str:
        return upstream.url.replace("127.0.0.1", self.NAME)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[StuckResolver]:
    resolver = StuckResolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.released.set()
    wait_until(lambda: not threads_of_flights(), what="nothing of the flights is left")


def test_a_resolver_that_stalls_cannot_hold_a_flight_beyond_its_deadline(
    upstream: ScriptedUpstream, resolver: StuckResolver
) -> None:
    ended = ending(resolver.url(upstream), deadline=0.2)

    assert ended.reason == Reason.DEADLINE
    assert ended.seconds < 1


def test_a_resolver_that_stalls_is_asked_once_however_many_flights_come(
    upstream: ScriptedUpstream, resolver: StuckResolver
) -> None:
    client = GhibliClient(resolver.url(upstream), deadline=0.1)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            client.fetch()

    assert resolver.asked == 1


def test_a_resolver_that_recovers_is_used_again(
    upstream: ScriptedUpstream, resolver: StuckResolver
) -> None:
    client = GhibliClient(resolver.url(upstream), deadline=5)
    outcomes: list[Any] = []
    flight = threading.Thread(target=lambda: outcomes.append(client.fetch()))
    flight.start()
    wait_until(lambda: resolver.asked == 1)
    resolver.released.set()
    flight.join()

    assert outcomes[0].films == CATALOGUE.films


def test_a_resolver_that_stalls_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
import socket, threading
from services.exceptions import UpstreamError
from services.ghibli.client import GhibliClient
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
try:
    GhibliClient("http://stuck.test/", deadline=0.1).fetch()
except UpstreamError as error:
    print(error.reason)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=10, stdout=subprocess.PIPE, check=True
    )

    assert ended.stdout == b"deadline\n"


def test_an_address_that_refuses_does_not_hide_the_next(
    upstream: ScriptedUpstream, resolver: StuckResolver
) -> None:
    resolver.addresses = ["::1", "127.0.0.1"]
    resolver.released.set()

    assert GhibliClient(resolver.url(upstream)).fetch().films == CATALOGUE.films


def test_a_host_may_move(upstream: ScriptedUpstream, resolver: StuckResolver) -> None:
    resolver.released.set()
    client = GhibliClient(resolver.url(upstream))
    client.fetch()
    asked = resolver.asked
    upstream.hang_up()
    wait_until(lambda: upstream.open_connections() == 0)
    client.fetch()

    assert resolver.asked > asked


def test_a_flight_that_is_over_asks_nothing_any_more(
    upstream: ScriptedUpstream, resolver: StuckResolver
) -> None:
    ending(resolver.url(upstream), deadline=0.1)
    resolver.released.set()
    wait_until(lambda: not threads_of_flights(), what="nothing of the flight is left")

    assert upstream.requests == []


def test_connections_are_kept_for_the_next_flight(upstream: ScriptedUpstream) -> None:
    client = GhibliClient(upstream.url)
    for _ in range(3):
        client.fetch()

    assert upstream.count("films") == 3
    assert upstream.connections <= 2


def test_kept_connections_that_the_upstream_closed_meanwhile_go_unnoticed(
    upstream: ScriptedUpstream,
) -> None:
    client = GhibliClient(upstream.url)
    client.fetch()
    kept = upstream.connections
    upstream.hang_up()
    wait_until(lambda: upstream.open_connections() == 0)

    assert client.fetch().films == CATALOGUE.films
    assert (upstream.count("films"), upstream.count("people")) == (2, 2)
    assert upstream.connections > kept


def test_bytes_left_over_on_a_kept_connection_are_not_taken_for_an_answer(
    upstream: ScriptedUpstream,
) -> None:
    client = GhibliClient(upstream.url)
    upstream.films = FILMS + json_response([film(title="Smuggled")])
    client.fetch()
    upstream.films = FILMS

    assert client.fetch().films == CATALOGUE.films


def test_several_flights_of_one_client_do_not_disturb_each_other(
    upstream: ScriptedUpstream,
) -> None:
    client = GhibliClient(upstream.url)

    outcomes = run_concurrently(*[client.fetch] * 8)

    assert all(fetched.films == CATALOGUE.films for fetched in outcomes)
    assert all(fetched.people == CATALOGUE.people for fetched in outcomes)


# Time


@pytest.fixture(scope="module")
def endings() -> dict[str, Ending]:
    """How flights end that are given all the time they have in production; all of them at once,
    for one after the other would take a minute."""
    resolver = StuckResolver()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(socket, "getaddrinfo", resolver)
        stack.callback(resolver.released.set)
        silent = stack.enter_context(ScriptedUpstream(films=Exchange.stall))
        half = stack.enter_context(ScriptedUpstream(films=then(HALF, Exchange.stall)))
        slow_head = stack.enter_context(ScriptedUpstream(films=lambda it: it.drip(FILMS, pause=1)))
        slow_body = stack.enter_context(
            ScriptedUpstream(films=then(HEAD, lambda it: it.drip(FILMS_BODY, pause=1)))
        )
        urls = {
            "stuck resolver": resolver.url(silent),
            "black hole": stack.enter_context(BlackHole()).url,
            "silence": silent.url,
            "silent handshake": silent.url.replace("http:", "https:"),
            "half a body": half.url,
            "slow head": slow_head.url,
            "slow body": slow_body.url,
        }
        outcomes = run_concurrently(*[partial(ending, url) for url in urls.values()])
    wait_until(lambda: not threads_of_flights(), what="nothing of the flights is left")
    return dict(zip(urls, outcomes, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "reason", "seconds"),
    [
        ("stuck resolver", Reason.DNS, 5),
        ("black hole", Reason.CONNECT_TIMEOUT, 2),
        ("silent handshake", Reason.READ_TIMEOUT, 2),
        ("silence", Reason.READ_TIMEOUT, 5),
        ("half a body", Reason.READ_TIMEOUT, 5),
        ("slow head", Reason.DEADLINE, 20),
        ("slow body", Reason.DEADLINE, 20),
    ],
)
def test_waiting_has_an_end(
    endings: dict[str, Ending], trouble: str, reason: Reason, seconds: float
) -> None:
    assert endings[trouble].reason == reason
    assert seconds <= endings[trouble].seconds < seconds + 1


@pytest.mark.parametrize(
    "films",
    [
        Exchange.stall,
        then(HALF, Exchange.stall),
        lambda it: it.drip(FILMS),
        then(FILMS[:-5], lambda it: it.drip(FILMS[-5:], pause=0.2)),
        then(HEAD, lambda it: it.drip(FILMS_BODY)),
        then(http_response(FILMS_BODY, Connection="close")[:200], lambda it: it.drip(FILMS_BODY)),
        then(CHUNKED_HEAD, lambda it: it.drip(chunked(FILMS_BODY))),
        lambda it: it.send_repeatedly(b"HTTP/1.1 100 Continue\r\n\r\n"),
        then(
            CHUNKED_HEAD,
            chunked(FILMS_BODY, b"")[:-2],
            lambda it: it.send_repeatedly(b"Trailer: 1\r\n"),
        ),
    ],
    ids=[
        "silence",
        "half a body",
        "slow head",
        "slow end",
        "slow body without a length",
        "slow body that ends with the connection",
        "slow chunks",
        "endless continue",
        "endless trailers",
    ],
)
def test_the_deadline_cuts_off_whatever_lasts_too_long(
    upstream: ScriptedUpstream, films: Script
) -> None:
    upstream.films = films
    start = time.monotonic()

    assert failure(upstream.url, deadline=0.4).reason == Reason.DEADLINE
    assert time.monotonic() - start < 2
    assert upstream.count("films") == 1


def test_a_failure_of_one_request_ends_the_other(upstream: ScriptedUpstream) -> None:
    upstream.films = http_response(b"{}", "500 Internal Server Error")
    upstream.people = Exchange.stall
    start = time.monotonic()

    assert failure(upstream.url).reason == Reason.UPSTREAM_5XX
    assert time.monotonic() - start < 1


# Broken connections and statuses

BROKEN: dict[str, tuple[Script, Reason]] = {
    "hang up": (Exchange.hang_up, Reason.RESET),
    "reset": (Exchange.reset, Reason.RESET),
    "reset in the head": (then(FILMS[:30], Exchange.reset), Reason.RESET),
    "reset in the body": (then(HALF, Exchange.reset), Reason.RESET),
    "5 of 100 bytes": (
        then(http_response(b"[1,2]", Content_Length="100"), Exchange.hang_up),
        Reason.TRUNCATED,
    ),
    "half a chunk": (
        then(CHUNKED_HEAD, chunked(FILMS_BODY)[:9000], Exchange.hang_up),
        Reason.TRUNCATED,
    ),
    "no last chunk": (then(CHUNKED_HEAD, chunked(FILMS_BODY), Exchange.hang_up), Reason.TRUNCATED),
    "half a gzip": (
        http_response(gzip.compress(FILMS_BODY)[:-10], Content_Encoding="gzip"),
        Reason.TRUNCATED,
    ),
    "502": (http_response(b"{}", "502 Bad Gateway"), Reason.UPSTREAM_5XX),
    "503": (UNAVAILABLE, Reason.UPSTREAM_5XX),
    "504": (http_response(b"{}", "504 Gateway Timeout"), Reason.UPSTREAM_5XX),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_request_that_breaks_is_tried_once_more(upstream: ScriptedUpstream, broken: str) -> None:
    upstream.films = in_turn(BROKEN[broken][0], FILMS)

    assert len(catalogue_of(GhibliClient(upstream.url)).movies) == 22
    assert (upstream.count("films"), upstream.count("people")) == (2, 1)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_request_that_breaks_again_fails(upstream: ScriptedUpstream, broken: str) -> None:
    upstream.films, reason = BROKEN[broken]

    assert failure(upstream.url).reason == reason
    assert upstream.count("films") == 2


def test_there_is_one_retry_in_a_flight_and_not_one_for_each_request(
    upstream: ScriptedUpstream,
) -> None:
    upstream.films = then(lambda _: wait_until(lambda: upstream.count("people") == 2), UNAVAILABLE)
    upstream.people = in_turn(UNAVAILABLE, PEOPLE)

    assert failure(upstream.url).reason == Reason.UPSTREAM_5XX
    assert (upstream.count("films"), upstream.count("people")) == (1, 2)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("500 Internal Server Error", Reason.UPSTREAM_5XX),
        ("501 Not Implemented", Reason.UPSTREAM_5XX),
        ("401 Unauthorized", Reason.UPSTREAM_4XX),
        ("403 Forbidden", Reason.UPSTREAM_4XX),
        ("404 Not Found", Reason.UPSTREAM_4XX),
        ("429 Too Many Requests", Reason.RATE_LIMITED),
        ("103 Early Hints", Reason.STATUS),
        ("201 Created", Reason.STATUS),
        ("206 Partial Content", Reason.STATUS),
        ("304 Not Modified", Reason.STATUS),
        ("999 Whatever", Reason.STATUS),
    ],
)
def test_every_other_status_fails_at_once(
    upstream: ScriptedUpstream, status: str, reason: Reason
) -> None:
    upstream.films = http_response(FILMS_BODY, status)

    assert failure(upstream.url).reason == reason
    assert upstream.count("films") == 1


def test_an_answer_without_content_is_no_answer(upstream: ScriptedUpstream) -> None:
    upstream.films = b"HTTP/1.1 204 No Content\r\n\r\n"

    assert failure(upstream.url).reason == Reason.STATUS


def test_films_alone_are_nothing(upstream: ScriptedUpstream) -> None:
    upstream.people = http_response(b"{}", "500 Internal Server Error")

    assert failure(upstream.url).reason == Reason.UPSTREAM_5XX


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("999999", 999_999),
        ("9" * 400, 999_999),
    ],
)
def test_it_says_for_how_long_the_upstream_wants_to_be_left_alone(
    upstream: ScriptedUpstream, status: str, header: str, seconds: float
) -> None:
    upstream.films = http_response(b"{}", status, Retry_After=header)
    start = time.monotonic()

    assert failure(upstream.url).retry_after == seconds
    assert upstream.count("films") == 1
    assert time.monotonic() - start < 1


@pytest.fixture
def _tokyo() -> Iterator[None]:
    """A machine whose own time is not UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_tokyo")
@pytest.mark.parametrize(("seconds", "expected"), [(60, 60), (-60, 0)])
@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_the_upstream_may_name_a_date_until_which_to_leave_it_alone(
    upstream: ScriptedUpstream, seconds: float, expected: float, zone: str
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    upstream.films = http_response(
        b"{}", "429 Too Many Requests", Retry_After=date.replace("GMT", zone)
    )

    assert failure(upstream.url).retry_after == pytest.approx(expected, abs=5)


@pytest.mark.parametrize(
    "header",
    [None, "-1", "7.5", "soon", "Mon, 99 Nov 2026 00:00:00 GMT", "1 Jan 99999999999 00:00", "\xb2"],
)
def test_a_retry_after_that_says_nothing_is_none(
    upstream: ScriptedUpstream, header: str | None
) -> None:
    upstream.films = http_response(b"{}", "429 Too Many Requests", Retry_After=header)

    assert failure(upstream.url).retry_after is None


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "308 Permanent Redirect"])
def test_a_redirect_is_not_followed(upstream: ScriptedUpstream, status: str) -> None:
    with ScriptedUpstream() as other:
        upstream.films = http_response(b"", status, Location=f"{other.url}films")

        assert failure(upstream.url).reason == Reason.REDIRECT
        assert (upstream.count("films"), other.connections) == (1, 0)


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest/meta-data/", "/films", "http://[", "\xff", None]
)
def test_no_redirect_is_followed_wherever_it_leads(
    upstream: ScriptedUpstream, location: str
) -> None:
    upstream.films = http_response(b"", "301 Moved Permanently", Location=location)

    assert failure(upstream.url).reason == Reason.REDIRECT
    assert upstream.count("films") == 1


# What does not even speak HTTP


@pytest.mark.parametrize(
    "films",
    [
        b"hello\r\n\r\n",
        b"\r\n\r\n",
        b"\x00\xff\x00\xff\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 20",
        b"HTTP/1.1 " + b"2" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
)
def test_what_is_not_http_is_told(upstream: ScriptedUpstream, films: bytes) -> None:
    upstream.films = then(films, Exchange.hang_up)

    assert failure(upstream.url).reason == Reason.PROTOCOL
    assert upstream.count("films") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_answer_with_two_lengths_is_refused(upstream: ScriptedUpstream) -> None:
    upstream.films = http_response(FILMS_BODY, Content_Length="5, 6")

    assert failure(upstream.url).reason == Reason.PROTOCOL
    gc.collect()  # which urllib3 leaves the connection to, in this one case


def test_what_comes_in_place_of_headers_is_not_logged(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.films = then(b"HTTP/1.1 200 OK\r\nacorns\r\n\r\n", Exchange.hang_up)

    failure(upstream.url)
    assert "acorns" not in caplog.text


@pytest.mark.parametrize("length", range(1, len(HEAD)))
def test_an_answer_cut_in_its_head_is_not_an_empty_one(
    upstream: ScriptedUpstream, length: int
) -> None:
    upstream.films = upstream.people = then(HEAD[:length], Exchange.hang_up)

    assert failure(upstream.url).reason in {
        Reason.PROTOCOL,
        Reason.RESET,
        Reason.STATUS,
        Reason.CONTENT_TYPE,
        Reason.BAD_JSON,
    }


def test_nothing_but_our_own_error_leaves_whatever_bytes_come(upstream: ScriptedUpstream) -> None:
    client = GhibliClient(upstream.url, deadline=2)
    chance = random.Random(0)
    for _ in range(200):
        at, length = chance.randrange(200), chance.randrange(60)
        mangled = FILMS[:at] + chance.randbytes(chance.randrange(40)) + FILMS[at + length :]
        upstream.films = upstream.people = then(mangled, Exchange.hang_up)
        with suppress(UpstreamError):
            client.fetch()


@pytest.mark.parametrize(
    "size",
    [
        b"-5",
        b"-1",
        b"+5",
        b"0x10",
        b"1_0",
        b" 5",
        b"5 ",
        b"",
        b"zz",
        b"f" * 20,
        b"1e3",
        b"\xff",
        b"5;",
    ],
)
def test_chunk_sizes_that_are_no_hexadecimal_numbers_end_in_an_upstream_error(
    upstream: ScriptedUpstream, size: bytes
) -> None:
    broken = CHUNKED_HEAD + size + b"\r\n" + FILMS_BODY + b"\r\n0\r\n\r\n"
    upstream.films = then(broken, Exchange.hang_up)

    failure(upstream.url, deadline=2)


# What stands in a response where a number, a name or an encoding belongs.
RUBBISH = [b"", b"-1", b"-5", b"1e9", b"99999999999999999999", b"inf", b"nan", b"\xff\xfe", b"\x00"]
RUBBISH += [
    b"a" * 5000,
    b"0x10",
    b"1, 2",
    b";;;",
    b"gzip, gzip",
    b"chunked, chunked",
    b'"',
    b"\xc2\x85",
]


# urllib3 leaves the connection of a response with two lengths to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("value", RUBBISH)
@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Content-Encoding",
        b"Content-Type",
        b"Connection",
        b"ETag",
        b"Retry-After",
        b"Location",
        b"Set-Cookie",
        b"Keep-Alive",
        b"Date",
        b"Trailer",
    ],
)
def test_rubbish_in_a_header_ends_in_data_or_an_upstream_error(
    upstream: ScriptedUpstream, name: bytes, value: bytes
) -> None:
    client = GhibliClient(upstream.url, deadline=2)
    for status in (b"200 OK", b"304 Not Modified", b"503 Service Unavailable"):
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%b: %b\r\n\r\n"
        broken = head % (status, name, value) + FILMS_BODY
        upstream.films = upstream.people = then(broken, Exchange.hang_up)
        for _ in range(2):  # what the first response says decides how the second one is asked for
            with suppress(UpstreamError):
                client.fetch()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def _trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests trust the authority."""
    bundle = str(tmp_path / "authority.pem")
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", bundle)


def tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def self_signed() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    itself = trustme.CA()
    with itself.cert_pem.tempfile() as certificate, itself.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    return context


@pytest.mark.usefixtures("_trusted")
def test_a_certificate_of_a_trusted_authority_is_accepted(authority: trustme.CA) -> None:
    with ScriptedUpstream(tls=tls(authority.issue_cert("127.0.0.1"))) as upstream:
        client = GhibliClient(upstream.url)
        client.fetch()

        assert client.fetch().films == CATALOGUE.films
        assert upstream.connections <= 2


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize(
    "context",
    [
        lambda _: self_signed(),
        lambda _: tls(trustme.CA().issue_cert("127.0.0.1")),
        lambda authority: tls(
            authority.issue_cert("127.0.0.1", not_before=YEAR_2020, not_after=YEAR_2021)
        ),
        lambda authority: tls(authority.issue_cert("ghibliapi.test")),
    ],
    ids=["self-signed", "unknown authority", "expired", "wrong name"],
)
def test_a_certificate_that_proves_nothing_is_refused(
    authority: trustme.CA,
    context: Callable[[trustme.CA], ssl.SSLContext],
) -> None:
    with ScriptedUpstream(tls=context(authority)) as upstream:
        assert failure(upstream.url).reason == Reason.TLS
        assert upstream.requests == []
        assert upstream.connections <= 2


@pytest.mark.usefixtures("_trusted")
def test_the_deadline_cuts_off_tls_too(authority: trustme.CA) -> None:
    context = tls(authority.issue_cert("127.0.0.1"))
    with ScriptedUpstream(films=lambda it: it.drip(FILMS), tls=context) as upstream:
        start = time.monotonic()

        assert failure(upstream.url, deadline=0.4).reason == Reason.DEADLINE
        assert time.monotonic() - start < 2


def test_plain_http_where_tls_is_expected_is_refused() -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(http_response(b"", "400 Bad Request"))

    with ScriptedUpstream(opening=greet) as upstream:
        assert failure(upstream.url.replace("http:", "https:")).reason == Reason.TLS


# The environment, and what the upstream would have us remember


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_in_the_environment_is_not_used(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for no_proxy in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(no_proxy, raising=False)
    with ScriptedUpstream() as proxy:
        monkeypatch.setenv(name, proxy.url)

        assert len(catalogue_of(GhibliClient(upstream.url)).movies) == 22
        assert proxy.connections == 0


def test_passwords_in_a_netrc_are_not_sent(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login totoro password acorn\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    GhibliClient(upstream.url).fetch()

    assert not any("authorization" in request.headers for request in upstream.requests)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_bundle_in_the_environment_is_not_trusted(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv(name, str(tmp_path / "authority.pem"))

    with ScriptedUpstream(tls=tls(authority.issue_cert("127.0.0.1"))) as upstream:
        assert failure(upstream.url).reason == Reason.TLS


def test_cookies_are_not_sent_back(upstream: ScriptedUpstream) -> None:
    upstream.films = http_response(FILMS_BODY, Set_Cookie="acorn=1; Path=/")
    client = GhibliClient(upstream.url)
    for _ in range(2):
        client.fetch()

    assert not any("cookie" in request.headers for request in upstream.requests)


# Asking only for what has changed


def tagged(body: bytes, etag: str) -> Callable[[Exchange], None]:
    """The answer of a server that knows about If-None-Match."""

    def run(exchange: Exchange) -> None:
        if exchange.request.headers.get("if-none-match") == etag:
            exchange.send(f"HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n".encode())
        else:
            exchange.send(http_response(body, ETag=etag))

    return run


def test_data_that_has_not_changed_is_not_sent_again(upstream: ScriptedUpstream) -> None:
    upstream.films = tagged(FILMS_BODY, 'W/"one"')
    client = GhibliClient(upstream.url)
    flights = [client.fetch() for _ in range(3)]

    asked = [r.headers.get("if-none-match") for r in upstream.requests if r.collection == "films"]
    assert asked == [None, 'W/"one"', 'W/"one"']
    assert all(fetched.films == CATALOGUE.films for fetched in flights)
    assert flights[0].timestamp < flights[1].timestamp < flights[2].timestamp
    assert upstream.connections <= 2


def test_data_that_has_changed_is_taken(upstream: ScriptedUpstream) -> None:
    upstream.films = tagged(FILMS_BODY, '"one"')
    client = GhibliClient(upstream.url)
    client.fetch()
    upstream.films = tagged(json.dumps([film(title="Changed")]).encode(), '"two"')

    assert [client.fetch().films[0]["title"] for _ in range(2)] == ["Changed", "Changed"]
    assert upstream.requests[-1].headers.get("if-none-match") in (None, '"two"')


def test_a_failed_flight_forgets_nothing(upstream: ScriptedUpstream) -> None:
    upstream.films = good = tagged(FILMS_BODY, '"one"')
    client = GhibliClient(upstream.url)
    client.fetch()
    upstream.films = http_response(b"<html>", ETag='"broken"')
    with pytest.raises(UpstreamError):
        client.fetch()
    upstream.films = good

    assert client.fetch().films == CATALOGUE.films
    assert {r.headers.get("if-none-match") for r in upstream.requests} == {None, '"one"'}


def test_without_a_tag_everything_is_asked_for_anew(upstream: ScriptedUpstream) -> None:
    upstream.films = in_turn(tagged(FILMS_BODY, '"one"'), FILMS)
    client = GhibliClient(upstream.url)
    for _ in range(3):
        client.fetch()

    asked = [r.headers.get("if-none-match") for r in upstream.requests if r.collection == "films"]
    assert asked == [None, '"one"', None]


@pytest.mark.parametrize(
    "etag",
    [
        b'"a\x00b"',
        b'"\xff"',
        b'"a\r\n b"',
        b'"a\x0bb"',
        b'"tab\tbed"',
        b"unquoted",
        b'"open',
        b'w/"lower"',
        b'"' + b"e" * 60_000 + b'"',
        b'"one", "two"',
    ],
)
def test_a_tag_that_is_none_is_not_sent_back_and_the_next_refresh_works(
    upstream: ScriptedUpstream, etag: bytes
) -> None:
    head, _, body = FILMS.partition(b"\r\n\r\n")
    upstream.films = head + b"\r\nETag: " + etag + b"\r\n\r\n" + body
    client = GhibliClient(upstream.url)
    for _ in range(3):
        assert client.fetch().films == CATALOGUE.films

    assert not any("if-none-match" in request.headers for request in upstream.requests)


# Size

GZIP_HEAD = http_response(Content_Length=None, Content_Encoding="gzip", Connection="close")


def bomb() -> bytes:
    """200 MiB, in 200 KB."""
    fold = zlib.compressobj(9, wbits=31)
    mebibyte = bytes(MIB)
    return b"".join([*(fold.compress(mebibyte) for _ in range(200)), fold.flush()])


ENDLESS = {
    "gzip bomb": then(GZIP_HEAD, bomb(), Exchange.hang_up),
    "50 MB": then(
        http_response(Content_Length="50000000"), lambda it: it.send_repeatedly(b" " * MIB)
    ),
    "no length": then(HEAD, lambda it: it.send_repeatedly(b" " * MIB)),
    "chunks": then(CHUNKED_HEAD, lambda it: it.send_repeatedly(chunked(b" " * MIB))),
    "one chunk": then(CHUNKED_HEAD, b"ffffffffff\r\n", lambda it: it.send_repeatedly(b" " * MIB)),
    "empty gzip": then(
        GZIP_HEAD,
        gzip.compress(b"")[:10],
        lambda it: it.send_repeatedly(b"\x00\x00\x00\xff\xff" * 100_000),
    ),
}


@pytest.mark.parametrize("films", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_takes_no_memory(upstream: ScriptedUpstream, films: Script) -> None:
    upstream.films = upstream.people = films
    tracemalloc.start()
    try:
        reason = failure(upstream.url).reason
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reason == Reason.TOO_LARGE
    assert peak < 16 * MIB
    assert len(upstream.requests) <= 2


@pytest.mark.parametrize("status", ["301 Moved Permanently", "500 Internal Server Error"])
def test_the_body_of_an_error_is_not_read(upstream: ScriptedUpstream, status: str) -> None:
    head = http_response(b"", status, Content_Length=None, Location="/films")
    upstream.films = then(head, lambda it: it.send_repeatedly(b" " * MIB))
    start = time.monotonic()

    failure(upstream.url)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("size", "fits"), [(2 * MIB, True), (2 * MIB + 1, False), (5 * MIB, False)]
)
def test_two_mebibytes_are_enough_on_the_wire(
    upstream: ScriptedUpstream, size: int, fits: bool
) -> None:
    upstream.films = http_response(FILMS_BODY.ljust(size))

    assert outcome(upstream) == ("fetched" if fits else Reason.TOO_LARGE)


@pytest.mark.parametrize(("size", "fits"), [(5 * MIB, True), (5 * MIB + 1, False)])
def test_five_mebibytes_are_enough_unfolded(
    upstream: ScriptedUpstream, size: int, fits: bool
) -> None:
    upstream.films = http_response(gzip.compress(FILMS_BODY.ljust(size)), Content_Encoding="gzip")

    assert outcome(upstream) == ("fetched" if fits else Reason.TOO_LARGE)


def outcome(upstream: ScriptedUpstream) -> str:
    try:
        GhibliClient(upstream.url).fetch()
    except UpstreamError as error:
        return error.reason
    return "fetched"


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize(
    "films",
    [
        UNAVAILABLE,
        then(HALF, Exchange.reset),
        then(HALF, Exchange.stall),
        b"hello\r\n\r\n",
        http_response(b"<html>"),
        http_response(b"<html>", Content_Type="text/html"),
        http_response(b"", "301 Moved Permanently", Location="/films"),
        then(CHUNKED_HEAD, lambda it: it.send_repeatedly(chunked(b" " * MIB))),
    ],
)
def test_failures_leave_no_connection_open(upstream: ScriptedUpstream, films: Script) -> None:
    before = open_files()
    upstream.films = upstream.people = films
    client = GhibliClient(upstream.url, deadline=0.2)
    for _ in range(10):
        with pytest.raises(UpstreamError):
            client.fetch()

    # Two at this end and two at the other may be kept for the next flight.
    wait_until(lambda: open_files() <= before + 4, seconds=2, what="connections are closed")


# Bodies


@pytest.mark.parametrize(
    ("films", "reason"),
    [
        (http_response(b"<html>", Content_Type="text/html"), Reason.CONTENT_TYPE),
        (http_response(FILMS_BODY, Content_Type=None), Reason.CONTENT_TYPE),
        (http_response(FILMS_BODY, Content_Type="application/problem+json"), Reason.CONTENT_TYPE),
        (http_response(FILMS_BODY, Content_Encoding="br"), Reason.CONTENT_TYPE),
        (http_response(FILMS_BODY, Content_Encoding="gzip, gzip"), Reason.CONTENT_TYPE),
        (http_response(b"<html>"), Reason.BAD_JSON),
        (http_response(b""), Reason.BAD_JSON),
        (then(HEAD, FILMS_BODY[:9000], Exchange.hang_up), Reason.BAD_JSON),
        (http_response(FILMS_BODY, Content_Encoding="gzip"), Reason.BAD_JSON),
        (
            http_response(gzip.compress(FILMS_BODY) + b"more", Content_Encoding="gzip"),
            Reason.BAD_JSON,
        ),
        (http_response(gzip.compress(FILMS_BODY) * 2, Content_Encoding="gzip"), Reason.BAD_JSON),
        (http_response(FILMS_BODY + b"more"), Reason.BAD_JSON),
    ],
    ids=[
        "HTML",
        "no type",
        "another type",
        "brotli",
        "gzip twice",
        "HTML labelled as JSON",
        "empty",
        "cut short without a length",
        "no gzip",
        "gzip and more",
        "two gzips",
        "JSON and more",
    ],
)
def test_what_is_not_json_is_refused(
    upstream: ScriptedUpstream, films: Script, reason: Reason
) -> None:
    upstream.films = films

    assert failure(upstream.url).reason == reason
    assert upstream.count("films") == 1


def film_titled(title: bytes) -> bytes:
    """A film in JSON whose title is exactly these bytes."""
    return json.dumps([film(title="TITLE")]).encode().replace(b'"TITLE"', title)


@pytest.mark.parametrize(
    "title",
    [
        b"NaN",
        b"Infinity",
        b"1e999",
        b"-1e999",
        b"9" * 5000,
        rb'"\ud83d"',
        rb'"\ude00 \ud83d"',
        b'"\xff"',
        b'"\xed\xa0\xbd"',
        b'"\xc0\x80"',
        rb'"\u0000"',
        rb'"\\\u0000"',
        b'"\x00"',
        b'"\n"',
        b"'Ponyo'",
        b'"Ponyo',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda title: ascii(title[:20]),
)
def test_json_that_others_choke_on_is_refused(upstream: ScriptedUpstream, title: bytes) -> None:
    upstream.films = http_response(film_titled(title))

    assert failure(upstream.url).reason == Reason.BAD_JSON


@pytest.mark.parametrize(
    ("title", "meaning"),
    [
        (b'"Ponyo"', "Ponyo"),
        (rb'"\\u0000"', r"\u0000"),
        (rb'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        (b"1001", "1001"),
    ],
)
def test_json_that_only_looks_strange_is_taken(
    upstream: ScriptedUpstream, title: bytes, meaning: str
) -> None:
    upstream.films = http_response(film_titled(title))
    upstream.people = json_response([person(films=[])])

    assert catalogue_of(GhibliClient(upstream.url)).movies[0].title == meaning


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_json_in_another_encoding_than_utf_8_is_refused(
    upstream: ScriptedUpstream, encoding: str
) -> None:
    upstream.films = http_response('[{"id": "1", "title": "Ponyó"}]'.encode(encoding))

    assert failure(upstream.url).reason == Reason.BAD_JSON


@pytest.mark.parametrize(
    "text",
    [
        "\N{GRINNING FACE}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}",
        "\N{RIGHT-TO-LEFT OVERRIDE}טוטורו",
        "Tenku\N{COMBINING MACRON} no shiro, Tenk\N{LATIN SMALL LETTER U WITH MACRON}",
        "天空の城ラピュタ",
        "one\N{LINE SEPARATOR}two\N{PARAGRAPH SEPARATOR}three\N{NEXT LINE}",
        'quo"te \\ back / </script> \t \x1f \x7f',
        "\N{ZERO WIDTH NO-BREAK SPACE} \uffff \U0010ffff",
        " spaces around ",
    ],
    ids=ascii,
)
def test_text_arrives_exactly_as_it_is(upstream: ScriptedUpstream, text: str) -> None:
    upstream.films = json_response([film(title=text)])
    upstream.people = json_response([person(name=text, films=[film()["url"]])])

    [movie] = catalogue_of(GhibliClient(upstream.url)).movies
    assert movie.title == text
    assert movie.people[0].name == text


# Lists that make no sense


@pytest.mark.parametrize("collection", ["films", "people"])
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, Reason.SCHEMA),
        ("x", Reason.SCHEMA),
        (1, Reason.SCHEMA),
        (None, Reason.SCHEMA),
        ([1], Reason.SCHEMA),
        ([None], Reason.SCHEMA),
        ([[]], Reason.SCHEMA),
        ([{}], Reason.SCHEMA),
        ([{"id": "1"}], Reason.SCHEMA),
        ([{"title": "Ponyo", "name": "Ponyo"}], Reason.SCHEMA),
        ([{"id": "", "title": "Ponyo", "name": "Ponyo"}], Reason.SCHEMA),
        ([{"id": "1", "title": "", "name": ""}], Reason.SCHEMA),
        ([{"id": "1", "title": ["Ponyo"], "name": {}}], Reason.SCHEMA),
        ([{"id": "1", "title": True, "name": False}], Reason.SCHEMA),
        ([], Reason.EMPTY),
        (
            [{"id": f"{number}", "title": "Ponyo", "name": "Ponyo"} for number in range(250)],
            Reason.TRUNCATED,
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_list_of_something_else_is_refused(
    upstream: ScriptedUpstream, collection: str, payload: object, reason: Reason
) -> None:
    setattr(upstream, collection, json_response(payload))

    assert failure(upstream.url).reason == reason


@pytest.mark.parametrize("collection", ["films", "people"])
def test_the_same_object_twice_counts_once(upstream: ScriptedUpstream, collection: str) -> None:
    objects = getattr(CATALOGUE, collection)
    setattr(upstream, collection, json_response([*objects, objects[0]]))

    catalogue = catalogue_of(GhibliClient(upstream.url))
    assert catalogue.duplicates == 1
    assert len(catalogue.movies) == 22
    assert sum(len(movie.people) for movie in catalogue.movies) == 59


@pytest.mark.parametrize("collection", ["films", "people"])
def test_two_different_objects_with_one_id_are_refused(
    upstream: ScriptedUpstream, collection: str
) -> None:
    objects = getattr(CATALOGUE, collection)
    twin = objects[0] | {"title": "Another", "name": "Another"}
    setattr(upstream, collection, json_response([*objects, twin]))

    assert failure(upstream.url).reason == Reason.SCHEMA


# Who appears in what

ID = film()["id"]
NOWHERE = "https://ghibliapi.vercel.app/films/00000000-0000-0000-0000-000000000000"


def people_of_the_first_film(upstream: ScriptedUpstream) -> list[str]:
    return [one.name for one in catalogue_of(GhibliClient(upstream.url)).movies[0].people]


def with_links(links: object) -> bytes:
    """Only one person, whose films are these."""
    return json_response([person(name="Pazu", films=links)])


@pytest.mark.parametrize(
    "link",
    [
        f"https://ghibliapi.herokuapp.com/films/{ID}",
        f"https://ghibliapi.vercel.app/films/{ID}",
        f"http://127.0.0.1:3900/films/{ID}",
        f"htps://ghibliapi.herokuapp.com/films/{ID}",
        f"/films/{ID}",
        f"https://ghibliapi.vercel.app/films/{ID}/",
        f"https://ghibliapi.vercel.app/films/{ID.upper()}",
        f"https://ghibliapi.vercel.app/FILMS/{ID}",
        f"https://ghibliapi.vercel.app/films/{ID}?fields=id#top",
    ],
)
def test_a_link_counts_by_the_id_at_its_end(upstream: ScriptedUpstream, link: str) -> None:
    upstream.people = with_links([link])

    assert people_of_the_first_film(upstream) == ["Pazu"]


@pytest.mark.parametrize("id", [ID.upper(), "e2cfaa78-fb19-11eb-9a03-0242ac130003", "castle"])
def test_a_films_id_may_have_any_form(upstream: ScriptedUpstream, id: str) -> None:
    upstream.films = json_response([film(id=id)])
    upstream.people = with_links([f"https://ghibliapi.herokuapp.com/films/{id.lower()}"])

    [movie] = catalogue_of(GhibliClient(upstream.url)).movies
    assert (movie.id, [one.name for one in movie.people]) == (id, ["Pazu"])


@pytest.mark.parametrize(
    "links",
    [
        None,
        "",
        [],
        [""],
        [None, 1, {}],
        {},
        7,
        "https://ghibliapi.vercel.app/films/",
        ["https://ghibliapi.vercel.app/films/"],
        ["https://ghibliapi.vercel.app/films"],
        [f"https://ghibliapi.vercel.app/people/{ID}"],
    ],
    ids=str,
)
def test_a_person_without_a_link_to_a_film_appears_in_none(
    upstream: ScriptedUpstream, links: object
) -> None:
    upstream.people = with_links(links)

    assert people_of_the_first_film(upstream) == []


def test_a_person_who_says_nothing_of_films_appears_in_none(upstream: ScriptedUpstream) -> None:
    silent = {name: value for name, value in person().items() if name != "films"}
    upstream.people = json_response([silent])

    assert people_of_the_first_film(upstream) == []


def test_a_single_link_may_stand_without_a_list(upstream: ScriptedUpstream) -> None:
    upstream.people = with_links(f"https://ghibliapi.vercel.app/films/{ID}")

    assert people_of_the_first_film(upstream) == ["Pazu"]


def test_a_person_who_names_a_film_twice_appears_once(upstream: ScriptedUpstream) -> None:
    link = f"https://ghibliapi.vercel.app/films/{ID}"
    upstream.people = with_links([link, link.upper(), f"{link}/"])

    assert people_of_the_first_film(upstream) == ["Pazu"]


@pytest.mark.parametrize(
    "listed", [["https://ghibliapi.herokuapp.com/people/"], [person(5)["url"]], None]
)
def test_whom_a_film_lists_does_not_matter(upstream: ScriptedUpstream, listed: object) -> None:
    upstream.films = json_response([film(people=listed)])
    upstream.people = with_links([film()["url"]])

    assert people_of_the_first_film(upstream) == ["Pazu"]


def test_a_film_that_is_not_there_is_passed_over_and_counted(upstream: ScriptedUpstream) -> None:
    upstream.people = with_links([NOWHERE, film()["url"]])

    catalogue = catalogue_of(GhibliClient(upstream.url))
    assert catalogue.unknown_films == 1
    assert [one.name for one in catalogue.movies[0].people] == ["Pazu"]


def test_people_who_name_none_but_films_that_are_not_there_do_not_belong(
    upstream: ScriptedUpstream,
) -> None:
    upstream.people = json_response([person(0, films=[NOWHERE]), person(1, films=[NOWHERE])])

    assert failure(upstream.url).reason == Reason.TORN
