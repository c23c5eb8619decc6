"""Invalid rows in the database are skipped, and replaced."""

import sqlite3
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from fake_ghibli import FakeGhibli
from services.models import StoredSnapshot
from services.persistence import DatabaseStore
from tests.support.database import TABLE
from tests.support.fakes import make_snapshot
from tests.support.servers import Totoro, end, stored_snapshots, wait_until

# Invalid values. SQLite stores any type in any column.
SQLITE = {
    "a word as a date": "timestamp = 'zzz'",
    "a number as a date": "timestamp = 123",
    "bytes as a date": "timestamp = X'FFFE'",
    "a date in the far future": "timestamp = '9999-12-31 23:59:59'",
    "a date in the near future": "timestamp = datetime('now', '+1 hour')",
    "an impossible date": "timestamp = '2026-13-45 99:00:00'",
    "bytes as text": "body = X'FF00'",
    "text that is not UTF-8": "body = CAST(X'FFFE' AS TEXT)",
    "a digest that is not UTF-8": "digest = CAST(X'FFFE' AS TEXT)",
    "a number as text": "body = 42",
    "a number as a digest": "digest = 42",
    "another digest": "digest = 'acorn'",
    "half of the text": "body = substr(body, 1, length(body) / 2)",
    "no text": "body = ''",
}
POSTGRES = {
    "infinity": "timestamp = 'infinity'",
    "beyond Python's dates": "timestamp = '20000-01-01'",
    "a date in the far future": "timestamp = '4000-01-01'",
    "a date in the near future": "timestamp = now() + interval '1 hour'",
    "another digest": "digest = 'acorn'",
    "half of the text": "body = left(body, length(body) / 2)",
    "no text": "body = ''",
}
CASES = [("default", what, change) for what, change in SQLITE.items()]
CASES += [("postgres", what, change) for what, change in POSTGRES.items()]
NOW = datetime.now(UTC)


@pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
@pytest.mark.parametrize(("using", "what", "change"), CASES)
def test_an_invalid_row_is_skipped_and_replaced(using: str, what: str, change: str) -> None:
    store = DatabaseStore(using=using)
    good = make_snapshot(NOW - timedelta(minutes=3), "Good")
    store.save(good)
    for minutes in (2, 1.5, 1.2, 1.1):
        store.save(make_snapshot(NOW - timedelta(minutes=minutes), f"Damaged {minutes}"))
    [*damaged, newest] = StoredSnapshot.objects.using(using).values_list("pk", flat=True)
    with connections[using].cursor() as cursor:
        cursor.execute(f"UPDATE {TABLE} SET {change} WHERE id <> {newest}")

    assert store.newest() == good

    newer = make_snapshot(NOW - timedelta(minutes=1), "Newer")
    store.save(newer)
    assert store.newest() == newer
    remaining = set(StoredSnapshot.objects.using(using).values_list("pk", flat=True))
    if not change.startswith("timestamp"):  # with another date it may be older than the good row
        assert not remaining & set(damaged)


@pytest.mark.django_db(transaction=True)
def test_a_locked_database_loses_no_valid_row() -> None:
    store = DatabaseStore()
    store.save(make_snapshot(NOW - timedelta(minutes=3), "Good"))
    listed = False

    def lock_after_the_list(execute: Any, sql: str, *arguments: Any) -> Any:
        nonlocal listed
        if sql.startswith("SELECT") and listed:
            raise OperationalError("database is locked")
        listed = listed or sql.startswith("SELECT")
        return execute(sql, *arguments)

    def lock(connection: BaseDatabaseWrapper, **_: Any) -> None:
        connection.execute_wrappers.append(lock_after_the_list)

    connection_created.connect(lock)
    try:
        store.save(make_snapshot(NOW - timedelta(minutes=1), "Newer"))
    finally:
        connection_created.disconnect(lock)
    assert listed

    [row] = StoredSnapshot.objects.all()
    assert "Good" in row.body


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a word as a date", "text that is not UTF-8", "another digest"])
def test_serves_the_newest_valid_row_after_a_restart_during_an_outage(
    what: str, tmp_path: Path
) -> None:
    with FakeGhibli() as upstream, ExitStack() as stack:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url)
        stack.callback(end, server)
        good = server.get("/movies/").json()
        wait_until(lambda: stored_snapshots(tmp_path) == 1, what="the snapshot is in the database")
        server.terminate()
        with closing(sqlite3.connect(tmp_path / "totoro.sqlite3")) as database:
            newest = "datetime('now', '+1 second')"
            copied = f"SELECT {newest}, digest, body FROM {TABLE}"
            database.execute(f"INSERT INTO {TABLE} (timestamp, digest, body) {copied}")
            database.execute(f"UPDATE {TABLE} SET {SQLITE[what]} WHERE id = 2")
            database.commit()
        upstream.faults.set({"status": 500})
        server.start()

        assert server.get("/readyz").status_code == 200
        response = server.get("/movies/")
        assert response.status_code == 200
        assert response.json() == good
        assert "Traceback" not in server.log.read_text()

        upstream.faults.set({"status": None})
        server.terminate()
        server.start()
        fresh = server.get("/movies/").json()
        assert fresh["timestamp"] > good["timestamp"]
