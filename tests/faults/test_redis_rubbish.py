"""Redis that says or holds what is not ours: a miss, answered from memory, and gone afterwards."""

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
from services.rate_limit import quotas
from tests.conftest import restart_service
from tests.support.reply_proxy import REPLIES, ReplyProxy
from tests.support.servers import Valkey, wait_until
from totoro.settings import redis_caches

pytestmark = pytest.mark.django_db(transaction=True)

# What a request may take that finds rubbish, on a busy machine (seconds); the defect was 8.
AT_ONCE = 2.0

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
# With an end or without: what lasts for ever must not keep anybody from refreshing for ever.
ENDS = {"for ever": None, "for an hour": 3_600_000, "for a second": 1000}


def quick_and_other(names: Iterable[str], *quick: str) -> list[Any]:
    """Parameters of which `make test` runs the quick ones, and `make test-faults` the others too."""
    marks = {name: () if name in quick else (pytest.mark.minutes,) for name in names}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


def rubbish(kind: str) -> Callable[[Redis, str], object]:
    if kind in TYPES:
        return TYPES[kind]
    return lambda redis, key: redis.set(key, VALUES[kind])


@pytest.fixture
def proxy(valkey: Valkey, settings: Settings) -> Iterator[ReplyProxy]:
    """Redis behind a proxy, and a service that uses it, with a rate limit and a short minute."""
    with ReplyProxy(valkey.port) as proxy:
        settings.REDIS_URL = f"redis://127.0.0.1:{proxy.port}/0"
        settings.CACHES = redis_caches(settings.REDIS_URL)
        settings.CACHE_TTL, settings.REFRESH_AHEAD = 1, 0.3
        settings.THROTTLE_RATE = (1_000_000, 60)
        yield proxy
        restart_service()


def fresh_at_once(api: Client) -> None:
    started = time.monotonic()
    response = api.get("/movies/")
    assert response.status_code == 200
    assert "detail=" not in response["Cache-Status"]
    assert time.monotonic() - started < AT_ONCE


def keys_of_ours(
    api: Client, proxy: ReplyProxy, upstream: FakeGhibli, settings: Settings
) -> set[str]:
    """Every key that a refresh, a failed one and the rate limit use."""
    fresh_at_once(api)
    restart_service()
    upstream.faults.set({"status": 500})
    wait_until(lambda: "detail=" in api.get("/movies/")["Cache-Status"])
    upstream.faults.set({"status": None})
    assert len(proxy.keys) >= 4
    return proxy.keys


@pytest.mark.parametrize("end", quick_and_other(ENDS, "for ever"))
@pytest.mark.parametrize("kind", [*VALUES, *TYPES])
def test_a_value_that_is_not_ours_in_any_key_costs_no_request_its_answer(
    kind: str,
    end: str,
    proxy: ReplyProxy,
    valkey: Valkey,
    api: Client,
    upstream: FakeGhibli,
    settings: Settings,
) -> None:
    keys = keys_of_ours(api, proxy, upstream, settings)

    for key in sorted(keys):
        restart_service()
        valkey.client.flushall()
        rubbish(kind)(valkey.client, key)
        if milliseconds := ENDS[end]:
            valkey.client.pexpire(key, milliseconds)
        fresh_at_once(api)
        fresh_at_once(api)
    # And afterwards workers share again: one that has just started finds what the last one fetched.
    wait_until(lambda: is_shared(api, upstream), what="workers share an entry again")


def is_shared(api: Client, upstream: FakeGhibli) -> bool:
    fresh_at_once(api)
    refreshes = upstream.count("films")
    restart_service()
    fresh_at_once(api)
    return upstream.count("films") == refreshes


@pytest.mark.parametrize("kind", quick_and_other([*VALUES, *TYPES], "text", "JSON", "list"))
def test_values_that_are_not_ours_in_all_keys_time_and_again_cost_no_request_its_answer(
    kind: str,
    proxy: ReplyProxy,
    valkey: Valkey,
    api: Client,
    upstream: FakeGhibli,
    settings: Settings,
) -> None:
    keys = keys_of_ours(api, proxy, upstream, settings)
    restart_service()
    valkey.client.flushall()

    end = time.monotonic() + 2.2
    refreshes = upstream.count("films")
    while time.monotonic() < end:
        for key in keys:
            valkey.client.delete(key)
            with suppress(ResponseError):  # the service has just put its own there again
                rubbish(kind)(valkey.client, key)
        fresh_at_once(api)
        time.sleep(0.05)
    assert upstream.count("films") - refreshes <= 8


COMMANDS = ["every command", "EXEC", "EVAL", "EVALSHA", "GET", "SET", "GETRANGE", "UNLINK", "DEL"]


@pytest.mark.parametrize("command", quick_and_other(COMMANDS, "every command"))
@pytest.mark.parametrize("kind", REPLIES)
def test_a_reply_of_an_unexpected_type_costs_no_request_its_answer(
    kind: str, command: str, proxy: ReplyProxy, valkey: Valkey, api: Client, upstream: FakeGhibli
) -> None:
    proxy.commands = {command} if command != "every command" else None
    proxy.replacement = REPLIES[kind]
    fresh_at_once(api)  # cold
    fresh_at_once(api)
    assert api.get("/readyz").status_code == 200

    proxy.replacement = None
    restart_service()
    valkey.client.flushall()  # a lease among it, whose holder did not learn that it has it
    fresh_at_once(api)
    proxy.replacement = REPLIES[kind]
    end = time.monotonic() + 1.2  # warm, beyond the end of an entry
    while time.monotonic() < end:
        fresh_at_once(api)
        time.sleep(0.05)
    assert upstream.count("films") <= 8


@pytest.mark.parametrize("kind", REPLIES)
def test_a_reply_of_an_unexpected_type_lets_a_client_pass(
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
    quotas.cache_clear()
    assert [api.get("/movies/").status_code for _ in range(4)] == [200, 200, 200, 429]
