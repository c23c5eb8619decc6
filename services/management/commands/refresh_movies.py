import random
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from services.catalogue import diff
from services.catalogue.diff import Change, CollectionDiff, FieldChange, SnapshotDiff
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.exceptions import UpstreamError
from services.freshness import Freshness
from services.ghibli.client import GhibliClient
from services.management.output import printable, shorten
from services.movies import policy, shared_store
from services.persistence import DatabaseStore
from services.sharing import Lease, Refusal, kept

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
        if not self.store.is_well():
            raise CommandError("Redis does not answer, so the workers could not share the answer.")
        self.keeps = self.database.is_well()
        if not self.keeps and not settings.REDIS_URL:
            raise CommandError("The database cannot be used, and nobody else would see the answer.")
        if not self.keeps:
            self.stderr.write("The database cannot be used: nothing is read or kept there.")
        self.freshness = Freshness(self.store, self.database, policy(), self.clock)
        before = self._last()
        lease = self._lease()
        try:
            self._tell(before, self._fly(lease))
        finally:
            self.store.release(lease)

    def _last(self) -> Snapshot | None:
        kept = [answer.snapshot for answer in self.store.view().answers]
        kept += filter(None, [self.store.last(), self.database.newest() if self.keeps else None])
        return max(kept, key=lambda snapshot: snapshot.timestamp, default=None)

    def _lease(self) -> Lease:
        self.freshness.sync()
        view = self.store.view()
        if len(view.answers) > 1:  # Whoever has seen the second relies on it.
            raise CommandError(
                "The next answer is there already and goes live in"
                f" {view.answers[0].left:.1f} s: there is nothing to ask for."
            )
        granted = self.store.acquire(view.newest)
        if granted is Refusal.COOLING and (cool_down := self.store.view().cool_down):
            raise CommandError(
                f"The last flight failed ({cool_down.reason}): nobody asks the Ghibli API for"
                f" {cool_down.left:.1f} s more."
            )
        if isinstance(granted, Refusal):
            raise CommandError("Another worker asks the Ghibli API right now, or just did.")
        return granted

    def _fly(self, lease: Lease) -> Snapshot:
        self._say(f"Asking {settings.GHIBLI_API_BASE_URL} …")
        self.freshness.recall(lease.last)
        took_off = self.clock.boot()
        try:
            with kept(lease, self.store):
                fetched = GhibliClient(settings.GHIBLI_API_BASE_URL).fetch()
            snapshot = self.freshness.land(lease, fetched, took_off)
        except UpstreamError as error:
            cool_down = self.freshness.crash(lease, error, random.uniform(-1, 1))  # noqa: S311
            until = (
                f" Nobody asks it again for {cool_down.left:.1f} s." if settings.REDIS_URL else ""
            )
            raise CommandError(
                f"The Ghibli API failed ({error.reason}): {error}.{until}"
            ) from error
        if not snapshot:
            raise CommandError("It took too long: another answer was there first.")
        if self.keeps:
            self.database.keep(snapshot)
        self._say(
            f"{_counted(snapshot)} as of {_moment(snapshot)},"
            f" in {self.clock.boot() - took_off:.2f} s."
        )
        return snapshot

    def _tell(self, before: Snapshot | None, snapshot: Snapshot) -> None:
        self._say(self._when_live(snapshot))
        if not before:
            self._say("There is no earlier snapshot to compare it with.")
        elif before.digest == snapshot.digest:
            self._say(f"Nothing has changed since {_moment(before)}.")
        else:
            self._say(f"Changed since {_moment(before)}:")
            for line in self._lines(diff.compare(before, snapshot)):
                self._say(line)

    def _when_live(self, snapshot: Snapshot) -> str:
        if not settings.REDIS_URL:
            return "Without REDIS_URL the workers do not see it; it is only kept in the database."
        now = self.clock.boot()
        live = self.freshness.live(now)
        if live and live.snapshot is not snapshot:
            return f"It goes live in {live.end - now:.1f} s, when the current answer ends."
        return "It is live."

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
