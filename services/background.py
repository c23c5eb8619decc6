"""Calls that cannot be interrupted, in threads of their own, so that nobody has to wait for their end."""

import socket
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")


def start(function: Callable[..., T], *args: Any, name: str, **kwargs: Any) -> Future[T]:
    """Call the function in a new thread; return its outcome to come.

    The thread is a daemon, unlike an executor's: nobody has to wait for one that is stuck, not even
    the end of the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 (raised again in whoever wants the result)
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class CoalescedCalls:
    """Calls of which one at a time runs for each key: who comes meanwhile gets its outcome.

    So one that is stuck holds one thread, however often it is called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[Any]] = {}

    def start(
        self, key: Hashable, function: Callable[..., T], *args: Any, **kwargs: Any
    ) -> Future[T]:
        with self._lock:
            running = self._running.get(key)
            if running is None or running.done():
                running = start(function, *args, name=self._name, **kwargs)
                self._running[key] = running
            return running


class Resolver:
    """The system's resolver, with an end to the waiting."""

    def __init__(self, name: str = "resolver") -> None:
        self._lookups = CoalescedCalls(name)
        # Look-ups that took longer than their caller waited: the next caller gets what they find.
        self._late: dict[tuple[str, int], Future[list[Any]]] = {}

    def addresses(self, host: str, port: int, seconds: float) -> list[str]:
        """Return the host's addresses; OSError or UnicodeError for none, TimeoutError if it takes
        longer than `seconds`."""
        key = (host, port)
        lookup = self._late.pop(key, None) or self._lookups.start(
            key, socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
        )
        done, _ = wait([lookup], seconds)
        if not done:
            self._late[key] = lookup
            raise TimeoutError
        return list(dict.fromkeys(str(address[0]) for *_, address in lookup.result()))
