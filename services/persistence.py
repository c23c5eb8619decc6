"""The last known good: snapshots in the database, which outlive every process and Redis.

What comes out of the database is checked like what comes from the Ghibli API: a damaged row is a
miss.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

import msgspec
import structlog
from django.db import DataError, Error, connections
from django.db.models import QuerySet

from services import metrics
from services.catalogue.snapshot import BadEnvelope, Snapshot, is_from_the_future, snapshot_of
from services.clock import Clock
from services.models import KeptSnapshot

log = structlog.get_logger(__name__)

# After a failure the database is left alone for this long (seconds), so that a flight, which may read
# and write, costs one attempt.
PAUSE = 1.0
# Newest rows that may be damaged before the database counts as one without any.
MOST_DAMAGED = 1000
# What a row raises that somebody else wrote, or that a disk has damaged. SQLite keeps any type in any
# column.
UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    msgspec.MsgspecError,
)

T = TypeVar("T")


class DatabaseStore:
    """The last-known-good snapshots, one row for each time that the data changed.

    Called outside of requests. `history`: how many rows to keep; `using`: Django's name for the
    database.
    """

    def __init__(
        self, *, history: int = 100, using: str = "default", clock: Clock | None = None
    ) -> None:
        self._history, self._using = history, using
        self._clock = clock or Clock()
        self._paused_until = 0.0

    def newest(self) -> Snapshot | None:
        """The newest readable row; None without one, or without the database."""
        return self._tried("read", self._newest)

    def keep(self, snapshot: Snapshot) -> None:
        """One row if the data changed; else the newest row's timestamp moves on."""
        self._tried("write", lambda: self._keep(snapshot))

    def keep_oldest(self, snapshot: Snapshot) -> bool:
        """Keep it unless there is a readable one already; says which. Raises django.db.Error."""
        if self._newest():
            return False
        self._insert(snapshot)
        return True

    def prune(self, keep: int) -> int:
        """Delete all but the newest `keep` rows; gives how many. Raises django.db.Error."""
        too_old = list(self._rows().values_list("pk", flat=True)[keep:])
        return self._rows().filter(pk__in=too_old).delete()[0] if too_old else 0

    def is_well(self) -> bool:
        try:
            self._rows().exists()
        except Error:
            return False
        return True

    def close(self) -> None:
        """Give back this thread's connection: it is needed once a minute at the most."""
        connections[self._using].close()

    def _newest(self) -> Snapshot | None:
        row, _ = self._newest_readable()
        return row[1] if row else None

    def _keep(self, snapshot: Snapshot) -> None:
        row, damaged = self._newest_readable()
        if damaged:
            self._rows().filter(pk__in=damaged).delete()
        if row and row[1].timestamp >= snapshot.timestamp:
            return
        if row and row[1].digest == snapshot.digest:
            self._rows().filter(pk=row[0]).update(timestamp=snapshot.timestamp)
        else:
            self._insert(snapshot)
            self.prune(self._history)

    def _newest_readable(self) -> tuple[tuple[int, Snapshot] | None, list[int]]:
        """The newest row that can be read, with its key, and the keys of damaged ones before it."""
        damaged: list[int] = []
        for key in self._rows().values_list("pk", flat=True)[: MOST_DAMAGED + 1]:
            try:
                return (key, self._read(key)), damaged
            except BadEnvelope as error:
                log.warning("database_row_invalid", row=key, error=str(error))
                metrics.database_troubles.labels("refused").inc()
                damaged.append(key)
        return None, damaged

    def _read(self, key: int) -> Snapshot:
        """One row, so that one which the database's own library cannot read hides no other."""
        try:
            snapshot = _kept(self._rows().get(pk=key))
        except Error as error:
            # psycopg and sqlite3 say so of values that Python cannot hold. Any other error is the
            # database's own, a lock for one, and says nothing about the row.
            if not isinstance(error, DataError) and "Could not decode" not in str(error):
                raise
            raise BadEnvelope(type(error).__name__) from error
        except UNREADABLE as error:
            raise BadEnvelope(str(error)) from error
        if is_from_the_future(snapshot.timestamp, self._clock.wall()):
            raise BadEnvelope("dated ahead of the clock")
        return snapshot

    def _rows(self) -> QuerySet[KeptSnapshot]:
        return KeptSnapshot.objects.using(self._using)

    def _insert(self, snapshot: Snapshot) -> None:
        self._rows().create(
            timestamp=snapshot.timestamp, digest=snapshot.digest, body=snapshot.body.decode()
        )

    def _tried(self, action: str, attempt: Callable[[], T]) -> T | None:
        if self._clock.boot() < self._paused_until:
            return None
        try:
            return attempt()
        except Error as error:
            self._paused_until = self._clock.boot() + PAUSE
            sqlstate = getattr(error.__cause__, "sqlstate", None)
            log.warning(
                "database_failed", action=action, error=type(error).__name__, sqlstate=sqlstate
            )
            metrics.database_troubles.labels(action).inc()
            return None


def _kept(row: KeptSnapshot) -> Snapshot:
    """What a row holds; ValueError or MsgspecError if it is damaged."""
    if sha256(row.body.encode()).hexdigest() != row.digest:
        raise BadEnvelope("damaged")
    return snapshot_of(row.timestamp.isoformat(), row.body)
