"""What each response leads to: JSON, or an error with its reason."""

import gc
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.exceptions import Reason, UpstreamError
from services.ghibli.client import GhibliClient
from tests.support.ghibli_client import CHUNKED_HEAD, FILMS_BODY, HEAD, MIB, failure
from tests.support.scripted_upstream import (
    CATALOGUE,
    FILMS,
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
def test_accepts_every_form_of_response_that_http_allows(
    upstream: ScriptedUpstream, films: Script
) -> None:
    upstream.films = films

    assert GhibliClient(upstream.url).fetch().films == CATALOGUE.films


# Statuses and Retry-After


def test_rejects_a_response_without_content(upstream: ScriptedUpstream) -> None:
    upstream.films = b"HTTP/1.1 204 No Content\r\n\r\n"

    assert failure(upstream.url).reason == Reason.STATUS


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
def test_reports_the_seconds_of_retry_after_and_does_not_retry(
    upstream: ScriptedUpstream, status: str, header: str, seconds: float
) -> None:
    upstream.films = http_response(b"{}", status, Retry_After=header)
    start = time.monotonic()

    assert failure(upstream.url).retry_after == seconds
    assert upstream.count("films") == 1
    assert time.monotonic() - start < 1


@pytest.fixture
def _tokyo() -> Iterator[None]:
    """Set a local time zone that is not UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_tokyo")
@pytest.mark.parametrize(("seconds", "expected"), [(60, 60), (-60, 0)])
@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_reports_the_seconds_until_a_retry_after_date(
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
def test_ignores_an_invalid_retry_after(upstream: ScriptedUpstream, header: str | None) -> None:
    upstream.films = http_response(b"{}", "429 Too Many Requests", Retry_After=header)

    assert failure(upstream.url).retry_after is None


# Responses that violate HTTP


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
def test_reports_a_response_that_is_not_http(upstream: ScriptedUpstream, films: bytes) -> None:
    upstream.films = then(films, Exchange.hang_up)

    assert failure(upstream.url).reason == Reason.PROTOCOL
    assert upstream.count("films") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_rejects_a_response_with_two_lengths(upstream: ScriptedUpstream) -> None:
    upstream.films = http_response(FILMS_BODY, Content_Length="5, 6")

    assert failure(upstream.url).reason == Reason.PROTOCOL
    gc.collect()  # urllib3 does not close the connection itself in this case


def test_does_not_log_malformed_headers(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.films = then(b"HTTP/1.1 200 OK\r\nacorns\r\n\r\n", Exchange.hang_up)

    failure(upstream.url)
    assert "acorns" not in caplog.text


@pytest.mark.parametrize("length", range(1, len(HEAD)))
def test_a_response_cut_in_its_head_is_not_an_empty_one(
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
def test_rejects_invalid_chunk_sizes(upstream: ScriptedUpstream, size: bytes) -> None:
    broken = CHUNKED_HEAD + size + b"\r\n" + FILMS_BODY + b"\r\n0\r\n\r\n"
    upstream.films = then(broken, Exchange.hang_up)

    failure(upstream.url, deadline=2)


# Sizes

GZIP_HEAD = http_response(Content_Length=None, Content_Encoding="gzip", Connection="close")


def bomb() -> bytes:
    """Return 200 MiB as 200 KB of gzip."""
    gzipper = zlib.compressobj(9, wbits=31)
    mebibyte = bytes(MIB)
    return b"".join([*(gzipper.compress(mebibyte) for _ in range(200)), gzipper.flush()])


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
def test_endless_bodies_take_little_memory(upstream: ScriptedUpstream, films: Script) -> None:
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
def test_does_not_read_the_body_of_an_error(upstream: ScriptedUpstream, status: str) -> None:
    head = http_response(b"", status, Content_Length=None, Location="/films")
    upstream.films = then(head, lambda it: it.send_repeatedly(b" " * MIB))
    start = time.monotonic()

    failure(upstream.url)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("size", "fits"), [(2 * MIB, True), (2 * MIB + 1, False), (5 * MIB, False)]
)
def test_accepts_two_mebibytes_on_the_wire(
    upstream: ScriptedUpstream, size: int, fits: bool
) -> None:
    upstream.films = http_response(FILMS_BODY.ljust(size))

    assert outcome(upstream) == ("fetched" if fits else Reason.TOO_LARGE)


@pytest.mark.parametrize(("size", "fits"), [(5 * MIB, True), (5 * MIB + 1, False)])
def test_accepts_five_mebibytes_after_decompression(
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
def test_rejects_what_is_not_json(
    upstream: ScriptedUpstream, films: Script, reason: Reason
) -> None:
    upstream.films = films

    assert failure(upstream.url).reason == reason
    assert upstream.count("films") == 1


def film_titled(title: bytes) -> bytes:
    """Return a list with one film as JSON, whose title is exactly these bytes."""
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
def test_rejects_json_that_other_parsers_reject(upstream: ScriptedUpstream, title: bytes) -> None:
    upstream.films = http_response(film_titled(title))

    assert failure(upstream.url).reason == Reason.BAD_JSON


@pytest.mark.parametrize(
    ("title", "meaning"),
    [
        (b'"Ponyo"', "Ponyo"),
        (rb'"\\u0000"', r"\u0000"),
        (rb'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        (b"1001", 1001),
    ],
)
def test_accepts_unusual_but_valid_json(
    upstream: ScriptedUpstream, title: bytes, meaning: object
) -> None:
    upstream.films = http_response(film_titled(title))

    assert GhibliClient(upstream.url).fetch().films[0]["title"] == meaning


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_rejects_json_in_other_encodings_than_utf_8(
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
def test_text_arrives_unchanged(upstream: ScriptedUpstream, text: str) -> None:
    upstream.films = json_response([film(title=text)])
    upstream.people = json_response([person(name=text, films=[film()["url"]])])

    fetched = GhibliClient(upstream.url).fetch()
    assert fetched.films[0]["title"] == text
    assert fetched.people[0]["name"] == text
