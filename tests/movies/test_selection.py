"""Filtering, sorting, pages and sparse fields, as pure functions over the bundled catalogue."""

from collections.abc import Mapping
from typing import Any

import pytest
from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ValidationError

from movies import pages, query, selection
from movies.query import DetailQuerySerializer, ListQuerySerializer, Query
from services import bundled, catalogue
from services.catalogue import Movie

FACTS = bundled.load()
MOVIES = catalogue.build(FACTS.films, FACTS.people).movies


def titles(text: str) -> list[str]:
    return [movie.title for movie in selection.select(MOVIES, query.read(QueryDict(text)))]


def make_movie(**given: Any) -> Movie:
    return Movie(**({"id": "1", "title": "T"} | given))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("search=kondo", ["Whisper of the Heart"]),
        ("search=KONDŌ", ["Whisper of the Heart"]),
        ("search=muta", ["Whisper of the Heart", "The Cat Returns"]),
        ("search=miyazaki totoro", ["My Neighbor Totoro"]),
        ("search=もののけ", ["Princess Mononoke"]),
        ("search=tenku", ["Castle in the Sky"]),
        ("search=gregoire", ["The Red Turtle"]),
        ("search=nothing at all", []),
        ("title=neighbor", ["My Neighbor Totoro", "My Neighbors the Yamadas"]),
        ("title=kurenai", ["Porco Rosso"]),
        ("director=goro", ["Tales from Earthsea", "From Up on Poppy Hill", "Earwig and the Witch"]),
        ("director=michael", ["The Red Turtle"]),
        ("producer=hara", ["Grave of the Fireflies"]),
        ("producer=maraval", ["The Red Turtle"]),
        ("person=totoro", ["My Neighbor Totoro"]),
        ("person=baron", ["Whisper of the Heart", "The Cat Returns"]),
        ("release_date=1988", ["Grave of the Fireflies", "My Neighbor Totoro"]),
        ("release_date_min=2016", ["The Red Turtle", "Earwig and the Witch"]),
        ("release_date_max=1986", ["Castle in the Sky"]),
        (
            "release_date_min=1989&release_date_max=1991",
            ["Kiki's Delivery Service", "Only Yesterday"],
        ),
        ("rt_score_min=98", ["Only Yesterday", "The Tale of the Princess Kaguya"]),
        ("director=miyazaki&rt_score_min=97", ["Spirited Away"]),
        ("search=&title=&ordering=&release_date=1986", ["Castle in the Sky"]),
    ],
)
def test_a_filter_finds_what_it_says(asked: str, expected: list[str]) -> None:
    assert titles(asked) == expected


def test_accents_are_folded_and_sounds_are_not() -> None:
    assert selection.fold("Kondō") == selection.fold("KONDO")
    assert selection.fold("Straße") == selection.fold("STRASSE")
    assert selection.fold("ｶﾞ") == selection.fold("ガ")
    assert selection.fold("か") != selection.fold("が")


@pytest.mark.parametrize(
    ("ordering", "first", "last"),
    [
        ("title", "Arrietty", "Whisper of the Heart"),
        ("-title", "Whisper of the Heart", "Arrietty"),
        ("release_date", "Castle in the Sky", "Earwig and the Witch"),
        ("-release_date", "Earwig and the Witch", "Castle in the Sky"),
        ("running_time", "The Cat Returns", "The Tale of the Princess Kaguya"),
        ("-rt_score", "Only Yesterday", "Earwig and the Witch"),
        ("director,-rt_score", "From Up on Poppy Hill", "Whisper of the Heart"),
    ],
)
def test_an_ordering_sorts(ordering: str, first: str, last: str) -> None:
    sorted_titles = titles(f"ordering={ordering}")

    assert (sorted_titles[0], sorted_titles[-1]) == (first, last)
    assert len(sorted_titles) == 22


@pytest.mark.parametrize(("ordering", "expected"), [("", "9 100 x "), ("-", "100 9 x ")])
def test_numbers_are_compared_as_numbers_and_others_come_last(ordering: str, expected: str) -> None:
    movies = [make_movie(rt_score=score) for score in ("x", "9", "100", "")]

    found = selection.select(movies, Query(ordering=(f"{ordering}rt_score",)))
    assert " ".join(movie.rt_score for movie in found) == expected


def test_equals_keep_the_ghibli_apis_order_in_both_directions() -> None:
    movies = [make_movie(id=str(n), director="D", rt_score="5") for n in range(5)]

    for ordering in ("director", "-director", "rt_score", "-rt_score"):
        found = selection.select(movies, Query(ordering=(ordering,)))
        assert [movie.id for movie in found] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("asked", "name", "allowed"),
    [
        *[(f"limit={bad}", "limit", "1 to 250") for bad in ("0", "-1", "251", "1e9", "abc", "1.0")],
        *[(f"limit={bad}", "limit", "1 to 250") for bad in ("", "+5", " 5", "٣", "9" * 5000)],
        ("limit=1&limit=2", "limit", "once"),
        ("offset=-1", "offset", "0 to 1000000"),
        ("release_date=MCMXCII", "release_date", "0 to 9999"),
        ("release_date_min=x", "release_date_min", "0 to 9999"),
        ("release_date_max=10000", "release_date_max", "0 to 9999"),
        ("rt_score_min=101", "rt_score_min", "0 to 100"),
        ("ordering=producer", "ordering", "title, -title, director"),
        ("ordering=--title", "ordering", "title, -title, director"),
        ("ordering=title,,director", "ordering", "title, -title, director"),
        ("fields=", "fields", "one or more of id, title"),
        ("fields=id,nope", "fields", "id, title, original_title"),
        ("fields=people.nope", "fields", "people.name"),
        ("fields=people.", "fields", "people.name"),
        ("fields=" + "id," * 50 + "id", "fields", "at most 50"),
        ("search=" + "x" * 101, "search", "100"),
        ("title=%00", "title", "Null"),
    ],
)
def test_a_bad_value_is_refused_by_name_with_what_is_allowed(
    asked: str, name: str, allowed: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        query.read(QueryDict(asked))
    assert isinstance(caught.value.detail, dict)
    assert list(caught.value.detail) == [name]
    assert allowed in str(caught.value.detail[name])


def test_a_parameter_that_is_not_known_is_ignored() -> None:
    assert query.read(QueryDict("page=2&page=3&format=xml&foo")) == Query()
    assert query.read(QueryDict("limit=abc"), DetailQuerySerializer) == Query()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), {"id": "1", "title": "T", "people": [{"id": "2", "name": "N"}]}),
        (("title", "id"), {"id": "1", "title": "T"}),
        (("people",), {"people": [{"id": "2", "name": "N"}]}),
        (("people.name",), {"people": [{"name": "N"}]}),
        (("id", "people.id", "people"), {"id": "1", "people": [{"id": "2", "name": "N"}]}),
    ],
)
def test_only_the_fields_asked_for_are_kept_in_the_movies_order(
    fields: tuple[str, ...], expected: dict[str, Any]
) -> None:
    movie = {"id": "1", "title": "T", "people": [{"id": "2", "name": "N"}]}

    kept = selection.sparse(movie, fields)
    assert kept == expected
    assert list(kept) == [name for name in movie if name in kept]


@given(total=st.integers(0, 60), limit=st.integers(1, 250), offset=st.integers(0, 100))
def test_pages_cover_everything_once_and_know_their_neighbours(
    total: int, limit: int, offset: int
) -> None:
    movies = [make_movie(id=str(n)) for n in range(total)]
    page = selection.page(movies, Query(limit=limit, offset=offset))
    links = pages.links(page, Query(limit=limit, offset=offset), "https://t.example/movies/")

    assert [int(movie.id) for movie in page.movies] == list(range(total))[offset : offset + limit]
    assert (links.next is None) == (offset + limit >= total)
    assert (links.previous is None) == (offset == 0)
    walked: list[Movie] = []
    current = Query(limit=limit, offset=0)
    while True:
        walked += selection.page(movies, current).movies
        following = pages.links(selection.page(movies, current), current, "").next
        if following is None:
            break
        current = query.read(QueryDict(following.removeprefix("?")))
    assert walked == movies


def test_links_keep_the_other_parameters() -> None:
    asked = query.read(QueryDict("limit=2&search=kondō&fields=id,title&ordering=-title&x=1"))
    page = selection.page(MOVIES, asked)
    links = pages.links(page, asked, "https://t.example/movies/")

    assert links.next == (
        "https://t.example/movies/?limit=2&offset=2&search=kond%C5%8D&ordering=-title"
        "&fields=id,title"
    )
    assert pages.link_header(links).count("rel=") == 3
    assert query.read(QueryDict(links.next.partition("?")[2])) == asked._replace(offset=2)


def test_every_parameter_is_described() -> None:
    described: Mapping[str, Any] = ListQuerySerializer().get_fields()

    assert set(described) == set(Query._fields)
    assert all(field.help_text for field in described.values())
