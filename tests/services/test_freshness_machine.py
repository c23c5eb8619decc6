"""The one-minute law under anything that can happen, on several simulated workers.

Hypothesis drives requests, flights, failures, deaths, stopped leaders, clocks that are set, and a
store that goes away or loses its replies, in any order, on one simulated time line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.catalogue.snapshot import Snapshot
from services.exceptions import MoviesUnavailable, Reason, UpstreamError
from services.freshness import Answer, Freshness, Policy, Source
from services.persistence import DatabaseStore
from services.sharing import LEASE, CoolDown, Lease, ProcessStore, Refusal, Stored, View
from tests.support.fakes import FakeClock, make_fetched

POLICY = Policy(ttl=60, ahead=10, stale_if_error=86_400)
WORKERS = 3

T = TypeVar("T")


class NoDatabase(DatabaseStore):
    def newest(self) -> Snapshot | None:
        return None


class WorkerClock(FakeClock):
    """Counts with everybody's, and can be set alone."""

    def __init__(self, shared: FakeClock) -> None:
        self.shared = shared
        self.wall_offset = 0.0

    @property
    def seconds(self) -> float:  # type: ignore[override]  # a view of the shared one
        return self.shared.seconds


class ShakyStore:
    """Everybody's store, and the process' own for when that is away, as RedisStore has it."""

    def __init__(self, shared: ProcessStore, clock: FakeClock, world: "World") -> None:
        self.shared, self.own, self.world = shared, ProcessStore(clock), world

    hand_over = 0.0

    def view(self) -> View:
        return self._either(lambda store: store.view())

    def last(self) -> Snapshot | None:
        return self._either(lambda store: store.last())

    def acquire(self, newest: int) -> Lease | Refusal:
        return self._either(lambda store: store.acquire(newest))

    def renew(self, lease: Lease) -> bool:
        return self._either(lambda store: store.renew(lease))

    def release(self, lease: Lease) -> None:
        self._either(lambda store: store.release(lease))

    def publish(self, lease: Lease, answer: Stored, live: Stored | None) -> bool:
        return self._either(lambda store: store.publish(lease, answer, live))

    def fail(self, lease: Lease, cool_down: CoolDown) -> None:
        self._either(lambda store: store.fail(lease, cool_down))

    def restore(self, held: Sequence[Stored]) -> bool:
        return self._either(lambda store: store.restore(held))

    def restore_last(self, last: Snapshot) -> Snapshot | None:
        return self._either(lambda store: store.restore_last(last))

    def is_well(self) -> bool:
        return not self.world.away

    def _either(self, command: Callable[[ProcessStore], T]) -> T:
        if self.world.away:
            return command(self.own)
        result = command(self.shared)
        if self.world.loses_replies:
            return command(self.own)
        return result


@dataclass
class World:
    away: bool = False
    loses_replies: bool = False


@dataclass
class Worker:
    clock: WorkerClock
    freshness: Freshness
    served: int = 0
    """The newest fence that this process has given."""


@dataclass(eq=False)
class Flying:
    worker: Worker
    lease: Lease
    took_off: float
    timestamp: datetime
    renewed: float
    stopped: bool = False


@dataclass
class Shaken:
    """What has happened that the stricter promises do not cover."""

    clocks: bool = False
    store: bool = False
    failures: bool = False
    marks: list[str] = field(default_factory=list)


class Law(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock, self.world, self.shaken = FakeClock(), World(), Shaken()
        self.shared = ProcessStore(self.clock)
        self.workers = [self.new_worker() for _ in range(WORKERS)]
        self.flights: list[Flying] = []
        # When the data of each timestamp was asked for, by the clock that nobody sets.
        self.born: dict[datetime, float] = {}
        self.newest_given: datetime | None = None
        self.published_since: dict[str, int] = {}

    def new_worker(self) -> Worker:
        clock = WorkerClock(self.clock)
        store = ShakyStore(self.shared, clock, self.world)
        return Worker(clock, Freshness(store, NoDatabase(), POLICY, clock))

    # What happens

    @rule(
        random=st.randoms(use_true_random=False),
        ticks=st.integers(20, 150),
        eager=st.sampled_from([0.05, 0.5, 0.95]),
    )
    def traffic(self, random: Random, ticks: int, eager: float) -> None:
        """Requests to anybody, while threads get their turns and flights land, now and then."""
        for _ in range(ticks):
            self.time_passes(random.choice([0.0, 0.01, 0.3, 2.0, 4.0]))
            self.a_request_comes(random.randrange(WORKERS))
            for number in range(WORKERS):
                if random.random() < eager:
                    self.its_thread_looks_what_is_due(number)
                if random.random() < 0.01:
                    self.a_worker_is_killed_and_another_starts(number)
            for flying in list(self.flights):
                if random.random() < 0.1:
                    flying.stopped = not flying.stopped
                if not flying.stopped and random.random() < eager:
                    self.lands(flying)

    @rule(number=st.integers(0, WORKERS - 1))
    def a_request_comes(self, number: int) -> None:
        worker = self.workers[number]
        answer = worker.freshness.hit()
        if answer:
            worker.freshness.wants(answer)
            self.check_fresh(worker, answer)
            return
        try:
            stale = worker.freshness.stale(lambda: None)
        except MoviesUnavailable:
            assert self.shaken.failures
            return
        if stale:
            assert self.shaken.failures, "stale although no flight ever failed"
            assert stale.source is Source.STALE
        else:
            worker.freshness._missed = True  # it would wait: as good as one that waits

    @rule(number=st.integers(0, WORKERS - 1))
    def its_thread_looks_what_is_due(self, number: int) -> None:
        worker = self.workers[number]
        if any(flying.worker is worker for flying in self.flights):
            return
        due = worker.freshness.due()
        if due is None or due > 0:
            return
        granted = worker.freshness.take_off()
        if isinstance(granted, Lease):
            self.check_alone(granted)
            worker.freshness.recall(granted.last)
            took_off, timestamp = worker.clock.boot(), worker.clock.wall()
            self.born.setdefault(timestamp, took_off)
            self.born[timestamp] = min(self.born[timestamp], took_off)
            self.flights.append(Flying(worker, granted, took_off, timestamp, took_off))
            self.published_since[granted.token] = 0

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def a_flight_lands(self, data: st.DataObject) -> None:
        self.lands(data.draw(st.sampled_from(self.flights)))

    def lands(self, flying: Flying) -> None:
        self.flights.remove(flying)
        fetched = make_fetched(flying.timestamp)
        snapshot = flying.worker.freshness.land(flying.lease, fetched, flying.took_off)
        if self.published_since[flying.lease.token] and not self.shaken.store:
            assert snapshot is None, "a leader that woke late has won"
        if snapshot:
            for token in self.published_since:
                self.published_since[token] += 1

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), reason=st.sampled_from([Reason.DNS, Reason.UPSTREAM_5XX]))
    def a_flight_fails(self, data: st.DataObject, reason: Reason) -> None:
        flying = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        self.shaken.failures = True
        flying.worker.freshness.crash(flying.lease, UpstreamError(reason, ""), 0.0)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def a_leader_is_stopped(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.flights)).stopped = True

    @rule(number=st.integers(0, WORKERS - 1))
    def a_worker_is_killed_and_another_starts(self, number: int) -> None:
        killed = self.workers[number]
        self.flights = [flying for flying in self.flights if flying.worker is not killed]
        self.workers[number] = self.new_worker()

    @rule(seconds=st.sampled_from([0.001, 0.4, 1.5, 4.0, 9.0, 11.0, 30.0, 59.6, 70.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        step = min(seconds, 1.5)
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            for flying in self.flights:
                if not flying.stopped and flying.worker.freshness._store.renew(flying.lease):
                    flying.renewed = self.clock.boot()

    @rule(number=st.integers(0, WORKERS - 1), by=st.sampled_from([-3600.0, -5.0, 5.0, 3600.0]))
    def a_clock_is_set(self, number: int, by: float) -> None:
        self.shaken.clocks = True
        self.workers[number].clock.wall_offset += by

    @rule(away=st.booleans(), loses_replies=st.booleans())
    def the_store_goes_or_comes_back(self, away: bool, loses_replies: bool) -> None:
        self.shaken.store = self.shaken.store or away or loses_replies
        self.world.away, self.world.loses_replies = away, loses_replies

    @rule()
    def the_store_forgets_everything(self) -> None:
        self.shaken.store = True
        self.shared._kept.clear()
        self.shared._fence = 0

    # What holds

    def check_fresh(self, worker: Worker, answer: Answer) -> None:
        timestamp = answer.snapshot.timestamp
        age = self.clock.boot() - self.born[timestamp]
        assert age <= POLICY.ttl, f"an answer {age} s old"
        assert answer.ttl > 0
        fence = worker.freshness.live(self.clock.boot()).fence  # type: ignore[union-attr]
        assert fence >= worker.served, "a process went back to an older answer"
        worker.served = fence
        if not self.shaken.clocks and not self.shaken.store:
            assert self.newest_given is None or timestamp >= self.newest_given, "time ran backwards"
            self.newest_given = timestamp

    def check_alone(self, lease: Lease) -> None:
        if self.shaken.store:
            return
        now = self.clock.boot()
        others = [flying for flying in self.flights if now - flying.renewed < LEASE]
        assert not others, "two flights at once"

    @invariant()
    def at_most_one_answer_is_staged(self) -> None:
        for worker in self.workers:
            living = [h for h in worker.freshness._held if h.end > self.clock.boot()]
            assert len(living) <= 2 or self.shaken.store


LawTest = Law.TestCase
LawTest.settings = settings(
    max_examples=200,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
pytestmark = pytest.mark.slow
