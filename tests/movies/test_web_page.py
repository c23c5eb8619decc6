"""The movie page, over the whole stack and by itself."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from fake_ghibli import FakeGhibli
from movies import web_page
from movies.query.filters import FILTERS
from movies.query.ordering import ORDERINGS
from movies.query.parameters import Query
from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS, Movie, Person
from services.catalogue.snapshot import Snapshot
from services.persistence import DatabaseStore
from tests.support.catalogue import BUNDLED, MOVIES, make_movie

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HOSTILE = """"><script>alert(1)</script><img src=x onerror='alert(1)'>"""
NOON = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)

pytestmark = pytest.mark.django_db(transaction=True)

Open = Callable[..., Any]


class ParsedPage(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "h2":
            self.headings.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside == "h2":
            self.headings[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def all(self, tag: str, **having: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and having.items() <= attributes.items()
        ]


@pytest.fixture
def visit(api: Client, upstream: FakeGhibli) -> Open:
    """Return a function that requests the page as a browser does."""

    def get(query: str = "", **headers: str) -> Any:
        response: Any = api.get(f"/movies/{query}", headers={"Accept": FIREFOX} | headers)
        return response

    return get


def render(*movies: Movie, is_stale: bool = False) -> ParsedPage:
    representation = web_page.render(Snapshot(NOON, movies), Query(), is_stale)
    return ParsedPage(representation.body.decode())


# Content negotiation


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (CHROME, "text/html; charset=utf-8"),
        (FIREFOX, "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("application/json;q=0.8, text/html;q=0.9", "text/html; charset=utf-8"),
        ("text/html;q=0.8, application/json;q=0.9", "application/json"),
        ("text/html, application/json", "application/json"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/*;q=0", "application/problem+json"),
        ("image/png", "application/problem+json"),
    ],
)
def test_clients_that_prefer_html_get_the_page(
    accept: str, kind: str, api: Client, upstream: FakeGhibli
) -> None:
    response = api.get("/movies/", headers={"Accept": accept})

    assert response["Content-Type"] == kind


def test_clients_without_accept_get_json(api: Client, upstream: FakeGhibli) -> None:
    assert api.get("/movies/")["Content-Type"] == "application/json"


def test_options_is_json_for_browsers_as_well(api: Client) -> None:
    response = api.options("/movies/", headers={"Accept": FIREFOX})

    assert response.json() == {"methods": ["GET", "HEAD", "OPTIONS"]}


# Contents


def test_shows_all_movies_with_their_people(visit: Open) -> None:
    page = ParsedPage(visit().text)

    assert page.headings == [film["title"] for film in BUNDLED.films]
    for film in BUNDLED.films:
        for name in ("original_title", "original_title_romanised", "director", "description"):
            assert film[name] in page.text
        assert film["release_date"] in page.text
    for person in BUNDLED.people:
        assert person["name"] in page.text


def test_shows_the_time_of_the_data(api: Client, visit: Open) -> None:
    timestamp = api.get("/movies/").json()["timestamp"]

    page = ParsedPage(visit().text)

    assert page.all("time") == [{"datetime": timestamp}]
    assert f"{datetime.fromisoformat(timestamp):%H:%M:%S} UTC" in page.text
    assert "unavailable" not in page.text


def test_shows_that_the_data_is_stale(visit: Open, upstream: FakeGhibli) -> None:
    then = datetime.now(UTC) - timedelta(hours=1)
    DatabaseStore().save(Snapshot(then, MOVIES))
    upstream.faults.status = 503

    response = visit()

    assert "The Ghibli API is unavailable." in ParsedPage(response.text).text
    assert then.isoformat(timespec="microseconds") in response.text
    assert response["Cache-Control"] == "no-cache"


def test_tells_the_script_whether_the_data_is_stale() -> None:
    fresh, stale = render(make_movie()), render(make_movie(), is_stale=True)

    assert [attributes.get("data-stale") for attributes in fresh.all("div", id="freshness")] == [
        None
    ]
    assert ["data-stale" in attributes for attributes in stale.all("div", id="freshness")] == [True]


def test_marks_japanese_text() -> None:
    page = render(make_movie(original_title="崖の上のポニョ", original_title_romanised="Gake"))

    assert {attributes["lang"] for _, attributes in page.elements if "lang" in attributes} == {
        "en",
        "ja",
        "ja-Latn",
    }


def test_omits_empty_fields() -> None:
    page = render(make_movie())

    assert "Directed by" not in page.text
    assert "Released in" not in page.text
    assert "score" not in page.text.partition("Ponyo")[2]
    assert "The Ghibli API lists no people for this movie." in page.text


# Fields of which no text is shown.
HIDDEN_FILM_FIELDS = {"id", "producer", "image", "movie_banner", "url"}
HIDDEN_PERSON_FIELDS = {"id", "films", "species", "url"}


@pytest.mark.parametrize("name", [name for name in FILM_FIELDS if name not in HIDDEN_FILM_FIELDS])
def test_shows_every_other_field_of_a_movie(name: str) -> None:
    assert "FIELD" in render(make_movie(**{name: "FIELD"})).text


@pytest.mark.parametrize(
    "name", [name for name in PERSON_FIELDS if name not in HIDDEN_PERSON_FIELDS]
)
def test_shows_every_other_field_of_a_person(name: str) -> None:
    person = Person(**({"id": "1", "name": "N"} | {name: "FIELD"}))  # type: ignore[arg-type]

    assert "FIELD" in render(make_movie(people=(person,))).text


# Query parameters


def test_applies_search_and_ordering_and_shows_them_in_the_form(visit: Open) -> None:
    page = ParsedPage(visit("?search=miyazaki&ordering=-release_date&director=HAYAO").text)

    assert page.headings[-1] == "Castle in the Sky"
    assert "The Red Turtle" not in page.headings
    assert f"{len(page.headings)} of 22 movies, newest first" in page.text
    assert [each["value"] for each in page.all("input", name="search")] == ["miyazaki"]
    assert [each["value"] for each in page.all("option") if "selected" in each] == ["-release_date"]
    assert page.all("input", type="hidden", name="director", value="HAYAO")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("?title=ponyo", 1),
        ("?person=sheeta", 1),
        ("?release_date=1988", 2),
        ("?release_date_min=2013&release_date_max=2014", 3),
        ("?rt_score_min=100", 2),
        ("?search=&ordering=", 22),
        ("?fields=id", 22),
        ("?unknown=1", 22),
        ("?title=nothing", 0),
    ],
)
def test_applies_the_parameters_of_the_api(query: str, count: int, visit: Open) -> None:
    assert len(ParsedPage(visit(query).text).headings) == count


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_has_a_chip(name: str, visit: Open) -> None:
    label, example = FILTERS[name].label, FILTERS[name].example

    page = ParsedPage(visit(f"?{name}={example}").text)

    assert [link["data-name"] for link in page.all("a") if "data-name" in link] == [name]
    assert f"Remove the filter {label}: {example}" in page.text


def test_the_form_offers_only_orderings_of_the_api() -> None:
    assert web_page.ORDERING_LABELS.keys() - {""} <= set(ORDERINGS)


def test_a_chip_links_to_the_list_without_its_filter(visit: Open) -> None:
    page = ParsedPage(visit("?director=miyazaki&search=castle&limit=5").text)

    assert [link["href"] for link in page.all("a") if "data-name" in link] == ["?search=castle"]


def test_the_form_shows_an_ordering_that_it_does_not_offer_itself(visit: Open) -> None:
    page = ParsedPage(visit("?ordering=director,-rt_score").text)

    assert [each["value"] for each in page.all("option") if "selected" in each] == [
        "director,-rt_score"
    ]


def test_a_page_links_to_the_pages_beside_it(visit: Open) -> None:
    page = ParsedPage(visit("?limit=5&offset=5&ordering=title").text)

    assert len(page.headings) == 5
    assert "6 to 10 of 22 movies" in page.text
    assert [each["href"] for each in page.all("a", rel="next")] == [
        "?limit=5&offset=10&ordering=title"
    ]
    assert [each["href"] for each in page.all("a", rel="prev")] == [
        "?limit=5&offset=0&ordering=title"
    ]


def test_an_invalid_parameter_is_a_problem(visit: Open) -> None:
    response = visit("?rt_score_min=much")

    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


# Untrusted data


def test_escapes_texts_of_the_ghibli_api() -> None:
    texts = dict.fromkeys(FILM_FIELDS, HOSTILE)
    person = Person(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)

    page = render(make_movie(**texts, people=(person,)))

    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert [name for _, each in page.elements for name in each if name.startswith("on")] == []
    assert page.headings == [HOSTILE]


def test_escapes_query_parameters(visit: Open) -> None:
    page = ParsedPage(visit("?search=%22%3E%3Cscript%3E&director=%22%3E%3Cscript%3E").text)

    assert len(page.all("script")) == 1
    assert [each["value"] for each in page.all("input", name="search")] == ['"><script>']


@pytest.mark.parametrize(
    "url",
    [
        "https://image.tmdb.org/t/p/w600/a.jpg",
        "https://www.themoviedb.org/t/p/w600/a.jpg?size=1&x",
    ],
)
def test_shows_pictures_of_allowed_hosts(url: str) -> None:
    assert [each["src"] for each in render(make_movie(image=url)).all("img")] == [url]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "data:image/svg+xml,<svg/>",
        "http://image.tmdb.org/a.jpg",
        "//image.tmdb.org/a.jpg",
        "https://elsewhere.example/a.jpg",
        "https://image.tmdb.org@elsewhere.example/a.jpg",
        "https://image.tmdb.org.example/a.jpg",
        "https://[image.tmdb.org/a.jpg",
        "/movies/",
    ],
)
def test_loads_no_picture_from_another_host(url: str) -> None:
    assert render(make_movie(image=url)).all("img") == []


def test_the_policy_allows_only_own_files_and_pictures(visit: Open) -> None:
    response = visit()

    policy = response["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' https://image.tmdb.org https://www.themoviedb.org",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    page = ParsedPage(response.text)
    assert all("src" in script for script in page.all("script"))
    assert page.all("style") == []
    assert [each for _, each in page.elements if "style" in each] == []


# Caching


def test_has_its_own_etag_for_every_query(api: Client, visit: Open) -> None:
    response = visit()

    assert response["ETag"] != api.get("/movies/")["ETag"]
    assert response["ETag"] != visit("?search=ponyo")["ETag"]
    assert response["ETag"] == visit("?unknown=1")["ETag"]
    assert response["Vary"] == "Accept, Accept-Encoding"
    assert response["Cache-Control"].startswith("public, max-age=")


def test_is_not_sent_again_to_a_client_that_has_it(visit: Open) -> None:
    response = visit(**{"If-None-Match": visit()["ETag"]})

    assert response.status_code == 304
    assert response.content == b""


def test_is_compressed_for_clients_that_accept_gzip(visit: Open) -> None:
    plain, compressed = visit(), visit(**{"Accept-Encoding": "gzip"})

    assert compressed["Content-Encoding"] == "gzip"
    assert len(compressed.content) < len(plain.content) / 3
    assert compressed["ETag"] != plain["ETag"]


def test_head_is_get_without_the_body(api: Client, visit: Open) -> None:
    full = visit()

    response = api.head("/movies/", headers={"Accept": FIREFOX})

    assert response.status_code == 200
    assert response.content == b""
    for name in ("Content-Type", "Content-Length", "ETag", "Content-Security-Policy", "Vary"):
        assert response.get(name) == full.get(name)


def test_browsers_share_the_snapshot_of_the_api(
    api: Client, visit: Open, upstream: FakeGhibli
) -> None:
    for query in ("", "?search=a", "?ordering=title"):
        visit(query)
    api.get("/movies/")

    assert (upstream.count("films"), upstream.count("people")) == (1, 1)


# Formatting


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        ("124", "2 h 4 min"),
        ("60", "1 h"),
        ("45", "45 min"),
        ("0", ""),
        ("", ""),
        ("about 90", "about 90"),
        ("-5", "-5"),
        ("99999999", "99999999"),
        ("١٢٤", "١٢٤"),
    ],
)
def test_formats_the_running_time_in_hours_and_minutes(minutes: str, text: str) -> None:
    assert web_page.Card(make_movie(running_time=minutes)).running_time == text


@pytest.mark.parametrize(
    ("score", "expected"), [("95", 95), ("0", 0), ("101", None), ("n/a", None)]
)
def test_draws_only_scores_from_0_to_100(score: str, expected: int | None) -> None:
    assert web_page.Card(make_movie(rt_score=score)).score == expected


@pytest.mark.parametrize(
    ("title", "letters"),
    [
        ("Castle in the Sky", "CS"),
        ("Ponyo", "P"),
        ("of mice", "OM"),
        ("千と千尋の神隠し", "千"),
        (" ", ""),
    ],
)
def test_a_poster_without_picture_has_initials(title: str, letters: str) -> None:
    assert web_page.Card(make_movie(title=title)).initials == letters


@pytest.mark.parametrize(
    ("names", "text"),
    [("A", "A"), ("A B C D", "A, B, C, D"), ("A B C D E", "A, B, C and 2 more")],
)
def test_names_the_first_people_of_the_cast(names: str, text: str) -> None:
    people = tuple(Person(id=name, name=name) for name in names.split())

    assert web_page.Card(make_movie(people=people)).cast == text


def test_omits_unknown_facts_about_a_person() -> None:
    person = Person(
        id="1", name="Calcifer", gender="NA", age="", eye_color="Unknown", hair_color="Red"
    )

    assert web_page.describe(person) == [("Hair", "Red")]


def test_the_stylesheet_has_all_tints() -> None:
    file = finders.find("movies/list.css")
    assert file
    coloured = re.findall(r"^\.tint-(\d)", Path(file).read_text("utf-8"), re.MULTILINE)

    assert [int(tint) for tint in coloured] == list(range(web_page.TINTS))
