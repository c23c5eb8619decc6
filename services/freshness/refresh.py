"""One refresh: the only place with the order of its steps."""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import structlog

from services import background, metrics, tracing
from services.catalogue import merge
from services.catalogue.plausibility import PlausibilityCheck
from services.catalogue.snapshot import CLOCK_SKEW_SECONDS, Snapshot
from services.clock import Clock
from services.exceptions import Reason, UpstreamError
from services.freshness.fencing import Superseded, publish, record_failure
from services.freshness.policy import backoff_seconds
from services.freshness.process_state import ProcessState
from services.freshness.state import SECOND, Entry, State, microseconds
from services.freshness.store import HEARTBEAT_SECONDS, InMemoryStore, Reading
from services.ghibli.client import GhibliClient
from services.persistence import DatabaseStore

log = structlog.get_logger(__name__)
# Records of `logging` hold the exception itself, which Sentry reads.
bugs = logging.getLogger(f"{__name__}.bugs")


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    BUSY = "busy"  # another worker holds the lease
    NOT_DUE = "not_due"  # another worker has refreshed or failed meanwhile


@dataclass(frozen=True)
class Refreshed:
    """`snapshot` of a refresh that succeeded, `error` of one that failed."""

    outcome: Outcome
    seconds: float = 0.0
    snapshot: Snapshot | None = None
    error: UpstreamError | None = None


class Attempt(NamedTuple):
    """What was known when the lease began; `started` is an instant of the boot clock."""

    lease: str
    reading: Reading
    state: State
    started: int

    @property
    def known_token(self) -> int:
        return self.state.newest_token

    def token(self, timestamp: int, now: int) -> int:
        """Return the fencing token: greater than every earlier one, also after the store lost its own.

        It is the data's timestamp if that agrees with the store's clock: of entries that workers fetched
        while they shared no store, the one with the newer data has the greater token.
        """
        skew = int(CLOCK_SKEW_SECONDS * SECOND)
        earliest, latest = self.reading.time - skew, self.reading.time + now - self.started + skew
        agrees = earliest <= timestamp <= latest
        return max(timestamp if agrees else self.reading.time, self.known_token + 1)


class Refresher:
    """Refreshes for a process; the background thread and `refresh_movies` call it."""

    def __init__(
        self,
        process: ProcessState,
        store: InMemoryStore,
        client: GhibliClient,
        database: DatabaseStore,
        clock: Clock,
    ) -> None:
        self._process = process
        self._store, self._client, self._database = store, client, database
        self._clock = clock
        self._plausibility = PlausibilityCheck()
        self._is_closed = False

    def close(self) -> None:
        """Cut off the refresh that is under way."""
        self._is_closed = True
        self._client.close()

    def refresh(self, is_due: Callable[[], bool]) -> Refreshed:
        """Acquire the lease and read, check, fetch, merge, publish or record the failure, release.

        `is_due` is asked once the lease is there and the state was read: another worker may have been
        faster.
        """
        lease, reading = self._store.acquire_lease()
        metrics.lease_requests.labels("granted" if lease else "busy").inc()
        try:
            self._process.settle(reading)
            if not lease:
                return Refreshed(Outcome.BUSY)
            if not is_due():
                return Refreshed(Outcome.NOT_DUE)
            attempt = Attempt(lease, reading, self._process.state, self._process.now())
            with tracing.span("refresh") as attributes:
                refreshed = self._refresh(attempt)
                attributes["totoro.outcome"] = refreshed.outcome
                attributes["totoro.reason"] = refreshed.error.reason if refreshed.error else ""
        finally:
            if lease:
                self._store.release_lease(lease)
        if refreshed.snapshot:
            self._database.save(refreshed.snapshot)
        return refreshed

    def _refresh(self, attempt: Attempt) -> Refreshed:
        try:
            snapshot = self._fetch(attempt)
            token = attempt.token(microseconds(snapshot.timestamp), self._process.now())
            self._publish(attempt, token, snapshot)
        except Superseded:
            log.info("refresh_superseded", token=attempt.known_token)
            return self._finish(attempt, Outcome.SUPERSEDED)
        except UpstreamError as error:
            return self._fail(attempt, error)
        except Exception as error:  # noqa: BLE001 (whatever it is, the refresh has failed)
            bugs.exception("refresh_error")
            detail = f"a bug in Totoro: {type(error).__name__}"
            return self._fail(attempt, UpstreamError(Reason.INTERNAL, detail))
        refreshed = self._finish(attempt, Outcome.SUCCEEDED, snapshot)
        log.info("refresh_succeeded", token=token, seconds=round(refreshed.seconds, 3))
        self._log_end_of_outage(attempt.state)
        return refreshed

    def _fetch(self, attempt: Attempt) -> Snapshot:
        loading = background.start(self._process.load_last_known_good, name="last-known-good")
        try:
            with self._renewed_lease(attempt):
                fetched = self._client.fetch()
        finally:
            wait([loading])
        merged = merge.build(fetched.films, fetched.people)
        metrics.upstream_data_repairs.labels("duplicate").inc(merged.duplicates)
        metrics.upstream_data_repairs.labels("unknown_film").inc(merged.unknown_films)
        snapshot = Snapshot(fetched.timestamp, merged.movies)
        now = self._process.now()
        if last := self._process.last_known_good(now):
            self._plausibility.check(snapshot, last.snapshot, now / SECOND)
        return snapshot

    def _publish(self, attempt: Attempt, token: int, snapshot: Snapshot) -> None:
        timestamp = microseconds(snapshot.timestamp)
        now, age_by_wall = self._process.now(), microseconds(self._clock.wall()) - timestamp
        # Of two clocks the one that says older counts.
        born = min(attempt.started, now - max(age_by_wall, 0))
        expires_at = born + self._process.policy.lifetime
        entry = Entry(token, snapshot.digest, timestamp, now, expires_at)

        def transition(state: State, now: int) -> State:
            is_stale_served = self._process.last_known_good(now) is not None
            propagation = self._store.propagation if is_stale_served else 0
            propagation = max(min(propagation, (expires_at - now) // 2), 0)
            return publish(state, entry, attempt.known_token, now, propagation)

        self._process.apply(attempt.reading, transition, {token: snapshot})

    def _fail(self, attempt: Attempt, error: UpstreamError) -> Refreshed:
        if self._is_closed:  # cut off by close(), which is nobody's failure
            return Refreshed(Outcome.FAILED, error=error)
        refreshed = self._finish(attempt, Outcome.FAILED, error=error)
        self._back_off(attempt, error)
        state, now = self._process.state, self._process.now()
        if not attempt.state.failures_in_a_row(now):
            log.error("outage_began", reason=error.reason)
        log.warning(
            "refresh_failed",
            reason=error.reason,
            detail=str(error),
            failures=state.failures_in_a_row(now),
            backoff=round((state.backoff.until - now) / SECOND, 3) if state.backoff else 0,
            seconds=round(refreshed.seconds, 3),
        )
        return refreshed

    def _back_off(self, attempt: Attempt, error: UpstreamError) -> None:
        jitter = random.uniform(-1, 1)  # noqa: S311 (spreads load only)

        def transition(state: State, now: int) -> State:
            failures = state.failures_in_a_row(now) + 1
            duration = int(backoff_seconds(failures, error.retry_after, jitter) * SECOND)
            return record_failure(state, error.reason, duration, attempt.known_token, now)

        with suppress(Superseded):
            self._process.apply(attempt.reading, transition, {})

    def _finish(
        self,
        attempt: Attempt,
        outcome: Outcome,
        snapshot: Snapshot | None = None,
        error: UpstreamError | None = None,
    ) -> Refreshed:
        """Count the refresh, and return how it ended."""
        seconds = (self._process.now() - attempt.started) / SECOND
        metrics.refreshes.labels(outcome, error.reason if error else "").inc()
        metrics.refresh_duration.labels(outcome).observe(seconds)
        return Refreshed(outcome, seconds, snapshot, error)

    def _log_end_of_outage(self, before: State) -> None:
        now = self._process.now()
        failures = before.failures_in_a_row(now)
        if before.backoff and failures:
            seconds = max(now - before.backoff.since, 0) / SECOND
            log.info("outage_over", failures=failures, seconds=round(seconds, 3))

    @contextmanager
    def _renewed_lease(self, attempt: Attempt) -> Iterator[None]:
        """Renew the lease while the block lasts."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                if not self._store.renew_lease(attempt.lease) and not over.is_set():
                    log.warning("lease_lost", token=attempt.known_token)
                    metrics.lease_requests.labels("lost").inc()
                    return

        threading.Thread(target=renew, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            over.set()
