"""The rate limit over all workers: in one process, in a real Valkey, and with a fake clock."""

import math
import signal
import threading
import time
import tracemalloc
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

import pytest
from django_redis import get_redis_connection
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from services.clock import Clock
from services.rate_limit import (
    BATCHES_PER_LIMIT,
    BATCHES_PER_REMAINING,
    MAX_CLIENTS,
    UNCOUNTED,
    Batch,
    QuotaStatus,
    Rate,
    RateLimiter,
    RedisQuotas,
    Unlimited,
    rate_limiter,
)
from services.redis_connection import BREAKER_SECONDS
from tests.support.fakes import FakeClock
from tests.support.servers import Valkey
from totoro.env.connections import redis_caches

Make = Callable[..., RateLimiter]


@pytest.fixture
def in_redis(settings: Settings, valkey: Valkey) -> Make:
    """Make the rate limiter of one worker."""
    settings.CACHES = redis_caches(valkey.url)

    def make(limit: int, period: int = 60, clock: Clock | None = None) -> RateLimiter:
        rate = Rate(limit, period)
        return RateLimiter(rate, RedisQuotas(rate, clock).take_batch, clock)

    return make


def in_process(limit: int, period: int = 60, clock: Clock | None = None) -> RateLimiter:
    rate = Rate(limit, period)
    return RateLimiter(rate, lambda client: Batch(limit, 0, period), clock)


@pytest.fixture(params=["process", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = in_process if request.param == "process" else request.getfixturevalue("in_redis")
    return made


def count(worker: RateLimiter, client: str = "a") -> QuotaStatus:
    status = worker.count(client)
    assert status.rate
    return status


def allowed(worker: RateLimiter, requests: int, client: str = "a") -> int:
    return sum(count(worker, client).is_allowed for _ in range(requests))


def round_trips(valkey: Valkey) -> int:
    """Return how many commands Valkey got from outside since its statistics were reset."""
    stats = valkey.client.info("commandstats")
    assert isinstance(stats, dict)
    inner = ("get", "set", "pttl", "incrby", "info", "config|resetstat")
    return sum(
        command["calls"]
        for name, command in stats.items()
        if name.removeprefix("cmdstat_") not in inner
    )


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_threads_together_get_exactly_the_limit(make: Make, limit: int) -> None:
    worker = make(limit)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: count(worker), range(limit + 200)))

    assert sum(status.is_allowed for status in statuses) == limit
    assert {status.remaining for status in statuses if not status.is_allowed} == {0}


@pytest.mark.parametrize("limit", [1, 7, 600])
def test_workers_together_get_exactly_the_limit(in_redis: Make, limit: int) -> None:
    workers = [in_redis(limit) for _ in range(4)]
    requests = islice(cycle(workers), limit + 400)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(count, requests))

    assert sum(status.is_allowed for status in statuses) == limit


def test_a_client_of_one_worker_gets_nearly_the_whole_quota(in_redis: Make) -> None:
    workers = [in_redis(600) for _ in range(4)]
    for worker in workers[1:]:
        count(worker)

    assert 600 - 3 * 600 // BATCHES_PER_LIMIT <= allowed(workers[0], 700) < 600


def test_each_client_has_a_quota_of_its_own(make: Make) -> None:
    worker = make(3)
    allowed(worker, 4, "a")

    assert not count(worker, "a").is_allowed
    assert allowed(worker, 4, "b") == 3


def test_the_status_has_the_remaining_quota(make: Make) -> None:
    worker = make(3)

    assert [count(worker).remaining for _ in range(5)] == [2, 1, 0, 0, 0]


def test_the_window_begins_with_the_first_request(make: Make) -> None:
    worker = make(2, 60)

    assert 59 < count(worker).reset <= 60.1
    assert count(worker).reset < count(worker).reset + 60


def test_a_new_window_has_a_new_quota(make: Make) -> None:
    worker = make(2, 1)
    started = time.monotonic()
    assert allowed(worker, 3) == 2
    refused = count(worker)
    time.sleep(refused.reset)

    assert time.monotonic() - started > 0.998  # Redis counts milliseconds
    assert allowed(worker, 3) == 2


def test_another_worker_continues_the_window(in_redis: Make) -> None:
    clock = FakeClock()
    first, second = in_redis(4), in_redis(4, clock=clock)
    assert allowed(first, 5) == 4

    refused = count(second)
    assert not refused.is_allowed
    assert 58 < refused.reset <= 60


# Load on Redis


@pytest.mark.parametrize("workers", [1, 4])
def test_few_allowed_requests_and_no_refused_one_cost_a_round_trip(
    in_redis: Make, valkey: Valkey, workers: int
) -> None:
    made = [in_redis(600) for _ in range(workers)]
    allowed(made[0], 1, "warm")  # so that Valkey knows the script
    valkey.client.config_resetstat()

    requests = islice(cycle(made), 700)
    assert sum(count(worker).is_allowed for worker in requests) == 600
    before = round_trips(valkey)
    assert 600 / BATCHES_PER_LIMIT <= before <= 0.2 * 600

    refusals = [count(worker) for worker in islice(cycle(made), 1000)]
    assert not any(refused.is_allowed for refused in refusals)
    assert round_trips(valkey) == before


def test_a_count_expires_with_its_window(in_redis: Make, valkey: Valkey) -> None:
    count(in_redis(600, 60), "192.0.2.1")

    assert valkey.client.keys() == [b"totoro:1:quota:600/60:192.0.2.1"]
    assert 59_000 < int(valkey.client.pttl("totoro:1:quota:600/60:192.0.2.1")) <= 60_000


def test_another_rate_starts_another_window(in_redis: Make) -> None:
    assert allowed(in_redis(3, 60), 5) == 3
    assert allowed(in_redis(4, 60), 5) == 4
    assert allowed(in_redis(4, 61), 5) == 4


INVALID: dict[str, Callable[[Valkey, str], object]] = {
    "rubbish": lambda valkey, key: valkey.client.set(key, "rubbish", px=50_000),
    "a fraction": lambda valkey, key: valkey.client.set(key, "1.5", px=50_000),
    "negative": lambda valkey, key: valkey.client.set(key, "-5", px=50_000),
    "a list": lambda valkey, key: valkey.client.rpush(key, "1"),
    "no end": lambda valkey, key: valkey.client.set(key, "2"),
    "more than the limit": lambda valkey, key: valkey.client.set(key, "9" * 30, px=5000),
    "longer than the period": lambda valkey, key: valkey.client.set(key, "2", px=3_600_000),
}


@pytest.mark.parametrize("kind", INVALID)
def test_an_invalid_value_is_replaced(kind: str, in_redis: Make, valkey: Valkey) -> None:
    key = "totoro:1:quota:3/60:a"
    INVALID[kind](valkey, key)

    assert allowed(in_redis(3), 5) == 3
    assert 0 < int(valkey.client.pttl(key)) <= 60_000


@pytest.mark.parametrize("limit", [1, 7, 39, 80, 600, 100_000])
def test_the_script_hands_out_the_batches_of_the_model(
    in_redis: Make, valkey: Valkey, limit: int
) -> None:
    clock = FakeClock()
    quotas, model = RedisQuotas(Rate(limit, 60)), FakeQuotas(Rate(limit, 60), clock)
    batches = list(iter(lambda: sizes(quotas.take_batch("a")), (0, 0)))

    assert batches == list(iter(lambda: sizes(model.take_batch("a")), (0, 0)))
    assert sum(size for size, _ in batches) == limit


def sizes(batch: Batch | None) -> tuple[int, int]:
    assert batch
    return batch.size, batch.remaining


# Redis down


def test_requests_pass_while_redis_is_down(in_redis: Make, settings: Settings) -> None:
    settings.CACHES = redis_caches("redis://127.0.0.1:9/0")

    assert in_redis(1).count("a") == UNCOUNTED


def test_a_hung_redis_delays_requests_briefly_and_rarely(in_redis: Make, valkey: Valkey) -> None:
    worker = in_redis(1)
    valkey.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(10) as pool:
            statuses = list(pool.map(worker.count, [str(i % 20) for i in range(200)]))
        assert time.monotonic() - started < 0.35
    finally:
        valkey.send_signal(signal.SIGCONT)
    assert set(statuses) == {UNCOUNTED}


def test_quotas_have_a_connection_pool_with_a_shorter_timeout(settings: Settings) -> None:
    settings.CACHES = redis_caches("redis://127.0.0.1:9/7")
    pools = [get_redis_connection(alias).connection_pool for alias in ("default", "quotas")]

    assert [pool.connection_kwargs["socket_timeout"] for pool in pools] == [0.2, 0.1]
    assert [pool.connection_kwargs["db"] for pool in pools] == [7, 7]


def test_a_redis_that_takes_150_ms_is_skipped(in_redis: Make, valkey: Valkey) -> None:
    worker = in_redis(100)
    count(worker, "warm")
    valkey.client.client_pause(150)
    started = time.monotonic()

    assert [worker.count(f"{i}") for i in range(50)] == [UNCOUNTED] * 50
    assert time.monotonic() - started < 0.3


def test_requests_pass_while_redis_cannot_write(in_redis: Make, valkey: Valkey) -> None:
    valkey.client.config_set("maxmemory", 1)
    try:
        assert in_redis(1).count("a") == UNCOUNTED
    finally:
        valkey.client.config_set("maxmemory", 0)


def test_batches_and_refusals_remain_valid_while_redis_is_down(
    in_redis: Make, valkey: Valkey
) -> None:
    clock = FakeClock()
    worker = in_redis(80, clock=clock)
    allowed(worker, 81, "refused")
    count(worker, "half")  # of a batch of two
    valkey.client.config_set("maxmemory", 1)
    try:
        assert worker.count("new") == UNCOUNTED
        assert not count(worker, "refused").is_allowed
        assert count(worker, "half").is_allowed
        assert worker.count("half") == UNCOUNTED
    finally:
        valkey.client.config_set("maxmemory", 0)
    clock.advance(BREAKER_SECONDS)
    assert count(worker, "half").remaining == 80 - 3


def test_requests_count_again_when_redis_is_back(in_redis: Make, valkey: Valkey) -> None:
    clock = FakeClock()
    worker = in_redis(1, clock=clock)
    valkey.client.config_set("maxmemory", 1)
    try:
        assert worker.count("a") == UNCOUNTED
    finally:
        valkey.client.config_set("maxmemory", 0)
    assert worker.count("a") == UNCOUNTED  # the circuit is open
    clock.advance(BREAKER_SECONDS)

    assert allowed(worker, 3) == 1


# Memory


def test_memory_is_bounded_in_a_flood_of_addresses() -> None:
    worker = in_process(1)
    tracemalloc.start()
    try:
        for i in range(MAX_CLIENTS):
            worker.count(f"2001:db8:{i:x}::/64")
        full = tracemalloc.get_traced_memory()[0]
        for i in range(2 * MAX_CLIENTS):
            worker.count(f"2001:db9:{i:x}::/64")
        grown = tracemalloc.get_traced_memory()[0] - full
    finally:
        tracemalloc.stop()

    assert full < 600 * MAX_CLIENTS
    assert grown < full / 2


def test_the_least_recent_client_is_evicted() -> None:
    worker = in_process(1)
    allowed(worker, 1, "busy")
    allowed(worker, 1, "idle")
    for i in range(MAX_CLIENTS - 1):
        worker.count("busy")
        worker.count(f"{i}")

    assert not count(worker, "busy").is_allowed
    assert count(worker, "idle").is_allowed


# The arithmetic, with a fake clock


class FakeQuotas:
    """A model of the count in Redis: the ways there and back take time, and windows are recorded."""

    def __init__(self, rate: Rate, clock: FakeClock) -> None:
        self._rate, self._clock = rate, clock
        self.started: list[float] = []
        self.counted_at: list[float] = []
        self.way = (0.0, 0.0)
        self._used = 0

    def take_batch(self, client: str) -> Batch:
        self._clock.advance(self.way[0])
        now = self._clock.boot()
        self.counted_at.append(now)
        if not self.started or now >= self.started[-1] + self._rate.period:
            self.started.append(now)
            self._used = 0
        remaining = self._rate.limit - self._used
        largest = math.ceil(self._rate.limit / BATCHES_PER_LIMIT)
        size = min(largest, math.ceil(remaining / BATCHES_PER_REMAINING))
        self._used += size
        seconds_left = self.started[-1] + self._rate.period - now
        self._clock.advance(self.way[1])
        return Batch(size, remaining - size, seconds_left)


ways = st.sampled_from([0.0, 0.001, 0.1, 0.2])
steps = st.tuples(
    st.integers(0, 2),  # which worker
    st.integers(1, 30),  # requests
    st.sampled_from([0.0, 0.01, 0.2, 0.9, 1.0, 2.5]),  # seconds until the next
    st.tuples(ways, ways),
)


@given(limit=st.sampled_from([1, 3, 10, 100]), plan=st.lists(steps, max_size=30))
def test_no_window_has_more_requests_than_the_limit(
    limit: int, plan: list[tuple[int, int, float, tuple[float, float]]]
) -> None:
    clock = FakeClock()
    rate = Rate(limit, 1)
    quotas = FakeQuotas(rate, clock)
    workers = [RateLimiter(rate, quotas.take_batch, clock) for _ in range(3)]
    spent: Counter[int] = Counter()

    for number, times, pause, way in plan:
        quotas.way = way
        for _ in range(times):
            received, batches = clock.boot(), len(quotas.counted_at)
            status = count(workers[number])
            assert 0 <= status.remaining < limit
            if status.is_allowed:
                # A request counts when its batch was taken, or when it was received.
                at = quotas.counted_at[-1] if len(quotas.counted_at) > batches else received
                window = bisect_right(quotas.started, at) - 1
                assert at < quotas.started[window] + rate.period
                spent[window] += 1
            else:
                assert clock.boot() + status.reset >= quotas.started[-1] + rate.period
        clock.advance(pause)

    assert max(spent.values(), default=0) <= limit


@given(limit=st.integers(1, 200), way=st.tuples(ways, ways))
def test_a_client_that_waits_for_the_reset_is_served(limit: int, way: tuple[float, float]) -> None:
    clock = FakeClock()
    rate = Rate(limit, 60)
    quotas = FakeQuotas(rate, clock)
    worker = RateLimiter(rate, quotas.take_batch, clock)
    quotas.way = way
    assert allowed(worker, limit) == limit
    refused = count(worker)
    assert not refused.is_allowed

    clock.advance(refused.reset)
    assert count(worker).is_allowed


# From the settings


def test_without_a_rate_nothing_is_counted(settings: Settings) -> None:
    settings.THROTTLE_RATE = None

    assert isinstance(rate_limiter(), Unlimited)
    assert rate_limiter().count("a") == UNCOUNTED


@pytest.mark.parametrize("redis", [False, True])
def test_the_rate_comes_from_the_settings(
    redis: bool, in_redis: Make, settings: Settings, valkey: Valkey
) -> None:
    settings.THROTTLE_RATE = (2, 60)
    settings.REDIS_URL = valkey.url if redis else ""
    made = rate_limiter()

    assert isinstance(made, RateLimiter)
    assert allowed(made, 5) == 2
    assert bool(valkey.client.keys()) == redis
    assert rate_limiter() is made


# Without waiting


def test_counts_at_once_only_what_is_left_of_a_batch() -> None:
    limiter = RateLimiter(Rate(10, 60), lambda client: Batch(2, 8, 60))

    assert limiter.try_count("a") is None
    assert count(limiter).remaining == 9
    status = limiter.try_count("a")
    assert status
    assert (status.is_allowed, status.remaining) == (True, 8)
    assert limiter.try_count("a") is None


def test_a_quota_that_is_used_up_refuses_at_once() -> None:
    limiter = in_process(1)
    count(limiter)

    status = limiter.try_count("a")

    assert status
    assert not status.is_allowed


def test_does_not_wait_for_a_thread_that_waits_for_redis() -> None:
    asked, release = threading.Event(), threading.Event()

    def take_batch(client: str) -> Batch:
        asked.set()
        release.wait(10)
        return Batch(5, 5, 60)

    limiter = RateLimiter(Rate(10, 60), take_batch)
    thread = threading.Thread(target=limiter.count, args=["a"])
    thread.start()
    asked.wait(10)

    assert limiter.try_count("a") is None

    release.set()
    thread.join()
    status = limiter.try_count("a")
    assert status
    assert status.remaining == 8


def test_without_a_limit_nothing_is_counted() -> None:
    assert Unlimited().count("a") == Unlimited().try_count("a") == UNCOUNTED
