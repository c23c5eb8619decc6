"""What the middleware does for every request: redirects, request IDs, CORS and expiry."""

import re

import pytest
import requests
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from services.clock import Clock
from tests.support.servers import Totoro
from totoro.middleware import MAX_HOSTS, AddressMiddleware, RequestMiddleware
from totoro.observability.requests import NEW_IDS, request_id_of


def test_redirects_to_the_url_with_a_trailing_slash(api: Client) -> None:
    response = api.get("/movies?limit=1")

    assert response.status_code == 301
    assert response["Location"] == "/movies/?limit=1"
    assert response["X-Request-ID"]
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/movies", "/movies/none", "/redoc", "/problems/not-found"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "OPTIONS"])
def test_the_trailing_slash_redirect_preserves_the_method(
    server: Totoro, method: str, path: str
) -> None:
    response = requests.request(method, server.url + path, allow_redirects=False, timeout=10)

    assert response.status_code == 308
    assert response.headers["Location"] == f"{path}/"


@pytest.mark.parametrize("client_id", ["a", "A-Z.0_9", "x" * 64])
def test_uses_the_request_id_of_the_client(api: Client, client_id: str) -> None:
    assert api.get("/livez", headers={"X-Request-ID": client_id})["X-Request-ID"] == client_id


@pytest.mark.parametrize(
    "client_id",
    ["", " ", "a b", "a\r\nSet-Cookie: b", "a\n", "a\0", "x" * 65, "é", "a,b", "<script>"],
)
def test_replaces_an_invalid_request_id(api: Client, client_id: str) -> None:
    used = api.get("/livez", headers={"X-Request-ID": client_id})["X-Request-ID"]

    assert re.fullmatch("[0-9a-f]{32}", used)


def test_request_ids_are_unique(api: Client) -> None:
    # More than are made at a time.
    ids = {request_id_of({}) for _ in range(3 * NEW_IDS)}

    assert api.get("/livez")["X-Request-ID"] not in ids
    assert len(ids) == 3 * NEW_IDS
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)


def test_a_preflight_allows_any_origin_to_read(api: Client) -> None:
    response = api.options(
        "/movies/",
        headers={"Origin": "https://a.example", "Access-Control-Request-Method": "GET"},
    )

    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == "*"
    assert response["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert "Access-Control-Allow-Credentials" not in response
    assert response["X-Request-ID"]
    assert response["X-Content-Type-Options"] == "nosniff"


def test_only_listed_origins_may_read_and_responses_vary_by_origin(
    api: Client, settings: Settings
) -> None:
    settings.CORS_ALLOW_ALL_ORIGINS = False
    settings.CORS_ALLOWED_ORIGINS = ["https://a.example"]

    listed = api.get("/livez", headers={"Origin": "https://a.example"})
    other = api.get("/livez", headers={"Origin": "https://b.example"})

    assert listed["Access-Control-Allow-Origin"] == "https://a.example"
    assert "Access-Control-Allow-Origin" not in other
    assert "origin" in listed["Vary"]
    assert "origin" in other["Vary"]


# Caches replace the headers of the response that they have by those of the 304 (RFC 9111, section 4.3.4).
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/movies/", "*/*"),
        ("/movies/", "text/html"),
        ("/movies/?limit=2", "*/*"),
        ("/movies/?limit=2", "text/html"),
        ("/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/", "*/*"),
        ("/problems/", "*/*"),
        ("/problems/", "text/html"),
        ("/problems/not-found/", "text/html"),
        ("/swagger.json", "*/*"),
    ],
)
def test_a_304_has_the_headers_of_the_200(
    path: str, accept: str, api: Client, settings: Settings
) -> None:
    settings.THROTTLE_RATE = (1000, 60)
    api.get(path)  # not a hit
    full = api.get(path, headers={"Accept": accept})

    again = api.get(path, headers={"Accept": accept, "If-None-Match": full["ETag"]})

    assert again.status_code == 304
    of_request = {"X-Request-ID", "RateLimit", "Cache-Control", "Cache-Status"}
    of_body = {"Content-Type", "Content-Length", "Content-Encoding"}
    assert again.headers.keys() == full.headers.keys() - of_body
    for name in again.headers.keys() - of_request:
        assert again[name] == full[name]


def test_remembers_a_bounded_number_of_hosts(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    middleware = AddressMiddleware(lambda _: HttpResponse())

    for number in range(MAX_HOSTS + 10):
        for host in (f"{number}.example", f"{number}.{'x' * 1000}.example"):
            request = RequestFactory().get("/movies/", headers={"Host": host})
            assert middleware(request).status_code == 200  # type: ignore[union-attr]

    assert len(middleware._allowed_hosts) == MAX_HOSTS
    assert max(map(len, middleware._allowed_hosts)) < 20


def test_makes_a_response_again_that_has_expired_meanwhile() -> None:
    made: list[HttpResponse] = []

    def view(request: HttpRequest) -> HttpResponse:
        made.append(HttpResponse())
        # Only the first has expired.
        made[-1].expires_at = Clock().boot() + (60 if len(made) > 1 else -1)  # type: ignore[attr-defined]
        return made[-1]

    middleware, request = RequestMiddleware(view), RequestFactory().get("/movies/")
    assert middleware(request) is made[1]
    assert len(made) == 2
    assert middleware(request) is made[2]
