"""The freshness guarantee on several simulated workers.

Hypothesis drives requests, refreshes and failures, and in runs with faults also deaths, stalled workers,
clocks that are set, and a store that goes away, forgets, lags, or loses its replies. All of it is on one
simulated time line, on which each worker's thread takes its steps when they are due, a little late.

A refresh catches what goes wrong in it, so what is seen meanwhile is noted, and asserted afterwards.
"""

from collections.abc import Iterable
from datetime import datetime
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.catalogue.entities import Movie
from services.catalogue.snapshot import Snapshot
from services.exceptions import MoviesUnavailable, Reason, UpstreamError
from services.freshness import cache
from services.freshness.cache import CacheResult, CacheStatus
from services.freshness.policy import BACKOFF_JITTER, BACKOFF_SECONDS, clamp
from services.freshness.state import State, microseconds
from services.freshness.store import InMemoryStore, Reading
from tests.services.freshness.workers import POLICY, SharedInMemoryStore, WorkerUnderTest
from tests.support.fakes import FakeClock

WORKERS = 3
# A thread takes its step this much too late at the most (seconds).
LATE = 0.05


class WorkerClock(FakeClock):
    """Counts with everybody's, and its wall clock can be set alone."""

    def __init__(self, shared: FakeClock) -> None:
        self.shared, self.wall_offset = shared, 0.0

    @property
    def seconds(self) -> float:  # type: ignore[override]  # a view of the shared one
        return self.shared.seconds


class ShakyStore(InMemoryStore):
    """Everybody's store, and the process' own while that is away, as RedisStore has it."""

    def __init__(self, world: "Guarantee", clock: FakeClock) -> None:
        super().__init__(clock)
        self.world, self.clock = world, clock
        self.last = Reading(State(), 0)

    @property
    def propagation(self) -> int:
        return 0 if self.world.away else self.world.shared.propagation

    def read(self) -> Reading:
        if self.world.away:
            return super().read()
        late, self.last = self.last, self.world.shared.read()
        reading = late if self.world.lags and late.time else self.last
        now, wall = int(self.clock.boot() * 1e6), microseconds(self.clock.wall())
        return Reading(clamp(reading.state, POLICY, now, wall, reading.time), reading.time)

    def get_movies(self, digest: str) -> tuple[Movie, ...] | None:
        return (
            super().get_movies(digest) if self.world.away else self.world.shared.get_movies(digest)
        )

    def compare_and_set(
        self, expected: Reading, state: State, snapshots: Iterable[Snapshot]
    ) -> bool:
        if self.world.away:
            return super().compare_and_set(expected, state, snapshots)
        stored = self.world.shared.read()
        if expected.state.order != stored.state.order:  # what was read is clamped
            return False
        is_set = self.world.shared.compare_and_set(stored, state, snapshots)
        return is_set and not self.world.loses_replies

    def acquire_lease(self) -> tuple[str | None, Reading]:
        if self.world.away:
            return super().acquire_lease()
        return self.world.shared.acquire_lease()[0], self.read()

    def renew_lease(self, lease: str) -> bool:
        return self.world.shared.renew_lease(lease) or super().renew_lease(lease)

    def release_lease(self, lease: str) -> None:
        self.world.shared.release_lease(lease)
        super().release_lease(lease)


class Simulated(WorkerUnderTest):
    """A worker, when its thread takes its next step, and the newest token that it has served."""

    def __init__(self, world: "Guarantee") -> None:
        clock = WorkerClock(world.clock)
        super().__init__(clock, ShakyStore(world, clock))
        self.step_at: float | None = None
        self.is_stepping, self.served = False, 0
        self.cache._thread.wake = self.wake  # type: ignore[method-assign]

    def wake(self) -> None:
        self.step_at = self.clock.boot()


class Guarantee(RuleBasedStateMachine):
    """Nothing but the upstream fails."""

    stalls: tuple[float, ...] = (0.0, 0.3, 2.0)

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.away = self.loses_replies = self.lags = False
        self.wait, cache.WAIT_SECONDS = cache.WAIT_SECONDS, 0.0
        self.shared = SharedInMemoryStore(self.clock)
        self.workers = [Simulated(self) for _ in range(WORKERS)]
        self.random = Random(0)
        self.rate = 0.0
        self.violations: list[str] = []
        # When the data of each timestamp was asked for, by the clock that nobody sets.
        self.born: dict[datetime, float] = {}
        self.newest: datetime | None = None
        self.fetching, self.failed, self.backoff_ends = 0, False, 0.0

    def teardown(self) -> None:
        cache.WAIT_SECONDS = self.wait

    # What happens

    @rule(
        random=st.randoms(use_true_random=False),
        seconds=st.sampled_from([0.5, 5.0, 15.0]),
        rate=st.sampled_from([2.0, 10.0, 30.0]),
    )
    def traffic(self, random: Random, seconds: float, rate: float) -> None:
        self.random, self.rate = random, rate
        self.pass_time(seconds)

    @rule(seconds=st.sampled_from([0.4, 4.0, 9.0, 30.0, 47.0, 49.0, 59.6, 700.0]))
    def quiet(self, seconds: float) -> None:
        self.rate = 0.0
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Let requests come to anybody, and each thread take its steps when they are due."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            pause = self.random.expovariate(self.rate) if self.rate else seconds
            self.run_threads(min(self.clock.seconds + pause, end))
            if self.rate:
                self.request(self.random.choice(self.workers))

    def run_threads(self, end: float) -> None:
        while True:
            due = [(w.step_at, n) for n, w in enumerate(self.workers) if self.is_due(w, end)]
            if not due:
                break
            at, number = min(due)
            self.clock.seconds = max(self.clock.seconds, at or 0.0)
            self.step(self.workers[number])
        self.clock.seconds = max(self.clock.seconds, end)

    def is_due(self, worker: Simulated, end: float) -> bool:
        return not worker.is_stepping and worker.step_at is not None and worker.step_at <= end

    def step(self, worker: Simulated) -> None:
        worker.is_stepping, worker.step_at = True, None
        worker.upstream.meanwhile = lambda: self.fetch(worker)
        pause = worker.cache.step()
        worker.is_stepping = False
        if pause is not None or worker.step_at is not None:  # woken meanwhile
            pause = 0.0 if worker.step_at is not None else pause or 0.0
            worker.step_at = self.clock.boot() + pause + self.random.uniform(0.001, LATE)

    def fetch(self, worker: Simulated) -> None:
        """Fetch from a Ghibli API that takes time, during which other workers run, or that fails."""
        self.check_fetch()
        now = worker.clock.wall()
        self.born[now] = min(self.born.get(now, self.clock.boot()), self.clock.boot())
        self.fetching += 1
        self.pass_time(self.random.choice(self.stalls))
        self.fetching -= 1
        fails = self.random.random() < 0.2
        worker.upstream.failure = UpstreamError(Reason.DNS, "") if fails else None
        if fails:
            self.failed = True
            self.backoff_ends = self.clock.boot() + BACKOFF_SECONDS[0] * (1 - BACKOFF_JITTER)

    def request(self, worker: Simulated) -> None:
        try:
            result = worker.get()
        except MoviesUnavailable:
            return
        if result.reason is not Reason.SLOW:  # it would have waited, and not been served this
            self.check(worker, result)

    # What holds

    def check(self, worker: Simulated, result: CacheResult) -> None:
        if result.status is CacheStatus.STALE:
            self.expect(self.failed, "stale although nothing failed")
        else:
            self.check_entry(worker, result)
        self.check_order(result.snapshot.timestamp)

    def check_entry(self, worker: Simulated, result: CacheResult) -> None:
        age = self.clock.boot() - self.born[result.snapshot.timestamp]
        self.expect(age <= POLICY.ttl, f"an entry {age} s old")
        self.expect(result.ttl > 0, "an entry without a rest of life")
        entry = worker.process.state.last_entry(worker.process.now())
        token = entry.token if entry else 0
        self.expect(token >= worker.served, "a process went back to an older entry")
        worker.served = token

    def check_order(self, timestamp: datetime) -> None:
        self.expect(self.newest is None or timestamp >= self.newest, "time ran backwards")
        self.newest = timestamp

    def check_fetch(self) -> None:
        self.expect(not self.fetching, "two refreshes at once")
        self.expect(self.clock.boot() >= self.backoff_ends, "a refresh in a backoff")

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.violations.append(otherwise)

    @invariant()
    def nothing_was_violated(self) -> None:
        assert self.violations == []


class GuaranteeWithFaults(Guarantee):
    """Anything fails: no process goes back, and nobody serves an entry beyond the TTL."""

    stalls = (0.3, 2.0, 6.0)  # the lease of a stalled holder ends after 5 s

    @rule(number=st.integers(0, WORKERS - 1))
    def a_worker_is_killed_and_another_starts(self, number: int) -> None:
        self.workers[number] = Simulated(self)

    @rule(number=st.integers(0, WORKERS - 1), by=st.sampled_from([-3600.0, -5.0, 5.0, 3600.0]))
    def a_wall_clock_is_set(self, number: int, by: float) -> None:
        self.workers[number].clock.wall_offset += by

    @rule(away=st.booleans(), loses_replies=st.booleans(), lags=st.booleans())
    def the_store_changes(self, away: bool, loses_replies: bool, lags: bool) -> None:
        self.away, self.loses_replies, self.lags = away, loses_replies, lags

    @rule()
    def the_store_forgets_everything(self) -> None:
        self.shared._state, self.shared._movies = State(), {}

    def check_order(self, timestamp: datetime) -> None:
        pass

    def check_fetch(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(100))
def test_the_guarantee_holds_for_a_while_of_traffic_and_quiet(seed: int) -> None:
    """Long runs, which Hypothesis seldom makes."""
    random, machine = Random(seed), Guarantee()
    try:
        for _ in range(15):
            machine.random, machine.rate = random, random.choice([0.0, 2.0, 10.0, 30.0])
            busy, quiet = [0.5, 5.0, 15.0], [0.4, 4.0, 9.0, 30.0, 47.0, 59.6, 700.0]
            machine.pass_time(random.choice(busy if machine.rate else quiet))
            machine.nothing_was_violated()
    finally:
        machine.teardown()


LIMITS = settings(
    max_examples=60,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
GuaranteeTest, GuaranteeWithFaultsTest = Guarantee.TestCase, GuaranteeWithFaults.TestCase
GuaranteeTest.settings = GuaranteeWithFaultsTest.settings = LIMITS
pytestmark = pytest.mark.slow
