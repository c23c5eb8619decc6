"""Both lists, the retry, the deadline and conditional requests, against a scripted upstream."""

import gzip
import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from services.exceptions import Reason, UpstreamError
from services.ghibli.client import GhibliClient
from tests.support.ghibli_client import CHUNKED_HEAD, FILMS_BODY, HALF, HEAD, UNAVAILABLE, failure
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
    in_turn,
    run_concurrently,
    then,
)
from tests.support.servers import wait_until


def test_fetches_every_film_and_every_person(upstream: ScriptedUpstream) -> None:
    fetched = GhibliClient(upstream.url).fetch()

    assert fetched.films == CATALOGUE.films
    assert fetched.people == CATALOGUE.people
    assert (upstream.count("films"), upstream.count("people")) == (1, 1)


def test_skips_responses_that_come_before_the_final_one(upstream: ScriptedUpstream) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    upstream.films = then(hints, b"HTTP/1.1 100 Continue\r\n\r\n", hints, FILMS)

    assert GhibliClient(upstream.url).fetch().films == CATALOGUE.films


def test_requests_all_entries_and_only_the_fields_that_are_served(
    upstream: ScriptedUpstream,
) -> None:
    GhibliClient(upstream.url).fetch()

    queries = {r.collection: parse_qs(urlsplit(r.target).query) for r in upstream.requests}
    assert queries == {
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


def test_requests_both_lists_at_the_same_time(upstream: ScriptedUpstream) -> None:
    both = threading.Barrier(2, timeout=5)

    def wait_for_the_other(exchange: Exchange) -> None:
        both.wait()

    upstream.films = then(wait_for_the_other, FILMS)
    upstream.people = then(wait_for_the_other, PEOPLE)

    assert GhibliClient(upstream.url).fetch().films == CATALOGUE.films


def test_takes_the_timestamp_before_the_first_byte_is_sent(upstream: ScriptedUpstream) -> None:
    connections = []

    def now() -> datetime:
        connections.append(upstream.connections)
        return datetime(2026, 11, 23, tzinfo=UTC)

    fetched = GhibliClient(upstream.url, now=now).fetch()

    assert fetched.timestamp == datetime(2026, 11, 23, tzinfo=UTC)
    assert connections == [0]


def test_the_timestamp_is_the_current_time_in_utc(upstream: ScriptedUpstream) -> None:
    before = datetime.now(UTC)

    timestamp = GhibliClient(upstream.url).fetch().timestamp

    assert timestamp.tzinfo is UTC
    assert before <= timestamp <= min(request.at for request in upstream.requests)


def test_concurrent_fetches_do_not_disturb_each_other(
    upstream: ScriptedUpstream,
) -> None:
    client = GhibliClient(upstream.url)

    outcomes = run_concurrently(*[client.fetch] * 8)

    assert all(fetched.films == CATALOGUE.films for fetched in outcomes)
    assert all(fetched.people == CATALOGUE.people for fetched in outcomes)


# Retries

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
def test_retries_a_broken_request_once(upstream: ScriptedUpstream, broken: str) -> None:
    upstream.films = in_turn(BROKEN[broken][0], FILMS)

    assert GhibliClient(upstream.url).fetch().films == CATALOGUE.films
    assert (upstream.count("films"), upstream.count("people")) == (2, 1)


@pytest.mark.parametrize("broken", BROKEN)
def test_fails_when_the_retry_breaks_too(upstream: ScriptedUpstream, broken: str) -> None:
    upstream.films, reason = BROKEN[broken]

    assert failure(upstream.url).reason == reason
    assert upstream.count("films") == 2


def test_both_requests_share_one_retry(
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
        ("201 Created", Reason.STATUS),
        ("206 Partial Content", Reason.STATUS),
        ("304 Not Modified", Reason.STATUS),
        ("999 Whatever", Reason.STATUS),
    ],
)
def test_does_not_retry_other_statuses(
    upstream: ScriptedUpstream, status: str, reason: Reason
) -> None:
    upstream.films = http_response(FILMS_BODY, status)

    assert failure(upstream.url).reason == reason
    assert upstream.count("films") == 1


def test_fails_when_only_people_fail(upstream: ScriptedUpstream) -> None:
    upstream.people = http_response(b"{}", "500 Internal Server Error")

    assert failure(upstream.url).reason == Reason.UPSTREAM_5XX


# The deadline


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
def test_the_deadline_ends_every_slow_response(upstream: ScriptedUpstream, films: Script) -> None:
    upstream.films = films
    start = time.monotonic()

    assert failure(upstream.url, deadline=0.4).reason == Reason.DEADLINE
    assert time.monotonic() - start < 2
    assert upstream.count("films") == 1


def test_a_failed_request_ends_the_other_at_once(upstream: ScriptedUpstream) -> None:
    upstream.films = http_response(b"{}", "500 Internal Server Error")
    upstream.people = Exchange.stall
    start = time.monotonic()

    assert failure(upstream.url).reason == Reason.UPSTREAM_5XX
    assert time.monotonic() - start < 1


def test_close_ends_the_fetch_in_progress(upstream: ScriptedUpstream) -> None:
    upstream.films = upstream.people = Exchange.stall
    client = GhibliClient(upstream.url)

    def close_during_the_fetch() -> None:
        wait_until(lambda: len(upstream.requests) == 2)
        client.close()

    start = time.monotonic()
    error, _ = run_concurrently(client.fetch, close_during_the_fetch)

    assert isinstance(error, UpstreamError)
    assert time.monotonic() - start < 1


# Unexpected input


def test_random_bytes_lead_to_no_other_exception(upstream: ScriptedUpstream) -> None:
    client = GhibliClient(upstream.url, deadline=2)
    chance = random.Random(0)
    for _ in range(200):
        at, length = chance.randrange(200), chance.randrange(60)
        mangled = FILMS[:at] + chance.randbytes(chance.randrange(40)) + FILMS[at + length :]
        upstream.films = upstream.people = then(mangled, Exchange.hang_up)
        with suppress(UpstreamError):
            client.fetch()


INVALID_VALUES = [
    b"",
    b"-1",
    b"-5",
    b"1e9",
    b"99999999999999999999",
    b"inf",
    b"nan",
    b"\xff\xfe",
    b"\x00",
]
INVALID_VALUES += [
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
@pytest.mark.parametrize("value", INVALID_VALUES)
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
def test_invalid_header_values_lead_to_no_other_exception(
    upstream: ScriptedUpstream, name: bytes, value: bytes
) -> None:
    client = GhibliClient(upstream.url, deadline=2)
    for status in (b"200 OK", b"304 Not Modified", b"503 Service Unavailable"):
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%b: %b\r\n\r\n"
        broken = head % (status, name, value) + FILMS_BODY
        upstream.films = upstream.people = then(broken, Exchange.hang_up)
        for _ in range(2):  # the second request depends on headers of the first response
            with suppress(UpstreamError):
                client.fetch()


# Conditional requests


def tagged(body: bytes, etag: str) -> Callable[[Exchange], None]:
    """Respond with this ETag, or with 304 if the request has it."""

    def run(exchange: Exchange) -> None:
        if exchange.request.headers.get("if-none-match") == etag:
            exchange.send(f"HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n".encode())
        else:
            exchange.send(http_response(body, ETag=etag))

    return run


def test_unchanged_lists_are_not_transferred_again(upstream: ScriptedUpstream) -> None:
    upstream.films = tagged(FILMS_BODY, 'W/"one"')
    client = GhibliClient(upstream.url)
    fetches = [client.fetch() for _ in range(3)]

    etags = [r.headers.get("if-none-match") for r in upstream.requests if r.collection == "films"]
    assert etags == [None, 'W/"one"', 'W/"one"']
    assert all(fetched.films == CATALOGUE.films for fetched in fetches)
    assert fetches[0].timestamp < fetches[1].timestamp < fetches[2].timestamp
    assert upstream.connections <= 2


def test_changed_lists_replace_the_earlier_ones(upstream: ScriptedUpstream) -> None:
    upstream.films = tagged(FILMS_BODY, '"one"')
    client = GhibliClient(upstream.url)
    client.fetch()
    upstream.films = tagged(json.dumps([film(title="Changed")]).encode(), '"two"')

    assert [client.fetch().films[0]["title"] for _ in range(2)] == ["Changed", "Changed"]
    assert upstream.requests[-1].headers.get("if-none-match") in (None, '"two"')


def test_remembers_the_etag_after_a_failed_fetch(upstream: ScriptedUpstream) -> None:
    upstream.films = good = tagged(FILMS_BODY, '"one"')
    client = GhibliClient(upstream.url)
    client.fetch()
    upstream.films = http_response(b"<html>", ETag='"broken"')
    with pytest.raises(UpstreamError):
        client.fetch()
    upstream.films = good

    assert client.fetch().films == CATALOGUE.films
    assert {r.headers.get("if-none-match") for r in upstream.requests} == {None, '"one"'}


def test_sends_no_etag_when_the_last_response_had_none(upstream: ScriptedUpstream) -> None:
    upstream.films = in_turn(tagged(FILMS_BODY, '"one"'), FILMS)
    client = GhibliClient(upstream.url)
    for _ in range(3):
        client.fetch()

    etags = [r.headers.get("if-none-match") for r in upstream.requests if r.collection == "films"]
    assert etags == [None, '"one"', None]


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
def test_does_not_send_an_invalid_etag_back(upstream: ScriptedUpstream, etag: bytes) -> None:
    head, _, body = FILMS.partition(b"\r\n\r\n")
    upstream.films = head + b"\r\nETag: " + etag + b"\r\n\r\n" + body
    client = GhibliClient(upstream.url)
    for _ in range(3):
        assert client.fetch().films == CATALOGUE.films

    assert not any("if-none-match" in request.headers for request in upstream.requests)
