"""A load generator that checks every response against the freshness guarantee.

A single thread sends and receives everything, so the order of events is known: a request that was sent
after another response had arrived completely must not return an older timestamp than that response,
whichever connections and servers the two used.
"""

import heapq
import itertools
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

# Seconds that the network and the client's clock may add to the age of a response.
TOLERANCE = 0.1
RECEIVE_BYTES = 256 * 1024
RECONNECT_SECONDS = 0.05
CONNECT_TIMEOUT = 5
TIMESTAMP = b'"timestamp":"'
DESCRIPTION = b'"description":"'
# The length of 2026-11-23T20:40:12.341359+00:00, which follows each of them.
INSTANT_LENGTH = 32


class ObservedResponse(NamedTuple):
    """A response as its client saw it.

    `sent` and `received` are monotonic seconds. `timestamp` is Unix time, 0 if the response has none, and
    `age` is what it amounts to at receipt by this machine's wall clock. `newest_before` is the newest
    timestamp that had arrived when the request was sent. `port` is the client's.
    """

    server: int
    port: int
    sent: float
    received: float
    status: int
    timestamp: float
    age: float
    newest_before: float
    cache_status: str
    defect: str

    @property
    def latency(self) -> float:
        return self.received - self.sent

    @property
    def is_backwards(self) -> bool:
        return 0 < self.timestamp < self.newest_before

    @property
    def waited_for_refresh(self) -> bool:
        """A miss also happens in a worker that only has to read the current entry from Redis."""
        return "fwd=miss" in self.cache_status and self.timestamp > self.newest_before

    @property
    def is_stale(self) -> bool:
        return "ttl=-" in self.cache_status


class FailedRequest(NamedTuple):
    """A request without a response: the connection was refused or closed, or the time-out passed."""

    server: int
    port: int
    sent: float
    failed: float
    reason: str


@dataclass
class LoadResult:
    responses: list[ObservedResponse] = field(default_factory=list)
    failures: list[FailedRequest] = field(default_factory=list)

    @property
    def successful(self) -> list[ObservedResponse]:
        return [response for response in self.responses if response.status == 200]

    @property
    def unsuccessful(self) -> list[ObservedResponse]:
        """Return the responses that are not 2xx, or are defective."""
        return [one for one in self.responses if one.status // 100 != 2 or one.defect]

    @property
    def timestamps(self) -> list[float]:
        return sorted({response.timestamp for response in self.successful})

    @property
    def backwards(self) -> list[ObservedResponse]:
        return [response for response in self.successful if response.is_backwards]

    @property
    def backwards_on_a_connection(self) -> list[ObservedResponse]:
        """Return the responses with an older timestamp than the one before on the same connection."""
        newest: dict[tuple[int, int], float] = {}
        found = []
        for response in self.successful:
            connection = response.server, response.port
            if response.timestamp < newest.get(connection, 0.0):
                found.append(response)
            newest[connection] = response.timestamp
        return found

    @property
    def waited_for_refresh(self) -> list[ObservedResponse]:
        return [response for response in self.successful if response.waited_for_refresh]

    @property
    def stale(self) -> list[ObservedResponse]:
        return [response for response in self.successful if response.is_stale]

    def older_than(self, ttl: float) -> list[ObservedResponse]:
        return [response for response in self.successful if response.age > ttl + TOLERANCE]

    def latency(self, quantile: float) -> float:
        latencies = sorted(response.latency for response in self.responses)
        return latencies[min(int(quantile * len(latencies)), len(latencies) - 1)]

    def summary(self) -> dict[str, object]:
        if not self.responses:
            return {"responses": 0, "failures": len(self.failures)}
        first, last = min(r.sent for r in self.responses), max(r.received for r in self.responses)
        return {
            "responses": len(self.responses),
            "failures": len(self.failures),
            "unsuccessful": len(self.unsuccessful),
            "per_second": round(len(self.responses) / max(last - first, 1e-9)),
            "oldest": round(max((r.age for r in self.successful), default=0), 3),
            "backwards": len(self.backwards),
            "waited_for_refresh": len(self.waited_for_refresh),
            "stale": len(self.stale),
            "timestamps": len(self.timestamps),
            "median": round(self.latency(0.5), 4),
            "p95": round(self.latency(0.95), 4),
            "slowest": round(self.latency(1), 4),
        }


class _Connection:
    """One client, which sends a request, receives the response, and starts again."""

    def __init__(self, server: int, url: str, paths: Sequence[str]) -> None:
        parts = urlsplit(url)
        self.server, self._address = server, (parts.hostname, parts.port)
        self._requests = itertools.cycle(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n\r\n".encode()
            for path in paths
        )
        self._sock: socket.socket | None = None
        self.port = 0
        self.requests = 0
        self.buffer = b""
        self.length = 0
        self.body_start = 0
        self.sent = 0.0
        self.newest_before = 0.0

    def fileno(self) -> int:
        assert self._sock
        return self._sock.fileno()

    def send(self, newest_before: float) -> None:
        self.buffer, self.length, self.newest_before = b"", 0, newest_before
        self.requests += 1
        self.sent = time.monotonic()
        if self._sock and self._was_closed():
            self.close()
        if self._sock is None:
            self._sock = socket.create_connection(self._address, timeout=CONNECT_TIMEOUT)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.setblocking(False)
            self.port = self._sock.getsockname()[1]
        self._sock.send(next(self._requests))

    def _was_closed(self) -> bool:
        """A server may close an idle connection; that costs no request."""
        assert self._sock
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def receive(self) -> bool:
        """Return whether the response is complete. Raise ConnectionError if it never will be."""
        assert self._sock
        received = self._sock.recv(RECEIVE_BYTES)
        if not received:
            raise ConnectionResetError("closed amid a response" if self.buffer else "closed")
        self.buffer = self.buffer + received if self.buffer else received
        if not self.length and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            self.body_start = end + 4
            self.length = self.body_start + int(self.header(b"content-length") or 0)
        return self.length > 0 and len(self.buffer) >= self.length

    def header(self, name: bytes) -> str:
        head = self.buffer[: self.body_start - 4]
        start = head.lower().find(b"\r\n" + name + b":")
        if start < 0:
            return ""
        return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip().decode("latin-1")

    def observe(self) -> ObservedResponse:
        wall, received = time.time(), time.monotonic()
        status, timestamp = int(self.buffer[9:12]), 0.0
        if status == 200:
            timestamp = _unix_time_after(TIMESTAMP, self.buffer, self.buffer.rfind(TIMESTAMP))
        return ObservedResponse(
            self.server,
            self.port,
            self.sent,
            received,
            status,
            timestamp,
            wall - timestamp if timestamp else 0.0,
            self.newest_before,
            self.header(b"cache-status"),
            self._defect(status, timestamp),
        )

    def _defect(self, status: int, timestamp: float) -> str:
        if len(self.buffer) > self.length:
            return "longer than its Content-Length"
        if status != 200:
            return ""
        if not self.buffer.endswith(b"}") or not timestamp:
            return "truncated"
        # A fake Ghibli API that stamps writes the time of its response into the descriptions.
        description = self.buffer.find(DESCRIPTION, self.body_start)
        fetched = _unix_time_after(DESCRIPTION, self.buffer, description)
        return "data from before its timestamp" if fetched and fetched < timestamp else ""

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None


@lru_cache(maxsize=1024)
def _unix_time(instant: bytes) -> float:
    return datetime.fromisoformat(instant.decode()).timestamp()


def _unix_time_after(label: bytes, body: bytes, start: int) -> float:
    """Return the instant that follows the label, or 0.0 if none does."""
    try:
        return _unix_time(body[start + len(label) : start + len(label) + INSTANT_LENGTH])
    except ValueError:
        return 0.0


class LoadClient:
    """Clients on `connections` connections, spread over the servers; each waits for its response.

    `rate`: requests per second of all clients together, None for as many as possible. `each` and `total`:
    how many requests a client, and all of them, send. `paths`: requested in turn. `reconnect_after`:
    requests after which a client opens a new connection, and so may reach another worker.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        connections: int = 64,
        rate: float | None = None,
        each: int | None = None,
        total: int | None = None,
        paths: Sequence[str] = ("/movies/",),
        timeout: float = 30.0,
        reconnect_after: int | None = None,
    ) -> None:
        self.result = LoadResult()
        self._rate, self._each, self._total = rate, each, total
        self._timeout, self._reconnect_after = timeout, reconnect_after
        self._newest = 0.0
        self._stopping = threading.Event()
        self._epoll = select.epoll()
        self._waiting: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        # When a connection that failed may be opened again, with a number to break ties.
        self._reconnects: list[tuple[float, int, _Connection]] = []
        self._numbers = itertools.count()
        self._sent = 0
        self._started = self._next_timeout_check = 0.0
        for i in range(connections):
            first = i // len(urls) % len(paths)  # clients start with different paths
            ordered = [*paths[first:], *paths[:first]]
            self._idle.append(_Connection(i % len(urls), urls[i % len(urls)], ordered))

    def stop(self) -> None:
        """Send no more requests, but wait for the responses to those that were sent."""
        self._stopping.set()

    def run(self, seconds: float | None = None) -> None:
        """Run until stopped, until this time has passed, or until all requests are sent."""
        self._started = time.monotonic()
        end = self._started + seconds if seconds is not None else float("inf")
        try:
            while self._waiting or not self._stopping.is_set():
                now = time.monotonic()
                if now >= end or not (self._waiting or self._reconnects or self._idle):
                    self._stopping.set()
                while self._reconnects and self._reconnects[0][0] <= now:
                    self._idle.append(heapq.heappop(self._reconnects)[2])
                while self._idle and self._may_send(now):
                    self._send(self._idle.popleft())
                self._receive(0.002 if self._rate else 0.05)
                self._check_timeouts(now)
        finally:
            for connection in [*self._waiting.values(), *self._idle]:
                connection.close()
            self._epoll.close()

    def _may_send(self, now: float) -> bool:
        if self._total is not None and self._sent >= self._total:
            self._stopping.set()
        if self._stopping.is_set():
            return False
        if self._rate is not None:
            allowed = int((now - self._started) * self._rate)
            if self._sent >= allowed:
                return False
            # A pause is not followed by a burst: more than a second's requests are never made up for.
            behind = allowed - self._sent - self._rate
            self._started += max(behind / self._rate, 0.0)
        self._sent += 1
        return True

    def _send(self, connection: _Connection) -> None:
        requests = connection.requests
        if self._reconnect_after and requests and requests % self._reconnect_after == 0:
            connection.close()
        try:
            connection.send(self._newest)
        except OSError as error:
            self._fail(connection, type(error).__name__)
            return
        if connection.fileno() not in self._waiting:
            self._epoll.register(connection, select.EPOLLIN)
        self._waiting[connection.fileno()] = connection

    def _receive(self, timeout: float) -> None:
        for number, _ in self._epoll.poll(timeout):
            connection = self._waiting[number]
            try:
                is_complete = connection.receive()
            except BlockingIOError:
                continue
            except OSError as error:
                self._stop_waiting(connection)
                self._fail(connection, str(error) or type(error).__name__)
                continue
            if is_complete:
                self._stop_waiting(connection)
                self._complete(connection)

    def _stop_waiting(self, connection: _Connection) -> None:
        self._epoll.unregister(connection)
        del self._waiting[connection.fileno()]

    def _complete(self, connection: _Connection) -> None:
        response = connection.observe()
        self.result.responses.append(response)
        self._newest = max(self._newest, response.timestamp)
        has_more = self._has_more_requests(connection)
        if not has_more or connection.header(b"connection").lower() == "close":
            connection.close()
        if has_more:
            self._idle.append(connection)

    def _fail(self, connection: _Connection, reason: str) -> None:
        now = time.monotonic()
        failure = FailedRequest(connection.server, connection.port, connection.sent, now, reason)
        self.result.failures.append(failure)
        connection.close()
        if self._has_more_requests(connection):
            reconnect = now + RECONNECT_SECONDS * random.uniform(1, 2)
            heapq.heappush(self._reconnects, (reconnect, next(self._numbers), connection))

    def _has_more_requests(self, connection: _Connection) -> bool:
        return self._each is None or connection.requests < self._each

    def _check_timeouts(self, now: float) -> None:
        if now < self._next_timeout_check:
            return
        self._next_timeout_check = now + 1.0
        for connection in list(self._waiting.values()):
            if now - connection.sent > self._timeout:
                self._stop_waiting(connection)
                self._fail(connection, "no response")


@contextmanager
def under_load(urls: Sequence[str], **options: object) -> Iterator[LoadResult]:
    """Send requests in the background while the block runs, and receive all responses at its end."""
    client = LoadClient(urls, **options)  # type: ignore[arg-type]
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    try:
        yield client.result
    finally:
        client.stop()
        thread.join(60)


def run_load(urls: Sequence[str], *, seconds: float | None = None, **options: object) -> LoadResult:
    client = LoadClient(urls, **options)  # type: ignore[arg-type]
    client.run(seconds)
    return client.result
