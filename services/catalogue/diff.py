"""What changed from one snapshot to the next. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS, Movie, Person
from services.catalogue.snapshot import Snapshot


class Edit(NamedTuple):
    """A field and its values: text, or a tuple of the links of a person or the people of a movie."""

    field: str
    before: Any
    after: Any


class Altered(NamedTuple):
    name: str
    edits: tuple[Edit, ...]


class Difference(NamedTuple):
    """Names, in the order of the snapshots."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    altered: tuple[Altered, ...]

    @property
    def is_none(self) -> bool:
        return not any(self)


class Changes(NamedTuple):
    movies: Difference
    people: Difference

    @property
    def are_none(self) -> bool:
        """The order of the movies may have changed all the same."""
        return self.movies.is_none and self.people.is_none


class Known(NamedTuple):
    """A movie or a person, ready to be compared."""

    name: str
    values: dict[str, Any]


def compare(before: Snapshot, after: Snapshot) -> Changes:
    """Movies and people are the same if they have the same id, in upper or lower case."""
    return Changes(
        _difference(_movies(before), _movies(after)),
        _difference(_people(before), _people(after)),
    )


def _movies(snapshot: Snapshot) -> dict[str, Known]:
    return {movie.id.lower(): _movie(movie) for movie in snapshot.movies}


def _movie(movie: Movie) -> Known:
    values: dict[str, Any] = {field: getattr(movie, field) for field in FILM_FIELDS}
    # Who they are is the movie's; what they are like is told of the people.
    return Known(movie.title, values | {"people": tuple(person.name for person in movie.people)})


def _people(snapshot: Snapshot) -> dict[str, Known]:
    people: Iterable[Person] = (person for movie in snapshot.movies for person in movie.people)
    return {
        person.id.lower(): Known(
            person.name, {field: getattr(person, field) for field in PERSON_FIELDS}
        )
        for person in people
    }


def _difference(before: Mapping[str, Known], after: Mapping[str, Known]) -> Difference:
    return Difference(
        tuple(known.name for id, known in after.items() if id not in before),
        tuple(known.name for id, known in before.items() if id not in after),
        tuple(
            Altered(known.name, edits)
            for id, known in after.items()
            if id in before and (edits := _edits(before[id].values, known.values))
        ),
    )


def _edits(before: dict[str, Any], after: dict[str, Any]) -> tuple[Edit, ...]:
    return tuple(
        Edit(field, before[field], value)
        for field, value in after.items()
        if before[field] != value
    )
