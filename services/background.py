"""Blocking calls in daemon threads, for callers that stop waiting after a time limit."""

import socket
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")


def start(function: Callable[..., T], *args: Any, name: str, **kwargs: Any) -> Future[T]:
    """Call the function in a new thread with this name.

    Unlike an executor's, the thread is a daemon: a call that hangs does not delay the exit of the
    process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 (raised again by future.result())
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class CoalescedCalls:
    """Runs one call at a time for each key; callers that come meanwhile share its result.

    So a call that hangs occupies one thread, however often it is repeated.
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
    """The system's DNS resolver with a time limit, which getaddrinfo lacks."""

    def __init__(self, name: str = "resolver") -> None:
        self._name = name
        self._lock = threading.Lock()
        # Each stays until a caller has received its result, which may be one that comes later.
        self._lookups: dict[tuple[str, int], Future[list[Any]]] = {}

    def addresses(self, host: str, port: int, seconds: float) -> list[str]:
        """Return the host's addresses.

        Raises OSError or UnicodeError if there are none, TimeoutError after `seconds`.
        """
        with self._lock:
            if (host, port) not in self._lookups:
                self._lookups[host, port] = start(
                    socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, name=self._name
                )
            lookup = self._lookups[host, port]
        done, _ = wait([lookup], seconds)
        if not done:
            raise TimeoutError
        self._lookups.pop((host, port), None)
        return list(dict.fromkeys(str(address[0]) for *_, address in lookup.result()))
