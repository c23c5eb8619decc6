import json
import sys
from collections import Counter
from datetime import datetime
from itertools import groupby
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from services.catalogue import audit
from services.catalogue.audit import Defect, DefectKind
from services.exceptions import UpstreamError
from services.ghibli.client import GhibliClient
from services.management.output import printable, shorten, table

# Of a cell in the table: enough to find the text in the data. `--json` prints all of it.
MAX_WIDTH = 90


class Command(BaseCommand):
    help = (
        "Fetch all films and people from the Ghibli API and report the defects of the data. Nothing"
        " is stored or served. Exit status: 0 without defects, 1 with defects, 2 if the Ghibli API"
        " failed."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        client = GhibliClient(settings.GHIBLI_API_BASE_URL, film_fields=audit.FIELDS["films"])
        try:
            fetched = client.fetch()
        except UpstreamError as error:
            message = f"The Ghibli API failed ({error.reason}): {error}."
            raise CommandError(message, returncode=2) from error
        defects = audit.find_defects(fetched.films, fetched.people)
        if options["json"]:
            self._print_json(fetched.timestamp, defects)
        else:
            self._print_text(fetched.timestamp, defects, options["verbosity"])
        if defects:
            sys.exit(1)

    def _print_json(self, timestamp: datetime, defects: list[Defect]) -> None:
        report = {
            "timestamp": timestamp.isoformat(),
            "counts": Counter(defect.kind for defect in defects),
            "defects": [defect._asdict() for defect in defects],
        }
        self.stdout.write(json.dumps(report, ensure_ascii=False, indent=2))

    def _print_text(self, timestamp: datetime, defects: list[Defect], verbosity: int) -> None:
        counts = []
        for kind, group in groupby(defects, key=lambda defect: defect.kind):
            rows = table([_cells(defect) for defect in group])
            counts.append(f"{_words(kind)} {len(rows)}")
            if verbosity:
                heading = f"{_words(kind)}: {kind.meaning} ({len(rows)})"
                self.stdout.write("\n  ".join([heading, *rows]))
                self.stdout.write("")
        details = f": {', '.join(counts)}" if counts else ""
        moment = f"{timestamp:%Y-%m-%d %H:%M:%S} UTC"
        self.stdout.write(f"{len(defects)} defects as of {moment}{details}.")


def _words(kind: DefectKind) -> str:
    return kind.replace("_", " ")


def _cells(defect: Defect) -> list[str]:
    cells = (defect.collection, defect.name, defect.field, defect.detail)
    return [shorten(printable(cell), MAX_WIDTH) for cell in cells]
