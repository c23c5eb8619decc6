"""Larger catalogues, for measuring how costs grow: the bundled one, several times over."""

from typing import Any
from uuid import NAMESPACE_URL, uuid5

from fake_ghibli import FakeGhibli, json_server
from fake_ghibli.json_server import Collections
from services.catalogue import bundled
from services.catalogue.bundled import BundledCatalogue

Record = dict[str, Any]


def multiplied(catalogue: BundledCatalogue, times: int) -> Collections:
    """Return films and people `times` times. The first copy is unchanged; others have new ids."""
    return {
        "films": [_film(film, copy) for copy in range(times) for film in catalogue.films],
        "people": [_person(person, copy) for copy in range(times) for person in catalogue.people],
    }


def _film(film: Record, copy: int) -> Record:
    return film | {"id": _id(film["id"], copy)}


def _person(person: Record, copy: int) -> Record:
    links = [link.rpartition("/") for link in person["films"]]
    films = [f"{head}/{_id(id, copy)}" for head, _, id in links]
    return person | {"id": _id(person["id"], copy), "films": films}


def _id(id: str, copy: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"{id}/{copy}")) if copy else id


def upstream(times: int) -> FakeGhibli:
    """Return a fake Ghibli API that has `times` times as many films, and gives all of them at once."""
    json_server.MAX_LIMIT = 100_000
    return FakeGhibli(data=multiplied(bundled.load(), times))
