"""The rate limit of each client, and what responses say about it."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from fake_ghibli import FakeGhibli
from movies.http.throttling import client_of
from services.rate_limit import UNCOUNTED, rate_limiter
from totoro.env.connections import redis_caches

CASTLE = "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/"
# draft-ietf-httpapi-ratelimit-headers-11: lists of structured fields (RFC 9651), whose members
# are strings with whole numbers as parameters.
POLICY = re.compile(r'"default";q=(\d+);w=(\d+)')
LIMIT = re.compile(r'"default";r=(\d+);t=(\d+)')

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def limited(settings: Settings, upstream: FakeGhibli) -> None:
    settings.THROTTLE_RATE = (3, 60)


def remaining(response: Any) -> int:
    match = LIMIT.fullmatch(response["RateLimit"])
    assert match
    return int(match[1])


def request_until_refused(api: Client) -> Any:
    for _ in range(10):
        response = api.get("/movies/")
        if response.status_code == 429:
            return response
    raise AssertionError("never refused")


@pytest.mark.usefixtures("limited")
def test_a_response_names_the_policy_and_the_remaining_quota(api: Client) -> None:
    response = api.get("/movies/")

    assert response.status_code == 200
    assert response["RateLimit-Policy"] == '"default";q=3;w=60'
    assert POLICY.fullmatch(response["RateLimit-Policy"])
    match = LIMIT.fullmatch(response["RateLimit"])
    assert match
    assert match[1] == "2"
    assert 59 <= int(match[2]) <= 60


@pytest.mark.usefixtures("limited")
def test_all_urls_of_the_api_share_one_quota(api: Client) -> None:
    responses = [api.get("/movies/"), api.get("/movies/?search=ponyo"), api.get(CASTLE)]

    assert [response.status_code for response in responses] == [200, 200, 200]
    assert [remaining(response) for response in responses] == [2, 1, 0]
    assert [api.get(path).status_code for path in ("/movies/", CASTLE)] == [429, 429]


@pytest.mark.usefixtures("limited")
def test_a_client_over_its_limit_gets_a_429_with_retry_after(api: Client) -> None:
    response = request_until_refused(api)

    problem = response.json()
    assert response["Content-Type"] == "application/problem+json"
    assert problem["status"] == 429
    assert problem["type"] == "/problems/too-many-requests/"
    assert response["Cache-Control"] == "no-store"
    assert response["RateLimit-Policy"] == '"default";q=3;w=60'
    match = LIMIT.fullmatch(response["RateLimit"])
    assert match
    assert match[1] == "0"
    assert response["Retry-After"] == match[2]
    assert 59 <= int(response["Retry-After"]) <= 60


def test_scripts_of_other_origins_may_read_the_rate_limit_headers(
    api: Client, limited: None
) -> None:
    response = request_until_refused(api)

    exposed = set(response["Access-Control-Expose-Headers"].split(", "))
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= exposed & set(response.headers)
    assert response["Access-Control-Allow-Origin"] == "*"


def test_a_client_that_waits_for_retry_after_is_served(
    api: Client, upstream: FakeGhibli, settings: Settings
) -> None:
    settings.THROTTLE_RATE = (2, 1)
    refused = request_until_refused(api)
    assert refused["Retry-After"] == "1"
    time.sleep(1)

    assert api.get("/movies/").status_code == 200


def not_modified(api: Client) -> Any:
    etag = api.get("/movies/", REMOTE_ADDR="192.0.2.99")["ETag"]
    return api.get("/movies/", headers={"If-None-Match": etag})


COUNTED: list[tuple[int, Callable[[Client], Any]]] = [
    (200, lambda api: api.get("/movies/")),
    (200, lambda api: api.get("/movies/?limit=2")),
    (200, lambda api: api.get("/movies/", headers={"Accept": "text/html"})),
    (200, lambda api: api.get(CASTLE)),
    (200, lambda api: api.head("/movies/")),
    (200, lambda api: api.options("/movies/")),
    (304, not_modified),
    (400, lambda api: api.get("/movies/?limit=x")),
    (404, lambda api: api.get("/movies/nope/")),
    (405, lambda api: api.post("/movies/")),
    (406, lambda api: api.get("/movies/", headers={"Accept": "application/xml"})),
]


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(("status", "send"), COUNTED)
def test_every_request_counts_once(api: Client, status: int, send: Callable[[Client], Any]) -> None:
    first, second = send(api), api.get("/movies/")

    assert first.status_code == status
    assert [remaining(first), remaining(second)] == [2, 1]
    assert first["RateLimit-Policy"] == '"default";q=3;w=60'


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(("status", "send"), COUNTED)
def test_every_request_can_be_refused(
    api: Client, status: int, send: Callable[[Client], Any]
) -> None:
    request_until_refused(api)

    assert send(api).status_code == 429


def test_a_503_counts(api: Client, settings: Settings) -> None:
    settings.THROTTLE_RATE = (3, 60)
    response = api.get("/movies/")

    assert response.status_code == 503
    assert remaining(response) == 2
    assert int(response["Retry-After"]) >= 1


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/metrics", "/", "/redoc/", "/swagger.json", "/nothing", "/problems/"],
)
def test_other_urls_are_not_limited(api: Client, path: str) -> None:
    request_until_refused(api)

    response = api.get(path)
    assert response.status_code in (200, 404)
    assert "RateLimit" not in response
    assert "RateLimit-Policy" not in response


@pytest.mark.usefixtures("limited")
def test_each_client_has_a_quota_of_its_own(api: Client) -> None:
    request_until_refused(api)

    assert remaining(api.get("/movies/", REMOTE_ADDR="192.0.2.1")) == 2
    assert remaining(api.get("/movies/", REMOTE_ADDR="192.0.2.2")) == 2


def test_without_a_rate_nothing_is_limited_and_no_header_is_sent(
    api: Client, upstream: FakeGhibli, settings: Settings
) -> None:
    settings.THROTTLE_RATE = None
    responses = [api.get("/movies/") for _ in range(5)]

    assert {response.status_code for response in responses} == {200}
    assert not any(name.startswith("RateLimit") for r in responses for name in r.headers)


def test_while_redis_is_down_requests_pass_without_rate_limit_headers(
    api: Client, limited: None, settings: Settings
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    settings.CACHES = redis_caches(settings.REDIS_URL)
    responses = [api.get("/movies/") for _ in range(5)]

    assert {response.status_code for response in responses} == {200}
    assert not any(name.startswith("RateLimit") for r in responses for name in r.headers)


def test_the_rate_limit_is_off_in_tests_that_do_not_set_it() -> None:
    assert rate_limiter().count("a") == UNCOUNTED


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", "unknown"),
        ("unix:", "unknown"),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one_client(address: str, client: str) -> None:
    assert client_of(address) == client
