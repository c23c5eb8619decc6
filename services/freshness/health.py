"""How the parts are, for readiness probes."""

from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from services.background import CoalescedCalls
from services.freshness.process_state import ProcessState
from services.freshness.state import SECOND
from services.freshness.store import InMemoryStore
from services.persistence import DatabaseStore

# A part that has not answered by then is not well; Kubernetes gives a probe one second.
HEALTH_SECONDS = 0.3


@dataclass(frozen=True)
class Health:
    """`ready`: /movies/ could be answered. `fresh` and `age` (seconds) are the data's."""

    ready: bool
    cache: bool
    database: bool
    fresh: bool
    age: float | None


class HealthCheck:
    def __init__(
        self, process: ProcessState, store: InMemoryStore, database: DatabaseStore
    ) -> None:
        self._process, self._store, self._database = process, store, database
        # What may hang, each in one thread at most.
        self._calls = CoalescedCalls("health")

    def __call__(self) -> Health:
        """Return the health within HEALTH_SECONDS, without asking the Ghibli API."""
        cache = self._calls.start("cache", self._store.is_available)
        database = self._calls.start("database", self._database.is_available)
        looking = self._calls.start("last known good", self._look_for_last_known_good)
        parts: list[Future[Any]] = [cache, database, looking]
        wait(parts, HEALTH_SECONDS)
        process, now = self._process, self._process.now()
        last = process.last_known_good(now)
        return Health(
            # With nothing to serve a request refreshes, except during the backoff after a failure. After it,
            # there must be a request: a process that gets none because it is not ready would never be.
            ready=last is not None or not process.state.is_backing_off(now),
            cache=cache.done() and cache.result(),
            database=database.done() and database.result(),
            fresh=process.state.entry_at(now) is not None,
            age=(now - last.born) / SECOND if last else None,
        )

    def _look_for_last_known_good(self) -> None:
        if not self._process.state.last_entry(self._process.now()):
            self._process.sync()
            self._process.load_last_known_good()
