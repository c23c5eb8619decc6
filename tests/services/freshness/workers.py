"""A worker on a given clock and store, whose thread's steps are taken by hand."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from services.catalogue.snapshot import Snapshot
from services.exceptions import Reason, UpstreamError
from services.freshness.cache import CacheResult, MovieCache
from services.freshness.policy import Policy
from services.freshness.refresh import Refreshed
from services.freshness.state import SECOND
from services.freshness.store import InMemoryStore
from services.ghibli.client import Fetched, GhibliClient
from services.persistence import DatabaseStore
from tests.support.fakes import FakeClock, make_fetched

POLICY = Policy(ttl=60, refresh_ahead=10, stale_if_error=3600)


class Database(DatabaseStore):
    """Holds what a test puts in, so that these tests need no database."""

    def __init__(self, stored: Snapshot | None = None) -> None:
        self.stored = stored

    def newest(self) -> Snapshot | None:
        return self.stored

    def save(self, snapshot: Snapshot) -> None:
        pass

    def is_available(self) -> bool:
        return True


class Upstream(GhibliClient):
    """Returns what a test sets; `meanwhile` happens while it is asked."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.failure: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        self.make: Callable[[datetime], Fetched] = make_fetched
        self.count = 0

    def fetch(self) -> Fetched:
        self.count += 1
        timestamp = self._clock.wall()
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        if self.failure:
            raise self.failure
        return self.make(timestamp)

    def close(self) -> None:
        pass


class SharedInMemoryStore(InMemoryStore):
    """For several workers, which need a while to read of an entry."""

    @property
    def propagation(self) -> int:
        return SECOND // 2


class WorkerUnderTest:
    def __init__(
        self,
        clock: FakeClock,
        store: InMemoryStore,
        database: Database | None = None,
        **policy: Any,
    ) -> None:
        self.clock, self.store = clock, store
        self.upstream = Upstream(clock)
        self.cache = MovieCache(
            store, database or Database(), self.upstream, POLICY._replace(**policy), clock
        )
        self.cache._thread.wake = lambda: None  # type: ignore[method-assign]  # steps by hand
        self.process = self.cache.process

    def get(self) -> CacheResult:
        return self.cache.get()

    def due(self) -> float | None:
        due = self.cache.refresh_due()
        return None if due is None else due / SECOND

    def refresh(self) -> Refreshed:
        """As if a request waited for it."""
        return self.cache.refresher.refresh(lambda: True)

    def succeed(self) -> Snapshot:
        snapshot = self.refresh().snapshot
        assert snapshot
        return snapshot

    def fail(self, reason: Reason = Reason.DNS) -> None:
        self.upstream.failure = UpstreamError(reason, "")
        assert self.refresh().error
        self.upstream.failure = None
