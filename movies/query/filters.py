"""The filters of the list.

A filter is declared once, in FILTERS. The query parameter, its validation, its text in the OpenAPI
document and its label on the movie page follow from there.
"""

import math
import operator
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from movies.query.parameter_types import IntegerParameter, TextParameter
from services.catalogue.entities import Movie

# Accents of Latin letters. Other combining marks stay: without them が would become か, another sound.
ACCENTS = dict.fromkeys(range(0x300, 0x370))
YEARS = range(10_000)
SCORES = range(101)
# More texts than filters compare in 250 movies, as many as the Ghibli API returns.
MAX_FOLDED_TEXTS = 4096


@dataclass(frozen=True, kw_only=True)
class TextFilter(TextParameter):
    """Select movies with a text that contains the parameter's, ignoring case and accents."""

    label: str
    texts: Callable[[Movie], Iterable[str]]

    def matches(self, movie: Movie, text: str) -> bool:
        folded = fold(text)
        return any(folded in fold(each) for each in self.texts(movie))


@dataclass(frozen=True, kw_only=True)
class NumberFilter(IntegerParameter):
    """Select movies by comparing a number with the parameter's. Non-numeric text never matches."""

    label: str
    text: Callable[[Movie], str]
    compare: Callable[[float, float], bool]

    def matches(self, movie: Movie, number: int) -> bool:
        actual = parse_number(self.text(movie))
        return actual is not None and self.compare(actual, number)


# In the order of the OpenAPI document and the movie page.
FILTERS: dict[str, TextFilter | NumberFilter] = {
    "title": TextFilter(
        texts=lambda movie: (movie.title, movie.original_title, movie.original_title_romanised),
        label="Title",
        help_text="Returns movies whose title or original title contains this text.",
        example="castle",
    ),
    "director": TextFilter(
        texts=lambda movie: (movie.director,),
        label="Director",
        help_text="Returns movies whose director's name contains this text.",
        example="miyazaki",
    ),
    "producer": TextFilter(
        texts=lambda movie: (movie.producer,),
        label="Producer",
        help_text="Returns movies whose producers' names contain this text.",
        example="suzuki",
    ),
    "person": TextFilter(
        texts=lambda movie: (person.name for person in movie.people),
        label="Person",
        help_text="Returns movies with a person whose name contains this text.",
        example="totoro",
    ),
    "release_date": NumberFilter(
        text=lambda movie: movie.release_date,
        compare=operator.eq,
        allowed=YEARS,
        label="Year",
        help_text="Returns movies released in this year.",
        example=1988,
    ),
    "release_date_min": NumberFilter(
        text=lambda movie: movie.release_date,
        compare=operator.ge,
        allowed=YEARS,
        label="From year",
        help_text="Returns movies released in this year or later.",
        example=2001,
    ),
    "release_date_max": NumberFilter(
        text=lambda movie: movie.release_date,
        compare=operator.le,
        allowed=YEARS,
        label="To year",
        help_text="Returns movies released in this year or earlier.",
        example=1999,
    ),
    "rt_score_min": NumberFilter(
        text=lambda movie: movie.rt_score,
        compare=operator.ge,
        allowed=SCORES,
        label="Score from",
        help_text="Returns movies with this Rotten Tomatoes score or a higher one.",
        example=95,
    ),
}
TEXT_FILTERS = [each for each in FILTERS.values() if isinstance(each, TextFilter)]


def filter_movies(
    movies: Iterable[Movie], filters: Iterable[tuple[str, Any]], search: str
) -> list[Movie]:
    """Return the movies that match all filters, each a name and a value, and all words of `search`.

    A word matches where any text filter finds it.
    """
    words = fold(search).split()

    def is_selected(movie: Movie) -> bool:
        has_words = all(any(each.matches(movie, word) for each in TEXT_FILTERS) for word in words)
        return has_words and all(FILTERS[name].matches(movie, value) for name, value in filters)

    return [movie for movie in movies if is_selected(movie)]


@lru_cache(MAX_FOLDED_TEXTS)
def fold(text: str) -> str:
    """Return the text without differences of case, accents and Unicode form, for comparison."""
    decomposed = unicodedata.normalize("NFKD", text).translate(ACCENTS)
    return unicodedata.normalize("NFKC", decomposed.casefold())


def parse_number(text: str) -> float | None:
    """Return the text as a finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
