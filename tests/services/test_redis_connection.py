"""Connections to Redis by a name or through Sentinels."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from django_redis import get_redis_connection
from pytest_django.fixtures import Settings
from redis import Redis, SSLConnection
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from services.redis_connection import (
    BREAKER_SECONDS,
    BoundedConnectionPool,
    BoundedTLSConnection,
    RedisClient,
)
from tests.support.fakes import FakeClock
from tests.support.sentinel import GROUP, Sentinel, SentinelGroup
from tests.support.servers import Valkey, end, free_port
from totoro.env.connections import redis_caches


def test_every_address_of_a_name_is_tried(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis listens on 127.0.0.1 alone."""
    real = socket.getaddrinfo

    def both(host: str, *arguments: Any, **options: Any) -> Any:
        hosts = ["::1", "127.0.0.1"] if host == "redis.test" else [host]
        return [found for each in hosts for found in real(each, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    pool = BoundedConnectionPool.from_url(
        f"redis://redis.test:{valkey.port}/0", socket_connect_timeout=0.5, socket_timeout=1
    )

    assert Redis(connection_pool=pool).ping()
    pool.disconnect()


@pytest.fixture
def hung() -> Iterator[list[int]]:
    """Return the ports of two servers that accept connections and say nothing."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        yield [server.getsockname()[1] for server in servers]


def through(*ports: int, seconds: float) -> Redis:
    urls = [f"redis://127.0.0.1:{port}" for port in ports]
    return Redis(
        connection_pool=BoundedConnectionPool.from_url(
            f"redis://{GROUP}/0",
            sentinels=(GROUP, urls),
            socket_connect_timeout=seconds,
            socket_timeout=5,
        )
    )


@pytest.fixture
def sentinel(tmp_path: Path, valkey: Valkey) -> Iterator[Sentinel]:
    sentinel = Sentinel(tmp_path, valkey.port)
    yield sentinel
    end(sentinel)


def test_sentinels_that_hang_or_are_down_do_not_delay_the_answer_of_another(
    hung: list[int], sentinel: Sentinel
) -> None:
    """Each of the two would take a second."""
    client = through(*hung, free_port(), sentinel.port, seconds=0.9)

    with closing(client):
        assert client.ping()


def test_the_time_for_connecting_includes_sentinels_that_hang(hung: list[int]) -> None:
    client = through(*hung, seconds=0.1)
    started = time.monotonic()

    with closing(client), pytest.raises(RedisTimeoutError):
        client.ping()
    assert time.monotonic() - started < 0.9


def test_a_group_that_no_sentinel_knows_has_no_master(sentinel: Sentinel) -> None:
    client = through(sentinel.port, free_port(), seconds=5)
    sentinel.client.execute_command("SENTINEL", "REMOVE", GROUP)

    with closing(client), pytest.raises(MasterNotFoundError):
        client.ping()


def test_redis_and_the_sentinels_have_passwords_of_their_own(
    tmp_path: Path, settings: Settings
) -> None:
    with ExitStack() as stack:
        group = SentinelGroup(tmp_path, stack, replicas=0, sentinels=1)
        group.master.client.config_set("requirepass", "a,b/c")
        [sentinel] = group.sentinels
        sentinel.client.execute_command("SENTINEL", "SET", GROUP, "auth-pass", "a,b/c")
        sentinel.client.execute_command("ACL", "SETUSER", "default", "resetpass", ">d+e&f")
        settings.CACHES = redis_caches(
            f"redis+sentinel://:a,b%2Fc@127.0.0.1:{sentinel.port}/{GROUP}/1"
            "?sentinel_password=d+e%26f"
        )

        for alias in ("default", "quotas"):
            client = get_redis_connection(alias)
            client.connection_pool.connection_kwargs["socket_connect_timeout"] = 5
            assert client.client_info()["db"] == 1


def test_tls_is_for_redis_and_the_sentinels(settings: Settings) -> None:
    settings.CACHES = redis_caches(
        f"rediss+sentinel://localhost/{GROUP}?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false"
    )

    connection = get_redis_connection("default").connection_pool.make_connection()
    [sentinel] = connection._sentinels._sentinels
    to_sentinel = sentinel.sentinels[0].connection_pool.make_connection()
    assert isinstance(connection, BoundedTLSConnection)
    assert isinstance(to_sentinel, SSLConnection)
    for each in (connection, to_sentinel):
        assert (each.ca_certs, each.check_hostname) == ("/etc/ca.pem", False)


def test_one_failed_command_is_enough_to_find_the_new_master(
    tmp_path: Path, settings: Settings
) -> None:
    """The old one hangs, and other connections to it are open."""
    with ExitStack() as stack:
        group = SentinelGroup(tmp_path, stack, replicas=1, sentinels=1)
        group.wait_until_complete()
        settings.CACHES = redis_caches(group.url)
        clock = FakeClock()
        client = RedisClient("default", clock)
        pool = client.client.connection_pool
        for connection in [pool.get_connection() for _ in range(3)]:
            pool.release(connection)

        def port() -> int:
            return client.call(
                "port", lambda: int(client.client.config_get("port")["port"]), lambda: 0
            )

        master = group.master
        assert port() == master.port
        master.send_signal(signal.SIGSTOP)
        successor = group.wait_for_failover(master)
        assert port() == 0
        clock.advance(BREAKER_SECONDS + 0.1)

        for _ in range(3):  # each has a connection of its own, like a thread
            stack.callback(pool.release, pool.get_connection())
            assert port() == successor.port
