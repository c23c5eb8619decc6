"""While Redis fails, each process serves its own entries; afterwards all share entries again.

Invalid values in Redis are in test_redis_invalid_values.py.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from fake_ghibli import FakeGhibli
from services import redis_connection
from tests.conftest import restart_service
from tests.support.fault_proxy import FaultProxy
from tests.support.scripted_upstream import FILMS, Gate, ScriptedUpstream, then
from tests.support.servers import Totoro, Valkey, wait_until
from totoro.env.connections import redis_caches

# Refreshes write to the database in another thread, outside a transaction of the test.
pytestmark = pytest.mark.django_db(transaction=True)

STATE = "totoro:1:{movies}:state"


@dataclass
class Redis:
    """The server, and the proxy in front of it."""

    server: Valkey
    proxy: FaultProxy

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.proxy.port}/0"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Valkey]:
    """Start a server for this module alone, as its tests change its configuration and kill it."""
    server = Valkey()
    yield server
    server.kill()


@pytest.fixture
def redis(redis_server: Valkey) -> Iterator[Redis]:
    """Return an empty Redis without faults."""
    redis_server.client.flushall()
    with FaultProxy(redis_server.port) as proxy:
        yield Redis(redis_server, proxy)


Fault = Callable[[Redis], AbstractContextManager[None]]


@contextmanager
def down(it: Redis) -> Iterator[None]:
    it.proxy.down()
    yield
    it.proxy.up()


@contextmanager
def resets(it: Redis) -> Iterator[None]:
    it.proxy.resets = True
    yield
    it.proxy.up()


@contextmanager
def silent(it: Redis) -> Iterator[None]:
    it.proxy.is_silent = True
    yield
    it.proxy.up()


@contextmanager
def ignores_syn(it: Redis) -> Iterator[None]:
    it.proxy.ignore_syn()
    yield
    it.proxy.up()


@contextmanager
def stopped(it: Redis) -> Iterator[None]:
    it.server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        it.server.send_signal(signal.SIGCONT)


@contextmanager
def full(it: Redis) -> Iterator[None]:
    it.server.client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        it.server.client.config_set("maxmemory", 0)


@contextmanager
def read_only(it: Redis) -> Iterator[None]:
    it.server.client.replicaof("127.0.0.1", "9")
    try:
        yield
    finally:
        it.server.client.replicaof("NO", "ONE")


@contextmanager
def with_a_password(it: Redis) -> Iterator[None]:
    it.server.client.config_set("requirepass", "acorn")
    it.proxy.close_connections()  # open connections stay authenticated
    try:
        yield
    finally:
        it.server.client.config_set("requirepass", "")


def repeatedly(do: Callable[[Redis], object]) -> Fault:
    @contextmanager
    def fault(it: Redis) -> Iterator[None]:
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.005):
                do(it)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return fault


def flush(it: Redis) -> None:
    it.server.client.flushall()


def an_hour_forward(it: Redis) -> None:
    """Expire every key that has less than an hour to live."""
    for key in it.server.client.scan_iter():
        if 0 < it.server.client.pttl(key) < 3_600_000:
            it.server.client.pexpire(key, 1)


def an_hour_back(it: Redis) -> None:
    """Let every key with an expiry live an hour longer."""
    for key in it.server.client.scan_iter():
        left = it.server.client.pttl(key)
        if 0 < left < 3_600_000:
            it.server.client.pexpire(key, left + 3_600_000)


@dataclass(frozen=True)
class Row:
    """A fault, whether /readyz reports the cache as working, and CACHE_TTL (seconds).

    The TTL is longer than 0.3 s, the time-out of a command, for faults that let commands time out.
    """

    fault: Fault
    cache_works: bool
    ttl: float = 0.2


ROWS = {
    "down": Row(down, cache_works=False),
    "resets": Row(resets, cache_works=False),
    "full": Row(full, cache_works=True),
    "read-only": Row(read_only, cache_works=True),
    "a password": Row(with_a_password, cache_works=False),
    "flushed": Row(repeatedly(flush), cache_works=True),
    "an hour forward": Row(repeatedly(an_hour_forward), cache_works=True),
    "an hour back": Row(repeatedly(an_hour_back), cache_works=True),
}
SLOW_ROWS = {
    "silent": Row(silent, cache_works=False, ttl=1),
    "ignores SYN": Row(ignores_syn, cache_works=False, ttl=1),
    "stopped": Row(stopped, cache_works=False, ttl=1),
}
every_row = pytest.mark.parametrize(
    "row",
    [
        *(pytest.param(row, id=what) for what, row in ROWS.items()),
        *(pytest.param(row, id=what, marks=pytest.mark.minutes) for what, row in SLOW_ROWS.items()),
    ],
)


@pytest.fixture
def row() -> Row:
    return Row(down, cache_works=False)


@pytest.fixture
def through(row: Row, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """Return Redis, with a service that uses it and has a short TTL."""
    settings.REDIS_URL = redis.url
    settings.CACHES = redis_caches(redis.url)
    settings.CACHE_TTL, settings.REFRESH_AHEAD = row.ttl, row.ttl / 3
    monkeypatch.setattr(
        redis_connection, "BREAKER_SECONDS", min(row.ttl, redis_connection.BREAKER_SECONDS)
    )
    return redis


def get_fresh(client: Client | Totoro, ttl: float) -> Any:
    """Return a response that was fresh when it was requested, however busy the machine is."""
    now = datetime.now(UTC)
    response = client.get("/movies/")
    assert response.status_code == 200
    assert "detail=" not in response.headers["Cache-Status"]
    timestamp = datetime.fromisoformat(response.json()["timestamp"])
    assert (now - timestamp).total_seconds() < ttl
    return response


def is_shared(redis: Redis) -> bool:
    return bool(redis.server.client.exists(STATE))


@every_row
def test_serves_fresh_data_from_the_process_during_a_fault_and_shares_it_afterwards(
    row: Row, through: Redis, api: Client, upstream: FakeGhibli
) -> None:
    # A process that starts during the fault.
    with row.fault(through):
        get_fresh(api, row.ttl)
        health = api.get("/readyz")
        assert health.status_code == 200
        assert (health.json()["ready"], health.json()["cache"]) == (True, row.cache_works)

    restart_service()
    wait_until(lambda: api.get("/movies/").status_code == 200 and is_shared(through))

    # A process with an entry, for three times the TTL, with about one refresh per entry.
    with row.fault(through):
        refreshes, timestamps = upstream.count("films"), set()
        end = time.monotonic() + 3 * row.ttl
        while time.monotonic() < end:
            timestamps.add(get_fresh(api, row.ttl).json()["timestamp"])
            time.sleep(0.01)
        assert len(timestamps) >= 2
        assert upstream.count("films") - refreshes <= 3 / 0.6 + 2

    flush(through)
    wait_until(lambda: api.get("/movies/").status_code == 200 and is_shared(through))


def seconds_of_a_first_request(through: Redis, api: Client, fault: Fault) -> float:
    """Return the best of three latencies of a new process, whose first request waits for a refresh."""

    def attempt() -> float:
        restart_service()
        through.server.client.flushall()
        with fault(through):
            started = time.monotonic()
            assert api.get("/movies/").status_code == 200
            return time.monotonic() - started

    return min(attempt() for _ in range(3))


@contextmanager
def working(it: Redis) -> Iterator[None]:
    yield


@contextmanager
def slow(it: Redis) -> Iterator[None]:
    it.proxy.latency = 0.15
    yield
    it.proxy.up()


in_real_time = pytest.mark.parametrize("row", [Row(working, cache_works=True, ttl=60)], ids=[""])


@in_real_time
@pytest.mark.parametrize("fault", [silent, ignores_syn, stopped, slow])
def test_a_request_that_waits_for_a_refresh_waits_at_most_a_third_of_a_second_longer(
    fault: Fault, row: Row, through: Redis, api: Client, upstream: FakeGhibli
) -> None:
    usual = seconds_of_a_first_request(through, api, working)

    assert seconds_of_a_first_request(through, api, fault) - usual < 0.3 + 0.05


@in_real_time
def test_a_hanging_redis_gets_one_command_per_pause_of_the_circuit_breaker(
    row: Row,
    through: Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    api: Client,
    upstream: FakeGhibli,
) -> None:
    assert redis_connection.BREAKER_SECONDS == 2
    monkeypatch.setattr(redis_connection, "BREAKER_SECONDS", 0.8)
    settings.CACHE_TTL, settings.REFRESH_AHEAD = 0.5, 0.2
    api.get("/movies/")
    with silent(through):
        through.proxy.request_times.clear()

        def has_two_requests() -> bool:
            assert api.get("/movies/").status_code == 200
            return len(through.proxy.request_times) >= 2

        wait_until(has_two_requests)
        times = list(through.proxy.request_times)

    assert all(
        later - earlier >= redis_connection.BREAKER_SECONDS for earlier, later in pairwise(times)
    )


# Faults during a refresh


@contextmanager
def refreshing(api: Client, gate: Gate) -> Iterator[list[Any]]:
    """Send a request whose refresh lasts as long as the block, and yield a list for its response."""
    responses: list[Any] = []
    thread = threading.Thread(target=lambda: responses.append(api.get("/movies/")))
    thread.start()
    assert gate.reached.wait(10)
    yield responses
    gate.opened.set()
    thread.join()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(gate: Gate, settings: Settings, through: Redis) -> Iterator[ScriptedUpstream]:
    settings.CACHE_TTL, settings.REFRESH_AHEAD = 60, 10
    with ScriptedUpstream(films=then(gate, FILMS)) as upstream:
        settings.GHIBLI_API_BASE_URL = upstream.url
        yield upstream


def goes_down(it: Redis) -> None:
    it.proxy.down()


def restarts_empty(it: Redis) -> None:
    it.proxy.down()
    flush(it)
    it.proxy.up()


def is_flushed(it: Redis) -> None:
    flush(it)


@pytest.mark.parametrize("happens", [goes_down, restarts_empty, is_flushed])
def test_a_fault_during_a_refresh_costs_neither_the_response_nor_another_refresh(
    happens: Callable[[Redis], None],
    through: Redis,
    api: Client,
    gate: Gate,
    gated: ScriptedUpstream,
) -> None:
    with refreshing(api, gate) as responses:
        happens(through)
    again = api.get("/movies/")

    [response] = responses
    assert response.status_code == again.status_code == 200
    assert response.content == again.content
    assert (gated.count("films"), gated.count("people")) == (1, 1)


def test_flushing_a_fresh_entry_costs_one_more_refresh_at_most(
    through: Redis, api: Client, gate: Gate, gated: ScriptedUpstream
) -> None:
    gate.opened.set()
    first = api.get("/movies/")
    flush(through)
    assert api.get("/movies/").content == first.content
    restart_service()  # a new process, without the entry
    second = api.get("/movies/")

    assert second.status_code == 200
    assert gated.count("films") <= 2


# Two workers


@pytest.fixture(scope="module")
def fleet(
    redis_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Totoro, FaultProxy, FakeGhibli]]:
    """Start a server with two workers while Redis is down."""
    with FakeGhibli() as upstream, FaultProxy(redis_server.port) as proxy:
        proxy.down()
        server = Totoro(
            tmp_path_factory.mktemp("fleet"),
            GHIBLI_API_BASE_URL=upstream.url,
            REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0",
            WEB_CONCURRENCY=2,
            CACHE_TTL=2,
            REFRESH_AHEAD=1,
            THROTTLE_RATE="100000/min",
        )
        yield server, proxy, upstream
        server.terminate()


def get_timestamps(server: Totoro) -> set[str]:
    """Return the timestamps of several responses, which come from both workers."""
    return {get_fresh(server, 2).json()["timestamp"] for _ in range(12)}


def share_one_entry(server: Totoro) -> bool:
    """Try twice, because the entry may expire during the first attempt."""
    return any(len(get_timestamps(server)) == 1 for _ in range(2))


@pytest.mark.minutes
def test_workers_serve_their_own_entries_without_redis_and_share_them_when_it_is_up(
    fleet: tuple[Totoro, FaultProxy, FakeGhibli],
) -> None:
    server, proxy, upstream = fleet
    assert len(server.workers) == 2
    get_timestamps(server)
    health = server.get("/readyz").json()
    assert (health["ready"], health["cache"]) == (True, False)

    proxy.up()
    wait_until(lambda: server.get("/readyz").json()["cache"])
    # Both serve the same entries, and one refresh serves both.
    wait_until(lambda: all(share_one_entry(server) for _ in range(2)))
    refreshes, timestamps = upstream.count("films"), set[str]()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        timestamps |= get_timestamps(server)
        time.sleep(0.05)
    assert upstream.count("films") - refreshes <= len(timestamps) + 1


@pytest.mark.minutes
def test_workers_share_entries_again_after_redis_was_killed(
    fleet: tuple[Totoro, FaultProxy, FakeGhibli], redis_server: Valkey
) -> None:
    server, proxy, upstream = fleet
    proxy.up()
    wait_until(lambda: all(share_one_entry(server) for _ in range(3)))

    redis_server.kill()
    refreshes = upstream.count("films")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        get_timestamps(server)
        time.sleep(0.05)
    # At most one refresh per second and worker.
    assert upstream.count("films") - refreshes <= 2 * (3 + 1)

    redis_server.start()
    wait_until(lambda: all(share_one_entry(server) for _ in range(3)))


@pytest.mark.minutes
def test_requests_are_fast_while_redis_hangs(
    fleet: tuple[Totoro, FaultProxy, FakeGhibli], redis_server: Valkey
) -> None:
    """Requests use Redis too, for the rate limit."""
    server, proxy, _ = fleet
    proxy.up()
    get_timestamps(server)
    seconds = []
    redis_server.send_signal(signal.SIGSTOP)
    try:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            seconds.append(get_fresh(server, 2).elapsed.total_seconds())
            time.sleep(0.01)
    finally:
        redis_server.send_signal(signal.SIGCONT)

    # Two workers, each once every two seconds, and some that a busy machine delays.
    assert len([one for one in seconds if one > 0.15]) <= 2 * 3 + len(seconds) * 0.05
