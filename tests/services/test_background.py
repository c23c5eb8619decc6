"""Calls in daemon threads, their coalescing, and DNS look-ups with a time limit."""

import socket
import threading
from typing import Any

import pytest

from services.background import CoalescedCalls, Resolver, start
from tests.support.servers import wait_until


def test_the_future_raises_the_error_of_the_call() -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        start(broken, name="test").result(5)


def test_a_call_that_hangs_occupies_one_thread_however_often_it_is_repeated() -> None:
    released, calls = threading.Event(), CoalescedCalls("hanging")
    waiting = [calls.start("one", released.wait) for _ in range(50)]

    assert sum(thread.name == "hanging" for thread in threading.enumerate()) == 1
    assert calls.start("another", lambda: 2).result(5) == 2
    released.set()
    assert all(future.result(5) for future in waiting)
    assert calls.start("one", lambda: 3).result(5) == 3


def test_a_lookup_ends_at_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait())

    with pytest.raises(TimeoutError):
        Resolver().addresses("stalls.test", 80, 0.05)
    released.set()


def test_returns_each_address_of_a_host_once() -> None:
    assert Resolver().addresses("127.0.0.1", 80, 5) == ["127.0.0.1"]


def test_the_next_caller_gets_the_result_of_a_lookup_that_took_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released, hosts = threading.Event(), []
    real = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        hosts.append(host)
        released.wait()
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = Resolver("slow")
    with pytest.raises(TimeoutError):
        resolver.addresses("slow.test", 80, 0.05)
    released.set()
    wait_until(lambda: all(thread.name != "slow" for thread in threading.enumerate()))

    assert resolver.addresses("slow.test", 80, 5) == ["127.0.0.1"]
    assert hosts == ["slow.test"]
