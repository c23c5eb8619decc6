import json
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from services.catalogue.entities import Movie
from services.models import KeptSnapshot
from services.persistence import DatabaseStore

HEADINGS = ("timestamp", "age", "movies", "people", "digest", "size")


class Command(BaseCommand):
    help = (
        "List the snapshots that the database keeps, the newest first: one for each time that the"
        " data changed."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--prune", type=_at_least_one, metavar="N", help="keep the newest N and delete the rest"
        )
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            pruned = DatabaseStore().prune(options["prune"]) if options["prune"] else 0
            rows = [_described(row) for row in KeptSnapshot.objects.all()]
        except DatabaseError as error:
            told = " ".join(str(error).split())
            raise CommandError(f"The database cannot be used: {told}") from error
        if options["json"]:
            self.stdout.write(json.dumps({"pruned": pruned, "snapshots": rows}, indent=2))
            return
        if options["prune"] and options["verbosity"]:
            self.stdout.write(f"Deleted {pruned}, kept {len(rows)}.")
        for line in _table(rows):
            self.stdout.write(line)


def _at_least_one(text: str) -> int:
    # Deleting the last one would leave nothing to serve in an outage.
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def _described(row: KeptSnapshot) -> dict[str, Any]:
    body = row.body.encode()
    movies = _movies(body, row.digest)
    return {
        "timestamp": row.timestamp.isoformat(),
        "age": round((datetime.now(UTC) - row.timestamp).total_seconds()),
        "movies": len(movies) if movies is not None else None,
        "people": (
            len({person.id for movie in movies for person in movie.people})
            if movies is not None
            else None
        ),
        "digest": row.digest,
        "size": len(body),
    }


def _movies(body: bytes, digest: str) -> tuple[Movie, ...] | None:
    """None for a body that is not what was kept."""
    if sha256(body).hexdigest() != digest:
        return None
    try:
        return msgspec.json.decode(body, type=tuple[Movie, ...])
    except msgspec.MsgspecError:
        return None


def _table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["The database keeps no snapshot."]
    lines = [HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    counts = [str(row[name]) if row[name] is not None else "damaged" for name in HEADINGS[2:4]]
    return (
        row["timestamp"],
        str(timedelta(seconds=row["age"])),
        *counts,
        row["digest"][:12],
        f"{row['size'] / 1024:.1f} KB",
    )
