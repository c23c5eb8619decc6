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
from django.db import DatabaseError, connections
from django.db.models import QuerySet

from services import telemetry
from services.catalogue import Movie
from services.models import KeptSnapshot

log = structlog.get_logger(__name__)

VERSION = "totoro-1"

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
        return _snapshot(timestamp, body), int(fence)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadEnvelope(str(error)) from error


def _snapshot(timestamp: str, body: bytes | str) -> Snapshot:
    moment = datetime.fromisoformat(timestamp)
    movies = _movies.decode(body)
    if moment.utcoffset() is None or not movies:
        raise BadEnvelope("no time zone or no movies")
    return Snapshot(moment, movies)


class DatabaseStore:
    """The last-known-good snapshots, one row for each time that the data changed.

    Called outside of requests. `history`: how many rows to keep; `using`: Django's name for the
    database.
    """

    def __init__(self, *, history: int = 100, using: str = "default") -> None:
        self._history, self._using = history, using

    def newest(self) -> Snapshot | None:
        """The newest readable row; None without one, or without the database."""
        try:
            for row in self._rows()[:3]:
                try:
                    return _snapshot(row.timestamp.isoformat(), row.body)
                except (ValueError, msgspec.MsgspecError) as error:
                    log.warning("database_row_refused", row=row.pk, error=str(error))
        except DatabaseError as error:
            self._trouble("read", error)
        return None

    def keep(self, snapshot: Snapshot) -> None:
        """One row if the data changed; else the newest row's timestamp moves on."""
        try:
            newest = self._rows().first()
            if newest and newest.timestamp >= snapshot.timestamp:
                return
            if newest and newest.digest == snapshot.digest:
                self._rows().filter(pk=newest.pk).update(timestamp=snapshot.timestamp)
            else:
                self._insert(snapshot)
                self.prune(self._history)
        except DatabaseError as error:
            self._trouble("write", error)

    def keep_oldest(self, snapshot: Snapshot) -> bool:
        """Keep it unless there is anything already; says which. Raises DatabaseError."""
        if self._rows().exists():
            return False
        self._insert(snapshot)
        return True

    def prune(self, keep: int) -> int:
        """Delete all but the newest `keep` rows; gives how many. Raises DatabaseError."""
        too_old = list(self._rows().values_list("pk", flat=True)[keep:])
        return self._rows().filter(pk__in=too_old).delete()[0] if too_old else 0

    def is_well(self) -> bool:
        try:
            self._rows().exists()
        except DatabaseError:
            return False
        return True

    def close(self) -> None:
        """Give back this thread's connection: it is needed once a minute at the most."""
        connections[self._using].close()

    def _rows(self) -> QuerySet[KeptSnapshot]:
        return KeptSnapshot.objects.using(self._using)

    def _insert(self, snapshot: Snapshot) -> None:
        self._rows().create(
            timestamp=snapshot.timestamp, digest=snapshot.digest, body=snapshot.body.decode()
        )

    def _trouble(self, action: str, error: DatabaseError) -> None:
        log.warning("database_failed", action=action, error=type(error).__name__)
        telemetry.database_troubles.labels(action).inc()
