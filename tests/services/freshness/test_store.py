"""The shared store, in memory and in a real Valkey by the same rules; whatever Redis holds or says."""

import pickle
import signal
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from pytest_django.fixtures import Settings

from services.catalogue.snapshot import Snapshot
from services.exceptions import Reason
from services.freshness.policy import Policy
from services.freshness.redis_store import LEASE, PREFIX, STATE, RedisStore
from services.freshness.state import SECOND, Backoff, Entry, State, microseconds
from services.freshness.store import LEASE_SECONDS, InMemoryStore, Reading
from services.redis_connection import BREAKER_SECONDS
from tests.support.fakes import make_snapshot
from tests.support.reply_proxy import ReplyProxy
from tests.support.servers import Valkey
from totoro.env.connections import redis_caches

POLICY = Policy(ttl=60, refresh_ahead=10, stale_if_error=3600)


def in_memory(settings: Settings, valkey: Valkey) -> InMemoryStore:
    return InMemoryStore()


def in_redis(settings: Settings, valkey: Valkey) -> RedisStore:
    settings.CACHES = redis_caches(valkey.url)
    return RedisStore(POLICY)


@pytest.fixture(params=[in_memory, in_redis])
def store(request: pytest.FixtureRequest, settings: Settings, valkey: Valkey) -> InMemoryStore:
    made: InMemoryStore = request.param(settings, valkey)
    return made


@pytest.fixture
def redis_store(settings: Settings, valkey: Valkey) -> RedisStore:
    return in_redis(settings, valkey)


def boot() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * SECOND)


def made(token: int, *, left: float = 50, ahead: float = 0) -> tuple[State, Snapshot]:
    """A state with one entry, which expires in `left` seconds; its data is dated `ahead`."""
    snapshot = make_snapshot(datetime.now(UTC) + timedelta(seconds=left - 59.5 + ahead))
    now = boot()
    timestamp, end = microseconds(snapshot.timestamp), now + int(left * SECOND)
    return State(Entry(token, snapshot.digest, timestamp, now, end)), snapshot


def put(store: InMemoryStore, token: int = 1, **options: float) -> tuple[State, Snapshot]:
    state, snapshot = made(token, **options)
    assert store.compare_and_set(store.read(), state, [snapshot])
    return state, snapshot


def until(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def counted() -> float:
    return REGISTRY.get_sample_value("totoro_redis_invalid_values_total") or 0.0


def test_an_empty_store_holds_nothing_and_grants_the_lease(store: InMemoryStore) -> None:
    assert store.read().state == State()
    assert store.get_movies("a" * 64) is None
    assert store.acquire_lease()[0]


def test_what_is_set_is_read_with_its_movies(store: InMemoryStore) -> None:
    state, snapshot = put(store)

    read = store.read().state
    assert read.current
    assert state.current
    assert (read.current.token, read.current.timestamp) == (1, state.current.timestamp)
    assert abs(read.current.expires_at - state.current.expires_at) < SECOND // 10
    assert store.get_movies(snapshot.digest) == snapshot.movies


def test_what_changed_since_it_was_read_is_not_overwritten(store: InMemoryStore) -> None:
    reading = store.read()
    put(store, 1)
    put(store, 2)
    state, snapshot = made(3)
    assert not store.compare_and_set(
        Reading(made(1)[0], reading.time, b"what was there"), state, [snapshot]
    )

    assert store.read().state.newest_token == 2


def test_a_backoff_is_shared(store: InMemoryStore) -> None:
    backoff = Backoff(2, Reason.DNS, boot() + 5 * SECOND)
    store.compare_and_set(store.read(), State(None, None, backoff), [])

    read = store.read().state.backoff
    assert read
    assert (read.failures, read.reason) == (2, Reason.DNS)
    assert abs(read.until - backoff.until) < SECOND // 10


def test_one_at_a_time_holds_the_lease(store: InMemoryStore) -> None:
    lease = store.acquire_lease()[0]
    assert lease
    assert store.acquire_lease()[0] is None
    store.release_lease(lease)
    assert store.acquire_lease()[0]


def test_a_lease_is_renewed_and_released_by_its_holder_only(store: InMemoryStore) -> None:
    lease = store.acquire_lease()[0]
    assert lease
    assert store.renew_lease(lease)
    assert not store.renew_lease("somebody-else")
    store.release_lease("somebody-else")
    assert store.acquire_lease()[0] is None


@pytest.mark.slow
def test_the_lease_of_a_dead_holder_ends(store: InMemoryStore) -> None:
    store.acquire_lease()[0]
    started = time.monotonic()
    until(lambda: store.acquire_lease()[0] is not None, seconds=LEASE_SECONDS + 1)

    assert LEASE_SECONDS - 0.5 < time.monotonic() - started <= LEASE_SECONDS + 0.5


# Redis alone


def test_processes_share_through_redis(redis_store: RedisStore) -> None:
    _, snapshot = put(redis_store)
    other = RedisStore(POLICY)

    assert other.read().state.newest_token == 1
    assert other.get_movies(snapshot.digest) == snapshot.movies


def test_keys_carry_the_version_of_their_format(redis_store: RedisStore, valkey: Valkey) -> None:
    put(redis_store)
    redis_store.acquire_lease()[0]

    assert all(key.startswith(b"totoro:1:{movies}:") for key in valkey.client.scan_iter())


RUBBISH: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda good: good[: len(good) // 2],
    "one bit flipped": lambda good: good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
    "a number": lambda good: b"123",
    "inf": lambda good: b"inf",
    "a negative number": lambda good: b"-1",
    "a huge number": lambda good: b"9" * 400,
    "null": lambda good: b"null",
    "a pickle": lambda good: pickle.dumps({"api_data": []}),
    "no text": lambda good: b"\xff\xfe\x00",
    "nested": lambda good: b"[" * 100_000,
    "100 MB": lambda good: b"x" * 100_000_000,
}


@pytest.mark.parametrize("name", ["state", "movies"])
@pytest.mark.parametrize("what", RUBBISH)
def test_a_value_that_is_not_ours_is_a_miss_counted_logged_and_removed(
    what: str,
    name: str,
    redis_store: RedisStore,
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, snapshot = put(redis_store)
    key = STATE if name == "state" else PREFIX + snapshot.digest
    good = valkey.client.get(key)
    assert isinstance(good, bytes)
    before = counted()
    for _ in range(2):
        valkey.client.set(key, RUBBISH[what](good))
        if name == "state":
            assert redis_store.read().state == State()
        else:
            assert redis_store.get_movies(snapshot.digest) is None
        assert not valkey.client.exists(key)

    assert counted() == before + 2
    assert caplog.text.count("redis_value_invalid") == 2
    put(redis_store, 2)
    assert redis_store.read().state.newest_token == 2


TYPES: dict[str, Callable[[Valkey, str], object]] = {
    "list": lambda valkey, key: valkey.client.rpush(key, "x"),
    "set": lambda valkey, key: valkey.client.sadd(key, "x"),
    "hash": lambda valkey, key: valkey.client.hset(key, "x", "y"),
    "sorted set": lambda valkey, key: valkey.client.zadd(key, {"x": 1}),
    "stream": lambda valkey, key: valkey.client.xadd(key, {"x": "y"}),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["state", "movies", "lease"])
def test_a_value_of_another_type_is_a_miss_and_removed(
    name: str, kind: str, redis_store: RedisStore, valkey: Valkey
) -> None:
    _, snapshot = made(1)
    key = {"state": STATE, "movies": PREFIX + snapshot.digest, "lease": LEASE}[name]
    TYPES[kind](valkey, key)

    assert redis_store.read().state == State()
    assert redis_store.get_movies(snapshot.digest) is None
    assert not redis_store.renew_lease("mine")
    redis_store.release_lease("mine")
    assert redis_store.acquire_lease()[0]
    put(redis_store)
    assert redis_store.read().state.newest_token == 1


@pytest.mark.parametrize("milliseconds", [None, 3_600_000])
def test_a_lease_that_outlasts_itself_is_removed(
    redis_store: RedisStore, valkey: Valkey, milliseconds: int | None
) -> None:
    valkey.client.set(LEASE, "another", px=milliseconds)
    assert redis_store.acquire_lease()[0] is None

    redis_store.read()

    assert redis_store.acquire_lease()[0]


@pytest.mark.parametrize("options", [{"ahead": 15.5}, {"left": 61}, {"ahead": 1e6}])
def test_an_entry_that_is_not_plausible_is_removed(
    redis_store: RedisStore, options: dict[str, Any]
) -> None:
    put(redis_store, **options)
    before = counted()

    assert redis_store.read().state == State()
    assert counted() == before + 1
    assert redis_store.read().state == State()
    assert counted() == before + 1  # it is not there any more


def test_a_token_with_no_greater_one_is_removed(redis_store: RedisStore) -> None:
    """Else what is published next could not be read."""
    state, snapshot = made(10**17)
    redis_store.compare_and_set(redis_store.read(), state, [snapshot])

    assert redis_store.read().state == State()
    put(redis_store)
    assert RedisStore(POLICY).read().state.newest_token == 1


def test_a_backoff_without_an_end_is_not_believed(redis_store: RedisStore) -> None:
    backoff = Backoff(1, Reason.DNS, boot() + 3600 * SECOND)
    redis_store.compare_and_set(redis_store.read(), State(None, None, backoff), [])

    assert redis_store.read().state.backoff is None


def test_an_implausible_backoff_costs_no_entry(redis_store: RedisStore) -> None:
    state, snapshot = made(1)
    backoff = Backoff(1, Reason.DNS, boot() + 3600 * SECOND)
    state = msgspec.structs.replace(state, backoff=backoff)
    redis_store.compare_and_set(redis_store.read(), state, [snapshot])

    for store in (redis_store, RedisStore(POLICY)):
        assert store.read().state.newest_token == 1
        assert store.read().state.backoff is None


def test_an_entry_from_redis_ends_when_the_wall_clock_says_so(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    """As if Redis' clock had been set back by 20 s since it was published."""
    state, snapshot = made(1, left=30)
    assert state.current
    later = msgspec.structs.replace(state.current, expires_at=boot() + 50 * SECOND)
    redis_store.compare_and_set(redis_store.read(), State(later), [snapshot])

    read = RedisStore(POLICY).read().state.current
    assert read
    assert read.expires_at < boot() + 30.1 * SECOND


def test_without_redis_the_process_uses_its_own_state(settings: Settings) -> None:
    settings.CACHES = redis_caches("redis://127.0.0.1:9/0")
    store = RedisStore(POLICY)

    _, snapshot = put(store)

    assert store.acquire_lease()[0]
    assert store.read().state.newest_token == 1
    assert store.get_movies(snapshot.digest) == snapshot.movies
    assert not store.is_available()


def test_a_hung_redis_costs_little_and_rarely(redis_store: RedisStore, valkey: Valkey) -> None:
    valkey.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        for _ in range(50):
            redis_store.read()
        assert time.monotonic() - started < 0.35
    finally:
        valkey.send_signal(signal.SIGCONT)
    assert BREAKER_SECONDS == 2


def test_a_redis_that_cannot_write_is_like_none(redis_store: RedisStore, valkey: Valkey) -> None:
    valkey.client.config_set("maxmemory", 1)
    try:
        state, snapshot = made(1)
        reading = redis_store.read()
        redis_store.compare_and_set(reading, state, [snapshot])
        assert redis_store.read().state == state
    finally:
        valkey.client.config_set("maxmemory", 0)


def test_a_dropped_connection_is_tried_once_more(redis_store: RedisStore, valkey: Valkey) -> None:
    put(redis_store)
    for client in valkey.client.client_list():
        if client["id"] != str(valkey.client.client_id()):
            valkey.client.client_kill_filter(_id=client["id"])

    assert redis_store.read().document


# Whatever it replies

REPLIES = [
    *(b"+OK\r\n", b"$-1\r\n", b"*-1\r\n", b":0\r\n", b":-1\r\n", b":99999999999999999999\r\n"),
    *(b"*0\r\n", b"*1\r\n$1\r\nx\r\n", b"*2\r\n:1\r\n:2\r\n", b"$3\r\ninf\r\n", b"$2\r\n-1\r\n"),
    *(b"-ERR no\r\n", b"-NOAUTH no\r\n", b"-LOADING no\r\n", b"-WRONGTYPE no\r\n"),
    *(
        b"nonsense\r\n",
        b":x\r\n",
        b"$x\r\n",
        b"*x\r\n",
        b"\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"\xff\r\n",
    ),
    b"*2\r\n$3\r\ninf\r\n$2\r\n-1\r\n",
]


@contextmanager
def redis_that_says(reply: bytes) -> Iterator[int]:
    """A server with one reply to everything; gives its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(100_000):
                self.request.sendall(reply * 5)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("reply", [b"$-1\r\n", b"+QUEUED\r\n", b":7\r\n", b"*0\r\n"])
def test_a_lease_is_acquired_whatever_redis_replies_to_set(
    settings: Settings, valkey: Valkey, reply: bytes
) -> None:
    """Its holder decides: else no process would ever refresh, nor use its own memory."""
    with ReplyProxy(valkey.port) as proxy:
        proxy.commands, proxy.replacement = {"SET"}, reply
        settings.CACHES = redis_caches(f"redis://127.0.0.1:{proxy.port}/0")
        lease, _ = RedisStore(POLICY).acquire_lease()

        assert lease
        assert valkey.client.get(LEASE) == lease.encode()
    assert in_redis(settings, valkey).acquire_lease()[0] is None


def every_call(store: RedisStore) -> dict[str, Callable[[], object]]:
    state, snapshot = made(1)
    return {
        "read": store.read,
        "acquire": store.acquire_lease,
        "renew": lambda: store.renew_lease("mine"),
        "set": lambda: store.compare_and_set(Reading(State(), 0), state, [snapshot]),
        "movies": lambda: store.get_movies("a" * 64),
        "available": store.is_available,
    }


@pytest.mark.parametrize("reply", REPLIES)
def test_the_process_uses_its_own_state_whatever_redis_replies(
    settings: Settings, reply: bytes
) -> None:
    with redis_that_says(reply) as port:
        settings.CACHES = redis_caches(f"redis://127.0.0.1:{port}/0")
        for first in ("read", "acquire", "renew", "set", "movies", "available"):
            store = RedisStore(POLICY)
            calls = every_call(store)
            calls.pop(first)()
            for call in calls.values():
                call()
            store.release_lease("mine")
            assert isinstance(store.read().state, State)
