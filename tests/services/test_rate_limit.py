"""What a client may ask, counted for all workers: in the process, in a real Valkey, by a fake clock."""

import math
import signal
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
    BATCHES,
    CLIENTS,
    LAST_PARTS,
    Decision,
    Grant,
    ProcessLedger,
    Quotas,
    Rate,
    RedisLedger,
    Unlimited,
    quotas,
)
from services.redis_connection import BREAKER_SECONDS
from tests.support.fakes import FakeClock
from tests.support.servers import Valkey
from totoro.settings import redis_caches

Make = Callable[..., Quotas]


@pytest.fixture
def in_redis(settings: Settings, valkey: Valkey) -> Make:
    """Makes what one worker has."""
    settings.CACHES = redis_caches(valkey.url)

    def make(limit: int, period: int = 60, clock: Clock | None = None) -> Quotas:
        rate = Rate(limit, period)
        return Quotas(rate, RedisLedger(rate, clock), clock)

    return make


def in_process(limit: int, period: int = 60, clock: Clock | None = None) -> Quotas:
    rate = Rate(limit, period)
    return Quotas(rate, ProcessLedger(rate), clock)


@pytest.fixture(params=["process", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = in_process if request.param == "process" else request.getfixturevalue("in_redis")
    return made


def take(worker: Quotas, client: str = "a") -> Decision:
    decision = worker.take(client)
    assert decision
    return decision


def allowed(worker: Quotas, times: int, client: str = "a") -> int:
    return sum(take(worker, client).allowed for _ in range(times))


def round_trips(valkey: Valkey) -> int:
    """All that Valkey was asked from outside since its statistics were reset."""
    stats = valkey.client.info("commandstats")
    assert isinstance(stats, dict)
    inner = ("get", "set", "pttl", "incrby", "info", "config|resetstat")
    return sum(
        told["calls"] for name, told in stats.items() if name.removeprefix("cmdstat_") not in inner
    )


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_threads_together_get_the_limit_and_not_one_more(make: Make, limit: int) -> None:
    worker = make(limit)
    with ThreadPoolExecutor(20) as pool:
        decisions = list(pool.map(lambda _: take(worker), range(limit + 200)))

    assert sum(decision.allowed for decision in decisions) == limit
    assert {decision.remaining for decision in decisions if not decision.allowed} == {0}


@pytest.mark.parametrize("limit", [1, 7, 600])
def test_workers_together_get_the_limit_and_not_one_more(in_redis: Make, limit: int) -> None:
    workers = [in_redis(limit) for _ in range(4)]
    asking = islice(cycle(workers), limit + 400)
    with ThreadPoolExecutor(20) as pool:
        decisions = list(pool.map(take, asking))

    assert sum(decision.allowed for decision in decisions) == limit


def test_a_client_that_stays_with_one_worker_gets_nearly_all(in_redis: Make) -> None:
    workers = [in_redis(600) for _ in range(4)]
    for worker in workers[1:]:
        take(worker)

    assert 600 - 3 * 600 // BATCHES <= allowed(workers[0], 700) < 600


def test_each_client_has_a_quota_of_its_own(make: Make) -> None:
    worker = make(3)
    allowed(worker, 4, "a")

    assert not take(worker, "a").allowed
    assert allowed(worker, 4, "b") == 3


def test_what_remains_is_told(make: Make) -> None:
    worker = make(3)

    assert [take(worker).remaining for _ in range(5)] == [2, 1, 0, 0, 0]


def test_the_window_begins_with_the_first_request(make: Make) -> None:
    worker = make(2, 60)

    assert 59 < take(worker).reset <= 60.1
    assert take(worker).reset < take(worker).reset + 60


def test_when_its_window_is_over_a_client_may_ask_again(make: Make) -> None:
    worker = make(2, 1)
    started = time.monotonic()
    assert allowed(worker, 3) == 2
    refused = take(worker)
    time.sleep(refused.reset)

    assert time.monotonic() - started > 0.998  # Redis counts milliseconds
    assert allowed(worker, 3) == 2


def test_another_worker_joins_the_window(in_redis: Make) -> None:
    clock = FakeClock()
    first, second = in_redis(4), in_redis(4, clock=clock)
    assert allowed(first, 5) == 4

    refused = take(second)
    assert not refused.allowed
    assert 58 < refused.reset <= 60


# What Redis has to do


@pytest.mark.parametrize("workers", [1, 4])
def test_redis_is_asked_for_few_of_the_allowed_and_none_of_the_refused(
    in_redis: Make, valkey: Valkey, workers: int
) -> None:
    made = [in_redis(600) for _ in range(workers)]
    allowed(made[0], 1, "warm")  # so that Valkey knows the script
    valkey.client.config_resetstat()

    asking = islice(cycle(made), 700)
    assert sum(take(worker).allowed for worker in asking) == 600
    asked = round_trips(valkey)
    assert 600 / BATCHES <= asked <= 0.2 * 600

    refusals = [take(worker) for worker in islice(cycle(made), 1000)]
    assert not any(refused.allowed for refused in refusals)
    assert round_trips(valkey) == asked


def test_a_count_leaves_with_its_window(in_redis: Make, valkey: Valkey) -> None:
    take(in_redis(600, 60), "192.0.2.1")

    assert valkey.client.keys() == [b"totoro:1:quota:600/60:192.0.2.1"]
    assert 59_000 < int(valkey.client.pttl("totoro:1:quota:600/60:192.0.2.1")) <= 60_000


def test_with_another_rate_the_window_is_another(in_redis: Make) -> None:
    assert allowed(in_redis(3, 60), 5) == 3
    assert allowed(in_redis(4, 60), 5) == 4
    assert allowed(in_redis(4, 61), 5) == 4


FOREIGN: dict[str, Callable[[Valkey, str], object]] = {
    "rubbish": lambda valkey, key: valkey.client.set(key, "rubbish", px=50_000),
    "a fraction": lambda valkey, key: valkey.client.set(key, "1.5", px=50_000),
    "less than nothing": lambda valkey, key: valkey.client.set(key, "-5", px=50_000),
    "a list": lambda valkey, key: valkey.client.rpush(key, "1"),
    "no end": lambda valkey, key: valkey.client.set(key, "2"),
    "more than the limit": lambda valkey, key: valkey.client.set(key, "9" * 30, px=5000),
    "outlasts its period": lambda valkey, key: valkey.client.set(key, "2", px=3_600_000),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_value_that_is_not_ours_is_replaced(what: str, in_redis: Make, valkey: Valkey) -> None:
    key = "totoro:1:quota:3/60:a"
    FOREIGN[what](valkey, key)

    assert allowed(in_redis(3), 5) == 3
    assert 0 < int(valkey.client.pttl(key)) <= 60_000


@pytest.mark.parametrize("limit", [1, 7, 39, 80, 600, 100_000])
def test_redis_leases_as_the_model_does(in_redis: Make, valkey: Valkey, limit: int) -> None:
    clock = FakeClock()
    ledger, model = RedisLedger(Rate(limit, 60)), Shared(Rate(limit, 60), clock)
    leased = list(iter(lambda: parts(ledger.lease("a")), (0, 0)))

    assert leased == list(iter(lambda: parts(model.lease("a")), (0, 0)))
    assert sum(tokens for tokens, _ in leased) == limit


def parts(grant: Grant | None) -> tuple[int, int]:
    assert grant
    return grant.tokens, grant.remaining


# Redis away


def test_without_redis_everybody_passes(in_redis: Make, settings: Settings) -> None:
    settings.CACHES = redis_caches("redis://127.0.0.1:9/0")

    assert in_redis(1).take("a") is None


def test_a_hung_redis_costs_little_and_rarely(in_redis: Make, valkey: Valkey) -> None:
    worker = in_redis(1)
    valkey.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(10) as pool:
            decisions = list(pool.map(worker.take, [str(i % 20) for i in range(200)]))
        assert time.monotonic() - started < 0.35
    finally:
        valkey.send_signal(signal.SIGCONT)
    assert set(decisions) == {None}


def test_the_two_connections_have_time_outs_of_their_own(settings: Settings) -> None:
    settings.CACHES = redis_caches("redis://127.0.0.1:9/7")
    pools = [get_redis_connection(alias).connection_pool for alias in ("default", "quotas")]

    assert [pool.connection_kwargs["socket_timeout"] for pool in pools] == [0.2, 0.1]
    assert [pool.connection_kwargs["db"] for pool in pools] == [7, 7]


def test_a_redis_that_answers_after_150_ms_is_left_alone(in_redis: Make, valkey: Valkey) -> None:
    worker = in_redis(100)
    take(worker, "warm")
    valkey.client.client_pause(150)
    started = time.monotonic()

    assert [worker.take(f"{i}") for i in range(50)] == [None] * 50
    assert time.monotonic() - started < 0.3


def test_a_redis_that_cannot_write_is_like_none(in_redis: Make, valkey: Valkey) -> None:
    valkey.client.config_set("maxmemory", 1)
    try:
        assert in_redis(1).take("a") is None
    finally:
        valkey.client.config_set("maxmemory", 0)


def test_what_is_known_holds_while_redis_is_away(in_redis: Make, valkey: Valkey) -> None:
    clock = FakeClock()
    worker = in_redis(80, clock=clock)
    allowed(worker, 81, "refused")
    take(worker, "half")  # of a batch of two
    valkey.client.config_set("maxmemory", 1)
    try:
        assert worker.take("new") is None
        assert not take(worker, "refused").allowed
        assert take(worker, "half").allowed
        assert worker.take("half") is None
    finally:
        valkey.client.config_set("maxmemory", 0)
    clock.advance(BREAKER_SECONDS)
    assert take(worker, "half").remaining == 80 - 3


def test_when_redis_is_back_it_counts_again(in_redis: Make, valkey: Valkey) -> None:
    clock = FakeClock()
    worker = in_redis(1, clock=clock)
    valkey.client.config_set("maxmemory", 1)
    try:
        assert worker.take("a") is None
    finally:
        valkey.client.config_set("maxmemory", 0)
    assert worker.take("a") is None  # left alone
    clock.advance(BREAKER_SECONDS)

    assert allowed(worker, 3) == 1


# Memory


def test_a_flood_of_addresses_costs_no_more_than_it_may() -> None:
    worker = in_process(1)
    tracemalloc.start()
    try:
        for i in range(CLIENTS):
            worker.take(f"2001:db8:{i:x}::/64")
        full = tracemalloc.get_traced_memory()[0]
        for i in range(2 * CLIENTS):
            worker.take(f"2001:db9:{i:x}::/64")
        grown = tracemalloc.get_traced_memory()[0] - full
    finally:
        tracemalloc.stop()

    assert full < 600 * CLIENTS
    assert grown < full / 2


def test_who_asked_last_is_remembered_longest() -> None:
    worker = in_process(1)
    allowed(worker, 1, "busy")
    allowed(worker, 1, "idle")
    for i in range(CLIENTS - 1):
        worker.take("busy")
        worker.take(f"{i}")

    assert not take(worker, "busy").allowed
    assert take(worker, "idle").allowed


# The arithmetic, by a fake clock


class Shared:
    """The count in Redis, as a model: the way there and back takes time; windows are noted."""

    def __init__(self, rate: Rate, clock: FakeClock) -> None:
        self._rate, self._clock = rate, clock
        self.begun: list[float] = []
        self.asked_at: list[float] = []
        self.way = (0.0, 0.0)
        self._used = 0

    def lease(self, client: str) -> Grant:
        self._clock.advance(self.way[0])
        now = self._clock.boot()
        self.asked_at.append(now)
        if not self.begun or now >= self.begun[-1] + self._rate.period:
            self.begun.append(now)
            self._used = 0
        remaining = self._rate.limit - self._used
        batch = math.ceil(self._rate.limit / BATCHES)
        tokens = min(batch, math.ceil(remaining / LAST_PARTS))
        self._used += tokens
        left = self.begun[-1] + self._rate.period - now
        self._clock.advance(self.way[1])
        return Grant(tokens, remaining - tokens, left)


ways = st.sampled_from([0.0, 0.001, 0.1, 0.2])
steps = st.tuples(
    st.integers(0, 2),  # which worker is asked
    st.integers(1, 30),  # how often
    st.sampled_from([0.0, 0.01, 0.2, 0.9, 1.0, 2.5]),  # seconds until the next
    st.tuples(ways, ways),
)


@given(limit=st.sampled_from([1, 3, 10, 100]), plan=st.lists(steps, max_size=30))
def test_no_window_ever_sees_more_than_the_limit(
    limit: int, plan: list[tuple[int, int, float, tuple[float, float]]]
) -> None:
    clock = FakeClock()
    rate = Rate(limit, 1)
    shared = Shared(rate, clock)
    workers = [Quotas(rate, shared, clock) for _ in range(3)]
    spent: Counter[int] = Counter()

    for number, times, pause, way in plan:
        shared.way = way
        for _ in range(times):
            came, asked = clock.boot(), len(shared.asked_at)
            decision = take(workers[number])
            assert 0 <= decision.remaining < limit
            if decision.allowed:
                # A request counts where the ledger was asked for it, else when it came.
                at = shared.asked_at[-1] if len(shared.asked_at) > asked else came
                window = bisect_right(shared.begun, at) - 1
                assert at < shared.begun[window] + rate.period
                spent[window] += 1
            else:
                assert clock.boot() + decision.reset >= shared.begun[-1] + rate.period
        clock.advance(pause)

    assert max(spent.values(), default=0) <= limit


@given(limit=st.integers(1, 200), way=st.tuples(ways, ways))
def test_who_waits_as_long_as_it_is_told_is_served(limit: int, way: tuple[float, float]) -> None:
    clock = FakeClock()
    rate = Rate(limit, 60)
    shared = Shared(rate, clock)
    worker = Quotas(rate, shared, clock)
    shared.way = way
    assert allowed(worker, limit) == limit
    refused = take(worker)
    assert not refused.allowed

    clock.advance(refused.reset)
    assert take(worker).allowed


# From the settings


def test_without_a_rate_nobody_counts(settings: Settings) -> None:
    settings.THROTTLE_RATE = None

    assert isinstance(quotas(), Unlimited)
    assert quotas().take("a") is None


@pytest.mark.parametrize("redis", [False, True])
def test_the_rate_is_that_of_the_settings(
    redis: bool, in_redis: Make, settings: Settings, valkey: Valkey
) -> None:
    settings.THROTTLE_RATE = (2, 60)
    settings.REDIS_URL = valkey.url if redis else ""
    made = quotas()

    assert isinstance(made, Quotas)
    assert allowed(made, 5) == 2
    assert bool(valkey.client.keys()) == redis
    assert quotas() is made
