"""Several workers of real servers together enforce one rate limit under a flood of requests."""

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


class Outcome(NamedTuple):
    status: int
    has_rate_limit: bool


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli() as upstream:
        yield upstream


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server that publishes an event for each window that begins, and that a test may kill."""
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


class WindowCounter:
    """Counts the windows that begin: each begins with a SET of a client's count."""

    def __init__(self, valkey: Valkey) -> None:
        self._events: Any = valkey.client.pubsub(  # type: ignore[no-untyped-call]  # redis-py's
            ignore_subscribe_messages=True
        )
        self._events.subscribe("__keyevent@0__:set")
        self._events.get_message(timeout=5)

    def windows(self) -> int:
        count = 0
        # A request is counted before its response is sent, so all events have been published.
        while (message := self._events.get_message(timeout=0.5)) is not None:
            count += message["data"].decode().startswith(WINDOWS)
        self._events.close()
        return count


def flood(
    servers: list[Totoro],
    *,
    requests: int | None = None,
    seconds: float | None = None,
    **headers: str,
) -> list[Outcome]:
    """Send requests on many connections at once, each of which stays with one worker."""

    def send(number: int) -> list[Outcome]:
        connection = HTTPConnection("127.0.0.1", servers[number % len(servers)].port, timeout=30)
        outcomes: list[Outcome] = []
        end = time.monotonic() + (seconds or 3600)
        while len(outcomes) < (requests or 10**9) / CLIENTS and time.monotonic() < end:
            connection.request("GET", "/movies/?limit=1", headers=headers)
            response = connection.getresponse()
            response.read()
            outcomes.append(Outcome(response.status, "RateLimit" in response.headers))
        connection.close()
        return outcomes

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [one for outcomes in pool.map(send, range(CLIENTS)) for one in outcomes]


def script_calls(valkey: Valkey) -> int:
    """Count the calls of scripts: the rate limit uses nothing else, and refreshes add a few."""
    stats: Any = valkey.client.info("commandstats")
    names = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_script|load")
    return sum(stats[name]["calls"] for name in names if name in stats)


def count_statuses(outcomes: list[Outcome]) -> Counter[int]:
    return Counter(outcome.status for outcome in outcomes)


def test_four_workers_allow_the_limit_with_few_calls_to_redis(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey
) -> None:
    servers = serve(2, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="600/min")
    counter = WindowCounter(own_valkey)
    own_valkey.client.config_resetstat()

    statuses = count_statuses(flood(servers, requests=2400))

    calls, windows = script_calls(own_valkey), counter.windows()
    assert set(statuses) == {200, 429}
    assert windows >= 1
    assert 600 <= statuses[200] <= 600 * windows
    assert calls <= 0.2 * statuses[200]


def test_no_window_allows_more_than_the_limit(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey
) -> None:
    servers = serve(2, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="100/s")
    counter = WindowCounter(own_valkey)
    started = time.monotonic()

    statuses = count_statuses(flood(servers, seconds=5))

    seconds, windows = time.monotonic() - started, counter.windows()
    assert set(statuses) == {200, 429}
    # A window begins with the first request after the previous one has ended.
    assert 3 <= windows <= seconds + 1
    assert 100 * (windows - 1) * 0.9 <= statuses[200] <= 100 * windows


def test_allows_every_request_without_redis(serve: Callable[..., list[Totoro]]) -> None:
    [server] = serve(
        1,
        WEB_CONCURRENCY=2,
        REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
        THROTTLE_RATE="10/min",
    )

    assert Counter(flood([server], requests=400)) == {Outcome(200, False): 400}


def test_allows_every_request_when_redis_is_killed(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey
) -> None:
    [server] = serve(1, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="400/min")
    assert set(flood([server], requests=64)) == {Outcome(200, True)}
    own_valkey.kill()

    started = time.monotonic()
    outcomes = flood([server], requests=800)
    seconds = time.monotonic() - started
    assert count_statuses(outcomes) == {200: 800}
    # Each worker first uses up the quota that it has reserved.
    assert sum(outcome.has_rate_limit for outcome in outcomes) <= 2 * 10
    assert seconds < 800 / CLIENTS * 0.1


@pytest.mark.parametrize("requests", [200, pytest.param(10_000, marks=pytest.mark.minutes)])
def test_a_client_cannot_change_its_address_with_a_header(
    serve: Callable[..., list[Totoro]], own_valkey: Valkey, requests: int
) -> None:
    [server] = serve(1, WEB_CONCURRENCY=2, REDIS_URL=own_valkey.url, THROTTLE_RATE="50/h")
    headers = cycle(["X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Forwarded", "Client-IP"])
    statuses = [
        server.get("/movies/?limit=1", headers={header: f"10.0.{i // 256}.{i % 256}"}).status_code
        for i, header in enumerate(islice(headers, requests))
    ]

    assert Counter(statuses) == {200: 50, 429: requests - 50}
    assert own_valkey.client.keys(f"{WINDOWS}*") == [b"totoro:1:quota:50/3600:127.0.0.1"]


def test_behind_a_proxy_each_client_has_its_own_quota(serve: Callable[..., list[Totoro]]) -> None:
    [server] = serve(1, THROTTLE_RATE="20/min", TRUSTED_PROXIES=1)

    def statuses(forwarded_for: str) -> list[int]:
        headers = {"X-Forwarded-For": forwarded_for}
        return [server.get("/movies/?limit=1", headers=headers).status_code for _ in range(30)]

    for client in ("192.0.2.1", "2001:db8::1"):
        assert Counter(statuses(f"6.6.6.6, {client}")) == {200: 20, 429: 10}
        assert Counter(statuses(f"7.7.7.7, {client}")) == {429: 30}
    assert Counter(statuses("2001:db8::2")) == {429: 30}
