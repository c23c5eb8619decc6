import json
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from services.catalogue.snapshot import Snapshot
from services.management.output import one_line, table
from services.persistence import DatabaseStore

HEADINGS = ("id", "timestamp", "age", "movies", "people", "digest", "size")


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
            database = DatabaseStore()
            pruned = database.prune(options["prune"]) if options["prune"] else 0
            snapshots = [_describe(*row) for row in database.rows()]
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


def _describe(key: int, snapshot: Snapshot | None) -> dict[str, Any]:
    if snapshot is None:
        return {"id": key, **dict.fromkeys(HEADINGS[1:])}
    return {
        "id": key,
        "timestamp": snapshot.timestamp.isoformat(),
        "age": round((datetime.now(UTC) - snapshot.timestamp).total_seconds()),
        "movies": len(snapshot.movies),
        "people": len(snapshot.people_by_id),
        "digest": snapshot.digest,
        "size": len(snapshot.body),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    if row["timestamp"] is None:
        return [str(row["id"]), *["damaged"] * len(HEADINGS[1:])]
    row |= {
        "age": timedelta(seconds=row["age"]),
        "digest": row["digest"][:12],
        "size": f"{row['size'] / 1024:.1f} KB",
    }
    return [str(row[name]) for name in HEADINGS]
