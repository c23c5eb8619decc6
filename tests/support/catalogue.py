"""Movies for tests: those of the bundled catalogue, and others made up on the spot."""

from typing import Any

from services.catalogue import bundled, merge
from services.catalogue.entities import Movie

BUNDLED = bundled.load()
MOVIES = merge.build(BUNDLED.films, BUNDLED.people).movies


def make_movie(**fields: Any) -> Movie:
    return Movie(**({"id": "ponyo", "title": "Ponyo"} | fields))
