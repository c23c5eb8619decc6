"""Films and people of the Ghibli API → movies, each with the people who appear in it. Pure.

Who appears in what comes from `person.films`: `film.people` is mostly a bare link. Joined by the id
in the link's path, because hosts differ between deployments, and keyed by `id`, because three
Totoros share one `url`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS, Film, Movie, Person
from services.exceptions import Reason, UpstreamError


class Catalogue(msgspec.Struct, frozen=True):
    """The merge, and what had to be mended for it."""

    movies: tuple[Movie, ...]
    duplicates: int
    unknown_films: int


Item = TypeVar("Item", Film, Person)

# The last segment of `…/films/<id>`: any host, any scheme (some say htps), with or without a slash
# behind it. The bare `…/films/` names nothing.
FILM_LINK = re.compile(r"/films/([^/?#\s]+)/?(?:[?#].*)?$", re.IGNORECASE)

# The largest page that the Ghibli API gives: as many items may be a list that was cut off.
PAGE = 250


def build(films_payload: object, people_payload: object) -> Catalogue:
    """Both lists as the API gives them, checked and merged; UpstreamError if they cannot be."""
    films, repeated_films = read_films(films_payload)
    people, repeated_people = read_people(people_payload)
    movies, unknown_films = merge(films, people)
    return Catalogue(movies, repeated_films + repeated_people, unknown_films)


def read_films(payload: object) -> tuple[list[Film], int]:
    """The films of an API's list and how many were repeated; UpstreamError for anything else."""
    return _distinct([_film(item) for item in _objects(payload, "films")], "film")


def read_people(payload: object) -> tuple[list[Person], int]:
    """The people of an API's list and how many were repeated; UpstreamError for anything else."""
    return _distinct([_person(item) for item in _objects(payload, "people")], "person")


def merge(films: Sequence[Film], people: Iterable[Person]) -> tuple[tuple[Movie, ...], int]:
    """Movies in the films' order with their people in the people's order, and a count of links
    to unknown films.

    Raises UpstreamError(TORN) if there are links and not one leads to a film: then the two lists
    do not belong together.
    """
    cast: dict[str, list[Person]] = {film.id.lower(): [] for film in films}
    links = unknown = 0
    for person in people:
        for film_id in dict.fromkeys(linked_films(person)):
            links += 1
            if film_id in cast:
                cast[film_id].append(person)
            else:
                unknown += 1
    if links and links == unknown:
        raise UpstreamError(Reason.TORN, "no person appears in any of the films")
    movies = (Movie(**_values(film), people=tuple(cast[film.id.lower()])) for film in films)
    return tuple(movies), unknown


def linked_films(person: Person) -> list[str]:
    """Ids (lower case) of the films that a person's links name."""
    return [found[1].lower() for link in person.films if (found := FILM_LINK.search(link))]


def _values(film: Film) -> dict[str, str]:
    return {field: getattr(film, field) for field in FILM_FIELDS}


def _objects(payload: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(payload, list) or not all(isinstance(item, dict) for item in payload):
        raise UpstreamError(Reason.SCHEMA, f"{name} is not a list of objects")
    if not payload:
        raise UpstreamError(Reason.EMPTY, f"{name} is an empty list")
    if len(payload) >= PAGE:
        raise UpstreamError(Reason.TRUNCATED, f"{name} fills a whole page of {PAGE}")
    return payload


def _film(item: dict[str, Any]) -> Film:
    film = Film(**{field: _text(item.get(field)) for field in FILM_FIELDS})
    if not film.id or not film.title:
        raise UpstreamError(Reason.SCHEMA, "a film lacks its id or title")
    return film


def _person(item: dict[str, Any]) -> Person:
    values = {field: _text(item.get(field)) for field in PERSON_FIELDS if field != "films"}
    person = Person(**values, films=_links(item.get("films")))
    if not person.id or not person.name:
        raise UpstreamError(Reason.SCHEMA, "a person lacks its id or name")
    return person


def _text(value: object) -> str:
    """Strings as they are, numbers as strings, what is neither as lacking."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def _links(value: object) -> tuple[str, ...]:
    """A list of links; older data has one as a bare string, or nothing at all."""
    values = value if isinstance(value, list) else [value]
    return tuple(link for link in values if isinstance(link, str) and link)


def _distinct(items: list[Item], name: str) -> tuple[list[Item], int]:
    """The items without exact repetitions; two that share an id and differ are an error."""
    kept: dict[str, Item] = {}
    for item in items:
        if kept.setdefault(item.id.lower(), item) != item:
            raise UpstreamError(Reason.SCHEMA, f"two different {name} objects share one id")
    return list(kept.values()), len(items) - len(kept)
