"""Connections to Redis by a name."""

import socket
from typing import Any

import pytest
from redis import Redis

from services.redis_connection import BoundedConnectionPool
from tests.support.servers import Valkey


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
