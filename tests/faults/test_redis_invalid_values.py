"""Invalid values and replies from Redis count as a miss, and are replaced."""

import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings
from redis import Redis, ResponseError

from fake_ghibli import FakeGhibli
from services.rate_limit import rate_limiter
from tests.conftest import restart_service
from tests.support.reply_proxy import REPLIES, ReplyProxy
from tests.support.servers import Valkey, wait_until
from totoro.env.connections import redis_caches

pytestmark = pytest.mark.django_db(transaction=True)

# How long a request that reads an invalid value may take on a busy machine.
MAX_SECONDS = 2.0

VALUES: dict[str, bytes] = {
    "empty": b"",
    "text": b"acorn",
    "not UTF-8": b"\xff\xfe\xfd",
    "number": b"123",
    "minus": b"-1",
    "zero": b"0",
    "infinity": b"inf",
    "not a number": b"nan",
    "exponent": b"1e308",
    "many digits": b"9" * 400,
    "words": b"1 2 3 4 5",
    "a number and a word": b"9" * 400 + b" dns",
    "JSON": b'{"version":1}',
    "a list in JSON": b"[1,2,3]",
    "null in JSON": b"null",
    "deep JSON": b"[" * 100_000,
    "a pickle": pickle.dumps({"api_data": []}),
    "a NUL": b"\x00",
    "20 MB": b"x" * 20_000_000,
}
TYPES: dict[str, Callable[[Redis, str], object]] = {
    "list": lambda redis, key: redis.rpush(key, "a", "b"),
    "set": lambda redis, key: redis.sadd(key, "a"),
    "hash": lambda redis, key: redis.hset(key, "a", "b"),
    "sorted set": lambda redis, key: redis.zadd(key, {"a": 1}),
    "stream": lambda redis, key: redis.xadd(key, {"a": "b"}),
}
# Milliseconds. A value that never expires must not prevent refreshes for ever.
EXPIRIES = {"never": None, "an hour": 3_600_000, "a second": 1000}


def quick_and_other(names: Iterable[str], *quick: str) -> list[Any]:
    """Return parameters: `make test` runs the quick ones, `make test-faults` all of them."""
    marks = {name: () if name in quick else (pytest.mark.minutes,) for name in names}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


def write_invalid(kind: str) -> Callable[[Redis, str], object]:
    if kind in TYPES:
        return TYPES[kind]
    return lambda redis, key: redis.set(key, VALUES[kind])


@pytest.fixture
def proxy(valkey: Valkey, settings: Settings) -> Iterator[ReplyProxy]:
    """A service with Redis behind a proxy, a rate limit and a short TTL."""
    with ReplyProxy(valkey.port) as proxy:
        settings.REDIS_URL = f"redis://127.0.0.1:{proxy.port}/0"
        settings.CACHES = redis_caches(settings.REDIS_URL)
        settings.CACHE_TTL, settings.REFRESH_AHEAD = 1, 0.3
        settings.THROTTLE_RATE = (1_000_000, 60)
        yield proxy
        restart_service()


def assert_fresh_and_fast(api: Client) -> None:
    started = time.monotonic()
    response = api.get("/movies/")
    assert response.status_code == 200
    assert "detail=" not in response["Cache-Status"]
    assert time.monotonic() - started < MAX_SECONDS


def keys_in_use(
    api: Client, proxy: ReplyProxy, upstream: FakeGhibli, settings: Settings
) -> set[str]:
    """Return every key that a successful refresh, a failed one and the rate limit use."""
    assert_fresh_and_fast(api)
    restart_service()
    upstream.faults.set({"status": 500})
    wait_until(lambda: "detail=" in api.get("/movies/")["Cache-Status"])
    upstream.faults.set({"status": None})
    assert len(proxy.keys) >= 4
    return proxy.keys


@pytest.mark.parametrize("expiry", quick_and_other(EXPIRIES, "never"))
@pytest.mark.parametrize("kind", [*VALUES, *TYPES])
def test_serves_fresh_data_with_an_invalid_value_in_any_key(
    kind: str,
    expiry: str,
    proxy: ReplyProxy,
    valkey: Valkey,
    api: Client,
    upstream: FakeGhibli,
    settings: Settings,
) -> None:
    keys = keys_in_use(api, proxy, upstream, settings)

    for key in sorted(keys):
        restart_service()
        valkey.client.flushall()
        write_invalid(kind)(valkey.client, key)
        if milliseconds := EXPIRIES[expiry]:
            valkey.client.pexpire(key, milliseconds)
        assert_fresh_and_fast(api)
        assert_fresh_and_fast(api)
    # Then workers share entries again: a new one uses what the last one fetched.
    wait_until(lambda: is_shared(api, upstream), what="workers share an entry again")


def is_shared(api: Client, upstream: FakeGhibli) -> bool:
    assert_fresh_and_fast(api)
    refreshes = upstream.count("films")
    restart_service()
    assert_fresh_and_fast(api)
    return upstream.count("films") == refreshes


@pytest.mark.parametrize("kind", quick_and_other([*VALUES, *TYPES], "text", "JSON", "list"))
def test_serves_fresh_data_while_invalid_values_are_written_to_all_keys(
    kind: str,
    proxy: ReplyProxy,
    valkey: Valkey,
    api: Client,
    upstream: FakeGhibli,
    settings: Settings,
) -> None:
    keys = keys_in_use(api, proxy, upstream, settings)
    restart_service()
    valkey.client.flushall()

    end = time.monotonic() + 2.2
    refreshes = upstream.count("films")
    while time.monotonic() < end:
        for key in keys:
            valkey.client.delete(key)
            with suppress(ResponseError):  # the service has just written its own value
                write_invalid(kind)(valkey.client, key)
        assert_fresh_and_fast(api)
        time.sleep(0.05)
    assert upstream.count("films") - refreshes <= 8


COMMANDS = ["every command", "EXEC", "EVAL", "EVALSHA", "GET", "SET", "GETRANGE", "UNLINK", "DEL"]


@pytest.mark.parametrize("command", quick_and_other(COMMANDS, "every command"))
@pytest.mark.parametrize("kind", REPLIES)
def test_serves_fresh_data_with_replies_of_an_unexpected_type(
    kind: str, command: str, proxy: ReplyProxy, valkey: Valkey, api: Client, upstream: FakeGhibli
) -> None:
    proxy.commands = {command} if command != "every command" else None
    proxy.replacement = REPLIES[kind]
    assert_fresh_and_fast(api)  # without a cache entry
    assert_fresh_and_fast(api)
    assert api.get("/readyz").status_code == 200

    proxy.replacement = None
    restart_service()
    valkey.client.flushall()  # also of a lease whose acquisition got no valid reply
    assert_fresh_and_fast(api)
    proxy.replacement = REPLIES[kind]
    end = time.monotonic() + 1.2  # longer than the lifetime of an entry
    while time.monotonic() < end:
        assert_fresh_and_fast(api)
        time.sleep(0.05)
    assert upstream.count("films") <= 8


@pytest.mark.parametrize("kind", REPLIES)
def test_allows_requests_with_replies_of_an_unexpected_type(
    kind: str,
    proxy: ReplyProxy,
    valkey: Valkey,
    api: Client,
    upstream: FakeGhibli,
    settings: Settings,
) -> None:
    settings.THROTTLE_RATE = (3, 60)
    proxy.replacement = REPLIES[kind]

    assert [api.get("/movies/").status_code for _ in range(6)] == [200] * 6
    proxy.replacement = None
    valkey.client.flushall()
    rate_limiter.cache_clear()
    assert [api.get("/movies/").status_code for _ in range(4)] == [200, 200, 200, 429]
