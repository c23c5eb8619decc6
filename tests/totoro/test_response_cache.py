"""Hits of the response cache, and which requests it leaves to Django.

test_response_cache_equality.py compares its responses with Django's.
"""

import re
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from django.core.wsgi import get_wsgi_application
from prometheus_client import REGISTRY
from pytest_django.fixtures import Settings
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from werkzeug.test import Client, TestResponse

from fake_ghibli import FakeGhibli
from tests.support.servers import wait_until
from totoro.observability.metrics import request_counter
from totoro.response_cache import MAX_BYTES, MAX_RESPONSES, ResponseCache

CASTLE = "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("upstream")]


class Django:
    """The application behind the cache, which notes the requests that reach it."""

    def __init__(self) -> None:
        self.application = get_wsgi_application()
        self.requests: list[str] = []

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.requests.append(f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        return self.application(environ, start)


@pytest.fixture
def django() -> Django:
    return Django()


@pytest.fixture
def client(django: Django) -> Client:
    return Client(ResponseCache(django))


def get(client: Client, path: str = "/movies/", **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(path, base_url="http://testserver", headers=named)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/movies/", {}),
        (CASTLE, {}),
        (f"{CASTLE}?fields=id,title", {}),
        ("/movies/?limit=3&offset=2", {}),
        ("/movies/?director=miyazaki&ordering=-title", {}),
        ("/movies/", {"Accept_Encoding": "gzip"}),
        ("/movies/", {"Accept": "text/html"}),
        ("/movies/", {"Origin": "https://a.example"}),
    ],
)
def test_django_makes_a_response_once(
    path: str, headers: dict[str, str], client: Client, django: Django
) -> None:
    first, second = get(client, path, **headers), get(client, path, **headers)

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.data == first.data
    assert second.headers["ETag"] == first.headers["ETag"]
    assert re.fullmatch(r"totoro; hit; ttl=5\d", second.headers["Cache-Status"])
    assert re.fullmatch(r"public, max-age=5\d", second.headers["Cache-Control"])
    assert len(django.requests) == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/movies/none/", {}),
        ("/movies/?limit=0", {}),
        ("/movies/?limit=1&limit=2", {}),
        ("/movies/?title=K%C5%8Dndo&title=x", {}),
        ("/movies/", {"Accept": "image/png"}),
        ("/movies/", {"Accept": f"application/json, {'x' * 1000}"}),
        ("/movies/", {"If_Match": "*"}),
        ("/movies/", {"If_Unmodified_Since": "Thu, 26 Nov 2026 14:00:00 GMT"}),
        ("/movies/", {"If_None_Match": '"a", "b"'}),
        ("/movies/", {"If_Modified_Since": "yesterday"}),
        ("/movies/", {"Host": "evil.example"}),
        ("/movies/", {"Host": ""}),
        ("/movies", {}),
        ("/problems/", {}),
        ("/livez", {}),
    ],
)
def test_leaves_other_requests_to_django(
    path: str, headers: dict[str, str], client: Client, django: Django
) -> None:
    get(client)
    get(client)
    assert len(django.requests) == 1

    responses = [get(client, path, **headers) for _ in range(2)]

    assert responses[0].status_code == responses[1].status_code
    assert len(django.requests) == 3


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE", "get"])
def test_leaves_other_methods_to_django(method: str, client: Client, django: Django) -> None:
    get(client)

    client.open("/movies/", method=method, base_url="http://testserver")

    assert len(django.requests) == 2


def test_origins_are_left_to_django_if_only_some_are_allowed(
    client: Client, django: Django, settings: Settings
) -> None:
    settings.CORS_ALLOW_ALL_ORIGINS = False
    settings.CORS_ALLOWED_ORIGINS = ["https://a.example"]
    get(client)

    listed = get(client, Origin="https://a.example")
    other = get(client, Origin="https://b.example")

    assert listed.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert "Access-Control-Allow-Origin" not in other.headers
    assert len(django.requests) == 3


def test_head_is_served_from_what_get_stored(client: Client, django: Django) -> None:
    full = get(client)

    response = client.head("/movies/", base_url="http://testserver")

    assert response.headers["Content-Length"] == full.headers["Content-Length"]
    assert len(django.requests) == 1


@pytest.mark.parametrize(
    ("form", "status"), [("{}", 304), ("W/{}", 304), ('"other"', 200), ('W/"other"', 200)]
)
def test_an_entity_tag_is_compared(form: str, status: int, client: Client, django: Django) -> None:
    full = get(client)

    response = get(client, If_None_Match=form.format(full.headers["ETag"]))

    assert response.status_code == status
    assert response.data == (full.data if status == 200 else b"")
    assert response.headers["ETag"] == full.headers["ETag"]
    assert len(django.requests) == 1


def test_the_date_of_the_response_is_not_modified(client: Client, django: Django) -> None:
    modified = get(client).headers["Last-Modified"]

    assert get(client, If_Modified_Since=modified).status_code == 304
    # The entity tag decides if there is one (RFC 9110, section 13.1.3).
    assert get(client, If_Modified_Since=modified, If_None_Match='"x"').status_code == 200
    assert len(django.requests) == 1


def test_unknown_parameters_and_their_order_make_no_difference(
    client: Client, django: Django
) -> None:
    get(client, "/movies/?limit=2&offset=1")

    for query in ("offset=1&limit=2", "_=1&limit=2&offset=1", "limit=%32&utm_source=a&offset=1"):
        get(client, f"/movies/?{query}")
    assert len(django.requests) == 1

    get(client)
    for i in range(10):
        get(client, f"/movies/?cache_buster={i}")
    assert len(django.requests) == 2


def test_links_are_those_of_the_requests_host(client: Client, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    for host in ("a.example", "b.example", "a.example"):
        response = get(client, "/movies/?limit=1", Host=host)
        assert response.headers["Link"].startswith(f"<http://{host}/movies/?")


def test_hosts_share_a_list_without_links(
    client: Client, django: Django, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["*"]

    for i in range(10):
        get(client, Host=f"{i}.example")

    assert len(django.requests) == 1


def test_every_hit_has_a_request_id(client: Client) -> None:
    get(client)

    assert get(client, X_Request_ID="mine").headers["X-Request-ID"] == "mine"
    ids = [get(client).headers["X-Request-ID"] for _ in range(3)]
    assert len(set(ids)) == 3
    for request_id in (*ids, get(client, X_Request_ID="not mine").headers["X-Request-ID"]):
        assert re.fullmatch("[0-9a-f]{32}", request_id)


def test_hits_count_against_the_quota(client: Client, django: Django, settings: Settings) -> None:
    settings.THROTTLE_RATE = (3, 60)

    responses = [get(client) for _ in range(5)]

    assert [response.status_code for response in responses] == [200, 200, 200, 429, 429]
    remaining = [response.headers["RateLimit"].split(";")[1] for response in responses]
    assert remaining == ["r=2", "r=1", "r=0", "r=0", "r=0"]
    assert {r.headers["RateLimit-Policy"] for r in responses} == {'"default";q=3;w=60'}
    # Django refuses, and does not count the request again.
    assert len(django.requests) == 3


def count_of(name: str, **labels: str) -> float:
    request_counter.flush()
    return REGISTRY.get_sample_value(name, labels) or 0.0


def requests_of(route: str, method: str, status: str) -> float:
    return count_of("totoro_requests_total", route=route, method=method, status=status)


def test_hits_are_counted(client: Client) -> None:
    def counts() -> list[float]:
        return [
            requests_of("/movies/", "GET", "200"),
            requests_of("/movies/", "GET", "304"),
            requests_of("/movies/", "HEAD", "200"),
            requests_of("/movies/{id}/", "GET", "200"),
            count_of("totoro_request_duration_seconds_count", route="/movies/"),
            count_of("totoro_request_duration_seconds_count", route="/movies/{id}/"),
            count_of("totoro_cache_results_total", status="hit"),
        ]

    etag = get(client).headers["ETag"]
    get(client, CASTLE)
    before = counts()

    get(client)
    get(client)
    get(client, If_None_Match=etag)
    client.head("/movies/", base_url="http://testserver")
    get(client, CASTLE)

    difference = [after - now for after, now in zip(counts(), before, strict=True)]
    assert difference == [2, 1, 1, 1, 4, 1, 5]


def test_the_access_log_has_hits(django: Django, settings: Settings) -> None:
    get(Client(ResponseCache(django)))
    settings.ACCESS_LOG = True
    client = Client(ResponseCache(django))

    with capture_logs(processors=[merge_contextvars]) as entries:
        get(client, X_Request_ID="mine", If_None_Match="W/" + get(client).headers["ETag"])

    assert [entry["status"] for entry in entries] == [200, 304]
    entry = entries[1]
    assert (entry["event"], entry["method"], entry["path"]) == ("request", "GET", "/movies/")
    assert entry["request_id"] == "mine"
    assert 0 <= entry["seconds"] < 1


@pytest.mark.slow
def test_a_response_ends_with_its_entry(client: Client, settings: Settings) -> None:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = 2, 1
    first = get(client).data
    since = time.monotonic()

    wait_until(lambda: get(client).data != first, seconds=5, what="another response")

    assert 1.5 < time.monotonic() - since < 2.5
    assert get(client).headers["Cache-Status"].startswith("totoro; hit")


def test_a_stale_response_is_not_stored(
    client: Client, django: Django, settings: Settings, upstream: FakeGhibli
) -> None:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = 1, 0
    get(client)
    upstream.faults.status = 500

    wait_until(lambda: "detail=" in get(client).headers["Cache-Status"], what="a stale response")
    before = len(django.requests)
    for _ in range(3):
        get(client)

    assert len(django.requests) == before + 3


def test_a_response_that_the_debug_toolbar_changed_is_not_stored(django: Django) -> None:
    def with_toolbar(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        def start_longer(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            length = int(dict(headers)["Content-Length"]) + len(b"toolbar")
            others = [header for header in headers if header[0] != "Content-Length"]
            return start(status, [*others, ("Content-Length", str(length))])

        return [*django(environ, start_longer), b"toolbar"]

    client = Client(ResponseCache(with_toolbar))
    for _ in range(3):
        assert get(client).data.endswith(b"toolbar")

    assert len(django.requests) == 3


@pytest.mark.slow
def test_junk_queries_cannot_push_out_responses_that_are_in_use(
    client: Client, django: Django
) -> None:
    for _ in range(3):
        for path in ("/movies/", CASTLE, "/movies/?limit=5"):
            get(client, path)

    for i in range(2 * MAX_RESPONSES):
        get(client, f"/movies/?search=junk{i}")
    before = len(django.requests)
    for path in ("/movies/", CASTLE, "/movies/?limit=5"):
        get(client, path)

    assert len(django.requests) == before


def test_the_stored_responses_are_bounded(django: Django) -> None:
    cache = ResponseCache(django)
    client = Client(cache)

    for i in range(MAX_BYTES // 40_000 + 50):
        get(client, Accept=f"*/*;i={i}")  # each the whole list

    _, responses = cache._current
    size = int(get(client).headers["Content-Length"])
    assert MAX_BYTES - 2 * size < len(responses) * size <= MAX_BYTES


@pytest.mark.slow
def test_threads_get_whole_responses_while_entries_change(
    django: Django, settings: Settings, upstream: FakeGhibli
) -> None:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = 1, 0.5
    upstream.faults.stamp = True
    cache = ResponseCache(django)
    end = time.monotonic() + 4
    newest = [""]
    lock = threading.Lock()

    def load(number: int) -> list[Any]:
        client, wrong = Client(cache), []
        while time.monotonic() < end:
            with lock:
                before = newest[0]
            response = get(client, Accept_Encoding="gzip" if number % 2 else "identity")
            timestamp = response.headers["Last-Modified"]
            if response.status_code != 200 or len(response.data) != response.content_length:
                wrong.append(response)
            with lock:
                newest[0] = max(before, timestamp)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        wrong = [response for found in pool.map(load, range(8)) for response in found]

    assert not wrong
