"""Compare two snapshots. Pure."""

from typing import Any, NamedTuple

from msgspec.structs import asdict

from services.catalogue.snapshot import Snapshot

Record = dict[str, Any]


class FieldChange(NamedTuple):
    """`before` and `after` are text, or a tuple: a person's links, or the names of a movie's people."""

    field: str
    before: Any
    after: Any


class Change(NamedTuple):
    name: str
    fields: tuple[FieldChange, ...]


class CollectionDiff(NamedTuple):
    """Names of movies or people, in the order of the snapshots."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]


class SnapshotDiff(NamedTuple):
    movies: CollectionDiff
    people: CollectionDiff

    @property
    def is_empty(self) -> bool:
        """Snapshots of which only the order differs have an empty diff."""
        return not any(map(any, self))


def compare(before: Snapshot, after: Snapshot) -> SnapshotDiff:
    """Compare movies and people with the same id, which is case-insensitive."""
    return SnapshotDiff(
        _compare(_movies(before), _movies(after), name="title"),
        _compare(_people(before), _people(after), name="name"),
    )


def _movies(snapshot: Snapshot) -> dict[str, Record]:
    # By name only: the fields of people are compared once, not in each of their movies.
    return {
        id: asdict(movie) | {"people": tuple(person.name for person in movie.people)}
        for id, movie in snapshot.by_id.items()
    }


def _people(snapshot: Snapshot) -> dict[str, Record]:
    people = [person for movie in snapshot.movies for person in movie.people]
    return {person.id.lower(): asdict(person) for person in people}


def _compare(before: dict[str, Record], after: dict[str, Record], *, name: str) -> CollectionDiff:
    return CollectionDiff(
        tuple(record[name] for id, record in after.items() if id not in before),
        tuple(record[name] for id, record in before.items() if id not in after),
        tuple(
            Change(record[name], fields)
            for id, record in after.items()
            if id in before and (fields := _changed_fields(before[id], record))
        ),
    )


def _changed_fields(before: Record, after: Record) -> tuple[FieldChange, ...]:
    return tuple(
        FieldChange(field, before[field], value)
        for field, value in after.items()
        if before[field] != value
    )
