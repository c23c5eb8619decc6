"""Redis in trouble: each process goes on by itself, and they find together again when it is well.

What Redis may hold that is not ours is in tests/services/test_sharing.py.
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
from totoro.settings import redis_caches

# Flights write from a thread of their own, which a transaction around the test would not see.
pytestmark = pytest.mark.django_db(transaction=True)

STATE = "totoro:1:{movies}:state"


@dataclass
class Redis:
    """The server and the way to it."""

    server: Valkey
    proxy: FaultProxy

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.proxy.port}/0"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Valkey]:
    """For this file alone, as it has much to suffer."""
    server = Valkey()
    yield server
    server.kill()


@pytest.fixture
def redis(redis_server: Valkey) -> Iterator[Redis]:
    """Running, empty and well."""
    redis_server.client.flushall()
    with FaultProxy(redis_server.port) as proxy:
        yield Redis(redis_server, proxy)


Trouble = Callable[[Redis], AbstractContextManager[None]]


@contextmanager
def absent(it: Redis) -> Iterator[None]:
    it.proxy.down()
    yield
    it.proxy.up()


@contextmanager
def resets(it: Redis) -> Iterator[None]:
    it.proxy.resets = True
    yield
    it.proxy.up()


@contextmanager
def black_hole(it: Redis) -> Iterator[None]:
    it.proxy.is_silent = True
    yield
    it.proxy.up()


@contextmanager
def full_queue(it: Redis) -> Iterator[None]:
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
    it.proxy.close_connections()  # who is connected stays authenticated
    try:
        yield
    finally:
        it.server.client.config_set("requirepass", "")


def again_and_again(do: Callable[[Redis], object]) -> Trouble:
    @contextmanager
    def trouble(it: Redis) -> Iterator[None]:
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

    return trouble


def flush(it: Redis) -> None:
    it.server.client.flushall()


def an_hour_forward(it: Redis) -> None:
    """All that ends within an hour is over."""
    for key in it.server.client.scan_iter():
        if 0 < it.server.client.pttl(key) < 3_600_000:
            it.server.client.pexpire(key, 1)


def an_hour_back(it: Redis) -> None:
    """All that ends lasts an hour longer."""
    for key in it.server.client.scan_iter():
        left = it.server.client.pttl(key)
        if 0 < left < 3_600_000:
            it.server.client.pexpire(key, left + 3_600_000)


@dataclass(frozen=True)
class Row:
    """`well`: what /readyz says of the cache. `minute`: CACHE_TTL, more than the 0.3 s that a command
    may take where commands take time."""

    trouble: Trouble
    well: bool
    minute: float = 0.2


ROWS = {
    "absent": Row(absent, well=False),
    "resets": Row(resets, well=False),
    "full": Row(full, well=True),
    "read-only": Row(read_only, well=True),
    "a password": Row(with_a_password, well=False),
    "flushed": Row(again_and_again(flush), well=True),
    "an hour forward": Row(again_and_again(an_hour_forward), well=True),
    "an hour back": Row(again_and_again(an_hour_back), well=True),
}
SLOW_ROWS = {
    "black hole": Row(black_hole, well=False, minute=1),
    "answers no SYN": Row(full_queue, well=False, minute=1),
    "stopped": Row(stopped, well=False, minute=1),
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
    return Row(absent, well=False)


@pytest.fixture
def through(row: Row, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """Redis, with a service that uses it and whose minutes are short."""
    settings.REDIS_URL = redis.url
    settings.CACHES = redis_caches(redis.url)
    settings.CACHE_TTL, settings.REFRESH_AHEAD = row.minute, row.minute / 3
    monkeypatch.setattr(
        redis_connection, "BREAKER_SECONDS", min(row.minute, redis_connection.BREAKER_SECONDS)
    )
    return redis


def fresh(asked: Client | Totoro, minute: float) -> Any:
    """An answer, which was not too old when it was asked for: a busy machine is no excuse."""
    now = datetime.now(UTC)
    response = asked.get("/movies/")
    assert response.status_code == 200
    assert "detail=" not in response.headers["Cache-Status"]
    timestamp = datetime.fromisoformat(response.json()["timestamp"])
    assert (now - timestamp).total_seconds() < minute
    return response


def is_shared(redis: Redis) -> bool:
    return bool(redis.server.client.exists(STATE))


@every_row
def test_answers_go_on_fresh_from_the_process_and_are_shared_again_afterwards(
    row: Row, through: Redis, api: Client, upstream: FakeGhibli
) -> None:
    # Cold: at start there is nothing but this trouble.
    with row.trouble(through):
        fresh(api, row.minute)
        health = api.get("/readyz")
        assert health.status_code == 200
        assert (health.json()["ready"], health.json()["cache"]) == (True, row.well)

    restart_service()
    wait_until(lambda: api.get("/movies/").status_code == 200 and is_shared(through))

    # Warm: through the ends of three minutes, without more flights than these are worth.
    with row.trouble(through):
        flights, minutes = upstream.count("films"), set()
        end = time.monotonic() + 3 * row.minute
        while time.monotonic() < end:
            minutes.add(fresh(api, row.minute).json()["timestamp"])
            time.sleep(0.01)
        assert len(minutes) >= 2
        assert upstream.count("films") - flights <= 3 / 0.6 + 2

    flush(through)
    wait_until(lambda: api.get("/movies/").status_code == 200 and is_shared(through))


def seconds_of_a_first_request(through: Redis, api: Client, trouble: Trouble) -> float:
    """Of a new process, which has to wait for a flight: the best of three, on a busy machine."""

    def attempt() -> float:
        restart_service()
        through.server.client.flushall()
        with trouble(through):
            started = time.monotonic()
            assert api.get("/movies/").status_code == 200
            return time.monotonic() - started

    return min(attempt() for _ in range(3))


@contextmanager
def well(it: Redis) -> Iterator[None]:
    yield


@contextmanager
def slow(it: Redis) -> Iterator[None]:
    it.proxy.latency = 0.15
    yield
    it.proxy.up()


in_real_time = pytest.mark.parametrize("row", [Row(well, well=True, minute=60)], ids=[""])


@in_real_time
@pytest.mark.parametrize("trouble", [black_hole, full_queue, stopped, slow])
def test_a_request_that_must_wait_for_a_flight_waits_a_little_longer(
    trouble: Trouble, row: Row, through: Redis, api: Client, upstream: FakeGhibli
) -> None:
    usual = seconds_of_a_first_request(through, api, well)

    assert seconds_of_a_first_request(through, api, trouble) - usual < 0.3 + 0.05


@in_real_time
def test_it_is_asked_once_in_a_while_when_it_hangs(
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
    with black_hole(through):
        through.proxy.request_times.clear()

        def asked_twice() -> bool:
            assert api.get("/movies/").status_code == 200
            return len(through.proxy.request_times) >= 2

        wait_until(asked_twice)
        asked = list(through.proxy.request_times)

    assert all(
        later - earlier >= redis_connection.BREAKER_SECONDS for earlier, later in pairwise(asked)
    )


# When it dies at the worst moment


@contextmanager
def one_flight(api: Client, gate: Gate) -> Iterator[list[Any]]:
    """A request whose flight hangs in the Ghibli API while the block lasts; its answer after that."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(api.get("/movies/")))
    thread.start()
    assert gate.reached.wait(10)
    yield answers
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


def dies(it: Redis) -> None:
    it.proxy.down()


def comes_back_empty(it: Redis) -> None:
    it.proxy.down()
    flush(it)
    it.proxy.up()


def is_flushed(it: Redis) -> None:
    flush(it)


@pytest.mark.parametrize("happens", [dies, comes_back_empty, is_flushed])
def test_what_happens_to_it_during_a_flight_costs_nobody_an_answer_nor_a_flight(
    happens: Callable[[Redis], None],
    through: Redis,
    api: Client,
    gate: Gate,
    gated: ScriptedUpstream,
) -> None:
    with one_flight(api, gate) as answers:
        happens(through)
    again = api.get("/movies/")

    [answer] = answers
    assert answer.status_code == again.status_code == 200
    assert answer.content == again.content
    assert (gated.count("films"), gated.count("people")) == (1, 1)


def test_a_flush_of_a_fresh_answer_costs_at_most_one_more_flight(
    through: Redis, api: Client, gate: Gate, gated: ScriptedUpstream
) -> None:
    gate.opened.set()
    first = api.get("/movies/")
    flush(through)
    assert api.get("/movies/").content == first.content
    restart_service()  # another process, which has not seen it
    second = api.get("/movies/")

    assert second.status_code == 200
    assert gated.count("films") <= 2


# Two workers


@pytest.fixture(scope="module")
def fleet(
    redis_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Totoro, FaultProxy, FakeGhibli]]:
    """Started when there is no Redis."""
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


def seen(server: Totoro) -> set[str]:
    """The timestamps of some answers, by whichever worker."""
    return {fresh(server, 2).json()["timestamp"] for _ in range(12)}


def share_one_answer(server: Totoro) -> bool:
    """Two rounds in a row, as the end of an answer may lie in one."""
    return any(len(seen(server)) == 1 for _ in range(2))


@pytest.mark.minutes
def test_workers_without_redis_serve_each_their_own_and_share_as_soon_as_it_is_there(
    fleet: tuple[Totoro, FaultProxy, FakeGhibli],
) -> None:
    server, proxy, upstream = fleet
    assert len(server.workers) == 2
    seen(server)
    health = server.get("/readyz").json()
    assert (health["ready"], health["cache"]) == (True, False)

    proxy.up()
    wait_until(lambda: server.get("/readyz").json()["cache"])
    # All answer alike, time and again, and one flight serves both.
    wait_until(lambda: all(share_one_answer(server) for _ in range(2)))
    flights, timestamps = upstream.count("films"), set[str]()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        timestamps |= seen(server)
        time.sleep(0.05)
    assert upstream.count("films") - flights <= len(timestamps) + 1


@pytest.mark.minutes
def test_redis_is_killed_and_comes_back(
    fleet: tuple[Totoro, FaultProxy, FakeGhibli], redis_server: Valkey
) -> None:
    server, proxy, upstream = fleet
    proxy.up()
    wait_until(lambda: all(share_one_answer(server) for _ in range(3)))

    redis_server.kill()
    flights = upstream.count("films")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        seen(server)
        time.sleep(0.05)
    # A flight a second and worker at the most, and no loop.
    assert upstream.count("films") - flights <= 2 * (3 + 1)

    redis_server.start()
    wait_until(lambda: all(share_one_answer(server) for _ in range(3)))


@pytest.mark.minutes
def test_redis_hangs_and_requests_hardly_notice(
    fleet: tuple[Totoro, FaultProxy, FakeGhibli], redis_server: Valkey
) -> None:
    """Requests ask it too: for what the client may still ask."""
    server, proxy, _ = fleet
    proxy.up()
    seen(server)
    seconds = []
    redis_server.send_signal(signal.SIGSTOP)
    try:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            seconds.append(fresh(server, 2).elapsed.total_seconds())
            time.sleep(0.01)
    finally:
        redis_server.send_signal(signal.SIGCONT)

    # Two workers in four seconds, each once in two of them; and what a busy machine adds.
    assert len([one for one in seconds if one > 0.15]) <= 2 * 3 + len(seconds) * 0.05
