"""The order of the list."""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from movies.query.filters import fold, parse_number
from services.catalogue.entities import Movie

# How to compare the text of each field that the list can be sorted by.
SORT_KEYS: dict[str, Callable[[str], Any]] = {
    "title": fold,
    "director": fold,
    "release_date": parse_number,
    "running_time": parse_number,
    "rt_score": parse_number,
}
ORDERINGS = tuple(sign + name for name in SORT_KEYS for sign in ("", "-"))


def sort_movies(movies: Iterable[Movie], ordering: Iterable[str]) -> list[Movie]:
    """Return the movies sorted by these names out of ORDERINGS; `-` means descending.

    Equal movies keep their order. Text that is not a number comes last in both directions.
    """
    ordered = list(movies)
    # The least significant name first: sorting is stable.
    for name in reversed(tuple(ordering)):
        ordered = _sort(ordered, name.removeprefix("-"), descending=name.startswith("-"))
    return ordered


def _sort(movies: list[Movie], name: str, *, descending: bool) -> list[Movie]:
    sort_key = SORT_KEYS[name]
    keyed = [(sort_key(getattr(movie, name)), movie) for movie in movies]
    comparable = [(key, movie) for key, movie in keyed if key is not None]
    comparable.sort(key=itemgetter(0), reverse=descending)
    return [movie for _, movie in comparable] + [movie for key, movie in keyed if key is None]
