"""The order of the list."""

import pytest

from movies.query.ordering import sort_movies
from tests.support.catalogue import MOVIES, make_movie


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
def test_sorts_by_every_field_in_both_directions(ordering: str, first: str, last: str) -> None:
    sorted_titles = [movie.title for movie in sort_movies(MOVIES, ordering.split(","))]

    assert (sorted_titles[0], sorted_titles[-1]) == (first, last)
    assert len(sorted_titles) == 22


@pytest.mark.parametrize(
    ("ordering", "expected"), [("rt_score", "9 100 x "), ("-rt_score", "100 9 x ")]
)
def test_compares_numbers_as_numbers_and_puts_other_text_last(ordering: str, expected: str) -> None:
    movies = [make_movie(rt_score=score) for score in ("x", "9", "100", "")]

    ordered = sort_movies(movies, [ordering])
    assert " ".join(movie.rt_score for movie in ordered) == expected


def test_equal_movies_keep_their_order_in_both_directions() -> None:
    movies = [make_movie(id=str(n), director="D", rt_score="5") for n in range(5)]

    for ordering in ("director", "-director", "rt_score", "-rt_score"):
        ordered = sort_movies(movies, [ordering])
        assert [movie.id for movie in ordered] == ["0", "1", "2", "3", "4"]
