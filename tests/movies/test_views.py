"""The API as clients see it, over the whole stack down to the socket of the Ghibli API."""

import gc
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.wsgi import get_wsgi_application
from django.test import Client
from pytest_django.fixtures import Settings
from werkzeug.test import EnvironBuilder

from fake_ghibli import FakeGhibli
from movies.views import representations
from services.catalogue import bundled
from services.persistence import DatabaseStore
from tests.conftest import restart_service
from tests.support.servers import wait_until

CASTLE = "2baf70d1-42bb-4437-b551-e5fed5a87abe"
MOVIE_KEYS = [
    "id",
    "title",
    "original_title",
    "original_title_romanised",
    "description",
    "director",
    "producer",
    "release_date",
    "running_time",
    "rt_score",
    "image",
    "movie_banner",
    "url",
    "people",
]
PERSON_KEYS = ["id", "name", "gender", "age", "eye_color", "hair_color", "films", "species", "url"]

# A refresh writes from a thread of its own, which a transaction around the test would not see.
pytestmark = pytest.mark.django_db(transaction=True)


def independent_merge(films: list[Any], people: list[Any]) -> list[Any]:
    """Merge films and people in code that shares nothing with merge.py."""
    merged = []
    for film in films:
        movie = {key: film.get(key, "") for key in MOVIE_KEYS}
        movie["people"] = [
            {key: person.get(key, "") for key in PERSON_KEYS}
            for person in people
            if any(link.split("/films/")[-1] == film["id"] for link in person["films"])
        ]
        merged.append(movie)
    return merged


def test_the_list_has_every_movie_with_its_people(api: Client, upstream: FakeGhibli) -> None:
    facts = bundled.load()

    response = api.get("/movies/")

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response.json()["api_data"] == independent_merge(facts.films, facts.people)


def test_the_envelope_is_compact_and_its_keys_are_in_order(
    api: Client, upstream: FakeGhibli
) -> None:
    content = api.get("/movies/").content

    envelope = json.loads(content)
    assert list(envelope) == ["api_data", "timestamp"]
    assert {tuple(movie) for movie in envelope["api_data"]} == {tuple(MOVIE_KEYS)}
    assert {tuple(p) for m in envelope["api_data"] for p in m["people"]} == {tuple(PERSON_KEYS)}
    assert content == json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def test_the_timestamp_is_from_before_the_request_to_the_ghibli_api(
    api: Client, upstream: FakeGhibli
) -> None:
    upstream.faults.delay = 0.2
    before = datetime.now(UTC)

    text = api.get("/movies/").json()["timestamp"]

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", text)
    assert before <= datetime.fromisoformat(text) < before + timedelta(seconds=0.2)


def test_all_requests_share_one_refresh(api: Client, upstream: FakeGhibli) -> None:
    bodies = [api.get(path).json() for path in ("/movies/", f"/movies/{CASTLE}/", "/movies/?a=1")]

    assert len({body["timestamp"] for body in bodies}) == 1
    assert (upstream.count("films"), upstream.count("people")) == (1, 1)


@pytest.mark.parametrize("movie_id", [CASTLE, CASTLE.upper()])
def test_a_movie_is_the_same_object_as_in_the_list(
    movie_id: str, api: Client, upstream: FakeGhibli
) -> None:
    listed = api.get("/movies/").json()

    detail = api.get(f"/movies/{movie_id}/").json()

    assert detail == {"api_data": listed["api_data"][0], "timestamp": listed["timestamp"]}


@pytest.mark.parametrize(
    "movie_id", ["nope", "00000000-0000-4000-8000-000000000000", f"{{{CASTLE}}}", "%E2%80%AE", "1"]
)
def test_an_unknown_id_is_a_404_problem(movie_id: str, api: Client, upstream: FakeGhibli) -> None:
    response = api.get(f"/movies/{movie_id}/")

    assert response.status_code == 404
    assert response["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "/problems/movie-not-found/"
    assert re.fullmatch(r"Movie ID .+ not present in external API!", problem["message"])
    assert problem["detail"] == problem["message"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "trace"])
@pytest.mark.parametrize("path", ["/movies/", f"/movies/{CASTLE}/"])
def test_other_methods_are_a_405_that_names_the_allowed_methods(
    path: str, method: str, api: Client, upstream: FakeGhibli
) -> None:
    response = getattr(api, method)(path)

    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD, OPTIONS"
    assert response["Content-Type"] == "application/problem+json"


def test_head_is_get_without_the_body(api: Client, upstream: FakeGhibli) -> None:
    got, head = api.get("/movies/"), api.head("/movies/")

    assert head.content == b""
    assert head["Content-Length"] == got["Content-Length"] == str(len(got.content))


def test_options_lists_only_the_methods(api: Client, upstream: FakeGhibli) -> None:
    response = api.options("/movies/")

    assert response.json() == {"methods": ["GET", "HEAD", "OPTIONS"]}
    assert upstream.count("films") == 0


def test_a_fresh_response_can_be_cached_for_its_remaining_lifetime(
    api: Client, upstream: FakeGhibli
) -> None:
    first, second = api.get("/movies/"), api.get("/movies/")

    assert first["Cache-Status"].startswith("totoro; fwd=miss; fwd-status=200; stored")
    assert second["Cache-Status"] == "totoro; hit; ttl=59"
    assert second["Cache-Control"] == "public, max-age=59"


def test_expired_data_is_refreshed(api: Client, upstream: FakeGhibli, settings: Settings) -> None:
    settings.CACHE_TTL = 0.05
    first = api.get("/movies/").json()["timestamp"]
    until = datetime.fromisoformat(first) + timedelta(seconds=0.05)
    while datetime.now(UTC) < until:
        pass

    assert api.get("/movies/").json()["timestamp"] > first


FAILURES: dict[str, dict[str, Any]] = {
    "5xx": {"status": 500},
    "4xx": {"status": 404},
    "rate-limited": {"status": 429},
    "redirect": {"status": 301},
    "content-type": {"status": 200},
    "truncated": {"reset": True},
}


@pytest.mark.parametrize(("reason", "faults"), FAILURES.items())
def test_without_upstream_and_data_the_response_is_a_503_with_the_reason(
    reason: str, faults: dict[str, Any], api: Client, upstream: FakeGhibli
) -> None:
    upstream.faults.set(faults)

    response = api.get("/movies/")

    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "no-store"
    assert int(response["Retry-After"]) >= 1
    types = {f"/problems/upstream-{reason}/", "/problems/upstream-reset/"}
    assert response.json()["type"] in types


@pytest.mark.parametrize(("reason", "faults"), FAILURES.items())
def test_serves_stale_data_while_upstream_fails(
    reason: str, faults: dict[str, Any], api: Client, upstream: FakeGhibli
) -> None:
    store_bundled_catalogue(age=timedelta(hours=1))
    upstream.faults.set(faults)

    response = api.get("/movies/")

    assert response.status_code == 200
    assert len(response.json()["api_data"]) == 22
    assert response["Cache-Control"] == "no-cache"
    assert 3600 <= int(response["Age"]) < 3700
    assert re.match(r"totoro; hit; ttl=-35\d\d; detail=\w+", response["Cache-Status"])


@pytest.mark.parametrize(
    ("films", "reason"),
    [([], "empty"), ([{"id": "1"}], "schema"), ([{"id": "1", "title": "T"}], "torn")],
)
def test_invalid_data_is_neither_served_nor_stored(
    films: list[Any], reason: str, api: Client, upstream: FakeGhibli
) -> None:
    upstream.data = {**upstream.data, "films": films}

    assert api.get("/movies/").json()["type"] == f"/problems/upstream-{reason}/"
    assert DatabaseStore().newest() is None


def test_data_older_than_stale_if_error_is_not_served(
    api: Client, upstream: FakeGhibli, settings: Settings
) -> None:
    settings.STALE_IF_ERROR = 3000
    store_bundled_catalogue(age=timedelta(hours=1))
    upstream.faults.status = 503

    assert api.get("/movies/").status_code == 503


def test_serves_fresh_data_when_the_upstream_is_back(api: Client, upstream: FakeGhibli) -> None:
    upstream.faults.status = 503
    assert api.get("/movies/").status_code == 503

    upstream.faults.status = None
    restart_service()

    assert api.get("/movies/").status_code == 200


def test_the_next_response_is_rendered_before_its_data_is_in_use(
    api: Client, upstream: FakeGhibli, settings: Settings
) -> None:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = 3, 2.5
    first = api.get("/movies/").json()["timestamp"]
    api.get("/movies/")  # makes the service refresh ahead

    def is_next_rendered() -> bool:
        newest = representations._latest[0]
        return newest.snapshot.timestamp.isoformat() > first and bool(newest._prepared)

    wait_until(is_next_rendered)
    assert api.get("/movies/").json()["timestamp"] == first


def store_bundled_catalogue(*, age: timedelta) -> None:
    from services.catalogue import merge
    from services.catalogue.snapshot import Snapshot

    facts = bundled.load()
    movies = merge.build(facts.films, facts.people).movies
    DatabaseStore().save(Snapshot(datetime.now(UTC) - age, movies))


@pytest.mark.parametrize("path", ["/movies/", "/movies/?limit=2", f"/movies/{CASTLE}/"])
def test_a_hit_leaves_no_reference_cycles(path: str, upstream: FakeGhibli) -> None:
    application = get_wsgi_application()
    environ = EnvironBuilder(path, base_url="http://testserver").get_environ()

    def garbage() -> int:
        gc.collect()
        response = application(dict(environ), lambda *_: None)  # type: ignore[arg-type]
        response.close()
        del response
        return gc.collect()

    garbage()  # not a hit
    gc.freeze()  # the rest of the process, which takes most of the time of `collect`
    try:
        # Another thread may leave garbage meanwhile.
        assert min(garbage() for _ in range(5)) == 0
    finally:
        gc.unfreeze()
