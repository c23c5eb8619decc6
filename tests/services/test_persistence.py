"""Snapshots in SQLite and PostgreSQL: what is saved, what is read, and what happens when they fail."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from prometheus_client import REGISTRY

from services.catalogue.snapshot import Snapshot
from services.models import StoredSnapshot
from services.persistence import DatabaseStore
from tests.support.database import BACK, FULL, GONE, NOT_FULL, execute, rows
from tests.support.fakes import make_snapshot

NOON = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)

both_engines = pytest.mark.django_db(databases=["default", "postgres"], transaction=True)


def after(minutes: float, title: str = "Ponyo") -> Snapshot:
    return make_snapshot(NOON + timedelta(minutes=minutes), title)


@pytest.fixture(params=["default", "postgres"], ids=["sqlite", "postgresql"])
def using(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store(using: str) -> DatabaseStore:
    return DatabaseStore(using=using, history=3)


def count_errors(action: str) -> float:
    return REGISTRY.get_sample_value("totoro_database_errors_total", {"action": action}) or 0.0


# One row per change of the data


@both_engines
def test_changed_data_adds_a_row_and_unchanged_data_updates_the_timestamp(
    store: DatabaseStore, using: str
) -> None:
    timestamps = []
    for snapshot in (after(0), after(1), after(2, "Totoro"), after(3)):
        store.save(snapshot)
        timestamps.append([row.timestamp for row in rows(using)])

    times = [NOON + timedelta(minutes=minutes) for minutes in range(4)]
    assert timestamps == [
        [times[0]],
        [times[1]],
        [times[2], times[1]],
        [times[3], times[2], times[1]],
    ]


@both_engines
def test_returns_a_snapshot_as_it_was_saved(store: DatabaseStore) -> None:
    store.save(after(0, "天空の城 \N{GRINNING FACE} \N{LINE SEPARATOR} \\ ' \" % {}"))

    assert store.newest() == after(0, "天空の城 \N{GRINNING FACE} \N{LINE SEPARATOR} \\ ' \" % {}")


@both_engines
def test_does_not_save_a_snapshot_older_than_the_newest_row(
    store: DatabaseStore, using: str
) -> None:
    store.save(after(5))
    store.save(after(4, "Totoro"))

    assert [row.timestamp for row in rows(using)] == [after(5).timestamp]


@both_engines
def test_deletes_rows_beyond_the_history(store: DatabaseStore, using: str) -> None:
    for minute in range(6):
        store.save(after(minute, f"Film {minute}"))

    assert [row.timestamp for row in rows(using)] == [after(m).timestamp for m in (5, 4, 3)]
    assert store.newest() == after(5, "Film 5")


@both_engines
def test_skips_a_row_that_is_deleted_while_rows_are_read(store: DatabaseStore, using: str) -> None:
    store.save(after(0))
    store.save(after(1, "Totoro"))
    found = store.rows()
    [newest, oldest] = rows(using)

    assert next(found) == (newest.pk, after(1, "Totoro"))
    oldest.delete()
    assert list(found) == []


def rewrite(body: Callable[[str], str]) -> Callable[[StoredSnapshot], None]:
    """Change the body, and set the matching digest."""

    def damage(row: StoredSnapshot) -> None:
        row.body = body(row.body)
        row.digest = sha256(row.body.encode()).hexdigest()

    return damage


def change_a_byte(row: StoredSnapshot) -> None:
    row.body = row.body.replace("Ponyo", "Pojyo")


def truncate(row: StoredSnapshot) -> None:
    row.body = row.body[: len(row.body) // 2]


def remove_digest(row: StoredSnapshot) -> None:
    row.digest = ""


DAMAGES: dict[str, Callable[[StoredSnapshot], None]] = {
    "truncated": truncate,
    "a byte changed": change_a_byte,
    "no digest": remove_digest,
    "truncated before the digest": rewrite(lambda body: body[: len(body) // 2]),
    "no movies": rewrite(lambda body: "[]"),
    "null": rewrite(lambda body: "null"),
    "empty": rewrite(lambda body: ""),
    "an unknown field": rewrite(lambda body: body.replace('"title"', '"tytle"')),
    "no ids": rewrite(lambda body: body.replace('"id"', '"url"')),
}


@both_engines
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_invalid_row_is_counted_and_the_previous_one_is_used(
    damage: Callable[[StoredSnapshot], None], store: DatabaseStore, using: str
) -> None:
    store.save(after(0, "Totoro"))
    store.save(after(1))
    damaged = rows(using)[0]
    damage(damaged)
    damaged.save()
    before = count_errors("invalid_row")

    assert store.newest() == after(0, "Totoro")
    assert count_errors("invalid_row") - before == 1


@both_engines
def test_an_invalid_row_is_replaced_by_the_same_data(store: DatabaseStore, using: str) -> None:
    store.save(after(0))
    [row] = rows(using)
    change_a_byte(row)
    row.save()
    store.save(after(1))

    assert store.newest() == after(1)


# A database that rejects statements


@dataclass(frozen=True)
class Rejection:
    """Statements that make the database reject others, and those that end it.

    `reads`: whether it can still be read. `each_connection`: whether each new connection needs them.
    """

    engine: str
    begin: tuple[str, ...]
    end: tuple[str, ...]
    reads: bool = True
    each_connection: bool = False


REJECTIONS = {
    "read-only SQLite": Rejection(
        "default",
        ("PRAGMA query_only = 1",),
        ("PRAGMA query_only = 0",),
        each_connection=True,
    ),
    "read-only PostgreSQL": Rejection(
        "postgres",
        ("SET default_transaction_read_only = on",),
        ("SET default_transaction_read_only = off",),
        each_connection=True,
    ),
    "full SQLite": Rejection(
        "default", ("VACUUM", "PRAGMA max_page_count = 1"), ("PRAGMA max_page_count = 1000000",)
    ),
    "full PostgreSQL": Rejection("postgres", (FULL,), (NOT_FULL,)),
    "SQLite without its table": Rejection("default", (GONE,), (BACK,), reads=False),
    "PostgreSQL without its table": Rejection("postgres", (GONE,), (BACK,), reads=False),
}


@contextmanager
def rejecting(rejection: Rejection) -> Iterator[None]:
    """Make the database reject statements while the block runs."""

    def begin(connection: BaseDatabaseWrapper, **_: Any) -> None:
        if connection.alias == rejection.engine:
            execute(rejection.engine, rejection.begin)

    if rejection.each_connection:
        connection_created.connect(begin)
    else:
        execute(rejection.engine, rejection.begin)
    try:
        yield
    finally:
        connection_created.disconnect(begin)
        execute(rejection.engine, rejection.end)


@pytest.fixture(params=REJECTIONS.values(), ids=list(REJECTIONS))
def rejection(request: pytest.FixtureRequest) -> Rejection:
    rejection: Rejection = request.param
    return rejection


@both_engines
def test_a_rejected_statement_is_counted_and_raises_nothing(rejection: Rejection) -> None:
    store = DatabaseStore(using=rejection.engine)
    store.save(after(0))
    long = after(1, "x" * 100_000)  # a full SQLite may have room left in its pages
    before = count_errors("write"), count_errors("read")

    with rejecting(rejection):
        store.save(long)
        for _ in range(3):
            store.save(long)  # the database is not used during the pause
            store.newest()
        counted = count_errors("write") - before[0], count_errors("read") - before[1]
        newest = DatabaseStore(using=rejection.engine).newest()

    assert counted == (1, 0)
    assert newest == (after(0) if rejection.reads else None)
    DatabaseStore(using=rejection.engine).save(long)
    assert DatabaseStore(using=rejection.engine).newest() == long
