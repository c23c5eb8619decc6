import json
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from services.catalogue.snapshot import InvalidSnapshot, decode_movies
from services.management.output import one_line, table
from services.models import StoredSnapshot
from services.persistence import DatabaseStore

HEADINGS = ("timestamp", "age", "movies", "people", "digest", "size")


class Command(BaseCommand):
    help = "List the snapshots in the database, newest first. There is one for each change of the data."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--prune", type=_at_least_one, metavar="N", help="delete all but the newest N"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            pruned = DatabaseStore().prune(options["prune"]) if options["prune"] else 0
            snapshots = [_describe(row) for row in StoredSnapshot.objects.all()]
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {one_line(error)}") from error
        if options["json"]:
            self.stdout.write(json.dumps({"pruned": pruned, "snapshots": snapshots}, indent=2))
            return
        if options["prune"] and options["verbosity"]:
            self.stdout.write(f"Deleted {pruned}, {len(snapshots)} left.")
        rows = table([HEADINGS, *map(_cells, snapshots)])
        self.stdout.write("\n".join(rows) if snapshots else "The database has no snapshots.")


def _at_least_one(text: str) -> int:
    # Without any snapshot there is nothing to serve in an outage.
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def _describe(row: StoredSnapshot) -> dict[str, Any]:
    return {
        "timestamp": row.timestamp.isoformat(),
        "age": round((datetime.now(UTC) - row.timestamp).total_seconds()),
        **_counts(row),
        "digest": row.digest,
        "size": len(row.body.encode()),
    }


def _counts(row: StoredSnapshot) -> dict[str, int | None]:
    """Return how many movies and people a row has; None if it is damaged."""
    try:
        movies = decode_movies(row.body, row.digest)
    except InvalidSnapshot:
        return {"movies": None, "people": None}
    people = {person.id.lower() for movie in movies for person in movie.people}
    return {"movies": len(movies), "people": len(people)}


def _cells(snapshot: dict[str, Any]) -> tuple[str, ...]:
    counts = [snapshot[name] for name in ("movies", "people")]
    return (
        snapshot["timestamp"],
        str(timedelta(seconds=snapshot["age"])),
        *("damaged" if count is None else str(count) for count in counts),
        snapshot["digest"][:12],
        f"{snapshot['size'] / 1024:.1f} KB",
    )
