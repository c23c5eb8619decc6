"""Validators, conditional requests and encodings of whole responses (RFC 9110, 9111, 9211)."""

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest
from django.test import Client
from pytest_django.fixtures import Settings
from requests.utils import parse_header_links

from fake_ghibli import FakeGhibli
from movies.http.conditional import fresh_headers
from services.clock import Clock

CASTLE = "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/"

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_response_has_validators(api: Client, upstream: FakeGhibli) -> None:
    response = api.get("/movies/")

    assert response["ETag"].startswith('"')
    timestamp = datetime.fromisoformat(response.json()["timestamp"])
    assert parsedate_to_datetime(response["Last-Modified"]) == timestamp.replace(microsecond=0)
    assert response["Vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize("path", ["/movies/", CASTLE, "/movies/?limit=2", "/movies/?fields=id"])
def test_a_client_with_the_current_etag_gets_a_304(
    path: str, api: Client, upstream: FakeGhibli
) -> None:
    full = api.get(path)

    response = api.get(path, headers={"If-None-Match": full["ETag"]})

    assert response.status_code == 304
    assert response.content == b""
    for name in ("ETag", "Vary", "Cache-Control", "Cache-Status", "Last-Modified"):
        assert response[name] == full[name] or name.startswith("Cache-")
    assert response["Cache-Control"].startswith("public, max-age=")


@pytest.mark.parametrize("proxies", [0, 1])
def test_a_proxy_gets_a_second_less_than_the_lifetime(
    proxies: int, api: Client, upstream: FakeGhibli, settings: Settings
) -> None:
    settings.TRUSTED_PROXIES = proxies
    fresh_headers.cache_clear()

    response = api.get("/movies/")

    fresh_headers.cache_clear()
    [max_age] = re.findall(r"max-age=(\d+)", response["Cache-Control"])
    assert response.get("X-Accel-Expires") == (str(int(max_age) - 1) if proxies else None)


def test_a_proxy_does_not_store_what_expires_within_a_second(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = 1

    assert dict(fresh_headers.__wrapped__("hit", 0))["X-Accel-Expires"] == "0"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("*", 304),
        ("{etag}", 304),
        ("W/{etag}", 304),
        ('"x", {etag}', 304),
        ('"x"', 200),
        ("rubbish", 200),
        ("", 200),
    ],
)
def test_if_none_match_is_compared_with_the_etag(
    header: str, status: int, api: Client, upstream: FakeGhibli
) -> None:
    etag = api.get("/movies/")["ETag"]

    etags = header.format(etag=etag)
    assert api.get("/movies/", headers={"If-None-Match": etags}).status_code == status
    assert api.head("/movies/", headers={"If-None-Match": etags}).status_code == status


@pytest.mark.parametrize(("shift", "status"), [(0, 304), (60, 304), (-60, 200)])
def test_if_modified_since_is_compared_with_last_modified(
    shift: int, status: int, api: Client, upstream: FakeGhibli
) -> None:
    modified = parsedate_to_datetime(api.get("/movies/")["Last-Modified"])

    since = format_datetime(modified + timedelta(seconds=shift), usegmt=True)
    assert api.get("/movies/", headers={"If-Modified-Since": since}).status_code == status


def test_if_none_match_takes_precedence_over_if_modified_since(
    api: Client, upstream: FakeGhibli
) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)

    response = api.get("/movies/", headers={"If-None-Match": '"x"', "If-Modified-Since": later})
    assert response.status_code == 200


def test_an_invalid_date_is_ignored(api: Client, upstream: FakeGhibli) -> None:
    assert api.get("/movies/", headers={"If-Modified-Since": "yesterday"}).status_code == 200


def test_a_failed_if_match_is_a_412_problem(api: Client, upstream: FakeGhibli) -> None:
    response = api.get("/movies/", headers={"If-Match": '"x"'})

    assert response.status_code == 412
    assert response.json()["type"] == "/problems/precondition-failed/"


def test_a_large_response_is_compressed_on_request(api: Client, upstream: FakeGhibli) -> None:
    plain = api.get("/movies/")

    response = api.get("/movies/", headers={"Accept-Encoding": "br, gzip"})

    assert response["Content-Encoding"] == "gzip"
    assert gzip.decompress(response.content) == plain.content
    assert int(response["Content-Length"]) == len(response.content) < len(plain.content) / 3
    assert response["ETag"] == plain["ETag"][:-1] + '-gzip"'
    assert response["Vary"] == "Accept, Accept-Encoding"


def test_a_small_response_is_not_compressed(api: Client, upstream: FakeGhibli) -> None:
    response = api.get(CASTLE + "?fields=id", headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in response
    assert len(response.content) < 1024


def test_the_etag_of_one_encoding_does_not_match_the_other(
    api: Client, upstream: FakeGhibli
) -> None:
    plain = api.get("/movies/")["ETag"]

    headers = {"If-None-Match": plain, "Accept-Encoding": "gzip"}
    assert api.get("/movies/", headers=headers).status_code == 200


def test_a_page_links_to_the_others(api: Client, upstream: FakeGhibli) -> None:
    response = api.get("/movies/?limit=3&offset=3&director=hayao", headers={"Host": "127.0.0.1:81"})

    body = response.json()
    assert list(body) == ["api_data", "timestamp", "pagination"]
    assert body["pagination"] == {
        "count": 9,
        "limit": 3,
        "offset": 3,
        "next": "http://127.0.0.1:81/movies/?limit=3&offset=6&director=hayao",
        "previous": "http://127.0.0.1:81/movies/?limit=3&offset=0&director=hayao",
    }
    links = {link["rel"]: link["url"] for link in parse_header_links(response["Link"])}
    assert links == {
        "first": "http://127.0.0.1:81/movies/?limit=3&offset=0&director=hayao",
        "prev": body["pagination"]["previous"],
        "next": body["pagination"]["next"],
        "last": "http://127.0.0.1:81/movies/?limit=3&offset=6&director=hayao",
    }


def test_without_limit_and_offset_there_is_no_pagination(api: Client, upstream: FakeGhibli) -> None:
    response = api.get("/movies/?search=totoro")

    assert list(response.json()) == ["api_data", "timestamp"]
    assert "Link" not in response


def test_an_invalid_parameter_is_a_400_and_nothing_is_fetched(
    api: Client, upstream: FakeGhibli
) -> None:
    response = api.get("/movies/?limit=0&foo=1")

    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["detail"] == "limit: Must be a whole number from 1 to 250."
    assert upstream.count("films") == 0


def test_line_separators_and_emoji_are_preserved(api: Client, upstream: FakeGhibli) -> None:
    title = "e\u0301 \u2028 \u202eright 😀"
    upstream.data = {**upstream.data, "films": [upstream.data["films"][0] | {"title": title}]}

    assert json.loads(api.get("/movies/").content)["api_data"][0]["title"] == title


def test_a_fresh_response_says_when_it_expires(api: Client, upstream: FakeGhibli) -> None:
    assert 59 < api.get("/movies/").expires_at - Clock().boot() < 60  # type: ignore[attr-defined]
