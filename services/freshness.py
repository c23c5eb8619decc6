"""How fresh an answer is, and what answers when the Ghibli API does not."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from services import catalogue
from services.exceptions import MoviesUnavailable, Reason, UpstreamError
from services.ghibli import GhibliClient
from services.snapshots import DatabaseStore, SharedStore, Snapshot

log = structlog.get_logger(__name__)

# After a failed flight nobody asks again for this long (seconds).
COOL_DOWN = 5.0


@dataclass(frozen=True)
class Answer:
    """A snapshot and how it was come by.

    `age` and `ttl` in seconds; a `ttl` below zero says for how long it has been stale, and `why`
    then holds the reason.
    """

    snapshot: Snapshot
    age: float
    ttl: float
    stored: bool = False
    why: Reason | None = None


@dataclass(frozen=True)
class Health:
    """`ready`: /movies/ could be answered. `fresh` and `age` (seconds) are the data's."""

    ready: bool
    cache: bool
    database: bool
    fresh: bool
    age: float | None


class Freshness:
    """Fresh in the process, else fresh in Redis, else a flight, else the last-known-good."""

    def __init__(
        self,
        client: GhibliClient,
        shared: SharedStore,
        database: DatabaseStore,
        *,
        ttl: float,
        stale_if_error: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._shared, self._database = client, shared, database
        self._ttl, self._stale_if_error, self._now = ttl, stale_if_error, now
        self._held: Snapshot | None = None
        self._lock = threading.Lock()
        self._failure: tuple[Reason, float] | None = None

    def answer(self) -> Answer:
        """The current answer; MoviesUnavailable if there is none."""
        if fresh := self._fresh():
            return fresh
        with self._lock:  # whoever waited for another's flight takes its result
            return self._fresh() or self._cooling_down() or self._fly()

    def health(self) -> Health:
        """How the parts are, without asking the Ghibli API."""
        kept = [s for s in (self._held, self._shared.get(), self._database.newest()) if s]
        ages = [self._as_answer(snapshot).age for snapshot in kept]
        usable = [age for age in ages if age <= self._stale_if_error]
        return Health(
            # With nothing kept a first request would fly; only a failed flight proves it vain.
            ready=bool(usable) or self._failure is None,
            cache=self._shared.is_well(),
            database=self._database.is_well(),
            fresh=any(age < self._ttl for age in ages),
            age=min(usable, default=None),
        )

    def _fresh(self) -> Answer | None:
        if self._held and (answer := self._as_answer(self._held)).ttl > 0:
            return answer
        shared = self._shared.get()
        if shared and (answer := self._as_answer(shared)).ttl > 0:
            self._held = shared
            return answer
        return None

    def _as_answer(
        self, snapshot: Snapshot, *, stored: bool = False, why: Reason | None = None
    ) -> Answer:
        age = (self._now() - snapshot.timestamp).total_seconds()
        return Answer(snapshot, age, self._ttl - age, stored, why)

    def _cooling_down(self) -> Answer | None:
        if self._failure and time.monotonic() < self._failure[1]:
            return self._stale(self._failure[0])
        return None

    def _fly(self) -> Answer:
        try:
            fetched = self._client.fetch()
            merged = catalogue.build(fetched.films, fetched.people)
        except UpstreamError as error:
            log.warning("flight_failed", reason=error.reason, detail=str(error))
            self._failure = (error.reason, time.monotonic() + COOL_DOWN)
            return self._stale(error.reason)
        snapshot = Snapshot(fetched.timestamp, merged.movies)
        self._held, self._failure = snapshot, None
        answer = self._as_answer(snapshot, stored=True)
        self._shared.put(snapshot, answer.ttl)
        self._database.keep(snapshot)
        return answer

    def _stale(self, reason: Reason) -> Answer:
        kept = [s for s in (self._held, self._database.newest()) if s]
        newest = max(kept, key=lambda snapshot: snapshot.timestamp, default=None)
        answer = self._as_answer(newest, why=reason) if newest else None
        if not answer or answer.age > self._stale_if_error:
            raise MoviesUnavailable(reason, retry_after=COOL_DOWN)
        self._held = answer.snapshot
        return answer
