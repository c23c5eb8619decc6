"""A client that watches the one-minute law: many connections, one thread, every answer judged.

One thread sends and receives everything, so it knows what came before what: an answer whose request
left after another answer had come in whole must not be older than that one, whichever connection and
server they took. Runs by itself, too: `python -m tests.load URL… --connections 64 --seconds 10`.
"""

import argparse
import heapq
import itertools
import json
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

# What the way to the client and its clock may add to an answer's age (seconds).
TOLERANCE = 0.1
PIECE = 256 * 1024
# Between two attempts to connect to a server that refuses (seconds).
RECONNECT = 0.05
TIMESTAMP = b'"timestamp":"'
DESCRIPTION = b'"description":"'
# What follows each: 2026-11-23T20:40:12.341359+00:00
INSTANT = 32


class Answered(NamedTuple):
    """One answer, as its client saw it.

    `sent` and `received`: instants of the monotonic clock; `timestamp`: Unix time, 0 for an answer
    without; `age`: seconds by this machine's wall clock at receipt; `floor`: the newest timestamp that
    had come in when the request left; `port`: the client's own.
    """

    server: int
    port: int
    sent: float
    received: float
    status: int
    timestamp: float
    age: float
    floor: float
    cache_status: str
    flaw: str

    @property
    def latency(self) -> float:
        return self.received - self.sent

    @property
    def backwards(self) -> bool:
        return 0 < self.timestamp < self.floor

    @property
    def waited(self) -> bool:
        """For a flight, and not only until a worker that is new here had heard of its answer."""
        return "fwd=miss" in self.cache_status and self.timestamp > self.floor

    @property
    def stale(self) -> bool:
        return "ttl=-" in self.cache_status


class Cut(NamedTuple):
    """A request that got no answer: its connection was refused or broke, or nothing came."""

    server: int
    port: int
    sent: float
    ended: float
    why: str


@dataclass
class Tally:
    """All that a load brought."""

    answers: list[Answered] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    def note(self, seen: Answered | Cut) -> None:
        if isinstance(seen, Answered):
            self.answers.append(seen)
        else:
            self.cuts.append(seen)

    @property
    def good(self) -> list[Answered]:
        return [answer for answer in self.answers if answer.status == 200]

    @property
    def bad(self) -> list[Answered]:
        """Not 2xx, or not whole."""
        return [answer for answer in self.answers if answer.status // 100 != 2 or answer.flaw]

    @property
    def timestamps(self) -> list[float]:
        return sorted({answer.timestamp for answer in self.good})

    @property
    def backwards(self) -> list[Answered]:
        return [answer for answer in self.good if answer.backwards]

    @property
    def waited(self) -> list[Answered]:
        return [answer for answer in self.good if answer.waited]

    def older_than(self, ttl: float) -> list[Answered]:
        return [answer for answer in self.good if answer.age > ttl + TOLERANCE]

    def latency(self, share: float) -> float:
        """The latency (seconds) that this share of the answers stays below."""
        latencies = sorted(answer.latency for answer in self.answers)
        return latencies[min(int(share * len(latencies)), len(latencies) - 1)]

    def summary(self) -> dict[str, object]:
        if not self.answers:
            return {"answers": 0, "cuts": len(self.cuts)}
        spent = max(a.received for a in self.answers) - min(a.sent for a in self.answers)
        return {
            "answers": len(self.answers),
            "cuts": len(self.cuts),
            "bad": len(self.bad),
            "per_second": round(len(self.answers) / max(spent, 1e-9)),
            "oldest": round(max((a.age for a in self.good), default=0), 3),
            "backwards": len(self.backwards),
            "waited": len(self.waited),
            "stale": sum(a.stale for a in self.good),
            "timestamps": len(self.timestamps),
            "median": round(self.latency(0.5), 4),
            "p95": round(self.latency(0.95), 4),
            "slowest": round(self.latency(1), 4),
        }


class _Connection:
    """One client: it sends a request, reads the answer, and starts again."""

    def __init__(self, server: int, address: tuple[str, int], requests: Iterator[bytes]) -> None:
        self.server, self.address, self.requests = server, address, requests
        self.sock: socket.socket | None = None
        self.port = 0
        self.buffer = b""
        self.needed = 0
        self.body_from = 0
        self.sent = 0.0
        self.floor = 0.0

    def send(self, floor: float) -> None:
        self.buffer, self.needed, self.floor = b"", 0, floor
        self.sent = time.monotonic()
        if self.sock and self._was_closed():
            self.close()
        if self.sock is None:
            self.sock = socket.create_connection(self.address, timeout=5)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setblocking(False)
            self.port = self.sock.getsockname()[1]
        self.sock.send(next(self.requests))

    def _was_closed(self) -> bool:
        """While it was idle, as a server may: no request is lost by that."""
        assert self.sock
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def receive(self) -> bool:
        """Whether the answer is whole now; ConnectionError if it will never be."""
        assert self.sock
        piece = self.sock.recv(PIECE)
        if not piece:
            raise ConnectionResetError("closed amid an answer" if self.buffer else "closed")
        self.buffer = self.buffer + piece if self.buffer else piece
        if not self.needed and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            self.body_from = end + 4
            self.needed = self.body_from + int(_header(self.buffer[:end], b"content-length") or 0)
        return self.needed > 0 and len(self.buffer) >= self.needed

    def close(self) -> None:
        if self.sock:
            self.sock.close()
            self.sock = None


def _header(head: bytes, name: bytes) -> str:
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return ""
    return head[at + len(name) + 3 :].partition(b"\r\n")[0].strip().decode("latin-1")


@lru_cache(maxsize=1024)
def _unix_time(instant: bytes) -> float:
    return datetime.fromisoformat(instant.decode()).timestamp()


def _instant(body: bytes, at: int, label: bytes) -> float:
    """The instant behind the label at this place, as Unix time; 0 if there is none."""
    try:
        return _unix_time(body[at + len(label) : at + len(label) + INSTANT])
    except ValueError:
        return 0.0


def _flaw(buffer: bytes, connection: _Connection, status: int, timestamp: float) -> str:
    if len(buffer) > connection.needed:
        return "more than its Content-Length"
    if status != 200:
        return ""
    if not buffer.endswith(b"}") or not timestamp:
        return "cut short"
    stamped = _instant(buffer, buffer.find(DESCRIPTION, connection.body_from), DESCRIPTION)
    return "data from before its timestamp" if stamped and stamped < timestamp else ""


class Load:
    """`connections` clients, dealt out to the servers in turn, each asking anew when it is answered.

    `rate`: requests a second of them all (None: as many as they get); `each`: requests of one
    client (None: no end); `paths`: what they ask for, in turn; `fresh_after`: requests after which a client connects anew, so that it
    comes to other workers, too.
    """

    def __init__(
        self,
        urls: Sequence[str],
        note: Callable[[Answered | Cut], None],
        *,
        connections: int = 64,
        rate: float | None = None,
        each: int | None = None,
        total: int | None = None,
        paths: Sequence[str] = ("/movies/",),
        timeout: float = 30.0,
        fresh_after: int | None = None,
    ) -> None:
        self._note, self._rate, self._each, self._total = note, rate, each, total
        self._timeout, self._fresh_after = timeout, fresh_after
        self._newest = 0.0
        self._stopping = threading.Event()
        self._epoll = select.epoll()
        self._reading: dict[int, _Connection] = {}
        self._asked: dict[_Connection, int] = {}
        self._idle: deque[_Connection] = deque()
        self._later: list[tuple[float, int, _Connection]] = []
        self._ids = itertools.count()
        self.answered = self._sent = 0
        self._started = self._look_again = 0.0
        for i in range(connections):
            parts = urlsplit(urls[i % len(urls)])
            assert parts.hostname
            assert parts.port
            ahead = i // len(urls) % len(paths)  # not all of them with the same path at once
            requests = itertools.cycle(
                f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n\r\n".encode()
                for path in [*paths[ahead:], *paths[:ahead]]
            )
            address = (parts.hostname, parts.port)
            self._idle.append(_Connection(i % len(urls), address, requests))

    def stop(self) -> None:
        """No more requests; those under way are still waited for."""
        self._stopping.set()

    def run(self, seconds: float | None = None) -> None:
        """Until stopped, or until so many seconds are over or all has been asked."""
        self._started = time.monotonic()
        end = self._started + seconds if seconds is not None else float("inf")
        try:
            while self._reading or not self._stopping.is_set():
                now = time.monotonic()
                if now >= end or not (self._reading or self._later or self._idle):
                    self._stopping.set()
                while self._later and self._later[0][0] <= now:
                    self._idle.append(heapq.heappop(self._later)[2])
                while self._idle and self._may_send(now):
                    self._send(self._idle.popleft())
                self._read(0.002 if self._rate else 0.05)
                self._give_up(now)
        finally:
            for connection in [*self._reading.values(), *self._idle]:
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
            # After a long silence no flood: what was not sent in a second stays unsent.
            behind = allowed - self._sent - self._rate
            self._started += max(behind / self._rate, 0.0)
        self._sent += 1
        return True

    def _send(self, connection: _Connection) -> None:
        asked = self._asked.get(connection, 0)
        if self._fresh_after and asked and asked % self._fresh_after == 0:
            connection.close()
        self._asked[connection] = asked + 1
        try:
            connection.send(self._newest)
        except OSError as error:
            self._cut(connection, type(error).__name__)
            return
        assert connection.sock
        number = connection.sock.fileno()
        if number not in self._reading:
            self._epoll.register(number, select.EPOLLIN)
        self._reading[number] = connection

    def _read(self, patience: float) -> None:
        for number, _ in self._epoll.poll(patience):
            connection = self._reading[number]
            try:
                whole = connection.receive()
            except BlockingIOError:
                continue
            except OSError as error:
                self._forget(connection)
                self._cut(connection, str(error) or type(error).__name__)
                continue
            if whole:
                self._forget(connection)
                self._judge(connection)

    def _forget(self, connection: _Connection) -> None:
        assert connection.sock
        number = connection.sock.fileno()
        self._epoll.unregister(number)
        del self._reading[number]

    def _judge(self, connection: _Connection) -> None:
        wall, received = time.time(), time.monotonic()
        buffer, body_from = connection.buffer, connection.body_from
        status = int(buffer[9:12])
        timestamp = 0.0
        if status == 200:
            timestamp = _instant(buffer, buffer.rfind(TIMESTAMP, body_from), TIMESTAMP)
        head = buffer[: body_from - 4]
        self._note(
            Answered(
                connection.server,
                connection.port,
                connection.sent,
                received,
                status,
                timestamp,
                wall - timestamp if timestamp else 0.0,
                connection.floor,
                _header(head, b"cache-status"),
                _flaw(buffer, connection, status, timestamp),
            )
        )
        self._newest = max(self._newest, timestamp)
        self.answered += 1
        if _header(head, b"connection").lower() == "close":
            connection.close()
        if self._each is None or self._asked[connection] < self._each:
            self._idle.append(connection)
        else:
            connection.close()

    def _cut(self, connection: _Connection, why: str) -> None:
        now = time.monotonic()
        self._note(Cut(connection.server, connection.port, connection.sent, now, why))
        connection.close()
        if self._each is None or self._asked[connection] < self._each:
            spread = random.uniform(1, 2)
            heapq.heappush(self._later, (now + RECONNECT * spread, next(self._ids), connection))

    def _give_up(self, now: float) -> None:
        if now < self._look_again:
            return
        self._look_again = now + 1.0
        for connection in list(self._reading.values()):
            if now - connection.sent > self._timeout:
                self._forget(connection)
                self._cut(connection, "no answer")


@contextmanager
def under_load(urls: Sequence[str], **options: object) -> Iterator[Tally]:
    """A load in the background while the block lasts; at its end all is answered."""
    tally = Tally()
    load = Load(urls, tally.note, **options)  # type: ignore[arg-type]
    thread = threading.Thread(target=load.run, daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        load.stop()
        thread.join(60)


def loaded(urls: Sequence[str], *, seconds: float | None = None, **options: object) -> Tally:
    """What a load brings."""
    tally = Tally()
    Load(urls, tally.note, **options).run(seconds)  # type: ignore[arg-type]
    return tally


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.load", description=__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--path", action="append", help="may be given several times")
    given = parser.parse_args()
    tally = loaded(
        given.urls,
        seconds=given.seconds,
        connections=given.connections,
        rate=given.rate,
        paths=given.path or ["/movies/"],
    )
    print(json.dumps(tally.summary()))  # noqa: T201 (a program's output)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
