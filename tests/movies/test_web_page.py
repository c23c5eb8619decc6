"""The people's view of the list, over the whole stack and by itself."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.test import Client

from fake_ghibli import FakeGhibli
from movies import web_page
from movies.query.filters import FILTERS, NumberFilter, TextFilter
from movies.query.params import Query
from services.catalogue import bundled, merge
from services.catalogue.entities import Movie, Person
from services.catalogue.snapshot import Snapshot
from services.persistence import DatabaseStore

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HOSTILE = """"><script>alert(1)</script><img src=x onerror='alert(1)'>"""
NOON = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)

pytestmark = pytest.mark.django_db(transaction=True)

Open = Callable[..., Any]


class Seen(HTMLParser):
    """What a page holds: its elements with their attributes, and its text."""

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
    """Asks as a browser does."""

    def get(query: str = "", **headers: str) -> Any:
        response: Any = api.get(f"/movies/{query}", headers={"Accept": FIREFOX} | headers)
        return response

    return get


def make_movie(**given: object) -> Movie:
    return Movie(**({"id": "ponyo", "title": "Ponyo"} | given))  # type: ignore[arg-type]


def shown(*movies: Movie, query: Query | None = None, is_stale: bool = False) -> Seen:
    snapshot = Snapshot(NOON, movies)
    context = web_page.show(snapshot, query or Query(), is_stale=is_stale)
    return Seen(render_to_string("movies/list.html", context))


# Who gets it


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
def test_who_prefers_html_gets_the_page(
    accept: str, kind: str, api: Client, upstream: FakeGhibli
) -> None:
    response = api.get("/movies/", headers={"Accept": accept})

    assert response["Content-Type"] == kind


def test_who_says_nothing_gets_json(api: Client, upstream: FakeGhibli) -> None:
    assert api.get("/movies/")["Content-Type"] == "application/json"


def test_options_are_told_to_a_browser_too(api: Client) -> None:
    response = api.options("/movies/", headers={"Accept": FIREFOX})

    assert response.json() == {"methods": ["GET", "HEAD", "OPTIONS"]}


# What it holds


def test_it_holds_all_movies_with_their_people(visit: Open) -> None:
    facts = bundled.load()

    seen = Seen(visit().text)

    assert seen.headings == [film["title"] for film in facts.films]
    for film in facts.films:
        for name in ("original_title", "original_title_romanised", "director", "description"):
            assert film[name] in seen.text
        assert film["release_date"] in seen.text
    for person in facts.people:
        assert person["name"] in seen.text


def test_it_says_how_old_the_data_is(api: Client, visit: Open) -> None:
    timestamp = api.get("/movies/").json()["timestamp"]

    seen = Seen(visit().text)

    assert seen.all("time") == [{"datetime": timestamp}]
    assert f"{datetime.fromisoformat(timestamp):%H:%M:%S} UTC" in seen.text
    assert "cannot be used" not in seen.text


def test_it_says_when_the_data_is_stale(visit: Open, upstream: FakeGhibli) -> None:
    facts = bundled.load()
    then = datetime.now(UTC) - timedelta(hours=1)
    DatabaseStore().keep(Snapshot(then, merge.build(facts.films, facts.people).movies))
    upstream.faults.status = 503

    response = visit()

    assert "The Ghibli API cannot be used at the moment." in Seen(response.text).text
    assert then.isoformat(timespec="microseconds") in response.text
    assert response["Cache-Control"] == "no-cache"


def test_staleness_is_told_to_the_script() -> None:
    fresh, stale = shown(make_movie()), shown(make_movie(), is_stale=True)

    assert [attributes.get("data-stale") for attributes in fresh.all("div", id="freshness")] == [
        None
    ]
    assert ["data-stale" in attributes for attributes in stale.all("div", id="freshness")] == [True]


def test_japanese_is_marked_as_such() -> None:
    seen = shown(make_movie(original_title="崖の上のポニョ", original_title_romanised="Gake"))

    assert {attributes["lang"] for _, attributes in seen.elements if "lang" in attributes} == {
        "en",
        "ja",
        "ja-Latn",
    }


def test_what_the_ghibli_api_lacks_leaves_no_gap() -> None:
    seen = shown(make_movie())

    assert "Directed by" not in seen.text
    assert "Released in" not in seen.text
    assert "score" not in seen.text.partition("Ponyo")[2]
    assert "The Ghibli API names nobody in it." in seen.text


# What is asked


def test_a_search_and_an_order_are_answered_and_shown_in_the_form(visit: Open) -> None:
    seen = Seen(visit("?search=miyazaki&ordering=-release_date&director=HAYAO").text)

    assert seen.headings[-1] == "Castle in the Sky"
    assert "The Red Turtle" not in seen.headings
    assert f"{len(seen.headings)} of 22 movies, newest first" in seen.text
    assert [each["value"] for each in seen.all("input", name="search")] == ["miyazaki"]
    assert [each["value"] for each in seen.all("option") if "selected" in each] == ["-release_date"]
    assert seen.all("input", type="hidden", name="director", value="HAYAO")


@pytest.mark.parametrize(
    ("query", "found"),
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
def test_every_filter_of_the_api_filters_the_page(query: str, found: int, visit: Open) -> None:
    assert len(Seen(visit(query).text).headings) == found


@pytest.mark.parametrize("declared", FILTERS, ids=lambda declared: declared.name)
def test_every_filter_has_a_chip(declared: TextFilter | NumberFilter, visit: Open) -> None:
    seen = Seen(visit(f"?{declared.name}={declared.example}").text)

    assert [link["data-name"] for link in seen.all("a") if "data-name" in link] == [declared.name]
    assert f"Remove the filter {declared.label}: {declared.example}" in seen.text


def test_a_filter_can_be_taken_away_and_the_rest_stays(visit: Open) -> None:
    seen = Seen(visit("?director=miyazaki&search=castle&limit=5").text)

    assert [link["href"] for link in seen.all("a") if "data-name" in link] == ["?search=castle"]


def test_an_order_that_the_form_does_not_offer_is_kept(visit: Open) -> None:
    seen = Seen(visit("?ordering=director,-rt_score").text)

    assert [each["value"] for each in seen.all("option") if "selected" in each] == [
        "director,-rt_score"
    ]


def test_a_page_of_movies_leads_to_its_neighbours(visit: Open) -> None:
    seen = Seen(visit("?limit=5&offset=5&ordering=title").text)

    assert len(seen.headings) == 5
    assert "6 to 10 of 22 movies" in seen.text
    assert [each["href"] for each in seen.all("a", rel="next")] == [
        "?limit=5&offset=10&ordering=title"
    ]
    assert [each["href"] for each in seen.all("a", rel="prev")] == [
        "?limit=5&offset=0&ordering=title"
    ]


def test_a_bad_parameter_is_a_problem_as_elsewhere(visit: Open) -> None:
    response = visit("?rt_score_min=much")

    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


# Foreign data


def test_no_text_of_the_ghibli_api_becomes_markup() -> None:
    texts = {name: HOSTILE for name in Movie.__struct_fields__ if name != "people"}
    person = Person(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)

    seen = shown(make_movie(**texts, people=(person,)))

    assert len(seen.all("script")) == 1
    assert seen.all("img") == []
    assert [name for _, each in seen.elements for name in each if name.startswith("on")] == []
    assert seen.headings == [HOSTILE]


def test_no_word_of_a_client_becomes_markup(visit: Open) -> None:
    seen = Seen(visit("?search=%22%3E%3Cscript%3E&director=%22%3E%3Cscript%3E").text)

    assert len(seen.all("script")) == 1
    assert [each["value"] for each in seen.all("input", name="search")] == ['"><script>']


@pytest.mark.parametrize(
    "url",
    [
        "https://image.tmdb.org/t/p/w600/a.jpg",
        "https://www.themoviedb.org/t/p/w600/a.jpg?size=1&x",
    ],
)
def test_a_picture_is_shown(url: str) -> None:
    assert [each["src"] for each in shown(make_movie(image=url)).all("img")] == [url]


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
def test_a_picture_from_elsewhere_is_not_asked_for(url: str) -> None:
    assert shown(make_movie(image=url)).all("img") == []


def test_the_page_may_load_only_its_own_and_the_pictures(visit: Open) -> None:
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
    seen = Seen(response.text)
    assert all("src" in script for script in seen.all("script"))
    assert seen.all("style") == []
    assert [each for _, each in seen.elements if "style" in each] == []


# Between it and the browser


def test_it_has_a_tag_of_its_own(api: Client, visit: Open) -> None:
    response = visit()

    assert response["ETag"] != api.get("/movies/")["ETag"]
    assert response["ETag"] != visit("?search=ponyo")["ETag"]
    assert response["ETag"] == visit("?unknown=1")["ETag"]
    assert response["Vary"] == "Accept, Accept-Encoding"
    assert response["Cache-Control"].startswith("public, max-age=")


def test_who_has_it_is_told_so(visit: Open) -> None:
    response = visit(**{"If-None-Match": visit()["ETag"]})

    assert response.status_code == 304
    assert response.content == b""


def test_it_is_compressed_for_who_likes_that(visit: Open) -> None:
    plain, compressed = visit(), visit(**{"Accept-Encoding": "gzip"})

    assert compressed["Content-Encoding"] == "gzip"
    assert len(compressed.content) < len(plain.content) / 3
    assert compressed["ETag"] != plain["ETag"]


def test_head_is_get_without_the_page(api: Client, visit: Open) -> None:
    full = visit()

    response = api.head("/movies/", headers={"Accept": FIREFOX})

    assert response.status_code == 200
    assert response.content == b""
    for name in ("Content-Type", "Content-Length", "ETag", "Content-Security-Policy", "Vary"):
        assert response.get(name) == full.get(name)


def test_browsers_cost_no_further_question_to_the_ghibli_api(
    api: Client, visit: Open, upstream: FakeGhibli
) -> None:
    for query in ("", "?search=a", "?ordering=title"):
        visit(query)
    api.get("/movies/")

    assert (upstream.count("films"), upstream.count("people")) == (1, 1)


# By itself


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
def test_a_running_time_in_hours_and_minutes(minutes: str, text: str) -> None:
    assert web_page.duration(minutes) == text


@pytest.mark.parametrize(("score", "drawn"), [("95", 95), ("0", 0), ("101", None), ("n/a", None)])
def test_a_score_is_drawn_if_it_is_one(score: str, drawn: int | None) -> None:
    assert web_page.card(make_movie(rt_score=score)).score == drawn


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
def test_initials_replace_a_missing_picture(title: str, letters: str) -> None:
    assert web_page.initials(title) == letters


@pytest.mark.parametrize(
    ("names", "text"),
    [("A", "A"), ("A B C D", "A, B, C, D"), ("A B C D E", "A, B, C and 2 more")],
)
def test_a_cast_is_named_in_short(names: str, text: str) -> None:
    people = tuple(Person(id=name, name=name) for name in names.split())

    assert web_page.cast(people) == text


def test_facts_that_say_nothing_are_left_out() -> None:
    person = Person(
        id="1", name="Calcifer", gender="NA", age="", eye_color="Unknown", hair_color="Red"
    )

    assert web_page.facts(person) == [("Hair", "Red")]


def test_every_placeholder_has_its_colours() -> None:
    file = finders.find("movies/list.css")
    assert file
    coloured = re.findall(r"^\.tint-(\d)", Path(file).read_text("utf-8"), re.MULTILINE)

    assert [int(tint) for tint in coloured] == list(range(web_page.TINTS))
