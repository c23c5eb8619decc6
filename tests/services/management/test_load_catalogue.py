from io import StringIO

import pytest
from django.core.management import call_command
from pytest_django.fixtures import Settings

from services.catalogue import bundled
from services.models import StoredSnapshot
from services.persistence import DatabaseStore
from tests.services.management.commands import error_line, run, save_snapshots, without_database

pytestmark = pytest.mark.django_db(transaction=True)


def test_stores_the_bundled_catalogue_as_last_known_good() -> None:
    assert run("load_catalogue") == "Loaded 22 movies as of 2026-11-23.\n"

    snapshot = DatabaseStore().newest()
    assert snapshot
    assert (snapshot.timestamp, len(snapshot.movies)) == (bundled.load().timestamp, 22)


def test_loads_nothing_if_there_is_a_snapshot() -> None:
    save_snapshots("Ponyo")

    output = run("load_catalogue")

    assert output == "The database has a snapshot already: nothing loaded.\n"
    assert StoredSnapshot.objects.count() == 1


def test_a_damaged_snapshot_does_not_count() -> None:
    save_snapshots("Ponyo")
    StoredSnapshot.objects.update(digest="0" * 64)

    assert run("load_catalogue").startswith("Loaded 22 movies")

    snapshot = DatabaseStore().newest()
    assert snapshot
    assert len(snapshot.movies) == 22


def test_warns_if_the_catalogue_is_too_old_to_be_served(settings: Settings) -> None:
    settings.STALE_IF_ERROR = 60
    stderr = StringIO()

    call_command("load_catalogue", stdout=StringIO(), stderr=stderr)

    assert "older than STALE_IF_ERROR allows (60 s)" in stderr.getvalue()


def test_fails_with_one_line_if_the_database_cannot_be_used(environment: dict[str, str]) -> None:
    message = error_line(without_database(environment), "load_catalogue")

    assert message.startswith("The database cannot be used: connection failed")
