import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from services.catalogue.snapshot import Snapshot
from services.freshness.refresh import Outcome, Refreshed
from services.freshness.state import SECOND
from services.management.diff import describe
from services.management.output import printable
from services.movies import movie_cache

# Of a text that changed. `--verbosity 2` prints all of it.
MAX_WIDTH = 60


class Command(BaseCommand):
    help = (
        "Refresh now, whatever the age of the current cache entry, and print what changed since the"
        " last snapshot. The workers activate the new entry when the current one expires. Exit status"
        " 1 if there is no new entry: nobody refreshes while another worker does, while the next"
        " entry awaits its activation, or during a backoff."
    )
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        self.verbosity: int = options["verbosity"]
        self.cache = movie_cache()
        self.process = self.cache.process
        self._check_parts()
        before = self._newest_known()
        self._print(f"Fetching from {settings.GHIBLI_API_BASE_URL} …")
        refreshed = self.cache.refresher.refresh(self._is_due)
        if not refreshed.snapshot:
            raise CommandError(self._why_not(refreshed)) from refreshed.error
        after = refreshed.snapshot
        self._print(
            f"{len(after.movies)} movies and {len(after.people_by_id)} people as of"
            f" {_moment(after)}, in {refreshed.seconds:.2f} s.",
            self._when_used(),
            *self._differences(before, after),
        )

    def _check_parts(self) -> None:
        if not self.cache.store.is_available():
            raise CommandError("Redis does not answer: no worker would see the data.")
        if not self.cache.database.is_available():
            if not settings.REDIS_URL:
                raise CommandError("The database cannot be used: no worker would see the data.")
            self.stderr.write("The database cannot be used: nothing is read or stored there.")

    def _newest_known(self) -> Snapshot | None:
        self.process.sync()
        known = [*self.process.snapshots.values(), self.cache.database.newest()]
        return max(filter(None, known), key=lambda snapshot: snapshot.timestamp, default=None)

    def _is_due(self) -> bool:
        state, now = self.process.state, self.process.now()
        return not (state.pending_entry(now) or state.is_backing_off(now))

    def _why_not(self, refreshed: Refreshed) -> str:
        state = self.process.state
        left = self._seconds_until(state.backoff.until) if state.backoff else "0 s"
        if error := refreshed.error:
            pause = f" Nobody refreshes for {left}." if settings.REDIS_URL else ""
            return f"The Ghibli API failed ({error.reason}): {error}.{pause}"
        if refreshed.outcome is Outcome.SUPERSEDED:
            return "Superseded: another worker has published a newer entry."
        if refreshed.outcome is Outcome.BUSY:
            return "Another worker is refreshing."
        if state.next and not state.backoff:
            return f"The next entry activates in {self._seconds_until(state.next.valid_from)}."
        reason = state.backoff.reason if state.backoff else ""
        return f"The last refresh failed ({reason}): nobody refreshes for {left}."

    def _when_used(self) -> str:
        if not settings.REDIS_URL:
            return "Stored in the database. Without REDIS_URL, running workers do not see it."
        if pending := self.process.state.pending_entry(self.process.now()):
            return f"It activates in {self._seconds_until(pending.valid_from)}."
        return "It is in use."

    def _seconds_until(self, instant: int) -> str:
        return f"{(instant - self.process.now()) / SECOND:.1f} s"

    def _differences(self, before: Snapshot | None, after: Snapshot) -> list[str]:
        if not before:
            return ["There is no earlier snapshot to compare it with."]
        if before.digest == after.digest:
            return [f"Nothing has changed since {_moment(before)}."]
        max_width = MAX_WIDTH if self.verbosity < 2 else sys.maxsize
        return [f"Changed since {_moment(before)}:", *describe(before, after, max_width)]

    def _print(self, *lines: str) -> None:
        if self.verbosity:
            self.stdout.write("\n".join(map(printable, lines)))


def _moment(snapshot: Snapshot) -> str:
    return f"{snapshot.timestamp:%Y-%m-%d %H:%M:%S} UTC"
