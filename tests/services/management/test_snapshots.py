import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError

from services.models import StoredSnapshot
from services.persistence import DatabaseStore
from tests.services.management.commands import error_line, run, save_snapshots, without_database
from tests.support.fakes import make_snapshot

pytestmark = pytest.mark.django_db(transaction=True)


def test_says_that_there_are_no_snapshots() -> None:
    assert run("snapshots") == "The database has no snapshots.\n"


def size(snapshot: StoredSnapshot) -> str:
    return f"{len(snapshot.body.encode()) / 1024:.1f} KB"


def test_lists_the_newest_first() -> None:
    save_snapshots("Ponyo", "Totoro")
    newest, oldest = StoredSnapshot.objects.all()

    heading, first, second = run("snapshots").splitlines()

    assert heading.split() == ["id", "timestamp", "age", "movies", "people", "digest", "size"]
    assert first.split()[:2] == [str(newest.pk), "2026-11-24T00:01:00+00:00"]
    assert first.endswith(f"  1       1       {newest.digest[:12]}  {size(newest)}")
    assert second.split()[:2] == [str(oldest.pk), "2026-11-24T00:00:00+00:00"]
    assert second.endswith(f"  1       1       {oldest.digest[:12]}  {size(oldest)}")


def test_prints_json() -> None:
    DatabaseStore().save(make_snapshot(datetime.now(UTC) - timedelta(hours=1)))
    [row] = StoredSnapshot.objects.all()

    [snapshot] = json.loads(run("snapshots", "--json"))["snapshots"]

    age: Any = snapshot.pop("age")
    assert 3600 <= age < 3700
    assert snapshot == {
        "id": row.pk,
        "timestamp": row.timestamp.isoformat(),
        "movies": 1,
        "people": 1,
        "digest": row.digest,
        "size": len(row.body.encode()),
    }


@pytest.mark.parametrize("broken", [{"body": "[]"}, {"digest": "0" * 64}, {"body": b"\xff"}])
def test_marks_damaged_snapshots(broken: dict[str, Any]) -> None:
    save_snapshots("Ponyo", "Totoro")
    StoredSnapshot.objects.filter(pk=StoredSnapshot.objects.all()[1].pk).update(**broken)

    _, first, second = run("snapshots").splitlines()

    assert "damaged" not in first
    assert "  damaged  damaged  " in second


def test_prunes_all_but_the_newest() -> None:
    save_snapshots("One", "Two", "Three")

    lines = run("snapshots", "--prune", "2").splitlines()

    assert lines[0] == "Deleted 1, 2 left."
    assert [row.timestamp.minute for row in StoredSnapshot.objects.all()] == [2, 1]


def test_prints_the_number_of_deleted_snapshots_as_json() -> None:
    save_snapshots("One", "Two", "Three")

    report = json.loads(run("snapshots", "--prune", "1", "--json"))

    assert report["pruned"] == 2
    assert len(report["snapshots"]) == 1


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "two", "", "²"])
def test_never_deletes_the_last_snapshot(number: str) -> None:
    save_snapshots("One")

    with pytest.raises(CommandError, match="must be a whole number, 1 or more"):
        run("snapshots", f"--prune={number}")

    assert StoredSnapshot.objects.count() == 1


def test_fails_with_one_line_if_the_database_cannot_be_used(environment: dict[str, str]) -> None:
    message = error_line(without_database(environment), "snapshots")

    assert message.startswith("The database cannot be used: connection failed")
