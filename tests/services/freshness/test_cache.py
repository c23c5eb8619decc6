"""What one worker decides, on a clock that stands still."""

import random
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from services.catalogue.snapshot import Snapshot
from services.exceptions import MoviesUnavailable, Reason
from services.freshness import cache
from services.freshness.cache import CacheStatus
from services.freshness.refresh import Outcome
from services.freshness.state import SECOND, State
from services.freshness.store import InMemoryStore, Reading
from tests.services.freshness.workers import Database, SharedInMemoryStore, WorkerUnderTest
from tests.support.fakes import FakeClock, make_fetched, make_snapshot

BACKOFF = 5.0


@pytest.fixture(autouse=True)
def _no_jitter_and_short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda *limits: 0.0)
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> InMemoryStore:
    return InMemoryStore(clock)


@pytest.fixture
def worker(clock: FakeClock, store: InMemoryStore) -> WorkerUnderTest:
    return WorkerUnderTest(clock, store)


def given(worker: WorkerUnderTest) -> Snapshot:
    return worker.get().snapshot


def test_an_entry_is_served_for_almost_a_minute_and_not_longer(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.succeed()
    clock.advance(59.49)
    assert worker.get().status is CacheStatus.HIT
    clock.advance(0.02)
    assert worker.get().status is not CacheStatus.HIT


def test_age_counts_from_before_the_ghibli_api_was_asked(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.upstream.meanwhile = lambda: clock.advance(15)
    worker.succeed()

    result = worker.get()
    assert result.ttl == pytest.approx(59.5 - 15)


def test_data_that_arrives_after_its_end_is_a_failure_with_backoff(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.upstream.meanwhile = lambda: clock.advance(60)

    refreshed = worker.refresh()

    assert refreshed.outcome is Outcome.FAILED
    assert refreshed.error
    assert refreshed.error.reason is Reason.DEADLINE
    assert worker.process.state.is_backing_off(worker.process.now())


def test_what_nobody_asks_for_is_not_refreshed(worker: WorkerUnderTest, clock: FakeClock) -> None:
    worker.succeed()
    clock.advance(55)

    assert worker.due() is None


def test_what_was_asked_for_is_refreshed_ahead_of_its_end(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.succeed()
    worker.get()

    assert worker.due() == pytest.approx(49.5)
    clock.advance(49.5)
    assert worker.due() == 0


def test_the_next_entry_activates_as_the_current_one_expires(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    other = WorkerUnderTest(clock, store)
    first = worker.succeed()
    clock.advance(50)
    second = worker.succeed()
    other.process.sync()

    assert [given(worker), given(other)] == [first, first]
    clock.advance(9.51)
    assert [given(worker), given(other)] == [second, second]


def test_after_one_speculative_refresh_an_idle_worker_is_quiet(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.succeed()
    worker.get()
    clock.advance(50)
    worker.succeed()
    clock.advance(10)

    assert worker.due() is None
    clock.advance(3600)
    assert worker.due() is None


def test_there_is_no_second_refresh_while_one_is_under_way(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    other = WorkerUnderTest(clock, store)
    outcomes = []
    worker.upstream.meanwhile = lambda: outcomes.append(other.refresh().outcome)
    worker.succeed()

    assert outcomes == [Outcome.BUSY]
    assert other.upstream.count == 0


def test_who_gets_the_lease_after_another_refreshed_does_not_ask_again(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    other = WorkerUnderTest(clock, store)
    with pytest.raises(MoviesUnavailable):
        other.get()  # and nothing came of it yet
    assert other.due() == 0
    first = worker.succeed()

    assert other.cache.step() == 0.0
    assert other.upstream.count == 0
    assert given(other) == first


def test_a_stalled_lease_holder_is_superseded_and_takes_the_other_entry(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    other = WorkerUnderTest(clock, store)
    successors = []

    def stall() -> None:
        clock.advance(6)
        successors.append(other.succeed())

    worker.upstream.meanwhile = stall
    assert worker.refresh().outcome is Outcome.SUPERSEDED
    assert [given(worker)] == successors


def test_a_failure_gives_the_last_entry_at_once_and_marks_it_stale(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    first = worker.succeed()
    clock.advance(70)
    worker.fail()

    result = worker.get()
    assert (result.snapshot, result.status) == (first, CacheStatus.STALE)
    assert result.reason is Reason.DNS
    assert result.age == pytest.approx(70)
    assert result.ttl == pytest.approx(-10)


def test_after_a_failure_the_next_refresh_waits_for_the_backoff_and_for_a_request(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.succeed()
    clock.advance(70)
    worker.fail()
    assert worker.due() is None
    worker.get()

    assert worker.due() == pytest.approx(BACKOFF)


def test_a_refresh_ahead_that_failed_is_repeated_after_the_backoff_while_requests_come(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.succeed()
    worker.get()
    clock.advance(49.5)
    worker.fail()
    assert worker.due() is None
    assert worker.get().status is CacheStatus.HIT

    assert worker.due() == pytest.approx(BACKOFF)


def test_begin_and_end_of_an_outage_are_logged_once(
    worker: WorkerUnderTest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        for _ in range(3):
            worker.fail()
            clock.advance(30)
        worker.succeed()

    records = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    outages = [record for record in records if record["event"].startswith("outage")]
    assert [record["event"] for record in outages] == ["outage_began", "outage_over"] * 2
    assert (outages[0]["reason"], outages[1]["failures"]) == (Reason.DNS, 3)
    assert outages[1]["seconds"] == 90


def test_while_the_next_refresh_is_under_way_after_a_failure_nobody_waits(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.succeed()
    clock.advance(70)
    worker.fail()
    worker.get()
    clock.advance(BACKOFF)

    assert worker.get().reason is Reason.DNS  # SLOW if it had waited


def test_a_request_after_an_idle_outage_waits_for_fresh_data(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.succeed()
    clock.advance(70)
    worker.fail()
    clock.advance(300)

    assert [worker.get().reason for _ in range(2)] == [Reason.SLOW, Reason.SLOW]


def test_a_failure_with_nothing_to_serve_says_when_to_come_again(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    worker.fail(Reason.REFUSED)
    clock.advance(1)

    with pytest.raises(MoviesUnavailable) as caught:
        worker.get()
    assert caught.value.reason is Reason.REFUSED
    assert caught.value.retry_after == pytest.approx(BACKOFF - 1)


def test_a_failure_that_came_just_before_a_request_began_to_wait_ends_the_wait(
    worker: WorkerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 5.0)
    generation, now = worker.process.generation, worker.process.now()
    worker.fail(Reason.REFUSED)

    with pytest.raises(MoviesUnavailable) as caught:
        worker.cache._wait(generation, now + 5 * SECOND)
    assert caught.value.reason is Reason.REFUSED


def test_a_failure_is_everybodys(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    other = WorkerUnderTest(clock, store)
    worker.fail()
    other.process.sync()

    with pytest.raises(MoviesUnavailable) as caught:
        other.get()
    assert caught.value.reason is Reason.DNS


@pytest.mark.parametrize("age", [23, 1800])
def test_a_failure_falls_back_on_the_database_and_says_its_true_age(
    clock: FakeClock, store: InMemoryStore, age: int
) -> None:
    stored = make_snapshot(clock.wall() - timedelta(seconds=age))
    worker = WorkerUnderTest(clock, store, Database(stored))
    worker.fail()

    result = worker.get()
    assert (result.snapshot, result.status) == (stored, CacheStatus.STALE)
    assert result.age == pytest.approx(age)
    assert result.ttl <= 0


def test_a_worker_that_starts_in_an_outage_falls_back_on_the_database(
    clock: FakeClock, store: InMemoryStore, worker: WorkerUnderTest
) -> None:
    worker.fail()
    stored = make_snapshot(clock.wall() - timedelta(minutes=10))

    started = WorkerUnderTest(clock, store, Database(stored))
    started.process.sync()

    assert (given(started), started.get().status) == (stored, CacheStatus.STALE)


def test_data_that_is_too_old_is_not_served(clock: FakeClock, store: InMemoryStore) -> None:
    stored = make_snapshot(clock.wall() - timedelta(hours=2))
    worker = WorkerUnderTest(clock, store, Database(stored))
    worker.fail()

    with pytest.raises(MoviesUnavailable):
        worker.get()


@pytest.mark.parametrize("error", [TypeError("a bug"), KeyError("x"), RecursionError(), OSError()])
def test_whatever_goes_wrong_is_a_failed_refresh(
    worker: WorkerUnderTest, clock: FakeClock, error: Exception
) -> None:
    worker.succeed()
    clock.advance(70)
    worker.upstream.failure = error
    assert worker.refresh().outcome is Outcome.FAILED

    assert worker.get().reason is Reason.INTERNAL
    assert worker.due() == pytest.approx(BACKOFF)


def outage(clock: FakeClock) -> tuple[WorkerUnderTest, WorkerUnderTest, Snapshot]:
    """Two workers that serve the same stale entry, a moment before the next refresh."""
    store = SharedInMemoryStore(clock)
    one, other = WorkerUnderTest(clock, store), WorkerUnderTest(clock, store)
    last = one.succeed()
    other.process.sync()
    clock.advance(70)
    one.fail()
    other.process.sync()
    assert [given(one), given(other)] == [last, last]
    clock.advance(BACKOFF)
    return one, other, last


def test_after_an_outage_all_change_to_the_next_entry_together(clock: FakeClock) -> None:
    one, other, last = outage(clock)
    fresh = one.succeed()
    assert [given(one), given(other)] == [last, last]
    clock.advance(0.3)
    other.process.sync()
    assert [given(one), given(other)] == [last, last]
    clock.advance(0.201)
    assert [given(one), given(other)] == [fresh, fresh]


def test_with_no_stale_data_the_first_entry_is_served_at_once(clock: FakeClock) -> None:
    worker = WorkerUnderTest(clock, SharedInMemoryStore(clock))
    worker.fail()
    clock.advance(BACKOFF)

    assert worker.succeed() == given(worker)


def test_all_who_wait_get_the_entry_together(
    worker: WorkerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 8.0)
    statuses: list[CacheStatus] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(worker.get().status)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    while worker.cache._waiting < 20:
        pass
    worker.succeed()
    for thread in threads:
        thread.join(2)

    assert statuses == [CacheStatus.MISS] * 20


def test_a_request_beyond_the_limit_of_waiting_ones_gets_a_response_at_once(
    clock: FakeClock, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 8.0)
    worker = WorkerUnderTest(clock, store, max_waiting=0)
    with pytest.raises(MoviesUnavailable) as caught:
        worker.get()
    assert caught.value.retry_after == 1

    last = worker.succeed()
    clock.advance(70)
    assert (given(worker), worker.get().status) == (last, CacheStatus.STALE)


def lose(store: InMemoryStore) -> None:
    store._state, store._movies = State(), {}


def test_a_worker_writes_back_what_the_store_lost(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    worker.succeed()
    clock.advance(50)
    second = worker.succeed()
    before = store.read().state
    lose(store)

    worker.process.sync()

    assert store.read().state == before
    other = WorkerUnderTest(clock, store)
    other.process.sync()
    clock.advance(9.51)
    assert given(other) == second


def test_a_worker_writes_back_the_movies_that_the_store_lost(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    other = WorkerUnderTest(clock, store)
    worker.succeed()
    other.process.sync()
    clock.advance(50)
    worker.upstream.make = lambda timestamp: make_fetched(timestamp, "Ponyo on the Cliff")
    second = worker.succeed()
    store._movies = {}

    for each in (other, worker, other):
        each.process.sync()

    clock.advance(9.51)
    assert [given(worker), given(other)] == [second, second]
    assert other.upstream.count == 0


def test_workers_agree_on_one_last_known_good_when_the_store_comes_back_empty(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    old = make_snapshot(clock.wall() - timedelta(minutes=30))
    other = WorkerUnderTest(clock, store, Database(old))
    last = worker.succeed()
    clock.advance(70)
    lose(store)
    other.fail()
    worker.process.sync()
    other.process.sync()

    assert [given(worker), given(other)] == [last, last]


def test_of_entries_that_were_fetched_apart_the_one_with_newer_data_is_newer(
    clock: FakeClock,
) -> None:
    """The first worker has its lease earlier, but is slow to ask the Ghibli API."""
    second = WorkerUnderTest(clock, InMemoryStore(clock))

    class SlowStore(InMemoryStore):
        def acquire_lease(self) -> tuple[str | None, Reading]:
            acquired = super().acquire_lease()
            clock.advance(0.01)
            second.succeed()
            clock.advance(0.01)
            return acquired

    first = WorkerUnderTest(clock, SlowStore(clock))
    newer = first.succeed()
    first.process.settle(second.store.read())

    assert given(first) == newer


def test_a_clock_that_was_set_back_in_the_store_prolongs_nothing(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore
) -> None:
    worker.succeed()
    reading = store.read()
    later = Reading(reading.state, reading.time - 3600 * SECOND)
    store.read = lambda: later  # type: ignore[method-assign]
    worker.process.sync()
    clock.advance(59.6)

    assert worker.get().status is not CacheStatus.HIT


@pytest.fixture
def announced() -> Iterator[list[Snapshot]]:
    """The snapshots that `new_snapshot` was sent with; the receiver fails."""
    snapshots: list[Snapshot] = []

    def receive(snapshot: Snapshot, **_: object) -> None:
        snapshots.append(snapshot)
        raise ZeroDivisionError

    cache.new_snapshot.connect(receive)
    yield snapshots
    cache.new_snapshot.disconnect(receive)


def test_every_worker_announces_a_new_snapshot_once_before_it_is_in_use(
    worker: WorkerUnderTest, clock: FakeClock, store: InMemoryStore, announced: list[Snapshot]
) -> None:
    other = WorkerUnderTest(clock, store)
    worker.succeed()
    other.process.sync()
    for each in (worker, other, worker, other):
        each.get()
        each.cache.step()
    assert announced == [given(worker), given(other)]

    clock.advance(50)
    for each in (worker, other, worker, other):
        each.cache.step()
    assert [snapshot.timestamp for snapshot in announced[2:]] == [clock.wall()] * 2
    assert given(worker) is announced[0]
    clock.advance(9.5)
    assert [given(worker), given(other)] == announced[2:]


def test_readiness_is_lost_only_during_a_backoff_with_nothing_to_serve(
    worker: WorkerUnderTest, clock: FakeClock
) -> None:
    assert worker.cache.health().ready
    worker.fail()
    assert not worker.cache.health().ready
    clock.advance(BACKOFF - 0.01)
    assert not worker.cache.health().ready
    clock.advance(0.01)
    assert worker.cache.health().ready
    worker.succeed()
    assert worker.cache.health().ready
