"""What has changed between two snapshots, in lines of text."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from msgspec.structs import asdict

from services.catalogue.snapshot import Snapshot
from services.management.output import shorten

Record = dict[str, Any]


def describe(before: Snapshot, after: Snapshot, max_width: int) -> list[str]:
    """Return a line for each movie, person and field that differs, or for their order if none does.

    Ids, which are case-insensitive, say what is the same movie or person. `max_width`: of a text.
    """
    lines = [
        *_collection("movies", "title", _movies(before), _movies(after), max_width),
        *_collection("people", "name", _people(before), _people(after), max_width),
    ]
    return lines or ["  the order of the movies"]


def _movies(snapshot: Snapshot) -> dict[str, Record]:
    # By name only: the fields of people are compared once, not in each of their movies.
    return {
        id: asdict(movie) | {"people": tuple(person.name for person in movie.people)}
        for id, movie in snapshot.by_id.items()
    }


def _people(snapshot: Snapshot) -> dict[str, Record]:
    return {id: asdict(person) for id, person in snapshot.people_by_id.items()}


def _collection(
    heading: str, name: str, before: dict[str, Record], after: dict[str, Record], max_width: int
) -> Iterator[str]:
    added = [f"  + {record[name]}" for id, record in after.items() if id not in before]
    removed = [f"  - {record[name]}" for id, record in before.items() if id not in after]
    changed = [
        [f"  ~ {record[name]}", *_fields(before[id], record, max_width)]
        for id, record in after.items()
        if id in before and before[id] != record
    ]
    counts = {"added": len(added), "removed": len(removed), "changed": len(changed)}
    if any(counts.values()):
        yield f"{heading}: {', '.join(f'{count} {kind}' for kind, count in counts.items() if count)}"
        yield from chain(added, removed, *changed)


def _fields(before: Record, after: Record, max_width: int) -> Iterator[str]:
    for field, value in after.items():
        if before[field] != value:
            yield f"      {field}: {_change(before[field], value, max_width)}"


def _change(before: Any, after: Any, max_width: int) -> str:
    """Describe a change of a text, or of a tuple: a person's links, or a movie's people."""
    if isinstance(after, str):
        return f"{shorten(repr(before), max_width)} → {shorten(repr(after), max_width)}"
    added = [f"+ {value}" for value in after if value not in before]
    removed = [f"- {value}" for value in before if value not in after]
    return ", ".join(added + removed) or "in another order"
