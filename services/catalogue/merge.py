"""Merge the films and people of the Ghibli API into movies. Pure.

Who appears in a film comes from `person.films`, because `film.people` is mostly a bare link. Films are
found by the id in the link's path, because hosts differ between deployments. People are identified by
`id`, because three Totoros share one `url`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec.structs import asdict

from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS, Film, Movie, Person
from services.catalogue.snapshot import MAX_BODY_BYTES
from services.exceptions import Reason, UpstreamError

# The most objects that the Ghibli API returns in a limited list: a list of this length may be cut off.
PAGE_LIMIT = 250

Record = dict[str, Any]
QUERY_OR_FRAGMENT = re.compile("[?#]")
# What the JSON of movies has besides that of a film.
AROUND_A_FILM = ',"people":[],'

Entity = TypeVar("Entity", Film, Person)


class Catalogue(NamedTuple):
    """The merged movies, and how many defects were repaired."""

    movies: tuple[Movie, ...]
    duplicates: int
    unknown_films: int


def build(films_payload: object, people_payload: object) -> Catalogue:
    """Check and merge the two lists of the Ghibli API; UpstreamError if they are unusable."""
    films, duplicate_films = _parse("films", films_payload, _film)
    people, duplicate_people = _parse("people", people_payload, _person)
    movies, unknown_films = merge(films, people)
    return Catalogue(movies, duplicate_films + duplicate_people, unknown_films)


def merge(films: Sequence[Film], people: Iterable[Person]) -> tuple[tuple[Movie, ...], int]:
    """Return the movies, in the order of films and people, and the number of links to unknown films.

    Raises UpstreamError(TORN) if no link leads to a film: then the lists do not belong together, and
    UpstreamError(TOO_LARGE) if the movies would be: each repeats the people who appear in it.
    """
    cast: dict[str, list[Person]] = {film.id.lower(): [] for film in films}
    links = unknown = 0
    size = sum(_size(film) for film in films)
    for person in people:
        film_ids = {id for link in person.films if (id := linked_id(link, "films"))}
        known = [film_id for film_id in film_ids if film_id in cast]
        for film_id in known:
            cast[film_id].append(person)
        links += len(film_ids)
        unknown += len(film_ids) - len(known)
        size += _size(person) * len(known)
    if links and links == unknown:
        raise UpstreamError(Reason.TORN, "no person appears in any of the films")
    if size > MAX_BODY_BYTES:
        raise UpstreamError(Reason.TOO_LARGE, "the movies with their people are too large")
    movies = (Movie(**asdict(film), people=tuple(cast[film.id.lower()])) for film in films)
    return tuple(movies), unknown


def _size(entity: Film | Person) -> int:
    """Return how many bytes of JSON it adds to the movies, at most."""
    return len(msgspec.json.encode(entity)) + len(AROUND_A_FILM)


def linked_id(link: str, collection: str) -> str | None:
    """Return the id, in lower case, of a link `…/<collection>/<id>`.

    Returns "" for a bare `…/<collection>/` and None for any other link. Host and scheme do not matter
    (some links say htps), nor does a slash, query or fragment at the end.
    """
    path = QUERY_OR_FRAGMENT.split(link, maxsplit=1)[0]
    # It looks at no character more than a few times, however long the path is.
    found = re.search(rf"(?:^|/){collection}(?:/([^/\s]*))?/?$", path, re.IGNORECASE)
    return (found[1] or "").lower() if found else None


def _parse(
    name: str, payload: object, parse: Callable[[Record], Entity]
) -> tuple[list[Entity], int]:
    """Return the distinct entities of a list, and the number of duplicates."""
    if not isinstance(payload, list) or not all(isinstance(record, dict) for record in payload):
        raise UpstreamError(Reason.SCHEMA, f"{name} is not a list of objects")
    if not payload:
        raise UpstreamError(Reason.EMPTY, f"{name} is an empty list")
    if len(payload) >= PAGE_LIMIT:
        raise UpstreamError(Reason.TRUNCATED, f"{name} fills a whole page of {PAGE_LIMIT}")
    entities: dict[str, Entity] = {}
    for entity in map(parse, payload):
        if entities.setdefault(entity.id.lower(), entity) != entity:
            raise UpstreamError(Reason.SCHEMA, f"two different {name} share one id")
    return list(entities.values()), len(payload) - len(entities)


def _film(record: Record) -> Film:
    film = Film(**_texts(record, FILM_FIELDS))
    if not film.id or not film.title:
        raise UpstreamError(Reason.SCHEMA, "a film has no id or no title")
    return film


def _person(record: Record) -> Person:
    person = Person(**_texts(record, PERSON_FIELDS) | {"films": _links(record.get("films"))})
    if not person.id or not person.name:
        raise UpstreamError(Reason.SCHEMA, "a person has no id or no name")
    return person


def _texts(record: Record, fields: Iterable[str]) -> Record:
    return {field: _text(record.get(field)) for field in fields}


def _text(value: object) -> str:
    """Return strings unchanged, numbers as strings, and "" for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def _links(value: object) -> tuple[str, ...]:
    """Return the links of a list; in older data it may be a single string, or missing."""
    links = value if isinstance(value, list) else [value]
    return tuple(link for link in links if isinstance(link, str) and link)
