import json
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from services.catalogue import audit
from services.catalogue.audit import MEANINGS, Defect, Kind
from services.exceptions import UpstreamError
from services.ghibli.client import Fetched, GhibliClient

# Of a longer text: enough to find it. `--json` has all.
WIDTH = 90


class Command(BaseCommand):
    help = (
        "Ask the Ghibli API for all its films and people and report every defect of the data."
        " Exit status 0: none; 1: some; 2: it could not be asked. Nothing is kept or served."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        client = GhibliClient(settings.GHIBLI_API_BASE_URL, film_fields=audit.FIELDS["films"])
        try:
            fetched = client.fetch()
        except UpstreamError as error:
            raise CommandError(
                f"The Ghibli API failed ({error.reason}): {error}.", returncode=2
            ) from error
        found = audit.find(fetched.films, fetched.people)
        if options["json"]:
            self.stdout.write(json.dumps(_report(fetched, found), ensure_ascii=False, indent=2))
        else:
            for line in _lines(fetched, found, options["verbosity"]):
                self.stdout.write(line)
        if found:
            sys.exit(1)


def _report(fetched: Fetched, found: list[Defect]) -> dict[str, Any]:
    return {
        "timestamp": fetched.timestamp.isoformat(),
        "counts": {kind: len(list(group)) for kind, group in _by_kind(found)},
        "defects": [defect._asdict() for defect in found],
    }


def _lines(fetched: Fetched, found: list[Defect], verbosity: int) -> Iterator[str]:
    """The defects by kind (from verbosity 1), and what they add up to."""
    counts = []
    for kind, group in _by_kind(found):
        rows = [[_cell(text) for text in defect[1:2] + defect[3:]] for defect in group]
        counts.append(f"{_words(kind)} {len(rows)}")
        if verbosity:
            yield f"{_words(kind)}: {MEANINGS[kind]} ({len(rows)})"
            yield from _table(rows)
            yield ""
    moment = f"{fetched.timestamp:%Y-%m-%d %H:%M:%S} UTC"
    yield f"{len(found)} defects as of {moment}{': ' if counts else ''}{', '.join(counts)}."


def _by_kind(found: list[Defect]) -> Iterator[tuple[Kind, Iterator[Defect]]]:
    return groupby(found, key=lambda defect: defect.kind)


def _words(kind: Kind) -> str:
    return kind.replace("_", " ")


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _cell(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= WIDTH else f"{shown[: WIDTH - 1]}…"
