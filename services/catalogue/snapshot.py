"""A snapshot of the movies, the envelope it travels in, and the database that keeps it.

What comes out of Redis or the database is checked like what comes from the Ghibli API: a wrong
version, a wrong digest or a wrong shape is a miss.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256

import msgspec
import structlog

from services.catalogue.entities import Movie

log = structlog.get_logger(__name__)

VERSION = "totoro-1"
# How far ahead of this machine's clock a snapshot may be dated (seconds): hosts' clocks differ a
# little. What is dated later would count as fresh for too long.
CLOCK_SKEW_TOLERANCE = 5.0
_movies = msgspec.json.Decoder(tuple[Movie, ...])


@dataclass(frozen=True)
class Snapshot:
    """All movies as of `timestamp`, the UTC instant just before the Ghibli API was asked."""

    timestamp: datetime
    movies: tuple[Movie, ...]

    @cached_property
    def by_id(self) -> dict[str, Movie]:
        """Movies by their id in lower case."""
        return {movie.id.lower(): movie for movie in self.movies}

    @cached_property
    def body(self) -> bytes:
        return msgspec.json.encode(self.movies)

    @cached_property
    def digest(self) -> str:
        """Tells data apart, whenever it was fetched."""
        return sha256(self.body).hexdigest()


class BadEnvelope(ValueError):
    """Bytes that are not a snapshot of ours."""


def pack(snapshot: Snapshot, fence: int) -> bytes:
    """A line with version, digest of all that follows, fence (20 digits) and timestamp; then the
    movies as JSON. Redis reads the fence, too."""
    rest = f"{fence:020} {snapshot.timestamp.isoformat(timespec='microseconds')}\n".encode()
    rest += snapshot.body
    return f"{VERSION} {sha256(rest).hexdigest()} ".encode() + rest


def unpack(envelope: bytes) -> tuple[Snapshot, int]:
    """The snapshot and the fence that `pack` was given; BadEnvelope for anything else."""
    try:
        version, digest, rest = envelope.split(b" ", 2)
        if version.decode() != VERSION or sha256(rest).hexdigest() != digest.decode():
            raise BadEnvelope("another version, or damaged")
        head, _, body = rest.partition(b"\n")
        fence, timestamp = head.decode().split(" ")
        return snapshot_of(timestamp, body), int(fence)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadEnvelope(str(error)) from error


def timestamp_of(head: bytes) -> datetime | None:
    """The timestamp in the first line of an envelope, of which the rest may be missing."""
    try:
        version, _, _, timestamp = head.partition(b"\n")[0].decode().split(" ")
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return moment if version == VERSION and moment.utcoffset() is not None else None


def is_from_the_future(timestamp: datetime, wall: datetime) -> bool:
    return (timestamp - wall).total_seconds() > CLOCK_SKEW_TOLERANCE


def snapshot_of(timestamp: str, body: bytes | str) -> Snapshot:
    moment = datetime.fromisoformat(timestamp)
    movies = _movies.decode(body)
    if moment.utcoffset() is None or not movies:
        raise BadEnvelope("no time zone or no movies")
    return Snapshot(moment, movies)
