"""What the peers written in Python share: the Ghibli API's films and people, merged as Totoro does."""

import json
import os
from datetime import UTC, datetime
from typing import Any

UPSTREAM = os.environ["GHIBLI_API_BASE_URL"]
URLS = [f"{UPSTREAM}films", f"{UPSTREAM}people"]
TTL_SECONDS = 60

FILM_FIELDS = (
    "id", "title", "original_title", "original_title_romanised", "description", "director",
    "producer", "release_date", "running_time", "rt_score", "image", "movie_banner", "url",
)  # fmt: skip
PERSON_FIELDS = (
    "id", "name", "gender", "age", "eye_color", "hair_color", "films", "species", "url",
)  # fmt: skip

Record = dict[str, Any]


def merge(films: list[Record], people: list[Record]) -> list[Record]:
    """Return the movies with their people."""
    movies = {
        film["id"]: {name: film.get(name, "") for name in FILM_FIELDS} | {"people": []}
        for film in films
    }
    for person in people:
        for link in person.get("films", []):
            movie = movies.get(link.rpartition("/")[2])
            if movie:
                movie["people"].append({name: person.get(name, "") for name in PERSON_FIELDS})
    return list(movies.values())


def now() -> str:
    return datetime.now(UTC).isoformat()


def to_json(api_data: object, timestamp: str) -> bytes:
    contents = {"api_data": api_data, "timestamp": timestamp}
    return json.dumps(contents, ensure_ascii=False, separators=(",", ":")).encode()


def bodies(films: list[Record], people: list[Record], timestamp: str) -> dict[str, bytes]:
    """Return the JSON of every movie by its id, and that of the list as `list`."""
    movies = merge(films, people)
    return {
        "list": to_json(movies, timestamp),
        **{movie["id"]: to_json(movie, timestamp) for movie in movies},
    }
