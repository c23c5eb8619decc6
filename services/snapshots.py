"""A snapshot of the movies, and where it is kept: process, Redis, database.

The only place that talks to Redis and the database. What comes out of them is checked like what
comes from the Ghibli API: a wrong version, a wrong digest or a wrong shape is a miss.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Protocol

import msgspec
import structlog
from django.db import DatabaseError
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from services.catalogue import Movie
from services.models import KeptSnapshot

log = structlog.get_logger(__name__)

VERSION = "totoro-1"
# A snapshot of the real data has 19 KB; more than this was not written by us.
ENVELOPE_LIMIT = 8 * 1024 * 1024
# After a failed command Redis is left alone for this long, so that it slows down one request in two
# seconds at the most.
REDIS_LATCH = 2.0

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


def pack(snapshot: Snapshot) -> bytes:
    """One line of version, digest of all the rest, and timestamp; then the movies as JSON."""
    rest = snapshot.timestamp.isoformat().encode() + b"\n" + snapshot.body
    return f"{VERSION} {sha256(rest).hexdigest()} ".encode() + rest


def unpack(envelope: bytes) -> Snapshot:
    """The snapshot that `pack` wrote; BadEnvelope for anything else."""
    try:
        version, digest, rest = envelope.split(b" ", 2)
        timestamp, _, body = rest.partition(b"\n")
        if version.decode() != VERSION or sha256(rest).hexdigest() != digest.decode():
            raise BadEnvelope("another version, or damaged")
        return _snapshot(timestamp.decode(), body)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadEnvelope(str(error)) from error


def _snapshot(timestamp: str, body: bytes | str) -> Snapshot:
    moment = datetime.fromisoformat(timestamp)
    movies = _movies.decode(body)
    if moment.utcoffset() is None or not movies:
        raise BadEnvelope("no time zone or no movies")
    return Snapshot(moment, movies)


class SharedStore(Protocol):
    """Where the replicas of Totoro share the current snapshot."""

    def get(self) -> Snapshot | None: ...
    def put(self, snapshot: Snapshot, seconds: float) -> None: ...
    def is_well(self) -> bool: ...


class NoSharedStore:
    """A process on its own: what it holds itself is all there is."""

    def get(self) -> Snapshot | None:
        return None

    def put(self, snapshot: Snapshot, seconds: float) -> None:
        pass

    def is_well(self) -> bool:
        return True


class RedisStore:
    """The current snapshot in Redis, through django-redis' connection pool.

    Its own envelope instead of a cache value: that would be decoded before it could be checked.
    """

    KEY = "totoro:{movies}:fresh"

    def __init__(self) -> None:
        self._redis = get_redis_connection("default")
        self._latched_until = 0.0

    def get(self) -> Snapshot | None:
        if time.monotonic() < self._latched_until:
            return None
        try:
            # GETRANGE bounds what a foreign value can make us read.
            envelope = self._redis.getrange(self.KEY, 0, ENVELOPE_LIMIT)
            return unpack(envelope) if envelope else None
        except RedisError as error:
            self._trouble("get", error)
        except BadEnvelope as error:
            log.warning("redis_value_refused", error=str(error))
        return None

    def put(self, snapshot: Snapshot, seconds: float) -> None:
        if time.monotonic() < self._latched_until or seconds <= 0:
            return
        try:
            self._redis.set(self.KEY, pack(snapshot), px=int(seconds * 1000))
        except RedisError as error:
            self._trouble("set", error)

    def is_well(self) -> bool:
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False

    def _trouble(self, command: str, error: RedisError) -> None:
        self._latched_until = time.monotonic() + REDIS_LATCH
        log.warning("redis_failed", command=command, error=type(error).__name__)


class DatabaseStore:
    """The last-known-good snapshots, one row for each time that the data changed."""

    def newest(self) -> Snapshot | None:
        try:
            for row in KeptSnapshot.objects.all()[:3]:
                try:
                    return _snapshot(row.timestamp.isoformat(), row.body)
                except (ValueError, msgspec.MsgspecError) as error:
                    log.warning("database_row_refused", row=row.pk, error=str(error))
        except DatabaseError as error:
            log.warning("database_failed", action="read", error=type(error).__name__)
        return None

    def keep(self, snapshot: Snapshot) -> None:
        try:
            newest = KeptSnapshot.objects.first()
            if newest and newest.digest == snapshot.digest:
                later = KeptSnapshot.objects.filter(pk=newest.pk, timestamp__lt=snapshot.timestamp)
                later.update(timestamp=snapshot.timestamp)
            elif not newest or newest.timestamp < snapshot.timestamp:
                self._insert(snapshot)
        except DatabaseError as error:
            log.warning("database_failed", action="write", error=type(error).__name__)

    def keep_oldest(self, snapshot: Snapshot) -> bool:
        """Keep it unless there is anything already; says which. Raises DatabaseError."""
        if KeptSnapshot.objects.exists():
            return False
        self._insert(snapshot)
        return True

    def _insert(self, snapshot: Snapshot) -> None:
        KeptSnapshot.objects.create(
            timestamp=snapshot.timestamp, digest=snapshot.digest, body=snapshot.body.decode()
        )

    def is_well(self) -> bool:
        try:
            KeptSnapshot.objects.exists()
        except DatabaseError:
            return False
        return True
