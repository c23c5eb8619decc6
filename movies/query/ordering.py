"""The order of the list. Pure."""

from collections.abc import Iterable

from movies.query.filters import fold, parse_number
from services.catalogue.entities import Movie

ORDERINGS = ("title", "director", "release_date", "running_time", "rt_score")
NUMERIC = ("release_date", "running_time", "rt_score")


def sort_movies(movies: Iterable[Movie], ordering: Iterable[str]) -> list[Movie]:
    """Return the movies sorted by these names; `-` before a name means descending.

    Movies that are equal keep their order. What is not a number comes last, in both directions.
    """
    found = list(movies)
    # By the last name first: Python's sort keeps the order of equals.
    for name in reversed(tuple(ordering)):
        found = _sorted(found, name.removeprefix("-"), descending=name.startswith("-"))
    return found


def _sorted(movies: list[Movie], name: str, *, descending: bool) -> list[Movie]:
    if name not in NUMERIC:
        return sorted(movies, key=lambda movie: fold(getattr(movie, name)), reverse=descending)
    numbers = [(parse_number(getattr(movie, name)), movie) for movie in movies]
    numeric = [(number, movie) for number, movie in numbers if number is not None]
    numeric.sort(key=lambda pair: pair[0], reverse=descending)
    return [movie for _, movie in numeric] + [movie for number, movie in numbers if number is None]
