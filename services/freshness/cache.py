"""MovieCache: what a request calls."""

import random
from enum import StrEnum
from typing import NamedTuple

from django.dispatch import Signal

from services import metrics
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.exceptions import MoviesUnavailable, Reason
from services.freshness.health import HealthCheck
from services.freshness.policy import Policy, backoff_seconds, refresh_due
from services.freshness.process_state import ProcessState
from services.freshness.refresh import Outcome, Refresher
from services.freshness.refresh_thread import RefreshThread
from services.freshness.state import SECOND, Entry, State
from services.freshness.store import InMemoryStore
from services.ghibli.client import GhibliClient
from services.persistence import DatabaseStore

# The longest that a request waits for a refresh, less than proxies wait for us.
WAIT_SECONDS = 8.0
# Retry-After of a request that may not wait.
RETRY_SECONDS = 1.0
# How often the store is read: while requests come, while another worker refreshes, while one waits.
POLL_SECONDS = 1.0
POLL_BUSY_SECONDS = 0.2
POLL_WAITED_FOR_SECONDS = 0.02


class CacheStatus(StrEnum):
    HIT = "hit"
    MISS = "miss"
    STALE = "stale"


class CacheResult(NamedTuple):
    """A snapshot for a client, with `ttl` seconds left.

    A stale one has a `ttl` that is negative or 0, its `age` in seconds, and the reason why it is stale.
    `expires_at`: the instant of the boot clock until which every worker serves it.
    """

    snapshot: Snapshot
    status: CacheStatus
    ttl: float
    expires_at: float
    age: float = 0.0
    reason: Reason | None = None


# Sent in the background thread for each new snapshot: if there is time, before it is in use.
new_snapshot = Signal()

_results = {status: metrics.cache_results.labels(status) for status in CacheStatus}
_unavailable = metrics.cache_results.labels("unavailable")


class InUse(NamedTuple):
    """An entry that is in use until `until`, as long as the state is the same."""

    state: State
    until: int
    entry: Entry
    snapshot: Snapshot


def fresh_result(entry: Entry, snapshot: Snapshot, now: int, status: CacheStatus) -> CacheResult:
    expires_at = entry.expires_at
    return CacheResult(snapshot, status, (expires_at - now) / SECOND, expires_at / SECOND)


class MovieCache:
    def __init__(
        self,
        store: InMemoryStore,
        database: DatabaseStore,
        client: GhibliClient,
        policy: Policy,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self._policy = policy
        self.store, self.database = store, database
        self.process = ProcessState(store, database, policy, clock)
        self.refresher = Refresher(self.process, store, client, database, clock)
        self.health = HealthCheck(self.process, store, database)
        self._thread = RefreshThread(self.step, self._recover, self.refresher.close)
        self._announced: Snapshot | None = None
        self._waiting = 0
        # The situation in which a request came, and when the first one did.
        self._requested: tuple[int, bool, int] | None = None
        self._requested_at = 0
        self._in_use: InUse | None = None

    def close(self) -> None:
        """Cut off the refresh under way, release its lease, end the thread."""
        self._thread.stop()

    # For requests

    def get(self) -> CacheResult:
        """Return what is in use; MoviesUnavailable if there is nothing."""
        result = self.hit() or self._miss()
        metrics.snapshot_timestamp.set(result.snapshot.timestamp.timestamp())
        _results[result.status].inc()
        return result

    def hit(self) -> CacheResult | None:
        """Return the entry in use, or None, without counting the result. Takes no lock."""
        now, in_use = self.process.now(), self._in_use
        if not in_use or now >= in_use.until or in_use.state is not self.process.state:
            self._in_use = in_use = self._find_in_use(now)
            if not in_use:
                return None
            self._note_request(now)
        return fresh_result(in_use.entry, in_use.snapshot, now, CacheStatus.HIT)

    def _find_in_use(self, now: int) -> InUse | None:
        state = self.process.state
        entry, pending = state.entry_at(now), state.pending_entry(now)
        snapshot = self.process.snapshots.get(entry.token) if entry else None
        if not entry or not snapshot:
            return None
        until = min(entry.expires_at, pending.valid_from) if pending else entry.expires_at
        return InUse(state, until, entry, snapshot)

    def _miss(self) -> CacheResult:
        generation = self.process.generation  # before looking: what comes in meanwhile counts
        now = self.process.now()
        if self._is_stale_served(now):
            self._note_request(now)
            return self._stale(now)
        with self.process.changed:
            may_wait = self._waiting < self._policy.max_waiting
            self._waiting += may_wait
        if not may_wait:
            return self._stale(now, Reason.BUSY)
        try:
            self._note_request(now)
            return self._wait(generation, now + int(WAIT_SECONDS * SECOND))
        finally:
            with self.process.changed:
                self._waiting -= 1

    def _is_stale_served(self, now: int) -> bool:
        """Whether refreshes fail, so that a request need not wait for the next one.

        After a backoff that is so only if a request came before its end, so that a refresh starts by
        itself; else the request would get data that is older than necessary.
        """
        state = self.process.state
        if state.is_backing_off(now):
            return True
        if self.process.last_known_good(now) is None:
            return False
        backoff, is_requested = state.backoff, self._requested == state.situation(now)
        has_begun = backoff and is_requested and self._requested_at < backoff.until
        return bool(has_begun or state.pending_entry(now))

    def _wait(self, generation: int, deadline: int) -> CacheResult:
        """Wait for an entry, or for a failure after that generation."""
        process = self.process
        with process.changed:
            while True:
                now, state = process.now(), process.state
                entry = state.entry_at(now)
                has_failed = process.generation != generation and state.is_backing_off(now)
                if entry or has_failed or now >= deadline:
                    break
                pending = state.pending_entry(now)
                until = min(deadline, pending.valid_from) if pending else deadline
                process.changed.wait((until - now) / SECOND)
        if entry:
            return fresh_result(entry, process.snapshots[entry.token], now, CacheStatus.MISS)
        return self._stale(now, None if has_failed else Reason.SLOW)

    def _stale(self, now: int, reason: Reason | None = None) -> CacheResult:
        """Return the last known good, stale for this reason or else that of the backoff.

        Raises MoviesUnavailable without one.
        """
        backoff, last = self.process.state.backoff, self.process.last_known_good(now)
        reason = reason or (backoff.reason if backoff else Reason.SLOW)
        if not last:
            metrics.snapshot_timestamp.set(0)
            _unavailable.inc()
            left = (backoff.until - now) / SECOND if backoff else 0.0
            raise MoviesUnavailable(reason, retry_after=left if left > 0 else RETRY_SECONDS)
        age = (now - last.born) / SECOND
        ttl = min(self._policy.ttl - age, 0.0)
        expires_at = (last.born + self._policy.lifetime) / SECOND
        return CacheResult(last.snapshot, CacheStatus.STALE, ttl, expires_at, age, reason)

    def _note_request(self, now: int) -> None:
        """Remember that a request came in this situation, and wake the thread if that is news."""
        current = self.process.state.situation(now)
        is_news = self._requested != current
        if is_news:
            self._requested, self._requested_at = current, now
        if is_news or self._waiting:
            self._thread.wake()

    # For the background thread

    def refresh_due(self) -> int | None:
        now, state = self.process.now(), self.process.state
        requested = self._waiting > 0 or self._requested == state.situation(now)
        return refresh_due(state, now, self._policy, requested=requested)

    def step(self) -> float | None:
        """Do what is due; return the seconds until something may be due again, None for never."""
        seconds = self._step()
        self._announce()
        return seconds

    def _step(self) -> float | None:
        due = self.refresh_due()
        if due is None:
            return None
        if due > 0:
            self.process.sync()
            due = self.refresh_due()
            return None if due is None else min(due / SECOND, POLL_SECONDS)
        refreshed = self.refresher.refresh(lambda: self.refresh_due() == 0)
        if refreshed.outcome is Outcome.BUSY:
            return POLL_WAITED_FOR_SECONDS if self._waiting else POLL_BUSY_SECONDS
        return 0.0

    def _announce(self) -> None:
        """Send `new_snapshot` if there is one."""
        token = self.process.state.newest_token
        newest = self.process.snapshots.get(token)
        if newest and newest is not self._announced:
            self._announced = newest
            new_snapshot.send_robust(MovieCache, snapshot=newest)

    def _recover(self) -> float | None:
        """Back off in this process after an error that nobody expected."""
        seconds = backoff_seconds(1, None, random.uniform(-1, 1))  # noqa: S311 (spreads load only)
        self.process.back_off_alone(Reason.INTERNAL, int(seconds * SECOND))
        return seconds
