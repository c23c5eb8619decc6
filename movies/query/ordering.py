"""The order of the list."""

from collections.abc import Callable, Iterable
from typing import Any

from movies.query.filters import fold, parse_number
from services.catalogue.entities import Movie

# What the list can be sorted by.
SORT_KEYS: dict[str, Callable[[Movie], Any]] = {
    "title": lambda movie: fold(movie.title),
    "director": lambda movie: fold(movie.director),
    "release_date": lambda movie: parse_number(movie.release_date),
    "running_time": lambda movie: parse_number(movie.running_time),
    "rt_score": lambda movie: parse_number(movie.rt_score),
}
ORDERINGS = tuple(sign + name for name in SORT_KEYS for sign in ("", "-"))


def sort_movies(movies: Iterable[Movie], ordering: Iterable[str]) -> list[Movie]:
    """Return the movies sorted by these names out of ORDERINGS; `-` means descending.

    Equal movies keep their order. Text that is not a number comes last in both directions.
    """
    ordered = list(movies)
    # The least significant name first: sorting is stable.
    for name in reversed(tuple(ordering)):
        sort_key = SORT_KEYS[name.removeprefix("-")]
        comparable = [movie for movie in ordered if sort_key(movie) is not None]
        others = [movie for movie in ordered if sort_key(movie) is None]
        ordered = sorted(comparable, key=sort_key, reverse=name.startswith("-")) + others
    return ordered
