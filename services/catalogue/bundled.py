"""The bundled catalogue: what Totoro knows before it has ever reached the Ghibli API.

The facts are in catalogue.toml, in a format for people. `load` gives them in the shape of the
Ghibli API, so that the rest of Totoro treats them like an answer from there.
"""

import tomllib
from collections.abc import Iterable
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple

# The API's own order of keys; what is not copied is a link, or a list of them.
FILM_TEXTS = (
    "id",
    "title",
    "original_title",
    "original_title_romanised",
    "image",
    "movie_banner",
    "description",
    "director",
    "producer",
    "release_date",
    "running_time",
    "rt_score",
)
PERSON_TEXTS = ("id", "name", "gender", "age", "eye_color", "hair_color")


class Bundled(NamedTuple):
    taken: datetime
    films: list[dict[str, Any]]
    people: list[dict[str, Any]]


class Links:
    """The API's URLs for one collection, found by the name that the catalogue uses."""

    def __init__(self, site: str, collection: str, ids: dict[str, str]) -> None:
        self.collection = collection
        self.ids = ids
        self.bare = f"{site}/{collection}/"

    def to_id(self, id: str) -> str:
        return self.bare + id

    def to_name(self, name: str) -> str:
        if name not in self.ids:
            raise ValueError(f"The bundled catalogue has no {name!r} among its {self.collection}.")
        return self.to_id(self.ids[name])

    def to_names(self, names: Iterable[str]) -> list[str]:
        """A list without members is the bare link in the API, never empty."""
        return [self.to_name(name) for name in names] or [self.bare]


def load() -> Bundled:
    return read(resources.files(__package__ or "").joinpath("bundled.toml").read_text("utf-8"))


def read(text: str) -> Bundled:
    """Films and people from a catalogue's text; ValueError where it names what it does not hold."""
    told = tomllib.loads(text)
    site, films, people = told["site"], told["film"], told["person"]
    links = {
        "films": Links(site, "films", {film["title"]: film["id"] for film in films}),
        "people": Links(site, "people", {person["name"]: person["id"] for person in people}),
        "species": Links(site, "species", told["species"]),
        "vehicles": Links(site, "vehicles", told["vehicles"]),
        "locations": Links(site, "locations", {}),
    }
    return Bundled(
        taken=told["taken"],
        films=[_film(film, links) for film in films],
        people=[_person(person, links) for person in people],
    )


def _film(told: dict[str, Any], links: dict[str, Links]) -> dict[str, Any]:
    return {name: told[name] for name in FILM_TEXTS} | {
        "people": links["people"].to_names(told.get("listed_people", ())),
        "species": links["species"].to_names(told.get("species", ())),
        "locations": links["locations"].to_names(()),
        "vehicles": links["vehicles"].to_names(told.get("vehicles", ())),
        "url": links["films"].to_id(told["id"]),
    }


def _person(told: dict[str, Any], links: dict[str, Links]) -> dict[str, Any]:
    species = links["species"]
    return {name: told[name] for name in PERSON_TEXTS} | {
        "films": links["films"].to_names(told["appears_in"]),
        "species": species.to_name(told["species"]) if "species" in told else species.bare,
        "url": links["people"].to_id(told.get("url_id", told["id"])),
    }
