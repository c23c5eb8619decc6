"""Quality values of Accept and Accept-Encoding (RFC 9110, section 12.4.2)."""

import pytest
from django.test import Client

from fake_ghibli import FakeGhibli
from movies.http.content_encoding import prefers_gzip
from movies.http.negotiation import media_quality, parse_qualities

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("header", "expected"),
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
def test_gzip_is_preferred_by_quality(header: str, expected: bool) -> None:
    assert prefers_gzip(header) is expected


def test_the_most_specific_range_of_accept_decides() -> None:
    qualities = parse_qualities("text/*;q=0.3, text/html;q=0.7;level=1, */*;q=0.1")

    assert media_quality(qualities, "text/html") == 0.7
    assert media_quality(qualities, "text/plain") == 0.3
    assert media_quality(qualities, "application/json") == 0.1


@pytest.mark.parametrize(
    "accept",
    ["*/*", "*/*;q=0.1", "application/json", "application/json; indent=8", "application/*"],
)
def test_json_is_the_same_bytes_for_every_accept_header(
    accept: str, api: Client, upstream: FakeGhibli
) -> None:
    plain = api.get("/movies/")

    response = api.get("/movies/", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.content == plain.content


@pytest.mark.parametrize(
    "accept", ["application/xml", "image/*", "application/json;q=0", "*/*;q=0"]
)
def test_a_header_that_accepts_no_offered_type_is_a_406(
    accept: str, api: Client, upstream: FakeGhibli
) -> None:
    assert api.get("/movies/", headers={"Accept": accept}).status_code == 406
