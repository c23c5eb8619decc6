"""A snapshot of all movies, and the checked bytes in which it is stored."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256

import msgspec

from services.catalogue.entities import Movie, Person
from services.exceptions import MovieNotFound

# How far ahead of this machine's clock a snapshot may be dated (seconds), as hosts' clocks differ.
# What is dated later would count as fresh for too long.
CLOCK_SKEW_SECONDS = 5.0
# Of all movies as JSON. The real ones have 40 KB.
MAX_BODY_BYTES = 8 * 1024 * 1024

_movies = msgspec.json.Decoder(tuple[Movie, ...])


class InvalidSnapshot(ValueError):
    """Stored bytes that are no snapshot of ours."""


@dataclass(frozen=True)
class Snapshot:
    """All movies as of `timestamp`, the UTC instant just before the Ghibli API was asked."""

    timestamp: datetime
    movies: tuple[Movie, ...]

    @cached_property
    def by_id(self) -> dict[str, Movie]:
        """Movies by their id in lower case."""
        return {movie.id.lower(): movie for movie in self.movies}

    @property
    def people_by_id(self) -> dict[str, Person]:
        """People who appear in movies, by their id in lower case."""
        return {person.id.lower(): person for movie in self.movies for person in movie.people}

    def movie(self, movie_id: str) -> Movie:
        """Return the movie with this id, which is case-insensitive; raise MovieNotFound."""
        try:
            return self.by_id[movie_id.lower()]
        except KeyError:
            raise MovieNotFound(movie_id) from None

    @cached_property
    def body(self) -> bytes:
        """The movies as JSON."""
        return msgspec.json.encode(self.movies)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the body: the same for the same movies, whenever they were fetched."""
        return sha256(self.body).hexdigest()


def decode_movies(body: bytes | str, digest: str) -> tuple[Movie, ...]:
    """Return the movies of a stored body; InvalidSnapshot unless body and digest belong together."""
    encoded = body.encode() if isinstance(body, str) else body
    if sha256(encoded).hexdigest() != digest:
        raise InvalidSnapshot("damaged")
    try:
        movies = _movies.decode(encoded)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InvalidSnapshot(str(error)) from error
    if not movies:
        raise InvalidSnapshot("no movies")
    return movies
