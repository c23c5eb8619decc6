"""The bundled catalogue: films and people for when the Ghibli API was never reached.

bundled.toml is written for people; `load` returns its contents in the shape of the Ghibli API.
"""

import tomllib
from collections.abc import Iterable
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple

Record = dict[str, Any]


class BundledCatalogue(NamedTuple):
    timestamp: datetime
    films: list[Record]
    people: list[Record]


class Links(NamedTuple):
    """Builds links of the Ghibli API; `ids` maps collection and name to an id."""

    site: str
    ids: dict[str, dict[str, str]]

    def to_id(self, collection: str, id: str = "") -> str:
        """Without an id, return the bare link that the API uses instead of no link."""
        return f"{self.site}/{collection}/{id}"

    def to_name(self, collection: str, name: str) -> str:
        if name not in self.ids[collection]:
            raise ValueError(f"The bundled catalogue has no {name!r} among its {collection}.")
        return self.to_id(collection, self.ids[collection][name])

    def to_names(self, collection: str, names: Iterable[str]) -> list[str]:
        return [self.to_name(collection, name) for name in names] or [self.to_id(collection)]


def load() -> BundledCatalogue:
    return parse(resources.files(__package__ or "").joinpath("bundled.toml").read_text("utf-8"))


def parse(text: str) -> BundledCatalogue:
    """Raises ValueError if a name refers to nothing."""
    document = tomllib.loads(text)
    films, people = document["film"], document["person"]
    ids = {
        "films": {film["title"]: film["id"] for film in films},
        "people": {person["name"]: person["id"] for person in people},
        "species": document["species"],
        "vehicles": document["vehicles"],
    }
    links = Links(document["site"], ids)
    return BundledCatalogue(
        document["timestamp"],
        [_film(film, links) for film in films],
        [_person(person, links) for person in people],
    )


def _film(film: Record, links: Links) -> Record:
    listed_people, species, vehicles = (
        film.pop(key, []) for key in ("listed_people", "species", "vehicles")
    )
    return film | {
        "people": links.to_names("people", listed_people),
        "species": links.to_names("species", species),
        "locations": links.to_names("locations", []),
        "vehicles": links.to_names("vehicles", vehicles),
        "url": links.to_id("films", film["id"]),
    }


def _person(person: Record, links: Links) -> Record:
    appears_in, species = person.pop("appears_in"), person.pop("species", None)
    url_id = person.pop("url_id", person["id"])
    return person | {
        "films": links.to_names("films", appears_in),
        "species": links.to_name("species", species) if species else links.to_id("species"),
        "url": links.to_id("people", url_id),
    }
