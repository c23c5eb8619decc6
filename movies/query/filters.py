"""The filters of the list.

A filter is declared once, in FILTERS. The query parameter, its validation, its text in the OpenAPI
document and its label on the movie page follow from there.
"""

import math
import operator
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from typing import Any

from movies.query.parameter_types import IntegerParameter, TextParameter
from services.catalogue.entities import Movie
from services.catalogue.snapshot import Snapshot

# Accents of Latin letters. Other combining marks stay: without them が would become か, another sound.
ACCENTS = dict.fromkeys(range(0x300, 0x370))
YEARS = range(10_000)
SCORES = range(101)


@dataclass(frozen=True, kw_only=True)
class TextFilter(TextParameter):
    """Select movies with a text that contains the parameter's, ignoring case and accents."""

    label: str
    texts: Callable[[Movie], Iterable[str]]

    def column(self, movies: Iterable[Movie]) -> list[list[str]]:
        """Return the folded texts of each movie."""
        return [[fold(text) for text in self.texts(movie)] for movie in movies]

    def matches(self, column: Iterable[list[str]], text: str) -> Iterator[bool]:
        folded = fold(text)
        return (any(folded in each for each in texts) for texts in column)


@dataclass(frozen=True, kw_only=True)
class NumberFilter(IntegerParameter):
    """Select movies by comparing a number with the parameter's. Non-numeric text never matches."""

    label: str
    text: Callable[[Movie], str]
    compare: Callable[[float, float], bool]

    def column(self, movies: Iterable[Movie]) -> list[float | None]:
        return [parse_number(self.text(movie)) for movie in movies]

    def matches(self, column: Iterable[float | None], number: int) -> Iterator[bool]:
        return (each is not None and self.compare(each, number) for each in column)


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
TEXT_FILTERS = [name for name, each in FILTERS.items() if isinstance(each, TextFilter)]


def filter_movies(
    snapshot: Snapshot, filters: Sequence[tuple[str, Any]], search: str
) -> list[Movie]:
    """Return the movies that match all filters, each a name and a value, and all words of `search`.

    A word matches where any text filter finds it.
    """
    matches = [FILTERS[name].matches(column(snapshot, name), wanted) for name, wanted in filters]
    for word in fold(search).split():
        matches.append(word in texts for texts in column(snapshot, "search"))
    if not matches:
        return list(snapshot.movies)
    return list(compress(snapshot.movies, map(all, zip(*matches, strict=True))))


def column(snapshot: Snapshot, name: str) -> list[Any]:
    """Return what a filter compares of each movie. It is made once for a snapshot."""
    if name not in snapshot.columns:
        if name == "search":
            # A word contains no end of a line, so that it is found within one text only.
            rows = zip(*(column(snapshot, each) for each in TEXT_FILTERS), strict=True)
            snapshot.columns[name] = ["\n".join(chain.from_iterable(row)) for row in rows]
        else:
            snapshot.columns[name] = FILTERS[name].column(snapshot.movies)
    return snapshot.columns[name]


def fold(text: str) -> str:
    """Return the text without differences of case, accents and Unicode form, for comparison."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).translate(ACCENTS)
    return unicodedata.normalize("NFKC", decomposed.casefold())


def parse_number(text: str) -> float | None:
    """Return the text as a finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
