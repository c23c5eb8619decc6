"""What SECURITY.md says of the whole service, as far as no other test holds it."""

import pytest
from django.conf import settings
from django.test import Client
from django.urls import get_resolver

from fake_ghibli import FakeGhibli
from fake_ghibli.json_server import Collections
from tests.support.servers import Totoro
from totoro.middleware import SECURITY_HEADERS

MOVIE = "/movies/2baf70d1-42bb-4437-b551-e5fed5a87abe/"
PATHS = ["/movies/", "/movies/?limit=2", MOVIE, "/problems/", "/swagger.json"]
ERRORS = ["/movies/none/", "/movies/?limit=x", "/none/", f"/movies/?{'x' * 9000}"]
CREDENTIALS = {
    "Authorization": "Bearer secret",
    "Cookie": "sessionid=secret",
    "X-API-Key": "secret",
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("path", PATHS)
def test_credentials_change_nothing(path: str, api: Client) -> None:
    api.get("/movies/")  # from now on the same entry
    without, with_them = api.get(path), api.get(path, headers=CREDENTIALS)

    assert without.status_code == with_them.status_code == 200
    assert without.content == with_them.content
    assert not without.cookies
    assert not with_them.cookies
    assert "Cookie" not in without.get("Vary", "")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("upstream")
def test_the_data_has_no_owner(api: Client) -> None:
    movies = api.get("/movies/").json()["api_data"]

    assert movies
    for movie in movies:
        assert api.get(f"/movies/{movie['id']}/").json()["api_data"] == movie


def test_no_view_has_a_log_in() -> None:
    views = [pattern.callback.cls for pattern in get_resolver().url_patterns]  # type: ignore[union-attr]  # DRF's

    assert len(views) > 8
    assert [view for view in views if view.authentication_classes or view.permission_classes] == []
    accounts = {f"django.contrib.{name}" for name in ("admin", "auth", "sessions")}
    assert not accounts & set(settings.INSTALLED_APPS)


@pytest.mark.django_db(transaction=True)
def test_no_address_in_the_data_or_in_a_request_is_fetched(
    api: Client, upstream: FakeGhibli
) -> None:
    with FakeGhibli() as other:
        point_to(other.url, upstream.data)
        for path in ("/movies/", MOVIE, f"/movies/?url={other.url}/&callback={other.url}/"):
            response = api.get(path, headers={"Referer": other.url, "Origin": other.url})
            assert other.url in response.text
        assert api.get("/movies/", headers={"Accept": "text/html"}).status_code == 200

        assert other.requests == []
    paths = sorted(request.path.partition("?")[0] for request in upstream.requests)
    assert paths == ["/films", "/people"]


def point_to(url: str, data: Collections) -> None:
    """Replace the host of every address in the data."""
    for film in data["films"]:
        film |= dict.fromkeys(("url", "image", "movie_banner"), f"{url}/{film['id']}")
    for person in data["people"]:
        person["films"] = [
            f"{url}/films/{link.rpartition('/films/')[2]}" for link in person["films"]
        ]
        person |= {"url": f"{url}/people/{person['id']}", "species": f"{url}/species/1"}


@pytest.mark.parametrize("path", [*PATHS, *ERRORS, "/", "/redoc/", "/static/movies/list.js"])
def test_every_response_has_the_security_headers(server: Totoro, path: str) -> None:
    for _ in range(2):  # the second may come from the response cache
        headers = server.get(path, headers={"Accept": "*/*"}).headers

        assert SECURITY_HEADERS.keys() <= headers.keys()
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "'unsafe-eval'" not in headers["Content-Security-Policy"]
