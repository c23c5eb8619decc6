"""Clients do not notice an outage of the database, and it has the last known good when all else is down."""

import os
import resource
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.db import OperationalError
from django.test import Client
from pytest_django.fixtures import Settings

from fake_ghibli import FakeGhibli
from services.freshness import policy
from services.ghibli import client
from services.models import StoredSnapshot
from tests.conftest import restart_service
from tests.support.database import BACK, FULL, GONE, NOT_FULL, TABLE, execute, rows
from tests.support.fault_proxy import FaultProxy
from tests.support.scripted_upstream import Exchange, ScriptedUpstream
from tests.support.servers import Postgres, Totoro, Valkey, wait_until
from totoro.env.connections import redis_caches

NEWEST = f"SELECT max(timestamp) FROM {TABLE}"


class WatchedServer:
    """A server with a TTL of two seconds, which clients use while its database fails.

    `newest_row` returns the timestamp of the newest row as text, or None.
    """

    # A hanging database delays the refreshing thread by half a second; the next refresh is due a second
    # later.
    SHORT_TTL: ClassVar[dict[str, Any]] = {"CACHE_TTL": 2, "REFRESH_AHEAD": 1}

    def __init__(self, server: Totoro, newest_row: Callable[[], str | None]) -> None:
        self.server, self.newest_row = server, newest_row

    def errors(self) -> int:
        return len(self.server.events("database_error"))

    def refreshes(self) -> int:
        return len(self.server.events("refresh_succeeded", "refresh_superseded", "refresh_failed"))

    def assert_clients_do_not_notice(self) -> None:
        """Send requests until a refresh has met the fault, and another has followed."""
        self.warm_up()
        errors, refreshes, seconds = self.errors(), self.refreshes(), []
        end = time.monotonic() + 20
        while self.errors() == errors or self.refreshes() < refreshes + 2:
            assert time.monotonic() < end, "no refresh meets the fault"
            response = self.server.get("/movies/")
            assert response.status_code == 200
            assert response.headers["Cache-Status"].startswith("totoro; hit; ttl=")
            assert "detail=" not in response.headers["Cache-Status"]
            seconds.append(response.elapsed.total_seconds())
            time.sleep(0.02)
        assert self.errors() - errors <= self.refreshes() - refreshes + 1
        assert statistics.median(seconds) < 0.3

    def warm_up(self) -> None:
        def is_hit() -> bool:
            return "; hit; ttl=" in self.server.get("/movies/").headers["Cache-Status"]

        wait_until(is_hit)

    def assert_rows_are_written_again(self) -> None:
        before = self.newest_row()

        def has_new_row() -> bool:
            assert self.server.get("/movies/").status_code == 200
            return self.newest_row() not in (None, before)

        wait_until(has_new_row, what="a row is written again")


@pytest.fixture(scope="module")
def postgres_proxy(postgres_server: Postgres) -> Iterator[FaultProxy]:
    with FaultProxy(postgres_server.port) as proxy:
        yield proxy


def postgres_url(proxy: FaultProxy) -> str:
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/totoro"


@pytest.fixture(scope="module")
def with_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres, postgres_proxy: FaultProxy
) -> Iterator[WatchedServer]:
    def newest() -> str | None:
        with postgres_server.connect() as connection:
            row = connection.execute(NEWEST).fetchone()
        return str(row[0]) if row else None

    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path_factory.mktemp("postgres"),
            GHIBLI_API_BASE_URL=upstream.url,
            DATABASE_URL=postgres_url(postgres_proxy),
            **WatchedServer.SHORT_TTL,
        )
        yield WatchedServer(server, newest)
        server.terminate()


@pytest.fixture
def postgres(
    with_postgres: WatchedServer, postgres_server: Postgres, postgres_proxy: FaultProxy
) -> Iterator[WatchedServer]:
    """Return a server that uses PostgreSQL, and end all faults after the test."""
    with_postgres.assert_rows_are_written_again()
    yield with_postgres
    postgres_proxy.up()
    with postgres_server.connect("postgres") as connection:
        connection.execute("ALTER DATABASE totoro RESET default_transaction_read_only")


@contextmanager
def statements(server: Postgres, begin: str, end: str) -> Iterator[None]:
    with server.connect() as connection:
        connection.execute(begin)
        try:
            yield
        finally:
            connection.execute(end)


def test_clients_do_not_notice_that_postgresql_is_down(
    postgres: WatchedServer, postgres_proxy: FaultProxy
) -> None:
    postgres_proxy.down()
    postgres.assert_clients_do_not_notice()
    postgres_proxy.up()
    postgres.assert_rows_are_written_again()


@pytest.mark.minutes
def test_clients_do_not_notice_that_postgresql_is_down_at_start(
    postgres: WatchedServer, postgres_proxy: FaultProxy
) -> None:
    postgres_proxy.down()
    postgres.server.terminate()
    postgres.server.start()
    assert postgres.server.get("/movies/").status_code == 200
    postgres.assert_clients_do_not_notice()
    postgres_proxy.up()
    postgres.assert_rows_are_written_again()


def test_clients_do_not_notice_a_locked_table_in_postgresql(
    postgres: WatchedServer, postgres_server: Postgres
) -> None:
    lock = f"BEGIN; LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE"
    with statements(postgres_server, lock, "ROLLBACK"):
        postgres.assert_clients_do_not_notice()
    postgres.assert_rows_are_written_again()


@pytest.mark.minutes
def test_clients_do_not_notice_that_postgresql_hangs(
    tmp_path: Path, postgres_server: Postgres, postgres_proxy: FaultProxy
) -> None:
    """REFRESH_AHEAD is longer than 2 s, psycopg's shortest time-out for a connection."""
    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path,
            GHIBLI_API_BASE_URL=upstream.url,
            DATABASE_URL=postgres_url(postgres_proxy),
            CACHE_TTL=8,
            REFRESH_AHEAD=4,
        )
        watched = WatchedServer(server, lambda: newest_in(postgres_server))
        watched.warm_up()
        postgres_proxy.is_silent = True
        watched.assert_clients_do_not_notice()
        postgres_proxy.up()
        watched.assert_rows_are_written_again()
        server.terminate()


@pytest.mark.minutes
def test_clients_do_not_notice_that_postgresql_is_read_only(
    postgres: WatchedServer, postgres_server: Postgres
) -> None:
    with postgres_server.connect("postgres") as connection:
        connection.execute("ALTER DATABASE totoro SET default_transaction_read_only = on")
        postgres.assert_clients_do_not_notice()
        connection.execute("ALTER DATABASE totoro RESET default_transaction_read_only")
    postgres.assert_rows_are_written_again()


@pytest.mark.minutes
def test_clients_do_not_notice_that_the_disk_of_postgresql_is_full(
    postgres: WatchedServer, postgres_server: Postgres
) -> None:
    with statements(postgres_server, FULL, NOT_FULL):
        postgres.assert_clients_do_not_notice()
    postgres.assert_rows_are_written_again()


@pytest.mark.minutes
def test_clients_do_not_notice_that_postgresql_lacks_a_migration(
    postgres: WatchedServer, postgres_server: Postgres
) -> None:
    with statements(postgres_server, GONE, BACK):
        postgres.assert_clients_do_not_notice()
    postgres.assert_rows_are_written_again()


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sqlite") / "totoro.sqlite3"


@pytest.fixture(scope="module")
def with_sqlite(sqlite_file: Path) -> Iterator[WatchedServer]:
    def newest() -> str | None:
        with closing(sqlite3.connect(sqlite_file)) as connection:
            [found] = connection.execute(NEWEST).fetchone()
        return str(found) if found else None

    with FakeGhibli() as upstream:
        server = Totoro(
            sqlite_file.parent, GHIBLI_API_BASE_URL=upstream.url, **WatchedServer.SHORT_TTL
        )
        yield WatchedServer(server, newest)
        server.terminate()


@pytest.fixture
def sqlite(with_sqlite: WatchedServer) -> WatchedServer:
    with_sqlite.assert_rows_are_written_again()
    return with_sqlite


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Lock the file from this process, while the server uses it."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=5)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def without_its_table(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None, timeout=5)) as connection:
        connection.execute(GONE)
        yield
        connection.execute(BACK)


@contextmanager
def replaced(file: Path, put: Callable[[Path], object]) -> Iterator[None]:
    """Replace the file with something else while the block runs."""
    aside = file.with_suffix(".aside")
    file.rename(aside)
    put(file)
    try:
        yield
    finally:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        for rest in file.parent.glob(f"{file.name}-*"):
            rest.unlink()
        aside.rename(file)


def write_random_bytes(file: Path) -> None:
    file.write_bytes(os.urandom(20_000))


@pytest.mark.minutes
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(locked, id="locked by another process"),
        pytest.param(without_its_table, id="without its table"),
        pytest.param(lambda file: replaced(file, write_random_bytes), id="random bytes"),
        pytest.param(lambda file: replaced(file, Path.mkdir), id="a folder"),
    ],
)
def test_clients_do_not_notice_a_fault_of_the_sqlite_file(
    fault: Callable[[Path], AbstractContextManager[None]], sqlite: WatchedServer, sqlite_file: Path
) -> None:
    with fault(sqlite_file):
        sqlite.assert_clients_do_not_notice()
    sqlite.assert_rows_are_written_again()


@pytest.mark.minutes
def test_clients_do_not_notice_that_neither_the_database_nor_the_log_can_be_written(
    sqlite: WatchedServer, sqlite_file: Path
) -> None:
    [worker] = sqlite.server.workers
    before = sqlite.newest_row()
    # No file of this process may grow beyond its first byte.
    _, most = resource.prlimit(worker, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        end = time.monotonic() + 2.5
        timestamps = set()
        while time.monotonic() < end:
            response = sqlite.server.get("/movies/")
            assert response.status_code == 200
            assert "detail=" not in response.headers["Cache-Status"]
            timestamps.add(response.json()["timestamp"])
        assert len(timestamps) >= 2
        assert sqlite.newest_row() == before
    finally:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))
    sqlite.assert_rows_are_written_again()


@pytest.mark.minutes
def test_serves_movies_without_a_migrated_database(tmp_path: Path) -> None:
    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path, migrate=False, GHIBLI_API_BASE_URL=upstream.url, **WatchedServer.SHORT_TTL
        )
        WatchedServer(server, lambda: None).assert_clients_do_not_notice()
        assert server.get("/readyz").json()["database"] is False
        server.terminate()


# When everything is down


@pytest.mark.django_db(transaction=True)
def test_a_process_serves_its_last_known_good_while_everything_is_down(
    api: Client, settings: Settings, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "BACKOFF_SECONDS", (0.05,))
    monkeypatch.setattr(client, "RETRY_BACKOFF_SECONDS", 0.02)
    with ScriptedUpstream() as upstream, FaultProxy(valkey.port) as redis:
        url = f"redis://127.0.0.1:{redis.port}/0"
        settings.REDIS_URL, settings.CACHES = url, redis_caches(url)
        settings.GHIBLI_API_BASE_URL = upstream.url
        settings.CACHE_TTL, settings.REFRESH_AHEAD = 0.3, 0
        good = api.get("/movies/")
        assert good.status_code == 200
        wait_until(lambda: good.json()["timestamp"] in map(timestamp_of, unlocked_rows()))

        upstream.films = upstream.people = Exchange.hang_up
        redis.down()
        execute("default", (GONE,))
        wait_until(lambda: "detail=reset" in api.get("/movies/")["Cache-Status"])
        assert api.get("/movies/").content == good.content

        # A new process has no last known good…
        restart_service()
        assert api.get("/movies/").status_code == 503
        assert api.get("/readyz").status_code == 503

        # …until the database works again.
        execute("default", (BACK,))
        restart_service()
        stale = api.get("/movies/")
        assert stale.status_code == 200
        assert stale.content == good.content
        assert api.get("/readyz").status_code == 200


def unlocked_rows() -> list[StoredSnapshot]:
    """Return the rows, or none while the table is locked: SQLite in memory does not wait for a writer."""
    try:
        return rows("default")
    except OperationalError:
        return []


def timestamp_of(row: StoredSnapshot) -> str:
    return row.timestamp.isoformat(timespec="microseconds")


@pytest.mark.minutes
def test_serves_the_last_known_good_while_everything_is_down(
    tmp_path: Path, postgres_server: Postgres, valkey: Valkey
) -> None:
    with (
        FakeGhibli() as upstream,
        FaultProxy(int(upstream.url.rpartition(":")[2])) as ghibli,
        FaultProxy(valkey.port) as redis,
        FaultProxy(postgres_server.port) as database,
    ):
        parts = (ghibli, redis, database)
        server = Totoro(
            tmp_path,
            GHIBLI_API_BASE_URL=f"http://127.0.0.1:{ghibli.port}",
            REDIS_URL=f"redis://127.0.0.1:{redis.port}/0",
            DATABASE_URL=postgres_url(database),
            **WatchedServer.SHORT_TTL,
        )
        good = server.get("/movies/")
        assert good.status_code == 200
        wait_until(lambda: newest_in(postgres_server) == good.json()["timestamp"])

        # A running process serves its last known good.
        for part in parts:
            part.down()
        wait_until(lambda: is_stale(server))
        stale = server.get("/movies/")
        assert stale.status_code == 200
        assert stale.json()["timestamp"] >= good.json()["timestamp"]
        assert server.get("/readyz").status_code == 200

        # A new process has none.
        server.terminate()
        server.start()
        response = server.get("/movies/")
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert response.json()["type"] == "/problems/upstream-refused/"
        assert server.get("/readyz").status_code == 503
        assert server.get("/livez").status_code == 200

        # It serves the one from the database as soon as that works again.
        database.up()
        wait_until(lambda: server.get("/movies/").status_code == 200)
        stale = server.get("/movies/")
        assert stale.json()["timestamp"] == newest_in(postgres_server)
        assert stale.json()["api_data"] == good.json()["api_data"]
        assert "detail=refused" in stale.headers["Cache-Status"]
        assert server.get("/readyz").json() | {"age": 0} == {
            "ready": True,
            "cache": False,
            "database": True,
            "fresh": False,
            "age": 0,
        }
        server.terminate()


def newest_in(server: Postgres) -> str:
    with server.connect() as connection:
        row = connection.execute(NEWEST).fetchone()
    assert row
    timestamp: datetime = row[0]
    return timestamp.astimezone(UTC).isoformat(timespec="microseconds")


def is_stale(server: Totoro) -> bool:
    response = server.get("/movies/")
    assert response.status_code == 200
    return "detail=" in response.headers["Cache-Status"]
