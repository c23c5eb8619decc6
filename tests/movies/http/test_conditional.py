"""Validators, conditional requests and encodings over the whole stack (RFC 9110, 9111, 9211)."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from requests.utils import parse_header_links

from fake_ghibli import FakeGhibli
from movies.http import representations
from movies.http.negotiation import media_weight, prefers_gzip, weights
from movies.http.representations import Shelves
from services.clock import Clock
from tests.support.fakes import make_snapshot
from totoro.middleware import RetryExpiredMiddleware

CASTLE = "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/"

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_answer_carries_its_validators(api: Client, upstream: FakeGhibli) -> None:
    response = api.get("/movies/")

    assert response["ETag"].startswith('"')
    asked = datetime.fromisoformat(response.json()["timestamp"])
    assert parsedate_to_datetime(response["Last-Modified"]) == asked.replace(microsecond=0)
    assert response["Vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize("path", ["/movies/", CASTLE, "/movies/?limit=2", "/movies/?fields=id"])
def test_whoever_has_the_answer_is_told_so(path: str, api: Client, upstream: FakeGhibli) -> None:
    full = api.get(path)

    response = api.get(path, headers={"If-None-Match": full["ETag"]})

    assert response.status_code == 304
    assert response.content == b""
    for name in ("ETag", "Vary", "Cache-Control", "Cache-Status", "Last-Modified"):
        assert response[name] == full[name] or name.startswith("Cache-")
    assert response["Cache-Control"].startswith("public, max-age=")


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
def test_if_none_match(header: str, status: int, api: Client, upstream: FakeGhibli) -> None:
    etag = api.get("/movies/")["ETag"]

    given = header.format(etag=etag)
    assert api.get("/movies/", headers={"If-None-Match": given}).status_code == status
    assert api.head("/movies/", headers={"If-None-Match": given}).status_code == status


@pytest.mark.parametrize(("shift", "status"), [(0, 304), (60, 304), (-60, 200)])
def test_if_modified_since(shift: int, status: int, api: Client, upstream: FakeGhibli) -> None:
    modified = parsedate_to_datetime(api.get("/movies/")["Last-Modified"])

    since = format_datetime(modified + timedelta(seconds=shift), usegmt=True)
    assert api.get("/movies/", headers={"If-Modified-Since": since}).status_code == status


def test_if_none_match_goes_before_if_modified_since(api: Client, upstream: FakeGhibli) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)

    response = api.get("/movies/", headers={"If-None-Match": '"x"', "If-Modified-Since": later})
    assert response.status_code == 200


def test_a_date_that_is_none_is_ignored(api: Client, upstream: FakeGhibli) -> None:
    assert api.get("/movies/", headers={"If-Modified-Since": "yesterday"}).status_code == 200


def test_if_match_that_fails_is_a_412_problem(api: Client, upstream: FakeGhibli) -> None:
    response = api.get("/movies/", headers={"If-Match": '"x"'})

    assert response.status_code == 412
    assert response.json()["type"] == "/problems/precondition-failed/"


def test_a_large_answer_is_compressed_for_who_wants_it(api: Client, upstream: FakeGhibli) -> None:
    plain = api.get("/movies/")

    response = api.get("/movies/", headers={"Accept-Encoding": "br, gzip"})

    assert response["Content-Encoding"] == "gzip"
    assert gzip.decompress(response.content) == plain.content
    assert int(response["Content-Length"]) == len(response.content) < len(plain.content) / 3
    assert response["ETag"] == plain["ETag"][:-1] + '-gzip"'
    assert response["Vary"] == "Accept, Accept-Encoding"


def test_a_small_answer_is_not_compressed(api: Client, upstream: FakeGhibli) -> None:
    response = api.get(CASTLE + "?fields=id", headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in response
    assert len(response.content) < 1024


def test_the_etag_of_one_encoding_does_not_match_the_other(
    api: Client, upstream: FakeGhibli
) -> None:
    plain = api.get("/movies/")["ETag"]

    headers = {"If-None-Match": plain, "Accept-Encoding": "gzip"}
    assert api.get("/movies/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("header", "gzip_wanted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("*", True),
        ("br, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0.5, identity;q=0.4", True),
        ("*;q=0", False),
        ("identity", False),
        ("gzipped", False),
        ("gzip;q=2", True),
        (",,;q=1,", False),
    ],
)
def test_accept_encoding(header: str, gzip_wanted: bool) -> None:
    assert prefers_gzip(header) is gzip_wanted


def test_the_most_specific_range_of_accept_decides() -> None:
    accepted = weights("text/*;q=0.3, text/html;q=0.7;level=1, */*;q=0.1")

    assert media_weight(accepted, "text/html") == 0.7
    assert media_weight(accepted, "text/plain") == 0.3
    assert media_weight(accepted, "application/json") == 0.1


@pytest.mark.parametrize(
    "accept",
    ["*/*", "*/*;q=0.1", "application/json", "application/json; indent=8", "application/*"],
)
def test_json_is_the_same_bytes_however_it_is_asked_for(
    accept: str, api: Client, upstream: FakeGhibli
) -> None:
    plain = api.get("/movies/")

    response = api.get("/movies/", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.content == plain.content


@pytest.mark.parametrize(
    "accept", ["application/xml", "image/*", "application/json;q=0", "*/*;q=0"]
)
def test_what_is_not_on_offer_is_a_406(accept: str, api: Client, upstream: FakeGhibli) -> None:
    assert api.get("/movies/", headers={"Accept": accept}).status_code == 406


def test_a_page_says_where_its_neighbours_are(api: Client, upstream: FakeGhibli) -> None:
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


def test_one_bad_parameter_is_a_400_before_anything_is_fetched(
    api: Client, upstream: FakeGhibli
) -> None:
    response = api.get("/movies/?limit=0&foo=1")

    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["detail"] == "limit: Must be a whole number from 1 to 250."
    assert upstream.count("films") == 0


def test_an_answer_is_made_once_for_each_question() -> None:
    shelf = Shelves().of(make_snapshot())
    made = []

    def make() -> bytes:
        made.append(1)
        return b"{}"

    first, second = shelf.get("question", make), shelf.get("question", make)
    assert first is second
    assert first.compressed is second.compressed
    assert len(made) == 1


def test_what_is_remembered_is_bounded() -> None:
    shelf = Shelves().of(make_snapshot())
    for n in range(representations.REMEMBERED + 10):
        shelf.get(n, lambda: b"{}")

    assert len(shelf._renditions._made) == representations.REMEMBERED


def test_a_new_snapshot_has_a_shelf_of_its_own() -> None:
    shelves, snapshot = Shelves(), make_snapshot()

    assert shelves.of(snapshot) is shelves.of(snapshot)
    assert shelves.of(make_snapshot()) is not shelves.of(snapshot)


def test_line_separators_travel_whole(api: Client, upstream: FakeGhibli) -> None:
    title = "e\u0301 \u2028 \u202eright 😀"
    upstream.data = {**upstream.data, "films": [upstream.data["films"][0] | {"title": title}]}

    assert json.loads(api.get("/movies/").content)["api_data"][0]["title"] == title


def test_an_answer_that_ends_while_it_is_made_is_asked_for_once_more() -> None:
    made: list[HttpResponse] = []

    def view(request: HttpRequest) -> HttpResponse:
        made.append(HttpResponse())
        # The first has ended already, the second lives.
        made[-1].expires_at = Clock().boot() + (60 if len(made) > 1 else -1)  # type: ignore[attr-defined]
        return made[-1]

    assert RetryExpiredMiddleware(view)(HttpRequest()) is made[1]
    assert len(made) == 2
    assert RetryExpiredMiddleware(view)(HttpRequest()) is made[2]


def test_a_fresh_answer_says_when_it_ends(api: Client, upstream: FakeGhibli) -> None:
    assert 59 < api.get("/movies/").expires_at - Clock().boot() < 60  # type: ignore[attr-defined]
