"""The quota, held to by real servers: what several workers let through of a flood."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fake_ghibli import FakeGhibli
from tests.support.servers import Totoro, Valkey, free_port

pytestmark = pytest.mark.slow

CLIENTS = 16
WINDOWS = "totoro:1:quota:"


class Told(NamedTuple):
    status: int
    limited: bool


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli() as upstream:
        yield upstream


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """One that tells of each window that begins, and may be killed."""
    valkey = Valkey("--notify-keyspace-events", "E$")
    yield valkey
    if valkey.process.poll() is None:
        valkey.kill()


@pytest.fixture
def serve(tmp_path: Path, upstream: FakeGhibli) -> Iterator[Callable[..., list[Totoro]]]:
    with ExitStack() as stack:

        def start(replicas: int, **variables: object) -> list[Totoro]:
            started = []
            for i in range(replicas):
                server = Totoro(
                    tmp_path, migrate=i == 0, GHIBLI_API_BASE_URL=upstream.url, **variables
                )
                stack.callback(server.terminate)
                started.append(server)
            return started

        yield start


class Count:
    """The windows that have begun: each is a SET of a client's count."""

    def __init__(self, valkey: Valkey) -> None:
        self._events: Any = valkey.client.pubsub(  # type: ignore[no-untyped-call]  # redis-py's
            ignore_subscribe_messages=True
        )
        self._events.subscribe("__keyevent@0__:set")
        self._events.get_message(timeout=5)

    def windows(self) -> int:
        found = 0
        # An answer that a client has got was counted before, and so its event was sent.
        while (message := self._events.get_message(timeout=0.5)) is not None:
            found += message["data"].decode().startswith(WINDOWS)
        self._events.close()
        return found


def flood(
    servers: list[Totoro],
    *,
    requests: int | None = None,
    seconds: float | None = None,
    **headers: str,
) -> list[Told]:
    """From many connections at once, each of which stays with one worker."""

    def ask(number: int) -> list[Told]:
        connection = HTTPConnection("127.0.0.1", servers[number % len(servers)].port, timeout=30)
        told: list[Told] = []
        end = time.monotonic() + (seconds or 3600)
        while len(told) < (requests or 10**9) / CLIENTS and time.monotonic() < end:
            connection.request("GET", "/movies/?limit=1", headers=headers)
            response = connection.getresponse()
            response.read()
            told.append(Told(response.status, "RateLimit" in response.headers))
        connection.close()
        return told

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [one for told in pool.map(ask, range(CLIENTS)) for one in told]


def questions(valkey: Valkey) -> int:
    """What Valkey was asked by scripts: all leases of tokens, and a few of the right to fly."""
    stats: Any = valkey.client.info("commandstats")
    names = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_script|load")
    return sum(stats[name]["calls"] for name in names if name in stats)


def statuses(told: list[Told]) -> Counter[int]:
    return Counter(one.status for one in told)


def test_four_workers_let_through_the_limit_and_ask_redis_rarely(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey
) -> None:
    servers = serve(2, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="600/min")
    count = Count(own_valkey)
    own_valkey.client.config_resetstat()

    told = statuses(flood(servers, requests=2400))

    asked, windows = questions(own_valkey), count.windows()
    assert set(told) == {200, 429}
    assert windows >= 1
    assert 600 <= told[200] <= 600 * windows
    assert asked <= 0.2 * told[200]


def test_no_window_of_many_lets_through_more_than_the_limit(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey
) -> None:
    servers = serve(2, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="100/s")
    count = Count(own_valkey)
    started = time.monotonic()

    told = statuses(flood(servers, seconds=5))

    took, windows = time.monotonic() - started, count.windows()
    assert set(told) == {200, 429}
    # Each begins with the first request after the end of the one before.
    assert 3 <= windows <= took + 1
    assert 100 * (windows - 1) * 0.9 <= told[200] <= 100 * windows


def test_without_redis_everything_passes(serve: Callable[..., list[Totoro]]) -> None:
    [server] = serve(
        1,
        WEB_CONCURRENCY=2,
        REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
        THROTTLE_RATE="10/min",
    )

    assert Counter(flood([server], requests=400)) == {Told(200, False): 400}


def test_when_redis_dies_everything_passes(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey
) -> None:
    [server] = serve(1, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="400/min")
    assert set(flood([server], requests=64)) == {Told(200, True)}
    own_valkey.kill()

    started = time.monotonic()
    told = flood([server], requests=800)
    took = time.monotonic() - started
    assert statuses(told) == {200: 800}
    # What was leased is spent first.
    assert sum(one.limited for one in told) <= 2 * 10
    assert took < 800 / CLIENTS * 0.1


@pytest.mark.parametrize("requests", [200, pytest.param(10_000, marks=pytest.mark.minutes)])
def test_a_client_cannot_change_its_address(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey, requests: int
) -> None:
    [server] = serve(1, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="50/h")
    names = cycle(["X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Forwarded", "Client-IP"])
    told = [
        server.get("/movies/?limit=1", headers={name: f"10.0.{i // 256}.{i % 256}"}).status_code
        for i, name in enumerate(islice(names, requests))
    ]

    assert Counter(told) == {200: 50, 429: requests - 50}
    assert own_valkey.client.keys(f"{WINDOWS}*") == [b"totoro:1:quota:50/3600:127.0.0.1"]


def test_behind_a_proxy_each_client_has_its_own_quota(serve: Callable[..., list[Totoro]]) -> None:
    [server] = serve(1, THROTTLE_RATE="20/min", TRUSTED_PROXIES=1)

    def ask(told: str) -> list[int]:
        headers = {"X-Forwarded-For": told}
        return [server.get("/movies/?limit=1", headers=headers).status_code for _ in range(30)]

    for client in ("192.0.2.1", "2001:db8::1"):
        assert Counter(ask(f"6.6.6.6, {client}")) == {200: 20, 429: 10}
        assert Counter(ask(f"7.7.7.7, {client}")) == {429: 30}
    assert Counter(ask("2001:db8::2")) == {429: 30}
