"""The last known good in the database, which outlives every process and Redis.

A row is checked when it is read, like the data of the Ghibli API: a damaged one counts as missing.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

import structlog
from django.db import DataError, Error, connections
from django.db.models import QuerySet

from services import metrics
from services.background import CoalescedCalls
from services.catalogue.snapshot import CLOCK_SKEW_SECONDS, InvalidSnapshot, Snapshot, decode_movies
from services.clock import Clock
from services.models import StoredSnapshot

log = structlog.get_logger(__name__)

# The longest that a refresh waits for the database: no time-out of its own covers the look-up of its
# name.
WAIT_SECONDS = 1.5
# After an error the database is skipped for this long, so that a refresh, which may read and write,
# pays for one attempt.
PAUSE_SECONDS = 1.0
# Newest rows that may be damaged before the database counts as empty.
MAX_DAMAGED_ROWS = 1000
# What reading a row raises that somebody else wrote or a disk has damaged: InvalidSnapshot and, as SQLite
# stores values of any type in any column, errors of Python.
UNREADABLE = (ValueError, TypeError, AttributeError, OverflowError)

T = TypeVar("T")


class DatabaseStore:
    """One row for each time that the data changed; `history` says how many rows stay.

    `newest`, `save` and `is_available` take WAIT_SECONDS at most, in a thread of their own, and raise
    nothing. The other methods are for commands and raise django.db.Error.
    """

    def __init__(self, *, history: int = 100, using: str = "default") -> None:
        self._history, self._using = history, using
        self._clock = Clock()
        self._paused_until = 0.0
        self._calls = CoalescedCalls("database")

    def newest(self) -> Snapshot | None:
        """Return the newest readable row; None without one or without the database."""
        return self._attempt("read", self._newest)

    def save(self, snapshot: Snapshot) -> None:
        """Insert a row if the data changed, else date the newest row anew."""
        self._attempt("write", lambda: self._save(snapshot))

    def is_available(self) -> bool:
        try:
            self._calls.start("check", self._run, self._rows().exists).result(WAIT_SECONDS)
        except (Error, TimeoutError):
            return False
        return True

    def save_oldest(self, snapshot: Snapshot) -> bool:
        """Insert the snapshot if there is no readable one; return whether that was so."""
        if self._newest():
            return False
        self._insert(snapshot)
        return True

    def rows(self) -> Iterator[tuple[int, Snapshot | None]]:
        """Yield key and snapshot of each row, newest first; None for the snapshot of a damaged row."""
        for key in self._rows().values_list("pk", flat=True):
            snapshot = None
            try:
                snapshot = self._read(key)
            except StoredSnapshot.DoesNotExist:
                continue  # another process has deleted it meanwhile
            except UNREADABLE as error:
                log.warning("database_row_invalid", row=key, error=str(error))
                metrics.database_errors.labels("invalid_row").inc()
            yield key, snapshot

    def prune(self, keep: int) -> int:
        """Delete all but the newest `keep` rows; return how many."""
        too_old = list(self._rows().values_list("pk", flat=True)[keep:])
        return self._rows().filter(pk__in=too_old).delete()[0]

    def _newest(self) -> Snapshot | None:
        rows = islice(self.rows(), MAX_DAMAGED_ROWS + 1)
        return next((snapshot for _, snapshot in rows if snapshot), None)

    def _save(self, snapshot: Snapshot) -> None:
        damaged: list[int] = []
        key, stored = 0, None
        for key, stored in islice(self.rows(), MAX_DAMAGED_ROWS + 1):
            if stored:
                break
            damaged.append(key)
        self._rows().filter(pk__in=damaged).delete()
        if stored and stored.timestamp >= snapshot.timestamp:
            return
        if stored and stored.digest == snapshot.digest:
            self._rows().filter(pk=key).update(timestamp=snapshot.timestamp)
        else:
            self._insert(snapshot)
            self.prune(self._history)

    def _read(self, key: int) -> Snapshot:
        """Read one row, so that one which the database's library cannot read hides no other."""
        try:
            row = self._rows().get(pk=key)
        except Error as error:
            # psycopg and sqlite3 raise these for values that Python cannot hold. Any other error is
            # the database's own, a lock for example, and says nothing about the row.
            if not isinstance(error, DataError) and "Could not decode" not in str(error):
                raise
            raise InvalidSnapshot(type(error).__name__) from error
        snapshot = Snapshot(row.timestamp, decode_movies(row.body, row.digest))
        if (snapshot.timestamp - self._clock.wall()).total_seconds() > CLOCK_SKEW_SECONDS:
            raise InvalidSnapshot("dated ahead of the clock")
        return snapshot

    def _rows(self) -> QuerySet[StoredSnapshot]:
        return StoredSnapshot.objects.using(self._using)

    def _insert(self, snapshot: Snapshot) -> None:
        self._rows().create(
            timestamp=snapshot.timestamp, digest=snapshot.digest, body=snapshot.body.decode()
        )

    def _attempt(self, action: str, query: Callable[[], T]) -> T | None:
        """Return what the query returns; None if it fails, hangs, or failed a moment ago."""
        if self._clock.boot() < self._paused_until:
            return None
        try:
            with metrics.database_duration.labels(action).time():
                result: T = self._calls.start(action, self._run, query).result(WAIT_SECONDS)
            return result
        except Error as error:
            self._paused_until = self._clock.boot() + PAUSE_SECONDS
            sqlstate = getattr(error.__cause__, "sqlstate", None)
            log.warning(
                "database_error", action=action, error=type(error).__name__, sqlstate=sqlstate
            )
        except TimeoutError:
            log.warning("database_error", action=action, error="TimeoutError", sqlstate=None)
        metrics.database_errors.labels(action).inc()
        return None

    def _run(self, query: Callable[[], T]) -> T:
        try:
            return query()
        finally:
            connections[self._using].close()  # this thread's
