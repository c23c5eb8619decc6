from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from services.catalogue import bundled, merge
from services.catalogue.snapshot import Snapshot
from services.management.output import one_line
from services.persistence import DatabaseStore


class Command(BaseCommand):
    help = (
        "Store the bundled catalogue in the database as the oldest last known good, which is served"
        " until the Ghibli API was reached. Does nothing if the database has a snapshot already."
    )
    # They import every view. `make run` serves right after this, which runs them again.
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        timestamp, films, people = bundled.load()
        snapshot = Snapshot(timestamp, merge.build(films, people).movies)
        try:
            is_stored = DatabaseStore().save_oldest(snapshot)
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {one_line(error)}") from error
        if not is_stored:
            self.stdout.write("The database has a snapshot already: nothing loaded.")
            return
        self.stdout.write(f"Loaded {len(snapshot.movies)} movies as of {timestamp:%Y-%m-%d}.")
        if (datetime.now(UTC) - timestamp).total_seconds() > settings.STALE_IF_ERROR:
            self.stderr.write(
                f"They are older than STALE_IF_ERROR allows ({settings.STALE_IF_ERROR} s):"
                " Totoro does not serve them unless you raise it."
            )
