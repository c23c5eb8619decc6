from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from services.catalogue import bundled, merge
from services.catalogue.snapshot import Snapshot
from services.persistence import DatabaseStore


class Command(BaseCommand):
    help = (
        "Keep the bundled catalogue in the database as the oldest last-known-good, for when the"
        " Ghibli API was never reached. Does nothing if anything is kept already."
    )

    # They import every view, which `make run` need not wait for: serving does that once more.
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        store = DatabaseStore()
        facts = bundled.load()
        snapshot = Snapshot(facts.taken, merge.build(facts.films, facts.people).movies)
        try:
            kept = store.keep_oldest(snapshot)
        except DatabaseError as error:
            raise CommandError(f"the database cannot be used: {error}".strip()) from error
        if not kept:
            self.stdout.write("The database holds a snapshot already: nothing loaded.")
            return
        self.stdout.write(f"Loaded {len(snapshot.movies)} movies as of {facts.taken:%Y-%m-%d}.")
        if (datetime.now(UTC) - facts.taken).total_seconds() > settings.STALE_IF_ERROR:
            self.stderr.write(
                f"They are older than STALE_IF_ERROR ({settings.STALE_IF_ERROR} s) allows:"
                " Totoro will not serve them until it is raised."
            )
