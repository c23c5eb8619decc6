"""From all movies to those that a query asks for. Pure."""

import math
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from movies.query import MOST, Query
from services.catalogue import Movie

# Marks of Latin letters. Not all combining marks: が would become か, another sound.
ACCENTS = dict.fromkeys(range(0x300, 0x370))
NUMERIC = ("release_date", "running_time", "rt_score")


class Page(NamedTuple):
    """The movies on a page, and how many there are on all pages."""

    movies: Sequence[Movie]
    total: int
    limit: int
    offset: int


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """For comparing: without case, accents and differences of encoding."""
    decomposed = unicodedata.normalize("NFKD", text).translate(ACCENTS)
    return unicodedata.normalize("NFKC", decomposed.casefold())


def select(movies: Sequence[Movie], query: Query) -> list[Movie]:
    """The movies that match, in the order that is asked for."""
    tests = _tests(query)
    found = [movie for movie in movies if all(test(movie) for test in tests)]
    # Sorting by the last key first: Python's sort keeps the order of equals.
    for name in reversed(query.ordering):
        found = _sorted(found, name.removeprefix("-"), descending=name.startswith("-"))
    return found


def page(movies: Sequence[Movie], query: Query) -> Page:
    limit, offset = query.limit or MOST, query.offset or 0
    return Page(movies[offset : offset + limit], len(movies), limit, offset)


def sparse(movie: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """A represented movie with only these fields; `people.name` keeps that of each person."""
    if not fields:
        return movie
    people = {field.removeprefix("people.") for field in fields if field.startswith("people.")}
    kept = {name: value for name, value in movie.items() if name in fields}
    if people and "people" not in fields:
        kept["people"] = [
            {name: value for name, value in person.items() if name in people}
            for person in movie["people"]
        ]
    return kept


def _tests(query: Query) -> list[Callable[[Movie], bool]]:
    tests = [_contains(name, getattr(query, name)) for name in TEXTS if getattr(query, name)]
    tests += [_searched(word) for word in fold(query.search).split()]
    if query.release_date is not None:
        tests.append(_within("release_date", query.release_date, query.release_date))
    if query.release_date_min is not None or query.release_date_max is not None:
        tests.append(_within("release_date", query.release_date_min, query.release_date_max))
    if query.rt_score_min is not None:
        tests.append(_within("rt_score", query.rt_score_min, None))
    return tests


TEXTS: dict[str, Callable[[Movie], list[str]]] = {
    "title": lambda movie: [movie.title, movie.original_title, movie.original_title_romanised],
    "director": lambda movie: [movie.director],
    "producer": lambda movie: [movie.producer],
    "person": lambda movie: [person.name for person in movie.people],
}


def _contains(name: str, wanted: str) -> Callable[[Movie], bool]:
    part = fold(wanted)
    return lambda movie: any(part in fold(text) for text in TEXTS[name](movie))


def _searched(word: str) -> Callable[[Movie], bool]:
    return lambda movie: any(
        word in fold(text) for texts in TEXTS.values() for text in texts(movie)
    )


def _within(name: str, least: int | None, most: int | None) -> Callable[[Movie], bool]:
    def test(movie: Movie) -> bool:
        number = _number(getattr(movie, name))
        return (
            number is not None
            and (least is None or number >= least)
            and (most is None or number <= most)
        )

    return test


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _sorted(movies: list[Movie], name: str, *, descending: bool) -> list[Movie]:
    if name not in NUMERIC:
        return sorted(movies, key=lambda movie: fold(getattr(movie, name)), reverse=descending)
    numbered = [(number, m) for m in movies if (number := _number(getattr(m, name))) is not None]
    others = [movie for movie in movies if _number(getattr(movie, name)) is None]
    numbered.sort(key=lambda pair: pair[0], reverse=descending)
    return [movie for _, movie in numbered] + others
