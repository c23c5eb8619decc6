"""The filters, applied to the bundled catalogue."""

from typing import Any

import pytest
from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from movies.query.filters import FILTERS, filter_movies, fold
from movies.query.parameters import parse_query
from services.catalogue.entities import FILM_FIELDS, Movie, Person
from tests.support.catalogue import MOVIES
from tests.support.servers import ROOT

# Query strings, and the titles that they select. Every filter has a row.
SELECTIONS = [
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
]


@pytest.mark.parametrize(("query", "titles"), SELECTIONS)
def test_a_query_selects_movies(query: str, titles: list[str]) -> None:
    selected = parse_query(QueryDict(query)).select(MOVIES)

    assert [movie.title for movie in selected] == titles


texts = st.text("aAáé ß\n東", max_size=3)
movies = st.builds(
    Movie,
    **dict.fromkeys(FILM_FIELDS, texts) | {"release_date": st.sampled_from(["1988", "x", ""])},
    people=st.lists(st.builds(Person, id=texts, name=texts), max_size=2).map(tuple),
)


@given(st.lists(movies, max_size=5).map(tuple), texts, texts, texts, st.none() | st.just(1988))
def test_selects_what_a_comparison_of_each_text_selects(
    movies: tuple[Movie, ...], search: str, title: str, person: str, year: int | None
) -> None:
    def contains(text: str, *texts: str) -> bool:
        return any(fold(text) in fold(each) for each in texts)

    def is_selected(movie: Movie) -> bool:
        titles = movie.title, movie.original_title, movie.original_title_romanised
        names = [person.name for person in movie.people]
        others = movie.director, movie.producer
        return (
            all(contains(word, *titles, *others, *names) for word in search.split())
            and contains(title, *titles)
            and contains(person, *names)
            and (year is None or movie.release_date == str(year))
        )

    filters: list[tuple[str, Any]] = [("title", title), ("person", person)]
    filters += [("release_date", year)] if year else []
    selected = filter_movies(movies, filters, search)
    assert selected == [movie for movie in movies if is_selected(movie)]


@pytest.mark.parametrize("search", ["", "\u0301"])
def test_a_search_without_words_selects_all(search: str) -> None:
    assert filter_movies(MOVIES, [], search) == [*MOVIES]


def test_every_filter_is_tested() -> None:
    tested = {name for query, _ in SELECTIONS for name in QueryDict(query)}

    assert FILTERS.keys() - tested == set()


def test_every_filter_has_its_own_label_and_help_text() -> None:
    for texts in zip(*((each.label, each.help_text) for each in FILTERS.values()), strict=True):
        assert all(texts)
        assert len(set(texts)) == len(FILTERS)


def test_the_readme_describes_every_filter() -> None:
    rows = [f"| `{name}` | {each.help_text} |" for name, each in FILTERS.items()]

    assert [row for row in rows if row not in (ROOT / "README.md").read_text().splitlines()] == []


def test_folding_removes_accents_and_keeps_the_marks_of_other_scripts() -> None:
    assert fold("Kondō") == fold("KONDO")
    assert fold("Straße") == fold("STRASSE")
    assert fold("ｶﾞ") == fold("ガ")
    assert fold("か") != fold("が")
