"""What workers share, by the same rules in the process and in a real Valkey."""

import pickle
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django.fixtures import Settings

from services.clock import Clock
from services.exceptions import Reason
from services.redis_store import LATCH, RedisStore
from services.sharing import (
    LEASE,
    CoolDown,
    Lease,
    ProcessStore,
    Refusal,
    SharedStore,
    Stored,
)
from tests.support.fakes import make_snapshot
from tests.support.servers import Valkey


def in_process(settings: Settings, valkey: Valkey) -> SharedStore:
    return ProcessStore()


def in_redis(settings: Settings, valkey: Valkey) -> RedisStore:
    settings.REDIS_URL = valkey.url
    settings.CACHES = redis_caches(valkey.url)
    return RedisStore(remember=60)


def redis_caches(url: str) -> dict[str, object]:
    return {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": url,
            "OPTIONS": {
                "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
                "SOCKET_CONNECT_TIMEOUT": 0.1,
                "SOCKET_TIMEOUT": 0.2,
            },
        }
    }


@pytest.fixture(params=[in_process, in_redis])
def store(request: pytest.FixtureRequest, settings: Settings, valkey: Valkey) -> SharedStore:
    made: SharedStore = request.param(settings, valkey)
    return made


@pytest.fixture
def redis_store(settings: Settings, valkey: Valkey) -> RedisStore:
    return in_redis(settings, valkey)


def acquired(store: SharedStore, newest: int = 0) -> Lease:
    lease = store.acquire(newest)
    assert isinstance(lease, Lease)
    return lease


def now() -> datetime:
    return datetime.now(UTC)


def publish(
    store: SharedStore, lease: Lease, *, left: float = 60, live: Stored | None = None
) -> Stored | None:
    answer = Stored(make_snapshot(now()), lease.fence, left)
    return answer if store.publish(lease, answer, live) else None


def test_an_empty_store_has_nothing_and_grants_the_lease(store: SharedStore) -> None:
    view = store.view()

    assert view.answers == ()
    assert view.newest == 0
    assert view.cool_down is None
    assert store.last() is None
    assert acquired(store).failures == 0


def test_while_one_holds_the_lease_others_are_told_so(store: SharedStore) -> None:
    acquired(store)

    assert store.acquire(0) is Refusal.BUSY


def test_a_lease_that_is_given_back_is_free_at_once(store: SharedStore) -> None:
    lease = acquired(store)
    store.release(lease)

    assert acquired(store).fence > lease.fence


def test_a_lease_is_renewed_by_its_holder_only(store: SharedStore) -> None:
    lease = acquired(store)

    assert store.renew(lease)
    assert not store.renew(lease._replace(token="somebody-else"))
    store.release(lease._replace(token="somebody-else"))
    assert store.acquire(0) is Refusal.BUSY


def test_what_is_published_is_seen_by_all_and_frees_the_lease(store: SharedStore) -> None:
    answer = publish(store, acquired(store), left=30)

    view = store.view()
    assert answer
    assert [stored.snapshot for stored in view.answers] == [answer.snapshot]
    assert 29 < view.answers[0].left <= 30
    assert view.newest == answer.fence
    assert store.last() == answer.snapshot
    assert isinstance(store.acquire(view.newest), Lease)


def test_a_worker_that_has_not_seen_the_newest_answer_gets_no_lease(store: SharedStore) -> None:
    first = publish(store, acquired(store))
    assert first
    second = publish(store, acquired(store, first.fence), live=first)
    assert second

    assert store.acquire(0) is Refusal.FRESH
    assert store.acquire(first.fence) is Refusal.FRESH
    assert isinstance(store.acquire(second.fence), Lease)


def test_the_next_answer_is_staged_behind_the_one_that_lives(store: SharedStore) -> None:
    first = publish(store, acquired(store))
    assert first
    second = publish(store, acquired(store, first.fence), live=first)
    assert second

    staged = [stored.snapshot for stored in store.view().answers]
    assert staged == [first.snapshot, second.snapshot]


def test_a_leader_that_wakes_late_is_refused(store: SharedStore) -> None:
    late = acquired(store)
    store.release(late)  # as if it had run out
    successor = publish(store, acquired(store))

    assert successor
    assert publish(store, late) is None
    assert [stored.snapshot for stored in store.view().answers] == [successor.snapshot]


def test_an_answer_whose_time_is_over_is_refused_and_the_lease_freed(store: SharedStore) -> None:
    assert publish(store, acquired(store), left=0) is None
    assert store.view().answers == ()
    assert acquired(store)


def test_an_answer_that_the_store_lost_is_put_back_behind_which_to_stage(
    store: SharedStore,
) -> None:
    live = Stored(make_snapshot(now()), 1, 5)
    publish(store, acquired(store, live.fence), live=live)

    answers = store.view().answers
    assert len(answers) == 2
    assert answers[0].snapshot == live.snapshot
    assert 4 < answers[0].left <= 5


def test_a_failure_cools_everybody_down_and_is_counted(store: SharedStore) -> None:
    store.fail(acquired(store), CoolDown(Reason.DNS, 1, 0.05))

    assert store.acquire(0) is Refusal.COOLING
    seen = store.view().cool_down
    assert seen
    assert (seen.reason, seen.failures) == (Reason.DNS, 1)
    assert 0 < seen.left <= 0.05
    until(lambda: store.acquire(0) is not Refusal.COOLING)


def test_failures_add_up_until_a_flight_lands(store: SharedStore) -> None:
    store.fail(acquired(store), CoolDown(Reason.DNS, 3, 0.001))
    until(lambda: store.view().cool_down is None)
    time.sleep(0.002)  # Redis ends a key up to a millisecond after it says so

    lease = acquired(store)
    assert lease.failures == 3
    answer = publish(store, lease)
    assert answer
    assert acquired(store, answer.fence).failures == 0


@pytest.mark.slow
def test_a_backoff_holds_however_many_failures_came_before(redis_store: RedisStore) -> None:
    for _ in range(2):
        redis_store.fail(acquired(redis_store), CoolDown(Reason.DNS, 10_000, 0.05))
        assert redis_store.view().cool_down
        until(lambda: redis_store.view().cool_down is None)


def test_a_leader_that_dies_frees_its_lease(store: SharedStore) -> None:
    acquired(store)
    started = time.monotonic()
    until(lambda: isinstance(store.acquire(0), Lease), seconds=LEASE + 1)

    assert LEASE - 0.5 < time.monotonic() - started <= LEASE + 0.5


def test_an_answer_ends_by_itself(store: SharedStore) -> None:
    publish(store, acquired(store), left=0.05)

    until(lambda: store.view().answers == ())
    assert store.last() is not None


# Redis alone


def test_workers_with_stores_of_their_own_share_through_redis(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    other = RedisStore(remember=60)
    answer = publish(redis_store, acquired(redis_store))

    assert answer
    assert other.view().answers[0].snapshot == answer.snapshot


POISON: list[tuple[str, Callable[[bytes], object]]] = [
    ("cut short", lambda good: good[: len(good) // 2]),
    ("one bit flipped", lambda good: good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]),
    ("a number", lambda good: b"123"),
    ("a pickle", lambda good: pickle.dumps({"api_data": []})),
    ("an old version", lambda good: good.replace(b"totoro-1 ", b"totoro-0 ")),
    ("100 MB", lambda good: b"x" * 100_000_000),
    ("from the future", lambda good: good.replace(b" 0000", b" 9000", 1)),
]


@pytest.mark.parametrize("name", ["current", "next", "last"])
@pytest.mark.parametrize(("what", "poison"), POISON, ids=[what for what, _ in POISON])
def test_a_value_that_is_not_ours_is_a_miss_and_taken_away(
    what: str, poison: Callable[[bytes], bytes], name: str, redis_store: RedisStore, valkey: Valkey
) -> None:
    publish(redis_store, acquired(redis_store))
    good = valkey.client.get("totoro:1:{movies}:current")
    assert isinstance(good, bytes)
    valkey.client.flushall()
    valkey.client.set(f"totoro:1:{{movies}}:{name}", poison(good))

    assert redis_store.view().answers == ()
    assert redis_store.last() is None
    redis_store._latched.latched_until = 0  # reading 100 MB counted as slow
    assert not valkey.client.exists(f"totoro:1:{{movies}}:{name}")
    assert publish(redis_store, acquired(redis_store))


def test_a_value_of_another_type_is_a_miss_and_taken_away(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    valkey.client.rpush("totoro:1:{movies}:current", "x")

    assert redis_store.view().answers == ()
    assert publish(redis_store, acquired(redis_store))
    assert len(redis_store.view().answers) == 1


@pytest.mark.parametrize(("ahead", "is_served"), [(3, True), (10, False), (3600, False)])
def test_an_answer_dated_ahead_of_the_clock_is_a_miss_and_replaced(
    ahead: int, is_served: bool, redis_store: RedisStore, valkey: Valkey
) -> None:
    lease = acquired(redis_store)
    snapshot = make_snapshot(now() + timedelta(seconds=ahead))
    assert redis_store.publish(lease, Stored(snapshot, lease.fence, 60), None)

    assert bool(redis_store.view().answers) is is_served
    assert bool(redis_store.last()) is is_served
    if not is_served:
        assert valkey.client.keys("*:last") == valkey.client.keys("*:current") == []
        assert publish(redis_store, acquired(redis_store))


OPENS = datetime(2026, 11, 23, 20, 40, 12, 341359, UTC)


def test_an_answer_may_open_for_all_at_an_instant(redis_store: RedisStore) -> None:
    lease = acquired(redis_store)
    assert redis_store.publish(lease, Stored(make_snapshot(), lease.fence, 60, OPENS), None)

    assert [stored.opens for stored in redis_store.view().answers] == [OPENS]
    until(lambda: redis_store.view().answers[0].opens is None)
    assert len(redis_store.view().answers) == 1


@pytest.mark.parametrize("rubbish", ["soon", "2026-11-23T20:40:12", "\xff"])
def test_an_opening_that_is_none_is_at_once(
    rubbish: str, redis_store: RedisStore, valkey: Valkey
) -> None:
    answer = publish(redis_store, acquired(redis_store))
    assert answer
    valkey.client.set("totoro:1:{movies}:opens", rubbish)

    [seen] = redis_store.view().answers
    assert (seen.snapshot, seen.opens) == (answer.snapshot, None)


def test_a_lease_that_redis_would_keep_for_an_hour_is_not_respected(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    acquired(redis_store)
    valkey.client.pexpire("totoro:1:{movies}:lease", 3_600_000)  # as a clock set back would

    assert acquired(redis_store)


def test_fences_grow_on_after_everything_was_flushed(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    before = acquired(redis_store).fence
    valkey.client.flushall()

    assert acquired(redis_store).fence > before


def test_without_redis_the_process_goes_on_by_itself(settings: Settings) -> None:
    settings.CACHES = redis_caches("redis://127.0.0.1:9/0")
    store = RedisStore(remember=60)

    answer = publish(store, acquired(store))

    assert answer
    assert store.view().answers[0].snapshot == answer.snapshot
    assert not store.is_well()


def test_a_hung_redis_costs_little_and_rarely(redis_store: RedisStore, valkey: Valkey) -> None:
    import signal

    valkey.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        for _ in range(50):
            redis_store.view()
        assert time.monotonic() - started < 0.35
    finally:
        valkey.send_signal(signal.SIGCONT)
    assert redis_store._latched.latched_until - Clock().boot() <= LATCH


def test_a_redis_that_cannot_write_is_like_none(redis_store: RedisStore, valkey: Valkey) -> None:
    valkey.client.config_set("maxmemory", 1)
    try:
        assert publish(redis_store, acquired(redis_store))
        assert len(redis_store.view().answers) == 1
    finally:
        valkey.client.config_set("maxmemory", 0)


def until(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)
