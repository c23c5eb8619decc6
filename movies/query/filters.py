"""The filters of the list. Pure.

Each filter is declared once, in FILTERS: its query parameter, its text in the OpenAPI document and
its label on the movie page follow from there.
"""

import math
import operator
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from services.catalogue.entities import Movie

# Marks of Latin letters. Not all combining marks: が would become か, another sound.
ACCENTS = dict.fromkeys(range(0x300, 0x370))
YEARS = (0, 9999)
SCORES = (0, 100)


@dataclass(frozen=True)
class TextFilter:
    """Matches a movie if one of its `texts` contains the value; case and accents do not count."""

    name: str
    label: str
    help_text: str
    example: str
    texts: Callable[[Movie], Iterable[str]]

    def matches(self, movie: Movie, value: str) -> bool:
        return any(fold(value) in fold(text) for text in self.texts(movie))


@dataclass(frozen=True)
class NumberFilter:
    """Matches a movie if `compare(number, value)` holds; text that is not a number never matches."""

    name: str
    label: str
    help_text: str
    example: int
    number: Callable[[Movie], str]
    compare: Callable[[float, float], bool]
    range: tuple[int, int]

    def matches(self, movie: Movie, value: int) -> bool:
        number = parse_number(self.number(movie))
        return number is not None and self.compare(number, value)


# In the order in which the OpenAPI document and the movie page show them.
FILTERS: tuple[TextFilter | NumberFilter, ...] = (
    TextFilter(
        name="title",
        label="Title",
        help_text="Contained in the title or one of the original titles.",
        example="castle",
        texts=lambda movie: (movie.title, movie.original_title, movie.original_title_romanised),
    ),
    TextFilter(
        name="director",
        label="Director",
        help_text="Contained in the director's name.",
        example="miyazaki",
        texts=lambda movie: (movie.director,),
    ),
    TextFilter(
        name="producer",
        label="Producer",
        help_text="Contained in the producers' names.",
        example="suzuki",
        texts=lambda movie: (movie.producer,),
    ),
    TextFilter(
        name="person",
        label="Person",
        help_text="Contained in the name of one of the people.",
        example="totoro",
        texts=lambda movie: (person.name for person in movie.people),
    ),
    NumberFilter(
        name="release_date",
        label="Year",
        help_text="Released in this year.",
        example=1988,
        number=lambda movie: movie.release_date,
        compare=operator.eq,
        range=YEARS,
    ),
    NumberFilter(
        name="release_date_min",
        label="From year",
        help_text="Released in this year or later.",
        example=2001,
        number=lambda movie: movie.release_date,
        compare=operator.ge,
        range=YEARS,
    ),
    NumberFilter(
        name="release_date_max",
        label="To year",
        help_text="Released in this year or earlier.",
        example=1999,
        number=lambda movie: movie.release_date,
        compare=operator.le,
        range=YEARS,
    ),
    NumberFilter(
        name="rt_score_min",
        label="Score from",
        help_text="With this score or a better one.",
        example=95,
        number=lambda movie: movie.rt_score,
        compare=operator.ge,
        range=SCORES,
    ),
)
# `search` looks into all of these.
TEXT_FILTERS = tuple(each for each in FILTERS if isinstance(each, TextFilter))


def filter_movies(
    movies: Iterable[Movie], values: Mapping[str, Any], search: str = ""
) -> list[Movie]:
    """Return the movies that match every filter in `values` and contain every word of `search`.

    `values` are by the names of filters; a missing one filters nothing.
    """
    active = [(each, values[each.name]) for each in FILTERS if each.name in values]
    words = fold(search).split()
    return [
        movie
        for movie in movies
        if all(each.matches(movie, value) for each, value in active)
        and all(any(each.matches(movie, word) for each in TEXT_FILTERS) for word in words)
    ]


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Return the text for comparison: without case, accents and differences of encoding."""
    decomposed = unicodedata.normalize("NFKD", text).translate(ACCENTS)
    return unicodedata.normalize("NFKC", decomposed.casefold())


def parse_number(text: str) -> float | None:
    """Return the number that the text is, or None; infinity and NaN are no numbers here."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
