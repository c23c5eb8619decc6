from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from services.catalogue import merge
from services.catalogue.plausibility import PlausibilityCheck
from services.catalogue.snapshot import Snapshot
from services.exceptions import Reason, UpstreamError
from services.freshness.store import InMemoryStore
from services.ghibli.client import Fetched
from tests.services.freshness.workers import Database, WorkerUnderTest
from tests.support.fakes import EPOCH, FakeClock


def films(count: int) -> list[dict[str, str]]:
    return [{"id": f"film-{number}", "title": f"Film {number}"} for number in range(count)]


PEOPLE = [{"id": "totoro", "name": "Totoro", "films": "/films/film-0"}]


def snapshot(count: int, timestamp: datetime = EPOCH) -> Snapshot:
    return Snapshot(timestamp, merge.build(films(count), PEOPLE).movies)


KNOWN = snapshot(22)


def is_accepted(
    plausibility: PlausibilityCheck, count: int, now: float, known: Snapshot = KNOWN
) -> bool:
    try:
        plausibility.check(snapshot(count), known, now)
    except UpstreamError as error:
        return error.reason is not Reason.SHRUNK
    return True


def accepted(*refreshes: tuple[int, float]) -> list[bool]:
    """Check refreshes, each with its number of films and its time in seconds."""
    plausibility = PlausibilityCheck()
    return [is_accepted(plausibility, count, now) for count, now in refreshes]


@pytest.mark.parametrize(
    ("count", "is_accepted"), [(10, False), (11, True), (22, True), (100, True)]
)
def test_less_than_half_of_the_films_is_refused(count: int, is_accepted: bool) -> None:
    assert accepted((count, 0)) == [is_accepted]


def test_a_loss_that_lasts_three_refreshes_and_ten_minutes_is_accepted() -> None:
    assert accepted((10, 5), (10, 300), (10, 605)) == [False, False, True]


def test_three_refreshes_within_ten_minutes_are_not_enough() -> None:
    assert accepted((10, 5), (10, 15), (10, 604), (10, 605)) == [False, False, False, True]


def test_two_refreshes_are_not_enough_however_far_apart() -> None:
    assert accepted((10, 5), (10, 5000), (10, 5001)) == [False, False, True]


def test_a_loss_that_differs_each_time_is_never_accepted() -> None:
    assert not any(accepted((10, 0), (3, 400), (10, 700), (3, 1400)))


def test_a_good_refresh_in_between_restarts_the_count() -> None:
    plausibility = PlausibilityCheck()
    newer = snapshot(22, EPOCH + timedelta(minutes=5))
    for now in (0, 300):
        assert not is_accepted(plausibility, 10, now)

    assert not is_accepted(plausibility, 10, 605, newer)
    assert not is_accepted(plausibility, 10, 905, newer)
    assert is_accepted(plausibility, 10, 1205, newer)


# The check within refreshes of a worker


class Worker(WorkerUnderTest):
    def __init__(
        self, clock: FakeClock, store: InMemoryStore | None = None, stored: Snapshot | None = None
    ) -> None:
        super().__init__(clock, store or InMemoryStore(clock), Database(stored))

    def refresh_with(self, films: Sequence[dict[str, str]]) -> str:
        """Return the reason of the failure, or the number of movies."""
        self.upstream.make = lambda timestamp: Fetched(timestamp, films, PEOPLE)
        refreshed = self.refresh()
        if refreshed.error:
            return refreshed.error.reason
        assert refreshed.snapshot
        return f"{len(refreshed.snapshot.movies)} movies"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_worker_refuses_a_loss_until_it_has_lasted(clock: FakeClock) -> None:
    worker = Worker(clock)
    assert worker.refresh_with(films(22)) == "22 movies"

    results = []
    for _ in range(22):
        clock.advance(60)
        results.append(worker.refresh_with(films(10)))

    # The refresh of the 1st minute is the first with the loss, that of the 11th is ten minutes later.
    assert results == ["shrunk"] * 10 + ["10 movies"] * 12


def test_a_new_process_compares_with_the_snapshot_in_the_database(clock: FakeClock) -> None:
    worker = Worker(clock, stored=snapshot(22, clock.wall() - timedelta(minutes=30)))

    assert worker.refresh_with(films(10)) == "shrunk"


def test_a_new_process_compares_with_the_snapshot_of_other_workers(clock: FakeClock) -> None:
    store = InMemoryStore(clock)
    Worker(clock, store).refresh_with(films(22))
    clock.advance(120)

    assert Worker(clock, store).refresh_with(films(10)) == "shrunk"


def test_a_loss_that_one_worker_accepted_is_accepted_by_all(clock: FakeClock) -> None:
    store = InMemoryStore(clock)
    one, other = Worker(clock, store), Worker(clock, store)
    one.refresh_with(films(22))
    clock.advance(60)
    other.refresh_with(films(22))
    for _ in range(11):
        clock.advance(60)
        one.refresh_with(films(10))
    clock.advance(60)

    assert other.refresh_with(films(10)) == "10 movies"


def test_a_snapshot_that_is_too_old_to_serve_is_not_compared(clock: FakeClock) -> None:
    worker = Worker(clock, stored=snapshot(22, clock.wall() - timedelta(hours=2)))

    assert worker.refresh_with(films(10)) == "10 movies"


def test_accepts_any_number_of_films_without_a_known_snapshot(clock: FakeClock) -> None:
    assert Worker(clock).refresh_with(films(1)) == "1 movies"
