"""The order of the list, as a pure function over the bundled merge."""

from typing import Any

import pytest

from movies.query.ordering import sort_movies
from services.catalogue import bundled, merge
from services.catalogue.entities import Movie

FACTS = bundled.load()
MOVIES = merge.build(FACTS.films, FACTS.people).movies


def make_movie(**given: Any) -> Movie:
    return Movie(**({"id": "1", "title": "T"} | given))


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
    sorted_titles = [movie.title for movie in sort_movies(MOVIES, ordering.split(","))]

    assert (sorted_titles[0], sorted_titles[-1]) == (first, last)
    assert len(sorted_titles) == 22


@pytest.mark.parametrize(("ordering", "expected"), [("", "9 100 x "), ("-", "100 9 x ")])
def test_numbers_are_compared_as_numbers_and_others_come_last(ordering: str, expected: str) -> None:
    movies = [make_movie(rt_score=score) for score in ("x", "9", "100", "")]

    found = sort_movies(movies, [f"{ordering}rt_score"])
    assert " ".join(movie.rt_score for movie in found) == expected


def test_equals_keep_the_ghibli_apis_order_in_both_directions() -> None:
    movies = [make_movie(id=str(n), director="D", rt_score="5") for n in range(5)]

    for ordering in ("director", "-director", "rt_score", "-rt_score"):
        found = sort_movies(movies, [ordering])
        assert [movie.id for movie in found] == ["0", "1", "2", "3", "4"]
