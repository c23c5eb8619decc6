"""The bundled catalogue: films and people for when the Ghibli API was never reached.

bundled.toml is written for people; `load` returns its contents in the shape of the Ghibli API.
"""

import tomllib
from collections.abc import Iterable
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple

Record = dict[str, Any]

# The lists of links that a film has, and the keys of bundled.toml for the names that they link to.
FILM_LISTS = {
    "people": "listed_people",
    "species": "species",
    "locations": "locations",
    "vehicles": "vehicles",
}


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
    for film in films:
        for collection, key in FILM_LISTS.items():
            film[collection] = links.to_names(collection, film.pop(key, []))
        film["url"] = links.to_id("films", film["id"])
    for person in people:
        species, url_id = person.pop("species", None), person.pop("url_id", person["id"])
        person["films"] = links.to_names("films", person.pop("appears_in"))
        person["species"] = links.to_name("species", species) if species else links.to_id("species")
        person["url"] = links.to_id("people", url_id)
    return BundledCatalogue(document["timestamp"], films, people)
