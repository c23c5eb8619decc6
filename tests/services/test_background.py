"""Calls that cannot be interrupted, and who waits for them."""

import socket
import threading
from typing import Any

import pytest

from services.background import CoalescedCalls, Resolver, start
from tests.support.servers import wait_until


def test_an_error_is_raised_in_whoever_wants_the_result() -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        start(broken, name="test").result(5)


def test_a_call_that_is_stuck_holds_one_thread_however_often_it_is_called() -> None:
    released, calls = threading.Event(), CoalescedCalls("stuck")
    waiting = [calls.start("one", released.wait) for _ in range(50)]

    assert sum(thread.name == "stuck" for thread in threading.enumerate()) == 1
    assert calls.start("another", lambda: 2).result(5) == 2
    released.set()
    assert all(each.result(5) for each in waiting)
    assert calls.start("one", lambda: 3).result(5) == 3


def test_a_look_up_takes_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait())

    with pytest.raises(TimeoutError):
        Resolver().addresses("stalls.test", 80, 0.05)
    released.set()


def test_the_addresses_of_a_host_come_once_each() -> None:
    assert Resolver().addresses("127.0.0.1", 80, 5) == ["127.0.0.1"]


def test_what_a_look_up_finds_too_late_is_there_for_the_next_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released, asked = threading.Event(), []
    real = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        released.wait()
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = Resolver("slow")
    with pytest.raises(TimeoutError):
        resolver.addresses("slow.test", 80, 0.05)
    released.set()
    wait_until(lambda: all(thread.name != "slow" for thread in threading.enumerate()))

    assert resolver.addresses("slow.test", 80, 5) == ["127.0.0.1"]
    assert asked == ["slow.test"]
