"""The law's arithmetic, and what one worker decides, on a clock that stands still."""

import threading
from datetime import timedelta

import pytest

from services import freshness
from services.catalogue.snapshot import Snapshot
from services.exceptions import MoviesUnavailable, Reason, UpstreamError
from services.freshness import (
    COOL_DOWNS,
    Freshness,
    Policy,
    Source,
    cool_down_seconds,
    seconds_left,
)
from services.persistence import DatabaseStore
from services.sharing import Lease, ProcessStore, Refusal
from tests.support.fakes import EPOCH, FakeClock, make_fetched, make_snapshot

POLICY = Policy(ttl=60, ahead=10, stale_if_error=3600)


class Database(DatabaseStore):
    """Holds what a test puts in, so that these tests need no database."""

    def __init__(self, kept: Snapshot | None = None) -> None:
        self.kept = kept

    def newest(self) -> Snapshot | None:
        return self.kept

    def is_well(self) -> bool:
        return True

    def close(self) -> None:
        """There is no connection."""


class Worker:
    """A worker on a given clock and store, with its thread's steps to be taken by hand."""

    def __init__(
        self, clock: FakeClock, store: ProcessStore, database: Database | None = None
    ) -> None:
        self.clock = clock
        self.freshness = Freshness(store, database or Database(), POLICY, clock)
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def take_off(self) -> Lease:
        self.freshness._missed = True
        lease = self.freshness.take_off()
        assert isinstance(lease, Lease)
        self.freshness.recall(lease.last)
        return lease

    def fly(self) -> Snapshot | None:
        lease, took_off = self.take_off(), self.clock.boot()
        return self.freshness.land(lease, make_fetched(self.clock.wall()), took_off)

    def crash(self, reason: Reason = Reason.DNS) -> None:
        self.freshness.crash(self.take_off(), UpstreamError(reason, ""), 0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> ProcessStore:
    return ProcessStore(clock)


@pytest.fixture
def worker(clock: FakeClock, store: ProcessStore) -> Worker:
    return Worker(clock, store)


def asked(worker: Worker) -> None:
    answer = worker.freshness.hit()
    assert answer
    worker.freshness.wants(answer)


@pytest.mark.parametrize(
    ("age", "stored_left", "expected"),
    [
        (0, 60, 60),
        (12, 48, 48),
        (12, 48.3, 48),  # a little apart: the timestamp counts, the same for everybody
        (12, 20, 20),  # the store says sooner
        (12, 3648, 48),  # the store's clock was set back
        (12, -3600, -3600),  # the store's clock was set forward
        (-3600, 48, 48),  # our own clock was set back
        (3612, 48, -3552),  # our own clock was set forward
        (-1, 70, 60),  # never more than a life
    ],
)
def test_of_two_clocks_that_disagree_the_earlier_end_counts(
    age: float, stored_left: float, expected: float
) -> None:
    wall = EPOCH + timedelta(seconds=age)

    assert seconds_left(60, EPOCH, wall, stored_left) == pytest.approx(expected)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 30), (99, 30)])
def test_cool_downs_grow_to_half_a_minute(failures: int, seconds: float) -> None:
    assert cool_down_seconds(failures, None, 0.0) == seconds


def test_cool_downs_vary_by_a_fifth() -> None:
    assert cool_down_seconds(1, None, -1.0) == pytest.approx(4)
    assert cool_down_seconds(1, None, 1.0) == pytest.approx(6)


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(7, 7), (2, 5), (999_999, 300), (-1, 5), (0.5, 5)]
)
def test_the_ghibli_api_may_ask_for_a_longer_cool_down(retry_after: float, seconds: float) -> None:
    assert cool_down_seconds(1, retry_after, 0.0) == seconds


def test_an_answer_is_given_for_almost_a_minute_and_not_longer(
    worker: Worker, clock: FakeClock
) -> None:
    worker.fly()

    clock.advance(59.49)
    assert worker.freshness.hit()
    clock.advance(0.02)
    assert worker.freshness.hit() is None


def test_age_counts_from_before_the_ghibli_api_was_asked(worker: Worker, clock: FakeClock) -> None:
    lease, took_off, timestamp = worker.take_off(), clock.boot(), clock.wall()
    clock.advance(15)
    worker.freshness.land(lease, make_fetched(timestamp), took_off)

    answer = worker.freshness.hit()
    assert answer
    assert answer.age == pytest.approx(15)
    assert answer.ttl == pytest.approx(44.5)


def test_what_nobody_asks_for_is_not_refreshed(worker: Worker, clock: FakeClock) -> None:
    worker.fly()
    clock.advance(55)

    assert worker.freshness.due() is None


def test_what_was_asked_for_is_refreshed_ahead_of_its_end(worker: Worker, clock: FakeClock) -> None:
    worker.fly()
    asked(worker)

    assert worker.freshness.due() == pytest.approx(49.5)
    clock.advance(49.5)
    assert worker.freshness.due() == pytest.approx(0)


def test_the_next_answer_goes_live_as_the_current_one_ends(
    worker: Worker, clock: FakeClock, store: ProcessStore
) -> None:
    other = Worker(clock, store)
    first = worker.fly()
    asked(worker)
    clock.advance(50)
    second = worker.fly()
    other.freshness.sync()

    for each in (worker, other):
        answer = each.freshness.hit()
        assert answer
        assert answer.snapshot is first
    clock.advance(9.51)
    for each in (worker, other):
        answer = each.freshness.hit()
        assert answer
        assert answer.snapshot is second


def test_after_one_speculative_flight_an_idle_worker_is_quiet(
    worker: Worker, clock: FakeClock
) -> None:
    worker.fly()
    asked(worker)
    clock.advance(50)
    worker.fly()

    assert worker.freshness.due() is None
    clock.advance(3600)
    worker.freshness._missed = False
    assert worker.freshness.due() is None


def test_there_is_no_second_flight_while_one_is_under_way(
    worker: Worker, clock: FakeClock, store: ProcessStore
) -> None:
    other = Worker(clock, store)
    worker.take_off()
    other.freshness._missed = True

    assert other.freshness.take_off() is Refusal.BUSY


def test_a_leader_that_stalled_is_refused_and_takes_the_other_answer(
    worker: Worker, clock: FakeClock, store: ProcessStore
) -> None:
    other = Worker(clock, store)
    lease, took_off, timestamp = worker.take_off(), clock.boot(), clock.wall()
    clock.advance(6)
    successor = other.fly()

    assert worker.freshness.land(lease, make_fetched(timestamp), took_off) is None
    worker.freshness.sync()
    answer = worker.freshness.hit()
    assert answer
    assert answer.snapshot is successor


def test_a_failure_gives_the_last_answer_at_once_and_marks_it_stale(
    worker: Worker, clock: FakeClock
) -> None:
    first = worker.fly()
    clock.advance(70)
    worker.crash()

    answer = worker.freshness.stale(worker.wake)
    assert answer
    assert (answer.snapshot, answer.source, answer.why) == (first, Source.STALE, Reason.DNS)
    assert answer.age == pytest.approx(70)
    assert answer.ttl == pytest.approx(-10)


def test_after_a_failure_the_next_flight_waits_for_the_cool_down_and_starts_by_itself(
    worker: Worker, clock: FakeClock
) -> None:
    worker.fly()
    clock.advance(70)
    worker.crash()
    assert worker.freshness.due() is None
    worker.freshness.stale(worker.wake)
    worker.freshness.stale(worker.wake)

    assert worker.woken == 1
    assert worker.freshness.due() == pytest.approx(COOL_DOWNS[0])


def test_while_the_next_flight_is_under_way_after_a_failure_nobody_waits(
    worker: Worker, clock: FakeClock
) -> None:
    worker.fly()
    clock.advance(70)
    worker.crash()
    worker.freshness.stale(worker.wake)
    clock.advance(COOL_DOWNS[0])

    assert worker.freshness.stale(worker.wake)


def test_a_request_after_an_idle_outage_waits_for_fresh_data(
    worker: Worker, clock: FakeClock
) -> None:
    worker.fly()
    clock.advance(70)
    worker.crash()
    clock.advance(300)

    assert worker.freshness.stale(worker.wake) is None


def test_a_failure_with_nothing_kept_says_when_to_come_again(
    worker: Worker, clock: FakeClock
) -> None:
    worker.crash(Reason.REFUSED)
    clock.advance(1)

    with pytest.raises(MoviesUnavailable) as caught:
        worker.freshness.stale(worker.wake)
    assert caught.value.reason is Reason.REFUSED
    assert caught.value.retry_after == pytest.approx(COOL_DOWNS[0] - 1)


def test_a_failure_that_came_just_before_a_request_began_to_wait_is_told_at_once(
    worker: Worker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "FOREGROUND_WAIT", 0.1)
    assert worker.freshness.stale(worker.wake) is None
    worker.crash(Reason.REFUSED)

    with pytest.raises(MoviesUnavailable) as caught:
        worker.freshness.wait(worker.wake)
    assert caught.value.reason is Reason.REFUSED


def test_a_failure_is_everybodys(worker: Worker, clock: FakeClock, store: ProcessStore) -> None:
    other = Worker(clock, store)
    worker.crash()
    other.freshness.sync()

    with pytest.raises(MoviesUnavailable):
        other.freshness.stale(other.wake)


def test_a_failure_falls_back_on_the_database(clock: FakeClock, store: ProcessStore) -> None:
    kept = make_snapshot(clock.wall() - timedelta(minutes=30), "Kept")
    worker = Worker(clock, store, Database(kept))
    worker.crash()

    answer = worker.freshness.stale(worker.wake)
    assert answer
    assert answer.snapshot is kept
    assert answer.age == pytest.approx(1800)


def test_an_answer_that_is_too_old_is_not_given(clock: FakeClock, store: ProcessStore) -> None:
    kept = make_snapshot(clock.wall() - timedelta(hours=2))
    worker = Worker(clock, store, Database(kept))
    worker.crash()

    with pytest.raises(MoviesUnavailable):
        worker.freshness.stale(worker.wake)


def test_a_good_flight_ends_the_trouble(worker: Worker, clock: FakeClock) -> None:
    worker.crash()
    clock.advance(COOL_DOWNS[0])
    worker.fly()

    assert worker.freshness.stale(worker.wake) is None
    assert worker.freshness.hit()


class Shared(ProcessStore):
    """A store for several processes, which need a while to hear of an answer."""

    hand_over = 0.5


def in_an_outage(clock: FakeClock) -> tuple[Worker, Worker, Snapshot]:
    """Two workers that go on with the same last answer, a moment before the next flight."""
    store = Shared(clock)
    one, other = Worker(clock, store), Worker(clock, store)
    last = one.fly()
    assert last
    other.freshness.sync()
    clock.advance(70)
    one.crash()
    other.freshness.sync()
    assert [given(one), given(other)] == [last, last]
    clock.advance(COOL_DOWNS[0])
    return one, other, last


def given(worker: Worker) -> Snapshot:
    answer = worker.freshness.hit() or worker.freshness.stale(worker.wake)
    assert answer
    return answer.snapshot


def test_after_an_outage_all_go_over_to_the_next_answer_together(clock: FakeClock) -> None:
    one, other, last = in_an_outage(clock)
    fresh = one.fly()
    assert [given(one), given(other)] == [last, last]
    clock.advance(0.3)
    other.freshness.sync()
    assert [given(one), given(other)] == [last, last]
    clock.advance(0.201)
    assert [given(one), given(other)] == [fresh, fresh]
    assert one.freshness.due() is None


def test_a_request_that_waits_at_the_end_of_an_outage_waits_for_all_the_others(
    clock: FakeClock,
) -> None:
    one, _, _ = in_an_outage(clock)
    fresh = one.fly()
    threading.Timer(0.1, clock.advance, [0.501]).start()

    assert one.freshness.wait(one.wake).snapshot is fresh


def test_with_no_answer_to_go_on_with_the_next_one_is_given_at_once(clock: FakeClock) -> None:
    worker = Worker(clock, Shared(clock))
    worker.crash()
    clock.advance(COOL_DOWNS[0])

    fresh = worker.fly()

    assert given(worker) is fresh


def test_those_who_wait_are_told_together(worker: Worker, clock: FakeClock) -> None:
    answers: list[Source] = []
    started = threading.Barrier(21)

    def request() -> None:
        started.wait()
        answers.append(worker.freshness.wait(worker.wake).source)

    threads = [threading.Thread(target=request) for _ in range(20)]
    for thread in threads:
        thread.start()
    started.wait()
    while worker.freshness._waiting < 20:
        pass
    worker.fly()
    for thread in threads:
        thread.join(2)

    assert answers == [Source.MISS] * 20


def test_readiness_is_lost_only_when_a_flight_failed_and_nothing_is_kept(
    worker: Worker, clock: FakeClock
) -> None:
    assert worker.freshness.health().ready
    worker.crash()
    assert not worker.freshness.health().ready
    clock.advance(COOL_DOWNS[0])
    worker.fly()
    assert worker.freshness.health().ready
