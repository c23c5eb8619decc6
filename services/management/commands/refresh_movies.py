from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from services.catalogue import diff
from services.catalogue.diff import Change, CollectionDiff, FieldChange, SnapshotDiff
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.freshness.process_state import ProcessState
from services.freshness.refresh import Outcome, Refreshed, Refresher, is_vain
from services.freshness.state import SECOND, pending_entry
from services.ghibli.client import GhibliClient
from services.management.output import printable, shorten
from services.movies import policy, shared_store
from services.persistence import DatabaseStore

# Of a text that changed: enough to see what it is about. `--verbosity 2` shows all of it.
WIDTH = 60


class Command(BaseCommand):
    help = (
        "Ask the Ghibli API now, whatever the age of the current answer, and say what has changed"
        " since the last snapshot. The workers take the answer over when their current one ends."
        " Exit status 1 if no new answer came of it: nobody asks while another worker does, or for"
        " a while after a failure."
    )
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        self.verbosity: int = options["verbosity"]
        self.clock = Clock()
        self.database = DatabaseStore(history=settings.SNAPSHOT_HISTORY)
        self.store = shared_store()
        if not self.store.is_available():
            raise CommandError("Redis does not answer, so the workers could not share the data.")
        has_database = self.database.is_available()
        if not has_database and not settings.REDIS_URL:
            raise CommandError("The database cannot be used, and nobody else would see the data.")
        if not has_database:
            self.stderr.write("The database cannot be used: nothing is read or kept there.")
        self.process = ProcessState(self.store, self.database, policy(), self.clock)
        before = self._newest_known()
        self._report(before, self._refresh())

    def _newest_known(self) -> Snapshot | None:
        self.process.sync()
        self.process.load_last_known_good()
        known = [*self.process.snapshots.values(), self.database.newest()]
        return max(filter(None, known), key=lambda snapshot: snapshot.timestamp, default=None)

    def _refresh(self) -> Snapshot:
        self._say(f"Asking {settings.GHIBLI_API_BASE_URL} …")
        client = GhibliClient(settings.GHIBLI_API_BASE_URL)
        refresher = Refresher(self.process, self.store, client, self.database, self.clock)
        refreshed = refresher.refresh(lambda: not is_vain(self.process.state, self.process.now()))
        if not refreshed.snapshot:
            raise CommandError(self._why_not(refreshed)) from refreshed.error
        self._say(
            f"{_counted(refreshed.snapshot)} as of {_moment(refreshed.snapshot)},"
            f" in {refreshed.seconds:.2f} s."
        )
        return refreshed.snapshot

    def _why_not(self, refreshed: Refreshed) -> str:
        state, now = self.process.state, self.process.now()
        backoff = state.backoff
        left = (backoff.until - now) / SECOND if backoff else 0.0
        if error := refreshed.error:
            until = f" Nobody asks it again for {left:.1f} s." if settings.REDIS_URL else ""
            return f"The Ghibli API failed ({error.reason}): {error}.{until}"
        if refreshed.outcome is Outcome.SUPERSEDED:
            return "It took too long: another worker was faster."
        if refreshed.outcome is Outcome.BUSY:
            return "Another worker asks the Ghibli API right now, or just did."
        if pending := pending_entry(state, now):
            seconds = (pending.valid_from - now) / SECOND
            return (
                "The next entry is there already and activates in"
                f" {seconds:.1f} s: there is nothing to ask for."
            )
        return (
            f"The last refresh failed ({backoff.reason if backoff else ''}): nobody asks the Ghibli"
            f" API for {left:.1f} s more."
        )

    def _report(self, before: Snapshot | None, snapshot: Snapshot) -> None:
        self._say(self._when_used())
        if not before:
            self._say("There is no earlier snapshot to compare it with.")
        elif before.digest == snapshot.digest:
            self._say(f"Nothing has changed since {_moment(before)}.")
        else:
            self._say(f"Changed since {_moment(before)}:")
            for line in self._lines(diff.compare(before, snapshot)):
                self._say(line)

    def _when_used(self) -> str:
        if not settings.REDIS_URL:
            return "Without REDIS_URL the workers do not see it; it is only kept in the database."
        now = self.process.now()
        if pending := pending_entry(self.process.state, now):
            seconds = (pending.valid_from - now) / SECOND
            return f"It activates in {seconds:.1f} s, when the current entry expires."
        return "It is in use."

    def _lines(self, difference: SnapshotDiff) -> Iterator[str]:
        if difference.is_empty:
            yield "  the order of the movies"
        for name, collection in difference._asdict().items():
            if any(collection):
                yield f"{name}: {_summary(collection)}"
                yield from (f"  + {added}" for added in collection.added)
                yield from (f"  - {removed}" for removed in collection.removed)
                for change in collection.changed:
                    yield from self._change(change)

    def _change(self, change: Change) -> Iterator[str]:
        yield f"  ~ {change.name}"
        for field in change.fields:
            yield f"      {field.field}: {self._field_change(field)}"

    def _field_change(self, change: FieldChange) -> str:
        if isinstance(change.after, str):
            return f"{self._cut(change.before)} → {self._cut(change.after)}"
        added = [f"+ {value}" for value in change.after if value not in change.before]
        removed = [f"- {value}" for value in change.before if value not in change.after]
        return ", ".join(added + removed) or "in another order"

    def _cut(self, text: str) -> str:
        return repr(text) if self.verbosity > 1 else shorten(repr(text), WIDTH)

    def _say(self, line: str) -> None:
        if self.verbosity:
            self.stdout.write(printable(line))


def _summary(difference: CollectionDiff) -> str:
    named = zip(difference._fields, difference, strict=True)
    return ", ".join(f"{len(found)} {name}" for name, found in named if found)


def _counted(snapshot: Snapshot) -> str:
    people = {person.id.lower() for movie in snapshot.movies for person in movie.people}
    return f"{len(snapshot.movies)} movies and {len(people)} people"


def _moment(snapshot: Snapshot) -> str:
    return f"{snapshot.timestamp:%Y-%m-%d %H:%M:%S} UTC"
