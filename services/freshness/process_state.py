"""What this process holds of the shared state, and the snapshots that it names."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from services import metrics
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.exceptions import Reason
from services.freshness.fencing import Superseded, record_failure
from services.freshness.policy import Policy
from services.freshness.state import SECOND, Entry, State, adopt, microseconds, moment
from services.freshness.store import InMemoryStore, Reading
from services.persistence import DatabaseStore

# How often a transition is tried if the store changes meanwhile.
ATTEMPTS = 2


class LastKnownGood(NamedTuple):
    """A snapshot and the instant of its data (boot clock, microseconds)."""

    snapshot: Snapshot
    born: int


class ProcessState:
    """Read without a lock: what requests use is replaced as a whole.

    `changed` is notified, and `generation` grows, with every newer state.
    """

    def __init__(
        self, store: InMemoryStore, database: DatabaseStore, policy: Policy, clock: Clock
    ) -> None:
        self._store, self._database, self._clock = store, database, clock
        self.policy = policy
        self.now = clock.boot_us
        self.changed = threading.Condition()
        self.state = State()
        self.generation = 0
        self.snapshots: dict[int, Snapshot] = {}
        self._from_database: LastKnownGood | None = None

    def sync(self) -> Reading:
        """Read the store, and settle what is newer."""
        return self.settle(self._store.read())

    def settle(self, reading: Reading) -> Reading:
        """Adopt what is newer in the store; write back what is newer here."""
        if reading.state.order >= self.state.order:
            loaded = {entry.token: self._load(entry) for entry in reading.state.entries}
            found = {token: snapshot for token, snapshot in loaded.items() if snapshot}
            if not found and reading.state.backoff != self.state.backoff:
                # Before requests learn of another worker's failure, which they then no longer wait for.
                self.load_last_known_good()
            usable = reading.state.with_entries(lambda each: each if each.token in found else None)
            if usable != reading.state:
                # Redis may evict the movies and keep the state. A worker that has them writes both back.
                self._store.compare_and_set(reading, usable, found.values())
            self._replace(usable, found)
        with self.changed:
            state, snapshots = self.state, self._named_by(self.state, self.snapshots)
        if state.order > reading.state.order:
            self._store.compare_and_set(reading, state, snapshots.values())
        return reading

    def apply(
        self,
        reading: Reading,
        transition: Callable[[State, int], State],
        added: dict[int, Snapshot],
    ) -> None:
        """Change the state here and in the store, whose last reading is given.

        `added`: snapshots of entries that the transition adds, by token. Raises Superseded as the
        transition does.
        """
        for attempt in range(ATTEMPTS):
            state = transition(self.state, self.now())
            snapshots = self._named_by(state, self.snapshots | added)
            is_set = self._store.compare_and_set(reading, state, snapshots.values())
            # On the last attempt this process uses it alone: the next sync settles which is newer.
            if is_set or attempt == ATTEMPTS - 1:
                break
            reading = self.sync()
        self._replace(state, added)

    def last_known_good(self, now: int) -> LastKnownGood | None:
        """Return the newest data that is here, if it is not too old."""
        entry = self.state.last_entry(now)
        last = self._from_database
        if entry:
            snapshot = self.snapshots.get(entry.token)
            born = entry.expires_at - self.policy.lifetime
            last = LastKnownGood(snapshot, born) if snapshot else None
        is_usable = last and now - last.born <= self.policy.stale_if_error * SECOND
        return last if is_usable else None

    def load_last_known_good(self) -> None:
        """Read it from the database if there is none here."""
        if self.state.last_entry(self.now()) or self._from_database:
            return
        if snapshot := self._database.newest():
            # In this order: if the thread is paused in between, the data seems older, not younger.
            now, wall = self.now(), microseconds(self._clock.wall())
            age = max(wall - microseconds(snapshot.timestamp), 0)
            self._from_database = LastKnownGood(snapshot, now - age)

    def back_off_alone(self, reason: Reason, duration: int) -> None:
        """Record a failure of which only this process knows."""
        token = self.state.newest_token
        with suppress(Superseded):
            self._replace(record_failure(self.state, reason, duration, token, self.now()), {})

    def _replace(self, state: State, added: dict[int, Snapshot]) -> None:
        """Use the state unless a newer one is here, and wake whoever waits."""
        with self.changed:
            before = self.state
            merged = adopt(before, state, self.now())
            if merged != before:
                # First, and with those of before: requests read the state and then these.
                known = self.snapshots | added
                self.snapshots = self._named_by(before, known) | self._named_by(merged, known)
                self.state = merged
                metrics.fencing_token.set(merged.newest_token)
            if merged.order != before.order or merged.backoff != before.backoff:
                self.generation += 1
            self.changed.notify_all()

    @staticmethod
    def _named_by(state: State, known: dict[int, Snapshot]) -> dict[int, Snapshot]:
        return {e.token: known[e.token] for e in state.entries if e.token in known}

    def _load(self, entry: Entry) -> Snapshot | None:
        """Return an entry's snapshot; movies that are here already are not fetched again."""
        for token, snapshot in list(self.snapshots.items()):
            if token == entry.token:
                return snapshot
            if snapshot.digest == entry.digest:
                return Snapshot(moment(entry.timestamp), snapshot.movies)
        movies = self._store.get_movies(entry.digest)
        return Snapshot(moment(entry.timestamp), movies) if movies else None
