"""Where workers share entries, lease and backoff.

`InMemoryStore` is for one process: the embedded default, and what a process uses while Redis is away.
redis_store.py shares the same between processes and hosts. No rule is decided here: what may be
published is in fencing.py, when to back off in policy.py.
"""

import threading
import uuid
from collections.abc import Iterable
from typing import NamedTuple

from services.catalogue.entities import Movie
from services.catalogue.snapshot import Snapshot
from services.clock import Clock
from services.freshness.state import State, microseconds

# The lease of a dead holder ends within this…
LEASE_SECONDS = 5.0
# …and one that lives renews it this often, so that two renewals may fail.
HEARTBEAT_SECONDS = 1.5


class Reading(NamedTuple):
    """The content of a store; instants are those of this process' boot clock.

    `time`: the store's clock (Unix time, microseconds), from which fencing tokens grow. `document`: the
    bytes of the state, if it has any.
    """

    state: State
    time: int
    document: bytes = b""


class InMemoryStore:
    """State, movies under their digest, and a lease. A store raises nothing."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._state = State()
        self._movies: dict[str, tuple[Movie, ...]] = {}
        self._lease, self._lease_ends = "", 0.0

    @property
    def propagation(self) -> int:
        """How many microseconds it takes until all who share the store have read a new state."""
        return 0

    def read(self) -> Reading:
        return Reading(self._state, microseconds(self._clock.wall()))

    def get_movies(self, digest: str) -> tuple[Movie, ...] | None:
        return self._movies.get(digest)

    def compare_and_set(
        self, expected: Reading, state: State, snapshots: Iterable[Snapshot]
    ) -> bool:
        """Replace what was read, with the movies that the new state names; False if it changed."""
        with self._lock:
            if self._state != expected.state:
                return False
            self._movies = {snapshot.digest: snapshot.movies for snapshot in snapshots}
            self._state = state
            return True

    def acquire_lease(self) -> tuple[str | None, Reading]:
        """Return the name of the new lease, None while another holds it, and what is read then."""
        with self._lock:
            if self._clock.boot() < self._lease_ends:
                return None, self.read()
            self._lease, self._lease_ends = uuid.uuid4().hex, self._clock.boot() + LEASE_SECONDS
            return self._lease, self.read()

    def renew_lease(self, lease: str) -> bool:
        with self._lock:
            if lease != self._lease or self._clock.boot() >= self._lease_ends:
                return False
            self._lease_ends = self._clock.boot() + LEASE_SECONDS
            return True

    def release_lease(self, lease: str) -> None:
        with self._lock:
            if lease == self._lease:
                self._lease_ends = 0.0

    def is_available(self) -> bool:
        return True
